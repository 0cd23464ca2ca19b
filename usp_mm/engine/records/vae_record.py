"""Record in checkpoints which VAE they were trained with, and refuse to use them with another one."""

from collections.abc import Iterator
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, Runner

from usp_mm.datasets import LatentCacheDataset
from usp_mm.registry import HOOKS
from usp_mm.vaes.record import ALLOW, KEY, check_vae, codec_of, compare_vae, read_record, record_in, vae_record

from ..runner_parts import built_loops, datasets_of, resuming, unwrapped


@HOOKS.register_module()
class VAERecordHook(Hook):
    """Store the VAE's preset, weight hash, scale and shift in every checkpoint, and compare them when one is loaded.

    A run that trains from cached latents without the VAE's weights takes the hash from the cache. `--resume` and tests refuse
    another VAE, unless the config has `allow_other_vae=True`; training that starts from weights of another VAE (`load_from`,
    `init_cfg`) gets a warning.

    Raises:
        ValueError: The checkpoint has another VAE, or the caches have several; the message names them.
    """

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        starts = isinstance(runner._train_loop, BaseLoop) and not resuming(runner)
        found, ours = record_in(checkpoint), self._ours(runner)
        line = compare_vae(found, ours, runner._load_from or 'the checkpoint', starts or bool(runner.cfg.get(ALLOW)))
        if line:
            (runner.logger.info if found is None else runner.logger.warning)(line)

    def before_train(self, runner: Runner) -> None:
        if runner._resume and runner._has_loaded:  # auto-resume may have found nothing
            return
        ours = self._ours(runner)
        for init_cfg in _pretrained(runner.cfg.get('model')):
            check_vae(init_cfg['checkpoint'], read_record(init_cfg['checkpoint']), ours, allow=True)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        ours = self._ours(runner)
        if ours is not None:
            checkpoint['meta'][KEY] = ours

    def _ours(self, runner: Runner) -> dict[str, Any] | None:
        below = [dataset for _, loop in built_loops(runner) for dataset in datasets_of(loop)]
        caches = [dataset for dataset in below if isinstance(dataset, LatentCacheDataset)]
        return vae_record(codec_of(unwrapped(runner)), _weight_hash(caches))


def _weight_hash(caches: list[LatentCacheDataset]) -> str | None:
    """Hash of the VAE that wrote all of these caches; None if there are no caches."""
    folders: dict[str, str] = {}
    for cache in caches:
        folders.setdefault(cache.manifest['vae_weight_hash'], str(cache.folder))
    if len(folders) > 1:
        listed = ', '.join(f"'{folder}' (weights {found})" for found, folder in folders.items())
        raise ValueError(f'the latent caches of this run were written with different VAEs: {listed}: write them with one')
    return next(iter(folders), None)


def _pretrained(node: Any) -> Iterator[dict]:
    """Yield every `init_cfg` that names a pretrained encoder of this package."""
    if isinstance(node, dict):
        if node.get('type') == 'USPPretrained' and node.get('checkpoint'):
            yield node
        for value in node.values():
            yield from _pretrained(value)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from _pretrained(value)
