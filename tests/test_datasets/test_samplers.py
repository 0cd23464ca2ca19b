"""Data order."""

import pickle
from collections import Counter

import pytest
import torch
from mmengine.registry import DATA_SAMPLERS
from torch.utils.data import DataLoader, Dataset

from usp_mm.datasets import EpochIndex, EpochSampler
from usp_mm.datasets.seeding import derive_seed


class Echo(Dataset):
    """Its samples are the indices it is asked for."""

    def __init__(self, num: int) -> None:
        self.num = num

    def __len__(self) -> int:
        return self.num

    def __getitem__(self, index: int) -> tuple[int, int, int]:
        return int(index), index.epoch, index.seed


def order(num: int, rank: int = 0, world_size: int = 1, epoch: int = 0, seed: int = 0, **kwargs) -> list[EpochIndex]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('mmengine.dataset.sampler.get_dist_info', lambda: (rank, world_size))
        sampler = EpochSampler(range(num), seed=seed, **kwargs)
    sampler.set_epoch(epoch)
    indices = list(sampler)
    assert len(indices) == len(sampler)
    return indices


def test_order_is_a_permutation_that_follows_seed_and_epoch() -> None:
    first = order(100, seed=1, epoch=3)
    assert sorted(first) == list(range(100))
    assert first == order(100, seed=1, epoch=3)
    others = [order(100, seed=seed, epoch=epoch) for seed, epoch in ((1, 4), (2, 3), (3, 1), (0, 4))]
    assert first not in others
    assert len({tuple(x) for x in others}) == 4
    assert {(index.epoch, index.seed) for index in first} == {(3, 1)}
    assert order(10, shuffle=False, epoch=3) == list(range(10))


@pytest.mark.parametrize('num', [64, 61])
@pytest.mark.parametrize('world_size', [2, 4])
def test_batch_is_the_union_of_the_processes_batches(num: int, world_size: int) -> None:
    size = 4
    alone = order(num, round_up=False)
    ranks = [order(num, rank, world_size, round_up=False) for rank in range(world_size)]
    for k in range(num // (size * world_size) + 1):
        together = alone[k * size * world_size : (k + 1) * size * world_size]
        apart = [index for rank in ranks for index in rank[k * size : (k + 1) * size]]
        assert Counter(apart) == Counter(together)


@pytest.mark.parametrize(('num', 'world_size'), [(10, 4), (3, 8)])
def test_round_up_repeats_the_beginning(num: int, world_size: int) -> None:
    ranks = [order(num, rank, world_size) for rank in range(world_size)]
    per_rank = -(-num // world_size)
    assert [len(indices) for indices in ranks] == [per_rank] * world_size
    interleaved = [ranks[i % world_size][i // world_size] for i in range(per_rank * world_size)]
    assert interleaved == [*order(num), *(order(num) * 8)][: per_rank * world_size]


def test_epoch_and_seed_reach_worker_processes() -> None:
    sampler = DATA_SAMPLERS.build(dict(type='EpochSampler', dataset=Echo(12), seed=9))
    loader = DataLoader(Echo(12), batch_size=4, sampler=sampler, num_workers=2, persistent_workers=True)
    for epoch in (0, 5):
        sampler.set_epoch(epoch)
        index, epochs, seeds = (torch.cat(column) for column in zip(*loader, strict=True))
        assert index.tolist() == list(sampler)
        assert epochs.tolist() == [epoch] * 12
        assert seeds.tolist() == [9] * 12


def test_epoch_index_is_pickled_whole() -> None:
    index = pickle.loads(pickle.dumps(EpochIndex(7, 3, 2)))  # noqa: S301
    assert (index, index.epoch, index.seed) == (7, 3, 2)


def test_derived_seeds_differ() -> None:
    keys = [(), (0,), (1,), (0, 0), (0, 1), (1, 0), (0, 0, 0), (0, 2**40), (2**40, 0), (2**32, 0), (0, 1, 0), (2**64 - 1,)]
    seeds = [derive_seed(*key) for key in keys]
    assert len(set(seeds)) == len(keys)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert seeds == [derive_seed(*key) for key in keys]
