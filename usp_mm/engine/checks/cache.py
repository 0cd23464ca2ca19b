"""Check that latent caches fit the model."""

from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, Runner

from usp_mm.datasets import LatentCacheDataset
from usp_mm.registry import HOOKS

from ..runner_parts import datasets_of, unwrapped


@HOOKS.register_module()
class LatentCacheCheckHook(Hook):
    """Refuse a latent cache whose VAE, image size or normalisation differs from the model's, before the first step.

    Raises:
        ValueError: The cache does not fit; the message names both values of whatever differs.
    """

    def before_train(self, runner: Runner) -> None:
        self._check_loop(runner, runner.train_loop)

    def before_val(self, runner: Runner) -> None:
        self._check_loop(runner, runner.val_loop)

    def before_test(self, runner: Runner) -> None:
        self._check_loop(runner, runner.test_loop)

    def _check_loop(self, runner: Runner, loop: BaseLoop) -> None:
        for dataset in datasets_of(loop):
            if isinstance(dataset, LatentCacheDataset):
                self._check_cache(runner, dataset)

    def _check_cache(self, runner: Runner, dataset: LatentCacheDataset) -> None:
        model = unwrapped(runner)
        preprocessor, found = model.data_preprocessor, dataset.manifest
        codec, network = preprocessor.codec, model.denoiser if hasattr(model, 'denoiser') else model.backbone
        expected = {'vae': codec.name, 'image_size': network.geometry.img_size}
        if codec.network is not None:
            expected['vae_weight_hash'] = codec.weight_hash
        for key, value in expected.items():
            if found[key] != value:
                raise ValueError(
                    f"latent cache '{dataset.folder}' was written with {key}={found[key]!r}, the model has {value!r}: "
                    'write a cache for this model, or name the VAE and size that the cache was written with'
                )
        mean, std = preprocessor.mean.flatten().tolist(), preprocessor.std.flatten().tolist()
        if {*mean, *std} != {127.5}:
            raise ValueError(
                f"latent cache '{dataset.folder}' was written from images normalised by 127.5, the data preprocessor has "
                f'mean={mean}, std={std}: use a data set of images for another normalisation'
            )
