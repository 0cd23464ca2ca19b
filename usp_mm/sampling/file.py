"""Write thousands of samples to one file, with one or several processes; an interrupted call can be continued."""

import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import barrier, get_dist_info
from mmengine.logging import MMLogger
from tqdm import tqdm

from usp_mm.datasets import SampleRequests
from usp_mm.datasets.main_process import decide_on_rank0, run_on_rank0
from usp_mm.fileio.atomic import check_free_space, explain_full_disk, read_json, remove_leftovers, write_json
from usp_mm.fileio.locks import locked
from usp_mm.models import LatentDiffusionGenerator

from .background import BackgroundCalls
from .draw import DrawnImages, ShownSteps
from .loaded import LoadedGenerator, as_loaded
from .parts import SampleParts
from .plan import differences, make_facts, make_sample_plan

PLAN = 'plan.json'
#: How to make use of more cores.
ONE_THREAD = (
    'on a CPU a process samples with one thread, so that the bytes do not depend on the number of cores; '
    'to use K cores: torchrun --nproc-per-node K --no-python usp sample …'
)


def write_samples(
    model: LoadedGenerator | LatentDiffusionGenerator,
    out: str | Path,
    num: int,
    *,
    label_mode: str = 'random',
    seed: int = 0,
    batch_size: int = 32,
    sample_model: str | None = None,
) -> dict[str, Any]:
    """Write samples 0 … num - 1, or those still missing, to a file in the format of ADM's evaluator.

    `out` gets arr_0 uint8[N, H, W, 3] (RGB) and arr_1 int64[N] (labels), and `<out>.json` describes how they were made. Until
    the file is complete, finished samples are kept in `<out>.parts`. After an interruption, the same call continues, with any
    number of processes and any batch size. Under an initialised process group, every process has to call this. The result does
    not depend on interruptions nor, on a CPU, on the number of processes and the batch size. Each process on a CPU uses one
    thread, because the number of threads changes rounding; use more processes to use more cores.

    Args:
        model: Any generator. For one from `load_generator`, `<out>.json` names checkpoint and config; otherwise these are None,
            and `weights_sha256` identifies the weights.
        out: The .npz file to write.
        num: Number of samples.
        label_mode: 'random', drawn from (seed, number), or 'balanced', number modulo the number of classes.
        seed: Seed of labels and noise.
        batch_size: Number of samples that are drawn at a time. A sampler that chooses its steps for a whole batch uses fixed
            batches instead.
        sample_model: Weights to sample with, 'ema' or 'model'; None for the model's own choice.

    Returns:
        The content of `<out>.json`.

    Raises:
        ValueError: An argument is invalid, `out` exists or was begun with other settings, another process is writing it, or a
            sample is not finite.
        FileNotFoundError: The folder of `out` does not exist.
        OSError: The disk is full, or does not have enough space.
    """
    out = Path(out)
    if batch_size < 1:
        raise ValueError(f'batch_size={batch_size} must be at least 1')
    generator: LatentDiffusionGenerator = (loaded := as_loaded(model)).model
    rank, world_size = get_dist_info()
    requests = SampleRequests(num, generator.denoiser.num_classes, label_mode, seed)
    parts = SampleParts(_beside(out, '.parts'), num, generator.denoiser.geometry.img_size)
    with ExitStack() as held:
        facts, missing = decide_on_rank0(lambda: _begin(held, loaded, out, parts, requests, sample_model))
        if missing is None:
            MMLogger.get_current_instance().info(f"'{out}' is complete already: nothing to do")
            return facts
        held.enter_context(explain_full_disk(out.parent, parts.missing_bytes))
        held.enter_context(_one_thread())
        progress = Progress(parts, missing, rank)
        mine, draw = missing[rank::world_size], dict(seed=seed, sample_model=sample_model)
        with generator.sampling_weights(sample_model):
            _sample_blocks(generator, requests, parts, mine, batch_size, progress, **draw)
        progress.wait_for_others()
        run_on_rank0(lambda: _finish(out, parts, requests, facts))
    barrier()
    return facts


def _begin(
    held: ExitStack,
    loaded: LoadedGenerator,
    out: Path,
    parts: SampleParts,
    requests: SampleRequests,
    sample_model: str | None,
) -> tuple[dict[str, Any], list[int] | None]:
    """Lock `out` until `held` closes, check everything that can be checked, and write the plan.

    Returns:
        The facts for `<out>.json`, and the missing blocks; None in their place if `out` is complete.
    """
    if not out.parent.is_dir():
        raise FileNotFoundError(f"cannot write '{out}': folder '{out.parent}' does not exist, create it first")
    held.enter_context(locked(_beside(out, '.lock'), f"another process is writing '{out}': wait for it or stop it"))
    plan = make_sample_plan(loaded, requests, sample_model)
    facts = make_facts(loaded, plan)
    if out.exists():
        return _facts_of_finished(out, plan), None
    begun = read_json(parts.folder / PLAN)
    if begun is not None and (other := differences(begun, plan)):
        raise ValueError(
            f"'{out}' was begun with other settings ({other}): repeat those, choose another file, or delete '{parts.folder}'"
        )
    remove_leftovers(out.parent)  # of a kill during assembly, they may fill most of the disk
    missing = parts.missing()
    check_free_space(out.parent, parts.missing_bytes())
    parts.folder.mkdir(exist_ok=True)
    write_json(parts.folder / PLAN, plan)
    if begun is not None:
        done = parts.num - parts.count(missing)
        MMLogger.get_current_instance().info(f"continuing '{out}': {done} of {parts.num} samples are there")
    _log_source(loaded.model, out, facts)
    return facts, missing


def _log_source(model: LatentDiffusionGenerator, out: Path, facts: dict[str, Any]) -> None:
    logger = MMLogger.get_current_instance()
    if facts['checkpoint'] is None:
        logger.info(f"the checkpoint of this generator is unknown: '{out}.json' names its weights by their hash")
    if next(model.parameters()).device.type == 'cpu':
        logger.info(ONE_THREAD)


def _facts_of_finished(out: Path, plan: dict[str, Any]) -> dict[str, Any]:
    facts = read_json(_beside(out, '.json'))
    if facts is None:
        raise ValueError(f"'{out}' exists, and no '{out.name}.json' says of what: choose another file, or delete it")
    if other := differences(facts, plan):
        raise ValueError(f"'{out}' exists and was made with other settings ({other}): choose another file, or delete it")
    shutil.rmtree(_beside(out, '.parts'), ignore_errors=True)
    return facts


def _finish(out: Path, parts: SampleParts, requests: SampleRequests, facts: dict[str, Any]) -> None:
    """Write the facts, then the file, so that a file of samples always has its facts."""
    write_json(_beside(out, '.json'), facts)
    parts.assemble(out, requests.labels.numpy())
    shutil.rmtree(parts.folder)
    MMLogger.get_current_instance().info(f"'{out}' is complete: {parts.num} samples")


def _sample_blocks(
    model: LatentDiffusionGenerator,
    requests: SampleRequests,
    parts: SampleParts,
    numbers: list[int],
    batch_size: int,
    progress: 'Progress',
    **draw: Any,
) -> None:
    """Draw the samples of blocks `numbers` in full batches, which may begin and end within a block.

    While the next batch is drawn, another thread waits for the images, checks them and writes the blocks.
    """
    index = torch.tensor([i for number in numbers for i in parts.blocks[number]], dtype=torch.int64)
    sizes = [len(parts.blocks[number]) for number in numbers]
    batches = index.split(batch_size if model.sampler.batch_invariant else sizes) if numbers else ()
    blocks, on_step = _FilledBlocks(parts, numbers), ShownSteps.of(progress.bar, model.sampler)
    with BackgroundCalls() as background:
        for batch in batches:
            background(blocks.add, DrawnImages(model, batch, requests.labels[batch], on_step, **draw))
            progress.show(len(blocks.waiting))
    assert not blocks.left and not len(blocks.waiting)


class _FilledBlocks:
    """Cuts the samples of blocks `numbers`, which arrive in batches, into those blocks, and writes each that is full."""

    def __init__(self, parts: SampleParts, numbers: list[int]) -> None:
        self.parts, self.left = parts, list(numbers)
        self.waiting = np.empty((0, *parts.shape), np.uint8)

    def add(self, images: DrawnImages) -> None:
        waiting = np.concatenate([self.waiting, images.wait()])
        while self.left and len(waiting) >= (size := len(self.parts.blocks[self.left[0]])):
            self.parts.write(self.left.pop(0), waiting[:size])
            waiting = waiting[size:]
        self.waiting = waiting


class Progress:
    """A progress bar on rank 0 for all processes' samples; it counts the finished blocks of the others from time to time."""

    interval = 0.5  # seconds

    def __init__(self, parts: SampleParts, missing: list[int], rank: int) -> None:
        self.parts = parts
        self.next = 0.0
        initial = parts.num - parts.count(missing)
        self.bar = tqdm(total=parts.num, initial=initial, unit='img', desc='sampling', disable=rank != 0)

    def show(self, waiting: int = 0) -> None:
        """Update the bar; `waiting` is the number of samples of this process that are not in a block yet."""
        if not self.bar.disable and time.monotonic() >= self.next:
            done = self.parts.num - self.parts.count(self.parts.missing()) + waiting
            self.bar.update(done - self.bar.n)
            self.next = time.monotonic() + self.interval

    def wait_for_others(self) -> None:
        """Wait until every process has called this."""
        if get_dist_info()[1] > 1:
            arrival = torch.distributed.barrier(async_op=True)
            while not arrival.is_completed():
                self.show()
                time.sleep(0.1)
            arrival.wait()
        self.bar.set_postfix_str('', refresh=False)
        self.next = 0.0
        self.show()
        self.bar.close()


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _beside(out: Path, suffix: str) -> Path:
    return out.with_name(out.name + suffix)
