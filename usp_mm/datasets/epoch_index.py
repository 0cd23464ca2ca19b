"""A data-set index that remembers the epoch and the seed it was drawn for."""


class EpochIndex(int):
    """An `int` index with `.epoch` and `.seed`, so that a worker process, a transform or the model
    can derive a sample's randomness from (seed, epoch, index) alone.

    It is an ordinary index to every data set; `sample_idx` in mmengine's `BaseDataset` and
    mmpretrain's `DataSample` keeps it whole. The seed is the runner's (`randomness.seed`), which
    mmengine hands to the sampler: one setting seeds everything.
    """

    epoch: int
    seed: int

    def __new__(cls, index: int, epoch: int = 0, seed: int = 0) -> 'EpochIndex':
        self = super().__new__(cls, index)
        self.epoch, self.seed = int(epoch), int(seed)
        return self

    def __getnewargs__(self) -> tuple[int, int, int]:
        return int(self), self.epoch, self.seed

    def __repr__(self) -> str:
        return f'EpochIndex({int(self)}, epoch={self.epoch}, seed={self.seed})'
