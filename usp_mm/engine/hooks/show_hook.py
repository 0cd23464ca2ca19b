"""ShowHook: pictures, during training, of what an encoder sees."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmcv.transforms import Compose
from mmengine.dataset import default_collate
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import TRANSFORMS

from usp_mm.datasets import EpochIndex
from usp_mm.images import find_images
from usp_mm.models import USPViT
from usp_mm.models.attention_maps import (
    QUERIES,
    attention_maps,
    block_number,
    evenly,
    query_title,
    sight_picture,
    token_colours,
)
from usp_mm.models.restoration_picture import original_images
from usp_mm.registry import HOOKS

from ..runner_parts import unwrapped


@HOOKS.register_module()
class ShowHook(Hook):
    """Draw what the encoder of a pretraining or a classifier sees, every `interval` epochs and at the end.

    No config has this hook: add it with `custom_hooks`. The picture of `usp show` goes to the visualizer's backends (files,
    TensorBoard) under the name 'sight'. Of cached latents, the first column shows what the VAE decodes.

    Args:
        interval: Number of epochs between pictures.
        num_images: Number of images, evenly spaced.
        images: Files, or folders searched recursively; by default the validation set or, in a training without one, the
            training set.
        layer: Block whose attention is drawn and whose patch tokens are coloured, 1 … depth, or from the end.
        query: 'cls' or 'patches', see `usp_mm.models.attention_maps.attention_maps`.

    Raises:
        ValueError: A number or the query is invalid.
    """

    priority = 88  # as RestorationHook

    def __init__(
        self,
        interval: int = 10,
        num_images: int = 8,
        images: str | Sequence[str] | None = None,
        layer: int = -1,
        query: str = 'cls',
    ) -> None:
        if interval < 1 or num_images < 1:
            raise ValueError(f'interval={interval} and num_images={num_images} must be 1 or more')
        if query not in QUERIES:
            raise ValueError(f'query={query!r} must be one of {QUERIES}')
        self.interval, self.num_images, self.layer, self.query = interval, num_images, layer, query
        self.images = [images] if isinstance(images, str) else images

    def before_train(self, runner: Runner) -> None:
        """Prepare the samples, which stay the same for all pictures.

        Raises:
            ValueError: The model has no encoder on latents, no such block, or no VAE to draw images with.
            FileNotFoundError: There are no such images.
        """
        model = unwrapped(runner)
        network = getattr(model, 'backbone', None)
        if not isinstance(network, USPViT) or network.codec is not None:
            raise ValueError(
                f'ShowHook draws an encoder behind a frozen VAE, this model is a {type(model).__name__}: remove the hook'
            )
        if model.data_preprocessor.codec.network is None and model.data_preprocessor.codec.stride > 1:
            raise ValueError('ShowHook needs the VAE: set model.data_preprocessor.load_vae=True, or remove the hook')
        self._number = block_number(self.layer, network.num_layers)
        self._dataset = self._files(network) if self.images else _held_out(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        if self.every_n_epochs(runner, self.interval) or self.is_last_train_epoch(runner):
            self._draw(runner)

    def _files(self, network: USPViT) -> list[dict]:
        size = network.geometry.img_size
        steps = [
            dict(type='LoadImage'),
            dict(type='ResizeEdge', scale=size, edge='short', backend='pillow', interpolation='bicubic'),
            dict(type='CenterCrop', crop_size=size),
            dict(type='PackInputs'),
        ]
        pipeline = Compose([TRANSFORMS.build(step) for step in steps])
        paths = find_images(list(self.images or ()), self.num_images)
        return [pipeline(dict(img_path=str(path), sample_idx=EpochIndex(i, 0, 0))) for i, path in enumerate(paths)]

    @master_only
    @torch.no_grad()
    def _draw(self, runner: Runner) -> None:
        model, data = unwrapped(runner), self._dataset
        samples = [data[EpochIndex(i, seed=runner.seed)] for i in evenly(len(data), self.num_images)]
        was_training = model.training
        model.eval()
        latents = model.data_preprocessor(default_collate(samples), training=False)['inputs']
        maps = attention_maps(model.backbone, latents, self._number, self.query)
        tokens = model.backbone.tokens_after(latents, [self._number])[0][:, 1:]
        model.train(was_training)
        colours, _ = token_colours(tokens)
        cells = colours.unflatten(1, maps.shape[2:]).cpu().numpy()
        pictures, first = _pictures(model.data_preprocessor, samples, latents)
        titles = query_title(self.query, self._number), f'PCA, block {self._number}', first
        runner.visualizer.add_image('sight', sight_picture(pictures, maps.cpu().numpy(), cells, *titles), step=runner.epoch + 1)


def _held_out(runner: Runner) -> Any:
    """The validation set or, without one, the training set."""
    loader = runner.train_dataloader if runner._val_loop is None else runner.val_dataloader
    return loader.dataset


def _pictures(preprocessor: Any, samples: Sequence[dict], latents: torch.Tensor) -> tuple[np.ndarray, str]:
    """The images as the VAE got them, or of a cache as it decodes them, uint8[N, S, S, 3], and what to call them."""
    codec = preprocessor.codec.to(latents.device)
    from_images = codec.kind_of(torch.stack([sample['inputs'] for sample in samples])) == 'image'
    decoded = latents if from_images else codec.decode(latents)
    pixels = original_images(samples, preprocessor, decoded) * preprocessor.std + preprocessor.mean
    shown = pixels.clamp(0, 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return shown, 'image' if from_images else 'VAE of the image'
