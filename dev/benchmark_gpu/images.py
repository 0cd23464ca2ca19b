"""The VAE in both directions, and writing a latent cache from JPEG files."""

import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from benchmark_data import write_photos, write_random_vae
from benchmark_lib import gpu_tf32, peak_memory

from usp_mm.engine.records.flops import count_codec
from usp_mm.vaes import build_codec
from usp_mm.vaes.shapes import blank_codec

from .report import Report
from .scale import Scale
from .timing import clean, time_steps


def vae(report: Report, scale: Scale) -> None:
    """An untrained VAE of Stable Diffusion's shape."""
    with tempfile.TemporaryDirectory() as folder:
        write_random_vae(Path(folder) / 'vae', scale.vae)
        for dtype, allow, size in (('float32', False, 16), ('float32', True, 64), ('bfloat16', True, 64)):
            batch, what = scale.batch(size), dtype + (' with TF32' if allow and dtype == 'float32' else '')
            with report.attempt(what, batch=batch), gpu_tf32(allow):
                codec = build_codec(scale.vae, path=Path(folder) / 'vae', dtype=dtype).to(scale.device)
                images = torch.rand(batch, 3, scale.img_size, scale.img_size, device=scale.device) * 2 - 1
                latents = torch.randn(batch, 4, scale.latent_size, scale.latent_size, device=scale.device)
                _time(report, scale, 'encode', what, partial(codec.encode, images), batch)
                _time(report, scale, 'decode', what, partial(codec.decode, latents), batch)


def _time(report: Report, scale: Scale, direction: str, what: str, call: Callable[[], Any], batch: int) -> None:
    clean()
    ms, _ = time_steps(call, scale, 2, 2 if scale.toy else 6)
    report.speed(f'{direction}, {what}', batch, ms, _flops(scale)[direction], **{'peak GiB': peak_memory()})


def cache(report: Report, scale: Scale) -> None:
    """The whole writer, both views of each image, as `cache_latents.py write` runs it and with larger batches."""
    from usp_mm.datasets.latent_cache.plan import CacheSpec
    from usp_mm.datasets.latent_cache.writer import write_cache

    count, shape = (16, (100, 80)) if scale.toy else (1024, (500, 375))
    settings = (('float32', 16, 4), ('tf32', 16, 4), ('bfloat16', 64, max(1, min(14, len(os.sched_getaffinity(0)) - 2))))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_photos(folder / 'photos' / 'class', count, *shape)
        write_random_vae(folder / 'vae', scale.vae)
        for dtype, size, workers in settings:
            size, workers = scale.batch(size), 0 if scale.toy else workers
            what = f'{dtype}, {size} images a call of the VAE, {workers} workers'
            with report.attempt(what):
                clean()
                codec = build_codec(scale.vae, path=folder / 'vae', dtype=dtype.replace('tf32', 'float32'))
                spec = CacheSpec(scale.img_size, encode_dtype=dtype, encode_batch_size=size)
                start = time.perf_counter()
                write_cache(str(folder / 'photos'), folder / dtype, codec, spec, 2 * size, workers, scale.device)
                ms = 1000 * (time.perf_counter() - start)
                report.speed(what, count, ms, 2 * _flops(scale)['encode'], **{'peak GiB': peak_memory()})


def _flops(scale: Scale) -> dict[str, int]:
    """Operations of an image, 'encode' and 'decode'."""
    codec = blank_codec(scale.vae)
    assert codec is not None
    return count_codec(codec, scale.img_size)
