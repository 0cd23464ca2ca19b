"""Deterministic sampling of flows: the probability-flow ODE, on a time grid or with torchdiffeq's adaptive solvers."""

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


#: torchdiffeq's methods by name: the tableau of those that step along a time grid, None for adaptive ones. A pipeline folder of
#: diffusers needs a copy of its own: `usp_mm/checkpoints/diffusers_sit/pipeline.py`.
METHODS = {
    'euler': Tableau((0,), ((),), (1,)),
    'midpoint': Tableau((0, 1 / 2), ((), (1 / 2,)), (0, 1)),
    'heun2': Tableau((0, 1), ((), (1,)), (1 / 2, 1 / 2)),
    'heun3': Tableau((0, 1 / 3, 2 / 3), ((), (1 / 3,), (0, 2 / 3)), (1 / 4, 0, 3 / 4)),
    'rk4': Tableau((0, 1 / 3, 2 / 3, 1), ((), (1 / 3,), (-1 / 3, 1), (1, -1, 1)), (1 / 8, 3 / 8, 3 / 8, 1 / 8)),
    'adaptive_heun': None, 'bosh3': None, 'dopri5': None, 'dopri8': None,
}  # fmt: skip
#: Beginnings of the assertions with which torchdiffeq reports that no step is short enough.
GIVES_UP = ('underflow in dt', 'non-finite values in state')


@MODELS.register_module()
class ODESampler(Sampler[FlowObjective]):
    """Integrates the velocity from noise to data.

    Methods on a time grid are those of torchdiffeq but implemented here, because torchdiffeq compares times on the device and
    so waits for it in every step.

    Args:
        method: torchdiffeq's name of the method. On the time grid: 'euler' (one network call per step), 'midpoint', 'heun2'
            (two), 'heun3' (three), 'rk4' (four). Adaptive: 'adaptive_heun', 'bosh3', 'dopri5', 'dopri8'. Adaptive methods
            choose step lengths for the whole batch, so that a sample depends on the others within the tolerances.
        num_steps: Number of points of the time grid, as in SiT; there are num_steps - 1 steps. Adaptive methods choose their
            steps themselves and call `on_step` at these points.
        atol, rtol: Absolute and relative tolerance of adaptive methods.
        timestep_shift: The factor s of `usp_mm.functional.flow.shift_times`. Below 1, steps near noise are smaller
            (LightningDiT: 0.3). 1 keeps the grid even.

    Raises:
        ValueError: The method is unknown, or a number is out of range.
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
            # `step_t` makes a step end at the last time; otherwise the method would evaluate beyond it, outside of the path
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
        """Step along the time grid, with times and step lengths rounded to the dtype of `x`."""
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
        """Set samples that diverged to NaN, as a solver with fixed steps would end; the caller reports them."""
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
    """The velocity as a function (t, x) with a 0-d tensor t, as torchdiffeq calls it.

    Attributes:
        finite: bool[N], set with `watch`: which samples had finite velocities in the first call in which some had not, or in
            the latest call if all had.
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
            # keep the result of the first call that fails: the solver then spoils the states of all samples
            self.finite = finite if self.finite is None else torch.where(self.finite.all(), finite, self.finite)
        return out


def velocity_at(denoise: Denoise, objective: FlowObjective) -> Callable[[Tensor, float], Tensor]:
    """The velocity as a function (x, time) for a time that is a Python number."""

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
    """The function `odeint` of torchdiffeq; ImportError if it is not installed."""
    try:
        with torch.device('cpu'):  # torchdiffeq makes tensors on import, perhaps while a model is built on meta
            from torchdiffeq import odeint as solve
    except ImportError as error:
        raise ImportError("ODESampler needs torchdiffeq: `pip install '.[gen]'` in the checkout of usp_mm") from error
    return solve
