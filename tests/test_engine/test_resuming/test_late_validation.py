"""A validation that a kill cut off is made up for when the run goes on."""

import contextlib
import json

import pytest
import torch
from helpers.toy_runs import HOOKS, Data, Model, log_of, run, saved
from mmengine.evaluator import BaseMetric

VALIDATING = (*HOOKS, 'LateValidationHook')
EPOCHS = dict(max_epochs=4, val_interval=2)
ITERS = dict(max_iters=8, val_interval=4)


class Killed(Exception):
    pass


class Validated(Model):
    def forward(self, inputs, mode='loss', index=None):
        return super().forward(inputs) if mode == 'loss' else [dict(score=self.linear(inputs).detach().mean().item())]


class Score(BaseMetric):
    """The mean score; counts its computations, and fails at the `kill`-th as a kill would."""

    def __init__(self, kill=0):
        super().__init__()
        self.kill, self.scores = kill, []

    def process(self, data_batch, data_samples):
        self.results += [sample['score'] for sample in data_samples]

    def compute_metrics(self, results):
        if len(self.scores) + 1 == self.kill:
            raise Killed
        self.scores.append(sum(results) / len(results))
        return dict(score=self.scores[-1])


def train(folder, train_cfg, kill=0, hooks=VALIDATING, **kwargs):
    score = Score(kill)
    data = dict(dataset=Data(8), batch_size=4, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('helpers.toy_runs.Model', Validated)
        runner, _ = run(
            folder, train_cfg=train_cfg, hooks=hooks, num=16, train=False, val_cfg=dict(), val_evaluator=[score],
            val_dataloader={**data, 'collate_fn': dict(type='default_collate')}, **kwargs,
        )  # fmt: skip
    with contextlib.suppress(Killed):
        runner.train()
    return score.scores


def logged(folder):
    """Steps and scores of the validations in the logs of all starts of a run."""
    records = [json.loads(line) for path in sorted(folder.glob('*/vis_data/scalars.json')) for line in path.open()]
    return [(record['step'], record['score']) for record in records if 'score' in record]


@pytest.mark.parametrize(
    ('train_cfg', 'last', 'marker'), [(EPOCHS, 'epoch_4.pth', '4 epochs\n'), (ITERS, 'iter_8.pth', '32 samples\n')]
)
@pytest.mark.parametrize('kill', [1, 2])
def test_a_validation_that_was_cut_off_comes_first(train_cfg, last, marker, kill, tmp_path):
    save_best = dict(save_best='score', rule='greater', interval=2 if train_cfg is EPOCHS else 4)
    whole = train(tmp_path / 'whole', train_cfg, checkpoint=save_best)
    first = train(tmp_path / 'killed', train_cfg, kill, checkpoint=save_best)
    assert len(whole) == 2 and first == whole[: kill - 1]
    rest = train(tmp_path / 'killed', train_cfg, checkpoint=save_best, resume=True)
    assert first + rest == whole
    assert 'resume: the validation that was due at the checkpoint is run first: it was not finished' in log_of(
        tmp_path / 'killed'
    )
    assert (tmp_path / 'killed' / 'last_validation').read_text() == marker
    assert train(tmp_path / 'killed', train_cfg, checkpoint=save_best, resume=True) == []  # made up for once
    assert logged(tmp_path / 'killed') == logged(tmp_path / 'whole') and len(logged(tmp_path / 'whole')) == 2
    best, other = ([path.name for path in (tmp_path / name).glob('best_*')] for name in ('whole', 'killed'))
    assert best == other and len(best) == 1
    for name in (last, *best):
        one, two = (saved(tmp_path / run / name)['state_dict'] for run in ('whole', 'killed'))
        assert all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize('train_cfg', [EPOCHS, ITERS])
def test_a_finished_validation_is_not_repeated(train_cfg, tmp_path):
    train(tmp_path, train_cfg)
    assert train(tmp_path, train_cfg, resume=True) == []
    (tmp_path / 'last_validation').write_text('')  # unreadable: it is made up for
    assert len(train(tmp_path, train_cfg, resume=True)) == 1


def test_none_is_due_within_an_epoch_or_between_two(tmp_path):
    train(tmp_path, dict(max_epochs=3, val_interval=2), kill=2)  # the last one, after epoch 3
    (tmp_path / 'last_validation').unlink()
    (tmp_path / 'epoch_3.pth').unlink()
    (tmp_path / 'epoch_2.pth').unlink()
    (tmp_path / 'last_checkpoint').write_text('epoch_1.pth')
    assert len(train(tmp_path, dict(max_epochs=3, val_interval=2), resume=True)) == 2


def test_what_a_schedule_took_from_a_score_is_taken_again(tmp_path):
    plateau = [dict(type='ReduceOnPlateauLR', monitor='score', rule='greater', factor=0.5, patience=0, by_epoch=True)]
    whole = train(tmp_path / 'whole', EPOCHS, schedulers=plateau)
    train(tmp_path / 'killed', EPOCHS, schedulers=plateau)
    for name in ('epoch_3.pth', 'epoch_4.pth'):
        (tmp_path / 'killed' / name).unlink()
    (tmp_path / 'killed' / 'last_checkpoint').write_text('epoch_2.pth')
    assert train(tmp_path / 'killed', EPOCHS, schedulers=plateau, resume=True) == whole
    one, two = (saved(tmp_path / run / 'epoch_4.pth') for run in ('whole', 'killed'))
    assert one['optimizer']['param_groups'] == two['optimizer']['param_groups']
    assert 'what follows from its score is not in the checkpoint' in log_of(tmp_path / 'killed')


def test_with_half_the_batch_it_is_known_what_was_finished(tmp_path):
    train(tmp_path, ITERS)
    (tmp_path / 'iter_8.pth').unlink()
    (tmp_path / 'last_checkpoint').write_text('iter_4.pth')
    scores = train(tmp_path, dict(max_iters=16, val_interval=8), resume=True, batch=2)
    assert len(scores) == 1  # at iteration 16; that of 8 was made as iteration 4
    assert len(logged(tmp_path)) == 3
