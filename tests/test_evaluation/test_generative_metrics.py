"""ADMMetrics and FeatureMetrics, fed as mmagic's and MMEngine's evaluators feed them."""

import json

import numpy as np
import pytest
import torch
from helpers import golden
from mmengine.evaluator import Evaluator
from mmengine.structures import BaseDataElement
from numbered import Recorded, results, write_reference
from torch.utils.data import DataLoader

from usp_mm.evaluation import FeatureMetrics, features_of
from usp_mm.evaluation.report import write_evaluation_report
from usp_mm.functional.metrics import (
    density_coverage,
    inception_score,
    mean_covariance,
    precision_recall,
    vendi_score,
)
from usp_mm.registry import METRICS, MODELS

OFFICIAL = golden.load('metrics')
EXPECTED = dict(FD=OFFICIAL['fid'], precision=OFFICIAL['precision_k3'], recall=OFFICIAL['recall_k3'])


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Folder with the recorded reference; statistics are kept in it too."""
    folder = tmp_path_factory.mktemp('feature')
    write_reference(folder / 'ref.npz')
    return folder


@pytest.fixture
def build(folder):
    def build(**kwargs):
        return FeatureMetrics(Recorded(), str(folder / 'ref.npz'), cache_dir=str(folder), **kwargs)

    return build


class Generator(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def describe(self, sample_model=None):
        sampler = dict(name='DDIMSampler', num_steps=50)
        return dict(objective=dict(name='DDPM'), sampler=sampler, guidance=dict(scale=1.5), sample_model=sample_model)


class Requests(torch.utils.data.Dataset):
    metainfo = dict(label_mode='balanced', seed=3, num_samples=600, num_classes=10, classes=None)

    def __init__(self, num=600):
        self.num = num

    def __len__(self):
        return self.num

    def __getitem__(self, i):
        return dict(inputs=dict(index=i, label=i % 10))


@pytest.mark.parametrize(('batch', 'batch_size'), [(600, 64), (37, 5)])
def test_golden_numbers_in_any_batches(build, batch, batch_size):
    metric = build(batch_size=batch_size)
    order = np.random.RandomState(0).permutation(600).tolist()
    for start in range(0, 600, batch):
        metric.process(None, results(order[start : start + batch]))
    scores = metric.evaluate(600)
    for name, value in EXPECTED.items():
        assert scores[f'Feature/{name}'] == pytest.approx(float(value), rel=1e-6)
    real, fake = Recorded().tables[1], Recorded().tables[0]
    assert (scores['Feature/density'], scores['Feature/coverage']) == density_coverage(real, fake)
    assert scores['Feature/vendi'] == pytest.approx(vendi_score(fake))


def test_a_prefix_names_metrics_and_report(build, tmp_path):
    metric = build(prefix='Photos', out_dir=str(tmp_path))
    metric.process(None, results(list(range(600))))
    assert {name.split('/')[0] for name in metric.evaluate(600)} == {'Photos'}
    (told,) = tmp_path.glob('Photos*.json')
    for iteration, name in ((None, 'Photos.json'), (7, 'Photos_7.json')):
        file = write_evaluation_report(metric.report, tmp_path / 'again', 'Photos', iteration)
        assert file.name == name and file.read_bytes() == told.read_bytes()


def test_repeated_samples_count_once(build):
    metric = build()
    metric.process(None, results(list(range(600))))
    once = metric.evaluate(600)
    metric.process(None, results(list(range(600))))
    metric.process(None, results([0, 1, 599]))
    assert metric.evaluate(600) == once


def test_another_number_of_samples_is_an_error(build):
    metric = build()
    metric.process(None, results([*range(99), 5]))
    with pytest.raises(ValueError, match='Feature metrics: got 99 distinct samples, expected 100'):
        metric.evaluate(100)
    metric.process(None, results(list(range(600))))
    assert metric.evaluate(600)['Feature/precision'] == float(EXPECTED['precision'])
    with pytest.raises(ValueError, match='expected 600'):
        metric.evaluate(600)


def test_too_few_samples_for_k(build, tmp_path):
    metric = build()
    with pytest.raises(ValueError, match='need at least 6 samples, there are 5'):
        metric.prepare(Generator(), DataLoader(Requests(5)))
    path = write_reference(tmp_path / 'few.npz', 5)
    with pytest.raises(ValueError, match=r'few\.npz has 5 images, at least 6 are needed'):
        FeatureMetrics(dict(type='PixelFeatures'), path)
    with pytest.raises(ValueError, match='num_reference_pr=3: at least 6'):
        FeatureMetrics(dict(type='PixelFeatures'), path, num_reference_pr=3)


def test_results_of_something_else(build):
    with pytest.raises(ValueError, match="lack 'sample_idx'"):
        build().process(None, [dict(fake_img=torch.zeros(3, 8, 8))])
    with pytest.raises(ValueError, match="lack 'fake_img'"):
        build().process(None, [dict(pred=1, sample_idx=0)])
    with pytest.raises(ValueError, match="Identity has no string 'identity'"):
        FeatureMetrics(torch.nn.Identity(), str(build().reference.path))


def test_images_reach_the_extractor_as_rgb(build):
    seen = []
    metric = build()
    metric.extractor.register_forward_pre_hook(lambda module, args: seen.append(args[0]) or torch.zeros_like(args[0]))
    bgr = torch.tensor([[0.4, 254.6, 300.0], [7.0, 8.0, 9.0], [258.0 - 255, 2.0, 1.0]]).view(3, 3, 1)
    metric.process(None, [dict(fake_img=bgr, sample_idx=0)])
    assert seen[0].dtype == torch.uint8
    assert seen[0].flatten().tolist() == [3, 2, 1, 7, 8, 9, 0, 255, 255]


def test_mmengine_evaluator(build):
    evaluator = Evaluator(build())
    evaluator.dataset_meta = Requests.metainfo
    evaluator.process([BaseDataElement(metainfo=dict(sample_idx=r['sample_idx']), fake_img=r['fake_img'])
                       for r in results(list(range(600)))])  # fmt: skip
    assert evaluator.evaluate(600)['Feature/FD'] == pytest.approx(float(EXPECTED['FD']), rel=1e-6)
    report = evaluator.metrics[0].report
    assert (report['label_mode'], report['seed'], report['sampler']) == ('balanced', 3, None)


def test_mmagic_evaluator_and_report(build, tmp_path):
    from mmagic.evaluation import Evaluator as MMagicEvaluator
    from mmagic.structures import DataSample

    metric = build(sample_model='model', out_dir=str(tmp_path))
    evaluator, loader = MMagicEvaluator([metric]), DataLoader(Requests(), batch_size=100)
    evaluator.prepare_metrics(Generator(), loader)
    ((metrics, sampler),) = evaluator.prepare_samplers(Generator(), loader)
    assert len(sampler) == 6
    for batch in sampler:
        assert batch['inputs']['sample_model'] == 'model'
        samples = results(batch['inputs']['index'].tolist())
        made = [DataSample(fake_img=r['fake_img'], metainfo=dict(sample_idx=r['sample_idx'])) for r in samples]
        evaluator.process(made, batch, metrics)
    scores = evaluator.evaluate()
    (file,) = tmp_path.glob('Feature*.json')
    report = json.loads(file.read_text())
    assert report == json.loads(json.dumps(metric.report))
    assert report['metrics'] == scores and report['num_samples'] == 600
    facts = {name: report[name] for name in ('steps', 'guidance', 'sample_model', 'label_mode', 'seed', 'extractor')}
    assert facts == dict(
        steps=50, guidance=dict(scale=1.5), sample_model='model', label_mode='balanced', seed=3, extractor='recorded'
    )
    assert report['sampler']['name'] == 'DDIMSampler'
    assert report['reference'] == dict(
        name='ref.npz',
        sha256=metric.reference.content_hash(),
        statistics='of 600 images',
        precision_recall_images=600,
        image_size=None,
    )


def test_without_sample_model_the_generator_chooses(tiny_vae_folder, folder):
    """A generator without averaged weights has only the others."""
    model = MODELS.build(
        dict(
            type='LatentDiffusionGenerator',
            denoiser=dict(type='SiT', arch=dict(embed_dims=32, depth=2, num_heads=2), img_size=64, num_classes=10),
            objective=dict(type='FlowObjective'),
            sampler=dict(type='SDESampler', num_steps=2),
            data_preprocessor=dict(vae=dict(name='tiny', path=str(tiny_vae_folder))),
            ema=None,
            sample_model='model',
        )
    ).eval()
    metric = FeatureMetrics(dict(type='PixelFeatures', size=2), str(folder / 'ref.npz'), 20, cache_dir=str(folder))
    loader = DataLoader(Requests(6), batch_size=3)
    metric.prepare(model, loader)
    for batch in metric.get_metric_sampler(model, loader, [metric]):
        assert sorted(batch['inputs']) == ['index', 'label']
        samples = model.val_step(batch)
        metric.process(batch, [dict(fake_img=sample.fake_img, sample_idx=sample.sample_idx) for sample in samples])
    assert metric.evaluate()['Feature/FD'] > 0
    assert metric.report['sample_model'] == 'model' and metric.report['num_samples'] == 6
    with pytest.raises(ValueError, match="sample_model='ema', but the generator was built with ema=None"):
        FeatureMetrics(dict(type='PixelFeatures'), str(folder / 'ref.npz'), sample_model='ema', cache_dir=str(folder)).prepare(
            model, loader
        )


@pytest.fixture(scope='module')
def photographs():
    """Six real and six fake: noise, and three of the fakes are brighter than the rest."""
    noise = np.random.RandomState(0).randint(0, 100, (2, 6, 24, 24, 3), dtype=np.uint8)
    noise[1, 3:] += 150
    return noise


@pytest.fixture(scope='module')
def adm(photographs, inception, inception_weights, tmp_path_factory):
    """Settings of ADMMetrics against images, and Inception's features of both sets."""
    folder = tmp_path_factory.mktemp('adm')
    np.savez(folder / 'ref.npz', photographs[0])
    features = [features_of(torch.from_numpy(x).permute(0, 3, 1, 2), inception) for x in photographs]
    config = dict(type='ADMMetrics', inception=str(inception_weights), cache_dir=str(folder))
    return folder, config, *features


@pytest.fixture(autouse=True)
def cheap_distance(monkeypatch):
    """Whose moments are compared, without seconds of work for matrices of 2048; FeatureMetrics is tested with the real one."""
    monkeypatch.setattr('usp_mm.evaluation.adm_metrics.frechet_distance', moments_gap)


def moments_gap(mean1, covariance1, mean2, covariance2):
    return float((mean1 - 3 * mean2).square().sum() + (covariance1 - 3 * covariance2).square().sum())


def score(config, photographs):
    metric = METRICS.build(config)
    metric.add(list(range(6)), torch.from_numpy(photographs[1]).permute(0, 3, 1, 2))
    return metric, metric.evaluate(6)


def test_adm_metrics_of_images(adm, photographs):
    folder, config, real, fake = adm
    metric, scores = score(dict(config, reference=str(folder / 'ref.npz'), batch_size=4), photographs)
    precision, recall = precision_recall(real['pool'], fake['pool'])
    expected = {
        'ADM/FID': moments_gap(*mean_covariance(real['pool']), *mean_covariance(fake['pool'])),
        'ADM/sFID': moments_gap(*mean_covariance(real['spatial']), *mean_covariance(fake['spatial'])),
        'ADM/IS': inception_score(fake['probabilities']),
        'ADM/precision': precision,
        'ADM/recall': recall,
    }
    assert scores == pytest.approx(expected, rel=1e-4)
    assert expected['ADM/FID'] > 1 and expected['ADM/sFID'] > 1 and expected['ADM/IS'] > 1.001
    assert 0 < precision < 1
    assert metric.report['reference']['statistics'] == 'of 6 images'


@pytest.fixture
def loaded(monkeypatch, inception):
    """Build ADMMetrics with a network that is loaded already."""
    monkeypatch.setattr('usp_mm.evaluation.adm_metrics.InceptionFeatures', lambda weights, channels_last: inception)


def test_adm_statistics_and_images_of_one_file(adm, photographs, loaded):
    """As in ADM's reference files: distances use the statistics, precision and recall the images."""
    folder, config, real, fake = adm
    moments = [[torch.full((d,), 0.5), torch.full((d, d), 0.1)] for d in (2048, 2023)]
    arrays = dict(zip(('mu', 'sigma', 'mu_s', 'sigma_s'), (x.numpy() for pair in moments for x in pair), strict=True))
    np.savez_compressed(folder / 'virtual.npz', arr_0=photographs[0], **arrays)
    metric, scores = score(dict(config, reference=str(folder / 'virtual.npz'), num_reference_pr=5), photographs)
    assert scores['ADM/FID'] == pytest.approx(moments_gap(*moments[0], *mean_covariance(fake['pool'])), rel=1e-4)
    assert scores['ADM/sFID'] == pytest.approx(moments_gap(*moments[1], *mean_covariance(fake['spatial'])), rel=1e-4)
    assert (scores['ADM/precision'], scores['ADM/recall']) == precision_recall(real['pool'][:5], fake['pool'])
    assert metric.report['reference']['statistics'] == 'from the file'
    np.savez_compressed(folder / 'statistics.npz', **arrays)
    _, alone = score(dict(config, reference=str(folder / 'statistics.npz'), num_reference_pr=0), photographs)
    assert alone == {name: scores[name] for name in ('ADM/FID', 'ADM/sFID', 'ADM/IS')}


def test_samples_of_another_size_are_warned_of(adm, warnings, loaded):
    folder, config, *_ = adm
    metric = METRICS.build(dict(config, reference=str(folder / 'ref.npz')))
    metric.add([0, 1], torch.zeros(2, 3, 16, 16, dtype=torch.uint8))
    metric.add([2], torch.zeros(1, 3, 16, 16, dtype=torch.uint8))
    assert len([w for w in warnings if 'samples are 16x16, images of reference ref.npz 24x24' in w]) == 1
