"""Conversion between kinds of checkpoints, with an account of every tensor."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmengine.logging import MMLogger

from usp_mm.fileio.addresses import local_file
from usp_mm.fileio.weights import SAFE
from usp_mm.presets import lookup
from usp_mm.vaes.record import describe_record

from .conversion_data import Checkpoint, ConversionReport
from .kinds import TARGETS
from .sources import family_of, read
from .targets import Output, translate
from .write import check_out, write_dit_pipeline, write_file

SETS = ('ema', 'model')


def convert(
    source: str | Path,
    out: str | Path,
    to: str = 'usp_mm',
    *,
    from_: str | None = None,
    weights: str | None = None,
    drop: Sequence[str] = (),
    fold_norms: bool = False,
    num_heads: int | None = None,
    num_classes: int | None = None,
    vae: str | Path | None = None,
    force: bool = False,
) -> ConversionReport:
    """Convert a checkpoint. The output is written completely or not at all.

    Except for folded norms, values do not change: a checkpoint that is converted and converted back is the same bit for bit.

    Args:
        source: A file or address (`.pth`, `.pt`, `.ckpt`, `.bin`, `.safetensors`), from which only data are read and no code
            is executed, or a folder of diffusers.
        out: A `.pth`, `.pt`, `.ckpt` or `.safetensors` file; for diffusers a folder.
        to: Format of the output, a key of `TARGETS`.
        from_: Kind of the source, a key of `KINDS`; None detects it from the names.
        weights: Set of weights to convert if the file has both, 'ema' or 'model'. By default both if the target can hold both
            (this package, official code), else 'ema'. In a generator of this package, a single set becomes both the network
            and its average.
        drop: Beginnings of names to leave out.
        fold_norms: Whether to fold USP's affine norms into adaLN, for plain DiT and SiT code; always done for diffusers.
        num_heads: Number of attention heads, for diffusers, if the network is not a preset.
        num_classes: Number of classes, for diffusers, if the label embedding has 1000 rows.
        vae: Folder of an AutoencoderKL that is added to the pipeline, for diffusers.
        force: Whether to replace an existing `out`.

    Returns:
        A report on every tensor, which is also logged.

    Raises:
        FileNotFoundError: The source or the folder of `out` does not exist.
        FileExistsError: `out` exists.
        ValueError: The file is not data, a kind is unknown, names or shapes do not fit the kind, or the target cannot hold
            the network.
        OSError: The disk is full.
    """
    source, out = local_file(source), Path(out)
    for_diffusers = dict(num_heads=num_heads, num_classes=num_classes, vae=vae)
    _check(source, to, weights, for_diffusers)
    check_out(out, source, to, force)

    checkpoint = read(source, from_, drop)
    names = checkpoint.sources()
    checkpoint.facts |= {name: value for name, value in for_diffusers.items() if value is not None and name != 'vae'}
    output = _translated(source, checkpoint, to, weights, fold_norms)
    checkpoint.notes.extend(_what_is_left_out(checkpoint, out, to, vae))
    report = _report(checkpoint, to, output, names)
    _write(out, checkpoint, to, output, None if vae is None else Path(vae))
    for line in (f"'{out}': {report}", *report.notes):
        MMLogger.get_current_instance().info(line)
    return report


def _check(source: Path, to: str, weights: str | None, for_diffusers: dict[str, Any]) -> None:
    lookup(TARGETS, to, 'target')
    if weights is not None:
        lookup(dict.fromkeys(SETS), weights, 'set of weights')
    if not source.exists():
        raise FileNotFoundError(f"'{source}' does not exist")
    if to != 'diffusers' and (given := [name for name, value in for_diffusers.items() if value is not None]):
        raise ValueError(f'{", ".join(given)}: of the target diffusers alone, leave out for {to}')


def _translated(source: Path, checkpoint: Checkpoint, to: str, weights: str | None, fold_norms: bool) -> Output:
    try:
        return translate(checkpoint, to, weights, fold_norms)
    except ValueError as error:
        raise ValueError(f"'{source}' to {to}: {error}") from error


def _what_is_left_out(checkpoint: Checkpoint, out: Path, to: str, vae: str | Path | None) -> Iterator[str]:
    """Notes on facts that the output does not contain."""
    if to == 'diffusers' and vae is None:
        yield f"no VAE in it: DiTPipeline.from_pretrained('{out}', vae=AutoencoderKL.from_pretrained(…))"
    if to == 'usp_mm' and out.suffix == SAFE and 'dataset_meta' in checkpoint.facts:
        yield 'a safetensors file holds no class names: write a .pth to keep them'
    if 'vae' in checkpoint.facts and (to != 'usp_mm' or out.suffix == SAFE):
        yield f'it does not say that it was trained with VAE {describe_record(checkpoint.facts["vae"])}'


def _report(checkpoint: Checkpoint, to: str, output: Output, names: set[str]) -> ConversionReport:
    written, changed = {}, {}
    for which, entries in output.sets.items():
        for name, entry in entries.items():
            name = f'{which}: {name}' if len(output.sets) > 1 else name
            written[name] = entry.sources
            if entry.how:
                changed[name] = entry.how
    if output.steps is not None:
        written['steps'] = output.steps.sources
    dropped = dict(checkpoint.dropped)
    lost = names - dropped.keys() - {source for sources in written.values() for source in sources}
    if lost:
        raise ValueError(f'{len(lost)} tensors would be lost without a reason: {", ".join(sorted(lost)[:4])}')
    return ConversionReport(checkpoint.kind, to, written, changed, dropped, tuple(checkpoint.notes))


def _write(out: Path, checkpoint: Checkpoint, to: str, output: Output, vae: Path | None) -> None:
    facts = checkpoint.facts
    size = sum(entry.value.nbytes for entries in output.sets.values() for entry in entries.values())
    MMLogger.get_current_instance().info(f"writing '{out}', {size / 1e9:.2f} GB")
    if to == 'diffusers':
        write_dit_pipeline(out, output.sets[''], output.official, facts, vae)
        return
    extra: dict[str, Any] = {}
    if to == 'usp_mm':
        container: str | None = 'state_dict'
        extra['meta'] = {key: facts[key] for key in ('dataset_meta', 'vae') if key in facts}
    else:
        container = None
        if output.steps is not None:
            extra['steps'] = int(output.steps.value)
    if family_of(checkpoint) == 'vae':
        container, extra = 'model' if to == 'official' else None, {}
    write_file(out, output.sets, extra, container)
