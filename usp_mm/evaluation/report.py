"""Reports of evaluations: metrics, how the samples were drawn, and the reference that they were compared with."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn
from torch.utils.data import DataLoader

from usp_mm.fileio.atomic import write_json
from usp_mm.renaming.arguments import recorded_weights

from .reference_data import Reference

#: Facts on how samples were drawn. An unknown fact is None in a report and 'not recorded' in its text.
SAMPLING = ('objective', 'sampler', 'steps', 'guidance', 'sample_model', 'label_mode', 'seed', 'num_classes')
#: Facts that are elsewhere in a report, or too long for it.
_NO_DETAIL = ('num_samples', 'classes')


def sampling_facts(module: nn.Module, dataloader: DataLoader, sample_model: str | None = None) -> dict[str, Any]:
    """Facts on sampling, from the generator (`describe`) and its data set of sample requests (`metainfo`)."""
    describe = getattr(module, 'describe', None)
    facts = dict(describe(sample_model=sample_model)) if callable(describe) else {}
    return facts | dict(getattr(dataloader.dataset, 'metainfo', None) or {})


def build_report(
    metrics: Mapping[str, float],
    num_samples: int,
    sampling: Mapping[str, Any],
    reference: Reference,
    num_neighbours: int,
    extractor: str,
) -> dict[str, Any]:
    """Metrics and the conditions under which they were measured, as JSON values.

    Args:
        metrics: Metrics by name, with prefix.
        num_samples: Number of samples.
        sampling: Facts on sampling. Those in `SAMPLING` are always reported, others as details.
        reference: The reference.
        num_neighbours: Number of reference images used for precision and recall.
        extractor: Identity of the feature extractor.
    """
    facts, images = {name: sampling.get(name) for name in SAMPLING}, reference.images
    facts['sample_model'] = recorded_weights(facts['sample_model'])
    if facts['steps'] is None and isinstance(facts['sampler'], Mapping):
        facts['steps'] = facts['sampler'].get('num_steps', 'adaptive')
    return dict(
        metrics=dict(metrics),
        num_samples=num_samples,
        **facts,
        details={name: value for name, value in sampling.items() if name not in (*SAMPLING, *_NO_DETAIL)},
        reference=dict(
            name=reference.name,
            sha256=reference.content_hash(),
            statistics='from the file' if reference.has_moments or images is None else f'of {images.num} images',
            precision_recall_images=num_neighbours,
            image_size=reference.img_size,
        ),
        extractor=extractor,
    )


def report_rows(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The report without its details, as rows (name, text)."""
    reference = report['reference']
    sampling = [(name, 'not recorded' if report[name] is None else _text(report[name])) for name in SAMPLING]
    return [
        *((name, f'{value:.4f}') for name, value in report['metrics'].items()),
        ('samples', str(report['num_samples'])),
        *sampling,
        ('reference', reference['name']),
        ('reference sha256', reference['sha256']),
        ('reference statistics', reference['statistics']),
        ('images for precision and recall', str(reference['precision_recall_images'])),
        ('extractor', report['extractor']),
    ]


def summary(report: Mapping[str, Any]) -> str:
    """The report in one line."""
    return ', '.join(f'{name} {value}' for name, value in report_rows(report))


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        name = value.get('name', value.get('type'))
        rest = ', '.join(f'{key}={_text(item)}' for key, item in value.items() if key not in ('name', 'type'))
        return f'{name}({rest})' if name else rest
    return f'{value:g}' if isinstance(value, float) else str(value)


def write_evaluation_report(report: Mapping[str, Any], folder: str | Path, name: str, iteration: int | None = None) -> Path:
    """Write a report to `<folder>/<name>_<iteration>.json`, or `<folder>/<name>.json` outside of training."""
    file = Path(folder) / (f'{name}.json' if iteration is None else f'{name}_{iteration}.json')
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, report)
    return file
