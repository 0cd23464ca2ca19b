"""Deterministic sampling of flows: the probability flow, by torchdiffeq's solvers."""

from itertools import count
from typing import Any

import torch
from torch import Tensor

from usp_mm.functional import flow
from usp_mm.presets import lookup
from usp_mm.registry import MODELS

from ..objectives import FlowObjective
from ..objectives.base import Denoise, Objective
from .base import OnStep, Sampler, StepNoise, at_least

#: Whether torchdiffeq's method of this name steps along the given times, or chooses its steps.
METHODS = {
    'euler': True, 'midpoint': True, 'heun2': True, 'heun3': True, 'rk4': True,
    'adaptive_heun': False, 'bosh3': False, 'dopri5': False, 'dopri8': False,
}  # fmt: skip
#: How torchdiffeq's assertions begin where no step is short enough.
GIVES_UP = ('underflow in dt', 'non-finite values in state')


@MODELS.register_module()
class ODESampler(Sampler):
    """Integrates the velocity from noise to data.

    Args:
        method: of torchdiffeq. On the time grid: 'euler' (one network call a step), 'midpoint', 'heun2' (two), 'heun3'
            (three), 'rk4' (four). With steps of adaptive length: 'adaptive_heun', 'bosh3', 'dopri5', 'dopri8'; they are
            chosen for the batch as a whole, so that a sample depends, within the tolerances, on the others in its batch.
        num_steps: points of the time grid, as in SiT: num_steps - 1 steps. Adaptive methods choose their own: there, these
            are the points that `on_step` sees.
        atol, rtol: tolerances of adaptive methods.
        timestep_shift: s of `usp_mm.functional.flow.shift_times`, which moves the grid; below 1 it takes smaller steps near
            noise (LightningDiT: 0.3). 1 leaves it even.

    Raises:
        ValueError: an unknown method or an impossible number.
    """

    objective_type = FlowObjective

    def __init__(
        self,
        method: str = 'dopri5',
        num_steps: int = 250,
        atol: float = 1e-6,
        rtol: float = 1e-3,
        timestep_shift: float = 1.0,
    ) -> None:
        if method == 'heun':
            raise ValueError("unknown ODE method 'heun': torchdiffeq has no fixed-step method of that name, its is 'heun2'")
        self.fixed_steps = lookup(METHODS, method, 'ODE method')
        if not (atol > 0 and rtol > 0):
            raise ValueError(f'atol={atol}, rtol={rtol} must be positive')
        if timestep_shift <= 0:
            raise ValueError(f'timestep_shift={timestep_shift} must be positive; 1 is none')
        if timestep_shift != 1 and not self.fixed_steps:
            raise ValueError(f"timestep_shift={timestep_shift} moves a time grid, but '{method}' has none: use 'euler'")
        self.method, self.num_steps = method, at_least(num_steps, 2)
        self.atol, self.rtol, self.timestep_shift = atol, rtol, timestep_shift
        self.batch_invariant = self.fixed_steps

    def check(self, objective: Objective) -> None:
        super().check(objective)
        odeint()

    def times(self, objective: FlowObjective) -> Tensor:
        """The time grid, float64[num_steps]."""
        interval = flow.sample_interval(objective.path, objective.prediction)
        return flow.shift_times(torch.linspace(*interval, self.num_steps, dtype=torch.float64), self.timestep_shift)

    @torch.no_grad()
    def sample(
        self, denoise: Denoise, z: Tensor, objective: FlowObjective, step_noise: StepNoise, on_step: OnStep | None = None
    ) -> Tensor:
        grid = self.times(objective).to(z)
        field = VelocityField(denoise, objective, watch=not self.fixed_steps)
        settings = dict(atol=self.atol, rtol=self.rtol, method=self.method)
        if self.fixed_steps:
            if on_step is not None:
                field.callback_step = _after_each_step(on_step)
            # only the ends are kept: the states between would take num_steps times the memory
            x = odeint()(field, z, grid[[0, -1]], options=dict(grid_constructor=lambda *_: grid), **settings)[-1]
            if on_step is not None:
                on_step(self.num_steps - 2, x)
            return x
        points = grid if on_step is not None else grid[[0, -1]]
        try:
            # a step lands on the end: otherwise the last one would look beyond it, where the path is not defined
            states = odeint()(field, z, points, options=dict(step_t=grid[-1:].double()), **settings)
        except AssertionError as error:
            if not str(error).startswith(GIVES_UP):
                raise
            return self._broken(z, field, error)
        if on_step is not None:
            for k, x in enumerate(states[1:]):
                on_step(k, x)
        return states[-1]

    def _broken(self, z: Tensor, field: 'VelocityField', error: AssertionError) -> Tensor:
        """NaN for the samples that diverged, as a solver with fixed steps would end; their caller names them."""
        if field.finite is None or bool(field.finite.all()):
            raise ValueError(
                f"'{self.method}' found no step short enough for atol={self.atol}, rtol={self.rtol} ({error}): raise them, or "
                "use method='heun2'"
            ) from error
        return torch.where(field.finite.view(-1, 1, 1, 1), z, torch.nan)

    def describe(self) -> dict[str, Any]:
        if not self.fixed_steps:
            return dict(name=type(self).__name__, method=self.method, atol=self.atol, rtol=self.rtol)
        settings = ('method', 'num_steps', 'timestep_shift')
        return dict(name=type(self).__name__, **{key: getattr(self, key) for key in settings})


class VelocityField:
    """(t 0-d, x) -> velocity, as torchdiffeq calls it.

    Attributes:
        finite: bool[N], for a solver that chooses its steps: whose velocities were finite in the first call in which not all
            were, else in the latest.
    """

    def __init__(self, denoise: Denoise, objective: FlowObjective, watch: bool = False) -> None:
        self.denoise, self.objective, self.watch = denoise, objective, watch
        self.finite: Tensor | None = None

    def __call__(self, t: Tensor, x: Tensor) -> Tensor:
        out = self.denoise(x, t.to(x.dtype).repeat(x.shape[0])).float()
        if self.objective.prediction != 'velocity':
            out = flow.velocity(self.objective.coefficients(t.double()), self.objective.prediction)(x, out)
        if self.watch:
            finite = out.isfinite().flatten(1).all(1)
            # of the first call that fails: the solver's step then takes the others' states with it
            self.finite = finite if self.finite is None else torch.where(self.finite.all(), finite, self.finite)
        return out


def _after_each_step(on_step: OnStep):
    """torchdiffeq's callback before each step, as one after each but the last."""
    steps = count(-1)

    def callback(t: Tensor, x: Tensor, dt: Tensor) -> None:
        if (k := next(steps)) >= 0:
            on_step(k, x)

    return callback


def odeint():
    """torchdiffeq's."""
    try:
        with torch.device('cpu'):  # its coefficients are tensors, made on import: a model may be built on meta then
            from torchdiffeq import odeint as solve
    except ImportError as error:
        raise ImportError("ODESampler needs torchdiffeq: install it with `pip install 'usp-mm[gen]'`") from error
    return solve
