"""Clocks and counters of steps that run in a row."""

import gc
import itertools
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from benchmark_lib import now

from .scale import Scale

Step = Callable[[], Any]


def clean() -> None:
    """Free what nobody holds, and start the peak of memory again."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def time_steps(step: Step, scale: Scale, warm: int | None = None, steps: int | None = None) -> tuple[float, float]:
    """(median milliseconds of a step, seconds of the steps before, which compile).

    On a GPU, by events between the steps: nobody waits for one before the next is launched.
    """
    warm, steps = scale.steps[0] if warm is None else warm, steps or scale.steps[1]
    start = now()
    for _ in range(warm):
        step()
    seconds = now() - start
    times = _gpu_times(step, steps) if scale.device == 'cuda' else [_timed(step) for _ in range(steps)]
    return statistics.median(times), seconds


def _timed(step: Step) -> float:
    start = time.perf_counter()
    step()
    return 1000 * (time.perf_counter() - start)


def _gpu_times(step: Step, steps: int) -> list[float]:
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(steps + 1)]
    marks[0].record()
    for mark in marks[1:]:
        step()
        mark.record()
    torch.cuda.synchronize()
    return [before.elapsed_time(after) for before, after in itertools.pairwise(marks)]


def launch_ms(step: Step, steps: int = 6) -> float:
    """Median milliseconds in which the host launches a step's work: near the step's time, the host is the limit.

    `step` must not wait for the device.
    """
    times = []
    for _ in range(steps):
        now()
        times.append(_timed(step))
    now()
    return statistics.median(times)


def count_kernels(step: Step) -> int | None:
    """Kernels and copies that a step runs on the GPU; None without one."""
    if not torch.cuda.is_available():
        return None
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        step()
        torch.cuda.synchronize()
    return sum(event.device_type == DeviceType.CUDA for event in profiler.events())


def copy_rate(scale: Scale) -> float:
    """TB/s that a copy within the device reads and writes."""
    source = torch.randn(1 << (16 if scale.toy else 29), device=scale.device)
    target = torch.empty_like(source)
    ms, _ = time_steps(lambda: target.copy_(source), scale, 3, 10)
    return 2 * source.numel() * source.element_size() / ms / 1e9
