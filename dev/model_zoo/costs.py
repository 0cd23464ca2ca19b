"""What the configs cost, estimated from their floating-point operations."""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mmengine.config import Config

from usp_mm.analysis.complexity import complexity, gpu_hours

from .entries import Claim, Zoo

#: Counts of all configs: those of a config that has not changed since are taken from there.
COUNTS = 'docs/complexity.json'
SAMPLES = 50_000
#: Types of models whose operations are not counted: feature extractors, and detectors, which need mmcv's operators.
NOT_COUNTED = ('ImageClassifier', 'USPMaskRCNN')


@dataclass
class Cost:
    """GPU-hours of a training: of the network, and of what the frozen VAE (or a teacher) computes beside it."""

    network: float
    beside: float

    def __add__(self, other: 'Cost') -> 'Cost':
        return Cost(self.network + other.network, self.beside + other.beside)

    def __mul__(self, factor: float) -> 'Cost':
        return Cost(self.network * factor, self.beside * factor)


NOTHING = Cost(0.0, 0.0)


class Costs:
    """Counts of configs; `recount` ignores those that are known."""

    def __init__(self, zoo: Zoo, recount: bool = False) -> None:
        self.zoo = zoo
        self._configs: dict[str, Config] = {}
        file = zoo.root / COUNTS
        self._known: dict[str, dict[str, Any]] = json.loads(file.read_text()) if file.is_file() and not recount else {}
        self._counted: dict[str, dict[str, Any]] = {}

    def config(self, name: str) -> Config:
        """The loaded config of a model."""
        if name not in self._configs:
            path = self.zoo.root / self.zoo.models[name].config
            self._configs[name] = Config.fromfile(path, import_custom_modules=False)
        return self._configs[name]

    def count(self, name: str) -> dict[str, Any] | None:
        """`complexity` of a model; None of what is in `NOT_COUNTED`."""
        if name not in self._counted:
            signature = _signature(self.config(name))
            known = self._known.get(name, {})
            if known.get('signature') != signature:
                known = dict(signature=signature, counts=_count(self.config(name)))
            self._counted[name] = known
        return self._counted[name]['counts']

    def to_json(self) -> str:
        """The counts of all models, one a line."""
        for name in self.zoo.models:
            self.count(name)
        lines = ',\n'.join(f'{json.dumps(name)}: {json.dumps(self._counted[name])}' for name in self.zoo.models)
        return f'{{\n{lines}\n}}\n'

    def training(self, name: str) -> Cost | None:
        """Of a whole training; None where the size of the data is not known, nothing where a command only tests."""
        counted = self.count(name)
        if counted is None or counted['images'] is None:
            return None
        if 'dist_test.sh' in self.zoo.models[name].command:
            return NOTHING
        network = counted['images'] * counted['network']['train']
        return Cost(gpu_hours(network), gpu_hours(counted['total'] - network))

    def claim(self, claim: Claim) -> tuple[Cost, Cost]:
        """(of the run that a row needs, of the runs that it starts from)."""
        own, before = self.training(claim.model) or NOTHING, NOTHING
        if claim.steps is not None:
            own = own * (claim.steps / self.config(claim.model).train_cfg.max_iters)
        for source in claim.sources:
            before = before + (self.training(source) or NOTHING)
        return own, before

    def scoring(self, name: str) -> float:
        """GPU-hours of drawing the 50,000 samples of a score."""
        counted = self.count(name)
        assert counted is not None and counted['sample'] is not None
        return gpu_hours(SAMPLES * counted['sample']['total'])

    @cached_property
    def checkpoint(self) -> dict[str, str]:
        """Name of the last checkpoint of each model."""
        return {name: self._last(name) for name in self.zoo.models}

    def _last(self, name: str) -> str:
        loop = self.config(name).train_cfg
        return f'epoch_{loop.max_epochs}.pth' if 'max_epochs' in loop else f'iter_{loop.max_iters}.pth'


def _count(cfg: Config) -> dict[str, Any] | None:
    return None if cfg.model.type in NOT_COUNTED else complexity(cfg)


def _signature(cfg: Config) -> str:
    """Changes with everything that the counts depend on, except the code."""
    parts = {key: cfg[key] for key in ('model', 'train_cfg', 'train_dataloader', 'auto_scale_lr')}
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]
