"""The sections of `benchmark.py gpu`, in the order in which they run."""

from typing import NamedTuple


class Section(NamedTuple):
    """What to call, as 'module:function' with (report, scale), and seconds it may take; `checks`: it says what is correct."""

    target: str
    seconds: float
    checks: bool = False


SECTIONS = {
    'facts': Section('benchmark_gpu.facts:run', 40),
    'correctness': Section('benchmark_gpu.correctness:run', 90, checks=True),
    'official': Section('benchmark_gpu.training:official', 60),
    'train': Section('benchmark_gpu.training:train', 70),
    'compiled': Section('benchmark_gpu.training:compiled', 120),
    'sampling': Section('benchmark_gpu.sampling:run', 90),
    'runner': Section('benchmark_gpu.training:runner', 90),
    'resume': Section('benchmark_gpu.correctness:resume', 40, checks=True),
    'pretrain': Section('benchmark_gpu.training:pretrain', 70),
    'vae': Section('benchmark_gpu.images:vae', 60),
    'cache': Section('benchmark_gpu.images:cache', 60),
    'operations': Section('benchmark_gpu.training:operations', 30),
}
