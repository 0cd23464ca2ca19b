"""A pretrained encoder that computes features, restores masked pictures and predicts classes.

Shape legend: N images, L patch tokens, D width.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from mmpretrain.datasets.categories import IMAGENET_CATEGORIES
from PIL import Image
from torch import Tensor, nn

from usp_mm.datasets import EpochIndex
from usp_mm.datasets.class_names import are_wordnet_ids, class_name
from usp_mm.functional.masking import mask_from_noise
from usp_mm.functional.patchify import unpatchify
from usp_mm.models import USP, USPViT
from usp_mm.models.attention_maps import QUERIES, attention_maps, block_number
from usp_mm.models.random_keys import sample_keys
from usp_mm.probing.features import check_layers

from .images_in import Picture, batches, cropped, evaluation_crop, listed, square_crop
from .numbers_in import check_counts, check_seed
from .pretrained_base import Pretrained

_POOLS = ('cls', 'mean', None)


class Restoration(NamedTuple):
    """Pictures of one restored image, all of the same size.

    Attributes:
        picture: The image as the model reconstructs it from the visible patches.
        mask: Image of mode 'L', white where patches were hidden.
        vae: The VAE's reconstruction of the whole latent.
    """

    picture: Image.Image
    mask: Image.Image
    vae: Image.Image


class Encoder(Pretrained):
    """A `USP` or `USPClassifier` for inference, made by `usp_mm.from_pretrained`.

    Images are one or several files, PIL images or arrays uint8[H, W, 3] (RGB) or uint8[H, W] (grey) of any size. They are
    resized and cropped: for a classifier as its config does in tests, otherwise to a square at the centre. Tensors [N, 3, H,
    W], uint8 or floats in [0, 1], and scaled latents [N, C, h, w] are used unchanged; a list of tensors without N is stacked.
    Several threads may share an encoder.
    """

    @property
    def network(self) -> USPViT:
        """The encoder network."""
        found: USPViT = self.model.backbone
        return found

    @property
    def classifier(self) -> nn.Module | None:
        """The trained classification head; None if there is none."""
        return None if isinstance(self.model, USP) else getattr(self.model, 'head', None)

    @property
    def img_size(self) -> int:
        """Side length of the images in pixels."""
        return self.network.geometry.img_size

    @cached_property
    def _crop(self) -> Any:
        if self.classifier is None:
            return square_crop(self.img_size)
        return evaluation_crop(self.source.cfg, self.img_size, self.source.where)

    @torch.no_grad()
    def encode(
        self, images: Any, layer: int | Sequence[int] | None = None, pool: str | None = 'mean', batch_size: int = 32
    ) -> Any:
        """Compute features of images.

        Args:
            images: Images, tensors or latents, see the class.
            layer: Number of the block after which to take features, 1 … depth, or several; by default the last. After the last
                block the final norm is applied, if the encoder has one.
            pool: 'mean' over the patch tokens, 'cls' for the class token, or None for all tokens, the class token first.
            batch_size: Number of images that are encoded at a time.

        Returns:
            float32[N, D] on the CPU, or float32[N, 1 + L, D] without a pool; a list of these for several layers.

        Raises:
            ValueError: A layer or pool does not exist, or the images are of an unsupported kind.
        """
        if pool not in _POOLS:
            raise ValueError(f'pool={pool!r} must be one of {_POOLS}')
        layers = list(layer) if isinstance(layer, Iterable) else [self.network.num_layers if layer is None else layer]
        check_layers(layers, self.network.num_layers)
        parts = []
        for latents in self._latents(images, batch_size):
            tokens = self.network.tokens_after(latents, layers)
            parts.append([_pooled(x, pool).float().cpu() for x in tokens])
        found = [torch.cat(one) for one in zip(*parts, strict=True)]
        return found if isinstance(layer, Iterable) else found[0]

    @torch.no_grad()
    def attention(self, images: Any, layer: int = -1, query: str = 'cls', batch_size: int = 32) -> np.ndarray:
        """Compute where a block's attention heads look, as weights softmax(q·kᵀ / √d) over the patches.

        Args:
            images: Images, tensors or latents, see the class.
            layer: Number of the block, 1 … depth, or counted from the end, -1 … -depth.
            query: 'cls' for the attention that the class token pays to each patch (DINO, arXiv 2104.14294, Figure 1), or
                'patches' for the attention that each patch receives from all patches, on average. A classifier that pools
                patch tokens does not use its class token.
            batch_size: Number of images that are encoded at a time.

        Returns:
            float32[N, heads, h, w] in [0, 1], over the model's grid of patches. A map's sum is one minus the attention that
            goes to the class token.

        Raises:
            ValueError: A layer or query does not exist, or the images are of an unsupported kind.
        """
        if query not in QUERIES:
            raise ValueError(f'query={query!r} must be one of {QUERIES}')
        number = block_number(layer, self.network.num_layers)
        maps = [attention_maps(self.network, latents, number, query) for latents in self._latents(images, batch_size)]
        return torch.cat([one.cpu() for one in maps]).numpy()

    def cropped(self, images: Picture | Sequence[Picture]) -> np.ndarray:
        """Pictures after the resizing and cropping that the other methods apply: uint8[N, S, S, 3] with S = `img_size`, RGB."""
        return torch.stack([cropped(image, self._crop) for image in listed(images)]).permute(0, 2, 3, 1).numpy()

    @torch.no_grad()
    def classify(self, images: Any, topk: int = 5, batch_size: int = 32) -> list[list[dict[str, Any]]]:
        """Predict the best classes of each image, with the same scores as in evaluation.

        Args:
            images: Images, tensors or latents, see the class.
            topk: Number of classes per image.
            batch_size: Number of images that are classified at a time.

        Returns:
            For each image, a list of dicts with label, class (its name, None if unknown) and score, best first.

        Raises:
            ValueError: The model has no head, or the images are of an unsupported kind.
        """
        if self.classifier is None:
            raise ValueError(f'{self!r} has no classifier: encode(images) gives its features')
        check_counts(topk=topk)
        names, found = self._class_names(), []
        for latents in self._latents(images, batch_size):
            logits = self.classifier(self.model.extract_feat(latents))
            for scores in logits.softmax(-1).float().cpu():
                best = scores.topk(min(topk, len(scores)))
                pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
                found.append([{'label': k, 'class': class_name(names, k), 'score': score} for k, score in pairs])
        return found

    def _class_names(self) -> Sequence[str] | None:
        names = self.classes
        imagenet = self.model.head.num_classes == 1000 and (not names or are_wordnet_ids(names))
        return IMAGENET_CATEGORIES if imagenet else names

    @torch.no_grad()
    def restore(self, image: Picture, mask_ratio: float | None = None, seed: int = 0) -> Restoration:
        """Hide patches of a picture and reconstruct them.

        Args:
            image: One picture.
            mask_ratio: Fraction of hidden patches; by default the model's own, 0.75.
            seed: Seed of the mask.

        Returns:
            The reconstructed picture, the mask, and the VAE's reconstruction of the image.

        Raises:
            ValueError: The model has no decoder, or the ratio or the seed is invalid.
        """
        check_seed(seed)
        model = self.model
        if not isinstance(model, USP):
            raise ValueError(f'{self!r} has no decoder: only pretraining checkpoints restore pictures')
        ratio = model.mask_ratio if mask_ratio is None else mask_ratio
        if not 0 < ratio < 1:
            raise ValueError(f'mask_ratio={ratio} must lie between 0 and 1')
        latents = torch.cat(list(self._latents(image, 1)))
        if len(latents) > 1:
            raise ValueError(f'restore takes one picture, got {len(latents)}: call it once for each')
        rows, columns = grid = self.network.geometry.grid
        keys = sample_keys([{'sample_idx': EpochIndex(0, 0, seed)}], 1, latents.device, training=False)
        mask = mask_from_noise(keys.uniform(rows * columns, 'mask'), ratio)
        patches = model.head.denormalize(model.predict_patches(latents, mask), latents)
        restored = unpatchify(patches, model.head.patch_size, grid)
        hidden = mask.mask.reshape(rows, columns).cpu().numpy().astype(np.uint8) * 255
        size = (self.img_size, self.img_size)
        return Restoration(self._picture(restored), Image.fromarray(hidden).resize(size, 0), self._picture(latents))

    def _picture(self, latents: Tensor) -> Image.Image:
        """Decode a latent with the VAE, as for restoration pictures."""
        preprocessor = self.model.data_preprocessor
        decoded = preprocessor.codec.to(latents.device).decode(latents)
        pixels = (decoded * preprocessor.std + preprocessor.mean).clamp(0, 255).round().to(torch.uint8)
        return Image.fromarray(pixels[0].permute(1, 2, 0).cpu().numpy())

    def _latents(self, images: Any, batch_size: int) -> Iterator[Tensor]:
        check_counts(batch_size=batch_size)
        preprocessor = self.model.data_preprocessor
        for batch in batches(images, self._crop, batch_size, self.network.geometry.channels):
            if batch.shape[1] == 3 and preprocessor.bgr_to_rgb:
                batch = batch.flip(1)
            yield preprocessor(dict(inputs=batch), training=False)['inputs']


def _pooled(tokens: Tensor, pool: str | None) -> Tensor:
    if pool is None:
        return tokens
    return tokens[:, 0] if pool == 'cls' else tokens[:, 1:].mean(1)
