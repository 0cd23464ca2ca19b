"""`usp train FOLDER`: pictures → VAE → latent cache → USP → probe → generator, from one folder of pictures."""

import json
import resource
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from usp_mm.config.options import LAYOUTS
from usp_mm.fileio.locks import locked

from .longer import LENGTHS, lengthen
from .parts import NEEDS, PARTS, Run, reached
from .pictures import copy_pictures
from .plan import Machine, Plan, choose_plan, core_speed, estimate, override
from .record import LOCK, Record
from .report import finish_report, is_reported, show_end, show_plan
from .scan import Scan, scan_pictures
from .stages import Stages, console
from .vae_choice import find_vae

#: Minutes above which a training has to be asked for with --minutes.
MINUTES = 60


@dataclass(frozen=True)
class Request:
    """What the command asks for; see `usp train --help`.

    Attributes:
        folder: The pictures.
        out: Where everything is written.
        vae: 'laptop', another preset, or the path of a VAE.
        layout: 'classes' or 'flat', of a folder that can be read in two ways.
        only: The parts to run.
        sizes: Numbers in place of the plan's; None leaves them to it.
        seed: Seed of everything that is random.
        minutes: Longest estimated time that is accepted.
        overwrite: Whether to delete an earlier training in `out`.
    """

    folder: Path
    out: Path
    vae: str
    layout: str | None
    only: tuple[str, ...]
    sizes: dict[str, int | None]
    seed: int
    minutes: float
    overwrite: bool


def train_folder(request: Request) -> None:
    """Run the requested parts of a training, or continue one that stopped.

    Raises:
        ValueError, FileNotFoundError: The pictures, the options, or an earlier training in `out` do not fit.
        SystemExit: A command failed, or the training was interrupted.
    """
    _check_places(request)
    lock = request.out / LOCK
    taken = f"another usp train is running in '{request.out}': wait for it, or give another --out"
    with ExitStack() as held:
        if lock.exists():  # of an earlier call: hold it before its record is read
            held.enter_context(locked(lock, taken))
            _train(request, nullcontext)
        else:
            _train(request, lambda: locked(lock, taken))


def _train(request: Request, hold: Callable[[], AbstractContextManager[None]]) -> None:
    """Run the missing parts in the block of `hold`, which nothing is written before."""
    scan = scan_pictures(request.folder, LAYOUTS.get(request.layout or ''))
    for line in scan.lines():
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    preset, path = find_vae(request.vae)
    machine = Machine.here()
    num = len(scan.pictures) - max(1, len(scan.pictures) // 10)
    plan = override(choose_plan(num, scan.shorter_side, machine, preset, path), num, request.sizes)
    record, asked = Record(request.out), _asked(request, scan)
    longer = None
    if request.overwrite:
        record.check_own()
    elif (begun := record.begun(asked)) is not None:
        longer = lengthen(begun, request.sizes, num, request.out, request.only)
        plan = longer.plan
    finished = set() if request.overwrite else {name for name in PARTS if record.result(name) is not None}
    if longer:
        finished -= longer.parts
    missing = [name for name in request.only if name not in finished]
    if not missing and not is_reported(request.out):  # the last call ended between the last part and the summary
        finish_report(request.out, plan, scan)
        return
    if not missing:
        show_end(request.out, 'is finished, there is nothing to do')
        return
    _check_needs(request.only, finished)
    _check_installed(missing)
    for line in longer.lines if longer else ():
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    left = plan if request.overwrite else _left(plan, request.out, () if longer is None else longer.anew)
    seconds = estimate(left, num, len(scan.classes), scan.megapixels, machine, core_speed())
    parts = [name for name in ('pictures', *missing) if name != 'pictures' or request.overwrite or not record.result(name)]
    show_plan(plan, {command: value for name in parts for command, value in seconds[name].items()}, request.minutes)
    request.out.mkdir(parents=True, exist_ok=True)
    with hold():
        if request.overwrite:
            record.clear()
        elif longer:
            longer.reopen(record)
        record.begin(asked, plan)
        _run_parts(request, scan, plan, record, missing)


def _run_parts(request: Request, scan: Scan, plan: Plan, record: Record, missing: Sequence[str]) -> None:
    """Run the parts that are missing, each noted in the record when it is finished, and write the report."""
    stages = Stages(request.out, f'the same command goes on where it stopped: {shlex.join(["usp", "train", *sys.argv[1:]])}')
    with stages.going_on():
        data = _pictures(scan, plan, record)
    run = Run(stages, plan, request.seed, data)
    for name in PARTS:
        if name in missing:
            start, cpu = time.monotonic(), _cpu_seconds()
            found = PARTS[name](run)
            record.finish(
                name, {**found, 'seconds': round(time.monotonic() - start), 'cpu_seconds': round(_cpu_seconds() - cpu)}
            )
    finish_report(request.out, plan, scan)


def _left(plan: Plan, out: Path, anew: Sequence[str]) -> Plan:
    """The plan with the epochs and steps that are left to train."""
    done = {name: 0 if name in anew else reached(out / name) for name in ('pretrain', 'generate')}
    return replace(plan, epochs=max(0, plan.epochs - done['pretrain']), steps=max(0, plan.steps - done['generate']))


def _cpu_seconds() -> float:
    """CPU seconds of the commands that have ended so far."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime


def _check_places(request: Request) -> None:
    out, folder = request.out.resolve(), request.folder.resolve()
    if out.is_relative_to(folder):
        raise ValueError(
            f"--out '{request.out}' lies in the folder of pictures, where the next call would take its pictures for yours: "
            'give --out another place'
        )


def _asked(request: Request, scan: Scan) -> dict[str, Any]:
    """What a second call has to ask for again; of epochs and steps it may ask for more."""
    sizes = {name: value for name, value in request.sizes.items() if name not in LENGTHS}
    asked = dict(folder=str(request.folder.resolve()), digest=scan.digest, vae=find_vae(request.vae), seed=request.seed)
    return json.loads(json.dumps(dict(asked, layout=request.layout, **sizes)))


def _check_installed(parts: Sequence[str]) -> None:
    """Refuse a generator that could not be trained at the end of a long run.

    Raises:
        ImportError: mmagic is not installed.
    """
    if 'generate' in parts and find_spec('mmagic') is None:
        raise ImportError(
            "the generator needs mmagic: pip install '.[gen]' in the checkout of usp_mm, or leave it out with "
            '--only vae,cache,pretrain,probe'
        )


def _check_needs(only: Sequence[str], finished: set[str]) -> None:
    """Refuse a part whose inputs are neither there nor made by another that runs now."""
    for name in only:
        lacking = [need for need in NEEDS[name] if need not in only and need not in finished]
        if lacking:
            raise ValueError(f'--only {name} needs {", ".join(lacking)} first: --only {",".join([*lacking, name])}')


def _pictures(scan: Scan, plan: Plan, record: Record) -> dict[str, Any]:
    """Copy the pictures, unless they were copied before."""
    data = record.result('pictures')
    if data is None:
        out = record.folder / 'pictures'
        console.print(f'\n[bold]pictures[/]  upright RGB copies in {out}/train and {out}/val', highlight=False, soft_wrap=True)
        data = copy_pictures(scan, out, plan.img_size * 3 // 2)
        record.finish('pictures', data)
    for path, error in data['broken'].items():
        console.print(f'  left out, {path}: {error}', markup=False, highlight=False, soft_wrap=True)
    console.print(f'  {data["train"]:,} pictures to train on, {data["val"]:,} held out', highlight=False)
    return data
