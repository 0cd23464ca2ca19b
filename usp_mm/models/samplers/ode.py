"""Deterministic sampling of flows: the probability flow, along a time grid or by torchdiffeq's adaptive solvers."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from usp_mm.functional import flow
from usp_mm.presets import lookup
from usp_mm.registry import MODELS

from ..objectives import FlowObjective
from ..objectives.base import Denoise, Objective
from .base import OnStep, Sampler, StepNoise, at_least, denoise_at


class Tableau(NamedTuple):
    """An explicit Runge–Kutta method (Butcher): k_i = v(t + nodes_i·dt, x + dt·Σ stages_ij·k_j), x += dt·Σ weights_i·k_i."""

    nodes: tuple[float, ...]
    stages: tuple[tuple[float, ...], ...]
    weights: tuple[float, ...]


#: torchdiffeq's methods of these names: what steps along the given times, and None if the method chooses its steps.
METHODS = {
    'euler': Tableau((0,), ((),), (1,)),
    'midpoint': Tableau((0, 1 / 2), ((), (1 / 2,)), (0, 1)),
    'heun2': Tableau((0, 1), ((), (1,)), (1 / 2, 1 / 2)),
    'heun3': Tableau((0, 1 / 3, 2 / 3), ((), (1 / 3,), (0, 2 / 3)), (1 / 4, 0, 3 / 4)),
    'rk4': Tableau((0, 1 / 3, 2 / 3, 1), ((), (1 / 3,), (-1 / 3, 1), (1, -1, 1)), (1 / 8, 3 / 8, 3 / 8, 1 / 8)),
    'adaptive_heun': None, 'bosh3': None, 'dopri5': None, 'dopri8': None,
}  # fmt: skip
#: How torchdiffeq's assertions begin where no step is short enough.
GIVES_UP = ('underflow in dt', 'non-finite values in state')


@MODELS.register_module()
class ODESampler(Sampler[FlowObjective]):
    """Integrates the velocity from noise to data.

    Methods on a time grid are torchdiffeq's, stepped here: torchdiffeq compares times on the device, and so waits for it in
    every step.

    Args:
        method: as torchdiffeq names it. On the time grid: 'euler' (one network call a step), 'midpoint', 'heun2' (two), 'heun3'
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
        self.fixed_steps = lookup(METHODS, method, 'ODE method') is not None
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
        if not self.fixed_steps:
            odeint()

    def times(self, objective: FlowObjective) -> Tensor:
        """The time grid, float64[num_steps]."""
        interval = flow.sample_interval(objective.path, objective.prediction)
        return flow.shift_times(torch.linspace(*interval, self.num_steps, dtype=torch.float64), self.timestep_shift)

    @torch.no_grad()
    def sample(
        self, denoise: Denoise, z: Tensor, objective: FlowObjective, step_noise: StepNoise, on_step: OnStep | None = None
    ) -> Tensor:
        if (tableau := METHODS[self.method]) is not None:
            return self._step_through(tableau, denoise, z, objective, on_step)
        grid = self.times(objective).to(z)
        field = VelocityField(denoise, objective, watch=True)
        settings = dict(atol=self.atol, rtol=self.rtol, method=self.method)
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

    def _step_through(
        self, tableau: Tableau, denoise: Denoise, x: Tensor, objective: FlowObjective, on_step: OnStep | None
    ) -> Tensor:
        """Step along the grid, whose times and lengths are numbers of the type of `x`."""
        grid = self.times(objective).to(x.dtype)
        steps = grid.diff()
        nodes = torch.stack([grid[:-1] + node * steps if node < 1 else grid[1:] for node in tableau.nodes], dim=1)
        velocity = velocity_at(denoise, objective)
        for n, (times, dt) in enumerate(zip(nodes.tolist(), steps.tolist(), strict=True)):
            slopes: list[Tensor] = []
            for time, stage in zip(times, tableau.stages, strict=True):
                slopes.append(velocity(x + _weighed(dt, stage, slopes) if slopes else x, time))
            x = x + _weighed(dt, tableau.weights, slopes)
            if on_step is not None:
                on_step(n, x)
        return x

    def _broken(self, z: Tensor, field: 'VelocityField', error: AssertionError) -> Tensor:
        """NaN for the samples that diverged, as a solver with fixed steps would end; their caller names them."""
        if field.finite is None or bool(field.finite.all()):
            raise ValueError(
                f"'{self.method}' found no step short enough for atol={self.atol}, rtol={self.rtol} ({error}): raise them, or "
                "use method='heun2'"
            ) from error
        return torch.where(field.finite.view(-1, 1, 1, 1), z, torch.nan)

    @property
    def num_updates(self) -> int | None:
        return self.num_steps - 1 if self.fixed_steps else None

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


def velocity_at(denoise: Denoise, objective: FlowObjective) -> Callable[[Tensor, float], Tensor]:
    """(x, time) -> velocity, for a time that is a number."""

    def velocity(x: Tensor, time: float) -> Tensor:
        out = denoise_at(denoise, x, time).float()
        if objective.prediction == 'velocity':
            return out
        return flow.velocity(objective.coefficients(torch.tensor(time, dtype=torch.float64)), objective.prediction)(x, out)

    return velocity


def _weighed(dt: float, weights: tuple[float, ...], slopes: list[Tensor]) -> Tensor:
    """dt·Σ weight·slope."""
    first, *others = [(dt * weight) * slope for weight, slope in zip(weights, slopes, strict=True) if weight]
    return sum(others, first)


def odeint() -> Callable[..., Any]:
    """torchdiffeq's."""
    try:
        with torch.device('cpu'):  # its coefficients are tensors, made on import: a model may be built on meta then
            from torchdiffeq import odeint as solve
    except ImportError as error:
        raise ImportError("ODESampler needs torchdiffeq: install it with `pip install 'usp-mm[gen]'`") from error
    return solve
