"""Save checkpoints so that a kill at any instant leaves at least one whole."""

import os
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner
from torch import Tensor
from torch.optim import Optimizer

from usp_mm.fileio.atomic import free_space, write_whole
from usp_mm.registry import HOOKS

from ..optim.sharding import gathered, sharded
from ..runner_parts import wrappers
from .best_checkpoints import adopt_best
from .latest_checkpoint import LAST

#: Where MMEngine's message hub keeps the names of checkpoints that the next one replaces.
OUTDATED = 'outdated_checkpoints'


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """MMEngine's CheckpointHook (same arguments), which deletes a checkpoint only after the one that replaces it is on disk.

    MMEngine deletes first, the best checkpoint too, so that a kill or a full disk in between leaves one less, or none. Here a
    checkpoint lists the older ones that it replaces, and a resumed run deletes those that a kill left. `last_checkpoint` is
    written whole and names a file relative to the work folder, so that a copied or moved folder is complete in itself; a run
    that resumes from a checkpoint of the folder writes it first.
    `save_now` saves between two regular checkpoints; the next regular one replaces that file. The state of an optimizer that
    processes share (ZeroRedundancyOptimizer) is saved whole, as without sharing.

    Before training, the log warns if the disk has no room for the checkpoints that are kept and one more.
    """

    def before_train(self, runner: Runner) -> None:
        super().before_train(runner)
        sharded(_optimizers(runner))  # refuses what it could not save
        self._stay_in_folder()
        left = runner.message_hub.runtime_info.get(OUTDATED, [])
        source = os.path.basename(runner._load_from or '') if runner._resume else ''
        self._outdated = [name for name in left if name == source]  # kept until another one is whole
        if is_main_process():
            self._name_source(runner)
            self._delete(name for name in left if name != source)
            self._warn_if_too_large(runner)
        if runner._resume and '://' not in str(self.out_dir):
            adopt_best(self, runner, Path(self.out_dir))

    def save_now(self, runner: Runner, epoch_ended: bool = False) -> str:
        """Save a checkpoint after the current iteration, or at the end of the epoch, unless one was just saved there.

        Returns:
            The path of the checkpoint.
        """
        if epoch_ended:
            if self.last_ckpt is None or not self.last_ckpt.endswith(self.filename_tmpl.format(runner.epoch + 1)):
                self._save_checkpoint(runner)
            assert self.last_ckpt is not None
            return self.last_ckpt
        step = runner.iter + 1
        name = f'iter_{step}.pth' if self.by_epoch else self.filename_tmpl.format(step)
        if self.last_ckpt is None or os.path.basename(self.last_ckpt) != name:
            self._save_whole(runner, name, dict(epoch=runner.epoch, iter=step), replaced_by_next=True)
        assert self.last_ckpt is not None
        return self.last_ckpt

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        if self.max_keep_ckpts > 0 and (not self.keep_ckpt_ids or self.keep_ckpt_ids[-1] != step):
            if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                self._outdated.append(self.filename_tmpl.format(self.keep_ckpt_ids.popleft()))
            self.keep_ckpt_ids.append(step)
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        self._save_whole(runner, self.filename_tmpl.format(step), meta)

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        backend: Any = getattr(self, 'file_backend')  # noqa: B009
        self.file_backend: Any = _DeletesLater(backend, self._outdated)
        try:
            super()._save_best_checkpoint(runner, metrics)
        finally:
            self.file_backend = backend
        self._delete_outdated(runner)

    def _save_whole(self, runner: Runner, name: str, meta: dict, replaced_by_next: bool = False) -> None:
        """Save the run as `name`, then let `last_checkpoint` name it, then delete what it replaces."""
        next_time = [name] if replaced_by_next else []
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        runner.message_hub.update_info(OUTDATED, [*(old for old in self._outdated if old != name), *next_time])
        with gathered(_optimizers(runner)) if self.save_optimizer else nullcontext():
            runner.save_checkpoint(
                self.out_dir,
                name,
                self.file_client_args,
                save_optimizer=self.save_optimizer,
                save_param_scheduler=self.save_param_scheduler,
                meta=meta,
                by_epoch=self.by_epoch,
                backend_args=self.backend_args,
                **self.args,
            )
        if is_main_process():
            _name_last(runner, self.last_ckpt)
        self._delete_outdated(runner, next_time)

    def _delete_outdated(self, runner: Runner, next_time: Iterable[str] = ()) -> None:
        current = {os.path.basename(path) for path in (self.last_ckpt, *self._best()) if path}
        if is_main_process():
            self._delete(name for name in self._outdated if name not in current)
        self._outdated[:] = next_time
        runner.message_hub.update_info(OUTDATED, list(next_time))

    def _delete(self, names: Iterable[str]) -> None:
        backend = getattr(self.file_backend, 'backend', self.file_backend)
        for name in names:
            path = backend.join_path(self.out_dir, name)
            if backend.isfile(path):
                backend.remove(path)
            elif backend.isdir(path):  # a sharded checkpoint
                backend.rmtree(path)

    def _best(self) -> list[str | None]:
        """The best checkpoint by each score."""
        return [getattr(self, 'best_ckpt_path', None), *getattr(self, 'best_ckpt_path_dict', {}).values()]

    def _name_source(self, runner: Runner) -> None:
        """Let `last_checkpoint` name what the run goes on from if a kill came in between, and the run may save nothing more."""
        source = Path(runner._load_from or '') if runner._resume else Path()
        if source.is_file() and '://' not in str(self.out_dir) and source.parent.samefile(self.out_dir):
            _name_last(runner, self.file_backend.join_path(self.out_dir, source.name))

    def _stay_in_folder(self) -> None:
        """Take the best checkpoints of a resumed run from this folder, even if it is a copy of the one they were saved in."""

        def inside(path: str | None) -> str | None:
            return path and self.file_backend.join_path(self.out_dir, os.path.basename(path))

        if hasattr(self, 'best_ckpt_path'):
            self.best_ckpt_path = inside(getattr(self, 'best_ckpt_path', None))
        best: dict[str, Any] = getattr(self, 'best_ckpt_path_dict', {})
        best.update({score: inside(path) for score, path in best.items()})

    def _warn_if_too_large(self, runner: Runner) -> None:
        size = _checkpoint_bytes(runner) * (1 + max(self.max_keep_ckpts, 1) + len(self.save_best or ()))
        if '://' not in str(self.out_dir) and (free := free_space(Path(self.out_dir))) < size:
            runner.logger.warning(
                f"the checkpoints will need about {size:,} bytes in '{self.out_dir}' (max_keep_ckpts={self.max_keep_ckpts}, "
                f'and one more while it is written), {free:,} are free: make room, or lower max_keep_ckpts of '
                'default_hooks.checkpoint'
            )


class _DeletesLater:
    """A file backend that notes the names of what is to be deleted, and leaves it where it is."""

    def __init__(self, backend: Any, noted: list[str]) -> None:
        self.backend, self._noted = backend, noted

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)

    def remove(self, path: str) -> None:
        self._noted.append(os.path.basename(path))

    rmtree = remove


def _optimizers(runner: Runner) -> list[Optimizer]:
    return [wrapper.optimizer for wrapper in wrappers(runner).values()]


def _name_last(runner: Runner, checkpoint: str) -> None:
    with write_whole(Path(runner.work_dir, LAST)) as file:
        file.write(_within(runner.work_dir, checkpoint).encode())


def _within(folder: str, path: str) -> str:
    """A path relative to a folder; an address, or a path of another drive, as it is."""
    return path if '://' in path else os.path.relpath(path, folder)


def _checkpoint_bytes(runner: Runner) -> int:
    """About the size of a checkpoint: all weights, and two moments for each weight that is trained."""
    state = sum(x.numel() * x.element_size() for x in runner.model.state_dict().values() if isinstance(x, Tensor))
    groups = [group for wrapper in wrappers(runner).values() for group in wrapper.param_groups]
    return state + 2 * sum(p.numel() * p.element_size() for group in groups for p in group['params'] if p.requires_grad)
