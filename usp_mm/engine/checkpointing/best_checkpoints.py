"""Find best checkpoints that a resumed run does not know of, since a kill came between saving and noting them."""

import re
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from usp_mm.fileio.weights import read_checkpoint


class Best(NamedTuple):
    """A best checkpoint, and the score that it was saved for."""

    path: Path
    score: Any


def adopt_best(hook: CheckpointHook, runner: Runner, folder: Path) -> None:
    """Let a resumed run know of best checkpoints that were saved before its own checkpoint and are not noted there.

    MMEngine saves a new best checkpoint, and then the regular one that notes it. Of several for one score the best stays.
    """
    if not hook.save_best or 'auto' in hook.key_indicators:
        return
    for score in hook.key_indicators:
        found = [_adopt(hook, runner, folder, score) if is_main_process() else None]
        broadcast_object_list(found)
        if found[0] is None:
            continue
        suffix = '' if len(hook.key_indicators) == 1 else f'_{score}'
        path = str(found[0].path)
        runner.message_hub.update_info(f'best_score{suffix}', found[0].score)
        runner.message_hub.update_info(f'best_ckpt{suffix}', path)
        if suffix:
            hook.best_ckpt_path_dict[score] = path
        else:
            hook.best_ckpt_path = path


def _adopt(hook: CheckpointHook, runner: Runner, folder: Path, score: str) -> Best | None:
    """The best of the checkpoints for a score up to the run's position; the others are deleted."""
    prefix, *rest = f'best_{score}_{hook.filename_tmpl}'.replace('/', '_').split('{}')
    name = re.compile(re.escape(prefix) + r'\d+' + re.escape(''.join(rest)))
    found = [best for path in folder.iterdir() if name.fullmatch(path.name) and (best := _read(path, runner.iter, score))]
    if not found:
        return None
    kept = found[0]
    for best in found[1:]:
        if hook.is_better_than[score](best.score, kept.score):
            kept = best
    for best in found:
        if best is not kept:
            best.path.unlink()
    return kept


def _read(path: Path, iteration: int, score: str) -> Best | None:
    """None if the checkpoint can't be read, or is from after the iteration."""
    try:
        content = read_checkpoint(path, mmap=True, verify=False)
    except ValueError:
        return None
    info = (content.get('message_hub') or {}).get('runtime_info', {})
    noted = info.get('best_score', info.get(f'best_score_{score}'))
    if noted is None or (content.get('meta') or {}).get('iter', iteration + 1) > iteration:
        return None
    return Best(path, noted)
