"""What the training benchmarks share: clocks, fresh processes, random data, memory."""

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any


def in_fresh_process(benchmark: str, options: list[Any], env: dict[str, str] | None = None) -> dict[str, Any]:
    """The only row of `tools/benchmark.py BENCHMARK OPTIONS`, which ends with this process; `env` in place of this one's."""
    from usp_mm.runtime.processes import child_environment

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / 'row.json'
        command = [sys.executable, sys.argv[0], benchmark, '--json', out, *options]
        env = child_environment(env)
        subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL, env=env)
        (row,) = json.loads(out.read_text())['rows']
    return row


def now() -> float:
    """Seconds, when all that was started is done."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def gpu_tf32(allowed: bool = True) -> AbstractContextManager[None]:
    """On a GPU, float32 in the block may round to TF32, as the official scripts of DiT and SiT have it, or may not."""
    import torch

    from usp_mm.functional.precision import tf32

    return tf32(allowed) if torch.cuda.is_available() else nullcontext()


def phases(steps: int) -> tuple[int, int]:
    """(steps before anything counts, steps after which a GPU is no longer waited for)."""
    import torch

    return max(1, steps // 3), (2 * steps // 3 if torch.cuda.is_available() else steps)


def step_ms(step: Callable[[], Any], steps: int) -> float:
    """Milliseconds of a step, without the first third of them: on a CPU the median, on a GPU of all in a row."""
    first, synchronous = phases(steps)
    times = []
    for i in range(steps):
        if i <= synchronous:
            start = now()
        step()
        if i < synchronous:
            times.append(now() - start)
    if synchronous < steps:
        return 1000 * (now() - start) / (steps - synchronous)
    return 1000 * statistics.median(times[first:])


class Clock:
    """Seconds of an MMEngine training loop's iterations, each from the end of the one before, and of the calls in it.

    On a GPU, single calls can be timed only by waiting for each; the last third of the iterations runs without that, and
    gives the time of a step.
    """

    def __init__(self, steps: int) -> None:
        self.steps, (self.first, self.synchronous) = steps, phases(steps)
        self.iterations: list[float] = []
        self.calls: dict[str, list[float]] = {}
        self.counts: dict[str, int] = {}
        self.free, self.last = 0.0, now()

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, whose time and number of calls count under `name`."""
        self.calls.setdefault(name, [0.0])
        self.counts.setdefault(name, 0)

        def call(*args: Any, **kwargs: Any) -> Any:
            self.counts[name] += 1
            if len(self.iterations) >= self.synchronous:
                return function(*args, **kwargs)
            start = now()
            result = function(*args, **kwargs)
            self.calls[name][-1] += now() - start
            return result

        return call

    def hook(self) -> Any:
        """An MMEngine hook that ends the iterations; register it with priority 'LOWEST'.

        What an iteration waits for its batch counts under 'data'.
        """
        from mmengine.hooks import Hook

        clock = self
        clock.calls['data'] = [0.0]

        class ClockHook(Hook):
            def before_train_iter(self, *args: Any, **kwargs: Any) -> None:
                if len(clock.iterations) < clock.synchronous:
                    clock.calls['data'][-1] += now() - clock.last

            def after_train_iter(self, *args: Any, **kwargs: Any) -> None:
                clock.end_iteration()

        return ClockHook()

    def end_iteration(self) -> None:
        self.iterations.append(0.0)
        number = len(self.iterations)
        if number <= self.synchronous:
            end = now()
            self.iterations[-1], self.last = end - self.last, end
            for times in self.calls.values():
                times.append(0.0)
        elif number == self.steps:
            self.free = now() - self.last

    @property
    def ms(self) -> float:
        """Milliseconds of an iteration."""
        if self.synchronous < self.steps:
            return 1000 * self.free / (self.steps - self.synchronous)
        return 1000 * statistics.median(self.iterations[self.first :])

    def share(self, *names: str) -> float:
        """Share of the iterations' time that the calls took."""
        counted = slice(self.first, self.synchronous)
        return sum(sum(self.calls[name][counted]) for name in names) / sum(self.iterations[counted])


def write_random_cache(folder: Path, num: int, img_size: int) -> None:
    """A cache of `num` noise images through a codec that pools instead of encoding: only the shapes matter."""
    import torch

    from usp_mm.datasets.latent_cache.plan import CacheSpec
    from usp_mm.datasets.latent_cache.writer import write_cache
    from usp_mm.vaes import LatentCodec

    images = folder.parent / 'images'
    write_images(images / 'class', num)

    class Pool(torch.nn.Module):
        def encode(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.nn.functional.avg_pool2d(x, 8)
            return torch.cat([x, x, x[:, :2] - 10], dim=1)

    codec = LatentCodec(Pool(), name='sd-f8d4', channels=4, stride=8, patch_size=2, scale=0.18215)
    write_cache(str(images), folder, codec, CacheSpec(img_size), num_workers=0)


def write_images(folder: Path, num: int) -> None:
    import numpy as np
    from PIL import Image

    folder.mkdir(parents=True)
    noise = np.random.default_rng(0)
    for i in range(num):
        Image.fromarray(noise.integers(0, 256, (28, 28, 3), dtype=np.uint8)).save(folder / f'{i:05d}.png')


def peak_memory() -> float:
    """GiB: of the GPU where there is one, else of this process."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def matmul_rate() -> float:
    """TFLOP/s of bfloat16 matrix products, the best of several: what a network can at most reach.

    On a CPU without bfloat16 instructions a large product takes a minute: after two seconds no other begins.
    """
    import torch

    gpu = torch.cuda.is_available()
    best, begin = 0.0, now()
    for size in (8192,) if gpu else (512, 1024, 2048):
        a = torch.randn(size, size, device='cuda' if gpu else 'cpu', dtype=torch.bfloat16)
        for _ in range(30 if gpu else 5):
            if not gpu and best and now() - begin > 2:
                return best
            start = now()
            a @ a
            best = max(best, 2 * size**3 / (now() - start) / 1e12)
    return best
