"""Which state should an Adam flow carry: v, √v or ln v? A work-precision figure.

The same equation (EQUATIONS §1: order 1, `log` rates) in three coordinates,

    v' = b (g² - v)        w = √v:  w' = b (g² - w²)/(2w)        l = ln v:  l' = b (g² e^{-l} - 1)

each as it stands: with a guard, w' = 0 at w = 0, √v would hold a dead coordinate, but one that
never wakes. Beside them two ways to make v itself cheaper where b1 ≥ b2: an exponential treatment
of both memories (M = e^{as} m, V = e^{bs} v: M' = a e^{as} g, an integrating factor for what is
linear), and v with solver steps never below a part of an optimizer step, errors or not. Solved by
`ct.solve` with its own settings (Tsit5, PI controller, max norm).

The error scales ask the same of u ∝ 1/√v from each: a relative error rtol of v is one of rtol/2
of w and an absolute one of rtol of l. References are NumPy's and SciPy's, not diffrax's.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from jaxtyping import Array, Shaped

import ct_adam as ct
from ct_adam.decays import rate
from ct_adam.flows.base import AbstractFlow, parameter_scale
from ct_adam.problems import AbstractProblem, GradientStream, quadratic, random_stream
from ct_adam.simulate import OUTCOME, Trajectory
from ct_adam.simulate.controllers import ErrorScale
from ct_adam.sweep.provenance import provenance

from . import Progress

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TARGET = 1e-6  # the error at which evaluations are compared
ALLOWED = {"update": 1.4, "params": 2.5}
"""How many times the better rival's evaluations v may take there, for u and for θ.

Set after a look around: 8 second-moment decays from 0.5 to 0.999 × 3 lengths of the quadratic, 12
seeds of the random stream, 7 decays and 7 lengths of the gap gave 0.68 to 1.29 for u and 0.91 to
1.89 for θ (2.01 with the four tolerances of smoke; two quadratics of 400 steps, b2 = 0.82 and 0.9,
reach the target in u with no state within the budget of quick). The largest for θ are gaps of 30
steps and more with b2 ≤ 0.7. Where the gradient returns, u falls by orders of magnitude within 1e-9
of a step; v is linear there and feels nothing, and in θ the first stage's weight makes an error 54
times that which Tsit5 estimates. √v and ln v must resolve the return, and so resolve u.
"""
EXPECTED = (
    "v itself is the state to take: unlike √v and ln v it can start at v = 0 and outlive a long "
    f"gap of zero gradients, and an error of {TARGET:g} costs at most {ALLOWED['update']:g} times "
    f"(in u) or {ALLOWED['params']:g} times (in θ) the evaluations of the better of them. "
    "Exponential memories win where gradients are 0 for long, and lose on a loss; a floor under "
    "the solver's steps saves nothing on a loss, and on streams misses the error in θ."
)
STATES = ("v", "sqrt_v", "ln_v", "exponential", "floor")
RIVALS = ("sqrt_v", "ln_v")
FLOOR = 1 / 16
"""Of the last state: shortest solver step, in optimizer steps."""
LEARNING_RATE, B1, B2, EPS = 1e-2, 0.9, 0.999, 1e-8
STIFF_B2 = 0.6  # below b1²: outside of the stable region, where v forgets within two steps
START = (1.0, -1.0, 0.5, 2.0)


@dataclass(frozen=True)
class Config:
    """How finely to measure."""

    points: int = 15
    """tolerances from 1e-3 to 1e-10, evenly in their logarithm"""
    quadratic_steps: int = 200
    stream_steps: int = 100
    gap: int = 50
    """steps without a gradient, of the panel"""
    long_gap: int = 80
    """and of the trial that √v and ln v do not survive"""
    budget: int = 20_000
    """most solver steps a run"""
    seed: int = 0


SIZES = {
    "smoke": Config(points=4, quadratic_steps=100),
    "quick": Config(),
    # Not longer: near its minimum the flow of the stiff corner oscillates ever faster (v falls with
    # the gradient) and errors add up: at rtol 1e-10 to 1e-8 of u by step 400, to 6e-6 by step 1000.
    "full": Config(points=57, quadratic_steps=300, stream_steps=300, budget=200_000),
}


class Formulation(NamedTuple):
    """One coordinate x of the second moment."""

    encode: Callable[[Array], Array]  # v -> x
    root: Callable[[Array], Array]  # x -> √v
    rate: Callable[[Array, Array, Array], Array]  # x, g², b -> x'
    scale: Callable[[Array, Array], Array]  # x, rtol -> the error that x may have


FORMULATIONS = (
    Formulation(
        encode=lambda v: v,
        root=lambda v: jnp.sqrt(jnp.maximum(v, 0)),
        rate=lambda v, squared, b: b * (squared - v),
        scale=lambda v, rtol: rtol * jnp.abs(v),
    ),
    Formulation(
        encode=jnp.sqrt,
        root=jnp.abs,  # a w that slips below 0 stands for the same v = w²
        rate=lambda w, squared, b: b * (squared - w**2) / (2 * w),
        scale=lambda w, rtol: rtol / 2 * jnp.abs(w),
    ),
    Formulation(
        encode=jnp.log,
        root=lambda log_v: jnp.exp(log_v / 2),
        rate=lambda log_v, squared, b: b * (squared * jnp.exp(-log_v) - 1),
        scale=lambda log_v, rtol: jnp.full_like(log_v, rtol),
    ),
)


class MomentState(NamedTuple):
    """Parameters, first moment, and the second moment's coordinate x; with exponential memories
    e^{as} m and e^{bs} v. The clock s is there for their error scale."""

    params: Array
    m: Array
    x: Array
    clock: Array


class MomentFlow(AbstractFlow):
    """Adam's flow of order 1 with `log` rates, its second moment in the coordinate `index`.

    `index` is data and `seen` (gradients that the moments have seen at step 0: 1 is the start
    `"first_step"`, 0 is `"zero"`) too: one compiled program serves all.
    """

    b1: Array
    b2: Array
    index: Array
    seen: Array
    exponential: Array

    @property
    def evaluations(self) -> int:
        return 1

    @property
    def lag(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return 0

    @property
    def optimizer(self) -> ct.optimizers.Optimizer:
        return ct.k_adam(LEARNING_RATE, self.b1, self.b2, EPS)

    def init(self, loss: Any, params: Array) -> MomentState:
        g = loss.gradient(0, params)
        v = (1 - self.b2**self.seen) * g**2
        m, clock = (1 - self.b1**self.seen) * g, jnp.zeros(())
        return MomentState(params, m, self._chosen("encode", v), clock)

    def from_optimizer(self, loss: Any, params: Any, optimizer_state: Any, step: Any) -> Any:
        raise NotImplementedError("This flow starts at step 0.")

    def vector_field(self, step: Any, state: MomentState, loss: Any) -> MomentState:
        g = loss.gradient(loss.seen(step), state.params)
        m, x = self._memories(step, state)
        a, b = rate(self.b1), rate(self.b2)
        grown_m, grown_x = self._growth(step)
        return MomentState(
            -LEARNING_RATE * self.update(step, state, loss),
            grown_m * (a * (g - m) + self.exponential * a * m),
            grown_x * (self._chosen("rate", x, g**2, b) + self.exponential * b * x),
            jnp.ones(()),
        )

    def _growth(self, step: Any) -> tuple[Array, Array]:
        """e^{as} and e^{bs}, or 1."""
        return tuple(jnp.exp(self.exponential * rate(b) * step) for b in (self.b1, self.b2))  # pyright: ignore[reportReturnType]

    def _memories(self, step: Any, state: MomentState) -> tuple[Array, Array]:
        grown_m, grown_x = self._growth(step)
        return state.m / grown_m, state.x / grown_x

    def params(self, state: MomentState) -> Array:
        return state.params

    def update(self, step: Any, state: MomentState, loss: Any) -> Array:
        g = loss.gradient(loss.seen(step), state.params)
        m, x = self._memories(step, state)
        m_hat = self._corrected(m, self._bias_factor(self.b1, step), g)
        root = self._chosen("root", x)
        return m_hat / (
            self._corrected(root, jnp.sqrt(self._bias_factor(self.b2, step)), jnp.abs(g)) + EPS
        )

    def error_scale(self, state: MomentState, rtol: Any, atol: Any) -> MomentState:
        tiny = jnp.finfo(state.m.dtype).tiny
        m, x = self._memories(state.clock, state)
        grown_m, grown_x = self._growth(state.clock)
        size = jnp.maximum(jnp.abs(m), self._chosen("root", x))
        return MomentState(
            parameter_scale(state.params, rtol, atol),
            grown_m * jnp.maximum(rtol * size, tiny),
            grown_x * jnp.maximum(self._chosen("scale", x, jnp.asarray(rtol)), tiny),
            jnp.ones(()),
        )

    def _bias_factor(self, b: Array, step: Any) -> Array:
        return 1 - b**self.seen * jnp.exp(-rate(b) * step)

    def _corrected(self, moment: Array, factor: Array, limit: Array) -> Array:
        """moment/factor, or its limit where both are 0 (start `"zero"`)."""
        begun = factor > 0
        return jnp.where(begun, moment / jnp.where(begun, factor, 1), limit)

    def _chosen(self, what: str, *arguments: Array) -> Array:
        branches = [getattr(formulation, what) for formulation in FORMULATIONS]
        return jax.lax.switch(self.index.astype(int), branches, *arguments)


@dataclass(frozen=True)
class Panel:
    """One problem, and what is said of it in the figure."""

    title: str
    problem: AbstractProblem
    steps: int
    b2: float = B2
    seen: float = 1.0

    def solve(self, state: str, rtol: float, budget: int) -> Trajectory:
        decays = (jnp.asarray(B1), jnp.asarray(self.b2))
        index = STATES.index(state) if state in STATES[:3] else 0
        exponential = jnp.asarray(float(state == "exponential"))
        flow = MomentFlow(*decays, jnp.asarray(index), jnp.asarray(self.seen), exponential)
        return ct.solve(
            flow,
            self.problem,
            jnp.asarray(START),
            self.steps,
            controller=self._floored(flow, rtol) if state == "floor" else None,
            rtol=rtol,
            atol=1e-3 * rtol,  # the ratio of solve's own defaults
            max_solver_steps=budget,
            throw=False,
        )

    def _floored(self, flow: MomentFlow, rtol: float) -> ErrorScale:
        pid = diffrax.PIDController(
            rtol=0, atol=1, dtmin=FLOOR, force_dtmin=True, norm=optx.max_norm
        )
        return ErrorScale(pid, flow.error_scale, jnp.asarray(rtol), jnp.asarray(1e-3 * rtol))


def panels(config: Config) -> dict[str, Panel]:
    """The problems of the figure."""
    bowl, steps = quadratic([1.0, 3.0, 10.0, 30.0]), config.stream_steps
    noise = random_stream(steps + 1, len(START), config.seed)
    return {
        "quadratic": Panel("quadratic, h = 1, 3, 10, 30", bowl, config.quadratic_steps),
        "stiff": Panel("same, stiff corner", bowl, config.quadratic_steps, STIFF_B2),
        "random": Panel("random stream", noise, steps),
        "gap": Panel(
            f"g = 1, 0 for {config.gap} steps, 1", _gap_stream(config.gap, steps), steps, STIFF_B2
        ),
    }


def trials(config: Config) -> dict[str, Panel]:
    """The problems that a formulation either survives or does not."""
    dead, steps = quadratic([1.0, 3.0, 10.0, 0.0]), config.stream_steps
    bowl = quadratic([1.0, 3.0, 10.0, 30.0])
    long_gap = _gap_stream(config.long_gap, steps)
    return {
        "dead": Panel("dead coordinate", dead, config.quadratic_steps),
        "zero": Panel("start zero: v(0) = 0", bowl, config.quadratic_steps, seen=0.0),
        "long_gap": Panel(
            f"g = 0 for {config.long_gap} steps, b2 = {STIFF_B2}", long_gap, steps, STIFF_B2
        ),
    }


def _gap_stream(gap: int, steps: int, before: int = 10) -> GradientStream:
    gradients = np.ones((steps + 1, len(START)))
    gradients[before : before + gap] = 0
    return GradientStream(gradients)


def run(config: Config, progress: Progress) -> "xarray.Dataset":
    """Errors and evaluations over (problem, state, rtol), outcomes over (trial, state)."""
    begun = time.perf_counter()
    rtols = np.logspace(-3, -10, config.points)
    tried = trials(config)
    total = (len(panels(config)) * len(rtols) + len(tried)) * len(STATES)
    done, measured = 0, []
    for name, panel in panels(config).items():
        expected = reference(panel)
        for state in STATES:
            for rtol in rtols:
                trajectory = panel.solve(state, float(rtol), config.budget)
                measured.append(_row(trajectory, expected))
                done += 1
                progress(name, done, total)
    outcomes = []
    for name, panel in tried.items():
        for state in STATES:
            outcomes.append(_ending(panel.solve(state, 1e-6, config.budget)))
            done += 1
            progress(name, done, total)
    dataset = _labelled(config, rtols, np.array(measured), np.array(outcomes))
    dataset.attrs = provenance(config, time.perf_counter() - begun)
    return dataset


def _row(trajectory: Trajectory, expected: tuple[np.ndarray, np.ndarray]) -> list[float]:
    """Error of u, error of θ, evaluations, success: over the steps that the run reached."""
    params, update = (np.asarray(x) for x in (trajectory.params, trajectory.update))
    reached = np.isfinite(params).all(1) & np.isfinite(update).all(1)
    if not reached.any():
        return [np.nan, np.nan, float(trajectory.stats["evaluations"]), 0.0]
    exact_params, exact_update = expected
    update_error = np.abs(update - exact_update) / np.maximum(1, np.abs(exact_update))
    distance = np.abs(exact_params - exact_params[0]).max()
    return [
        update_error[reached].max(),
        np.abs(params - exact_params)[reached].max() / distance,
        float(trajectory.stats["evaluations"]),
        float(_succeeded(trajectory)),
    ]


def _ending(trajectory: Trajectory) -> list[float]:
    """Success, and the last step that was reached (-1 for none)."""
    reached = np.isfinite(np.asarray(trajectory.params)).all(1)
    reached &= np.isfinite(np.asarray(trajectory.update)).all(1)
    return [float(_succeeded(trajectory)), float(np.flatnonzero(reached).max(initial=-1))]


def _succeeded(trajectory: Trajectory) -> bool:
    return bool(trajectory.result == OUTCOME.successful)


def _labelled(
    config: Config, rtols: np.ndarray, measured: np.ndarray, outcomes: np.ndarray
) -> "xarray.Dataset":
    import xarray

    problems, tried = panels(config), trials(config)
    grid, trial = ("problem", "state", "rtol"), ("trial", "state")
    columns = measured.reshape(len(problems), len(STATES), len(rtols), -1)
    endings = outcomes.reshape(len(tried), len(STATES), -1)

    def about(name: str) -> dict[str, str]:
        return {"long_name": name, "units": "1"}

    return xarray.Dataset(
        {
            "update_error": (grid, columns[..., 0], about("max |Δu| / max(1, |u|)")),
            "params_error": (grid, columns[..., 1], about("max |Δθ| / distance travelled")),
            "evaluations": (grid, columns[..., 2].astype(int), about("gradient evaluations")),
            "successful": (grid, columns[..., 3] > 0, about("run reached its last step")),
            "survived": (trial, endings[..., 0] > 0, about("run reached its last step")),
            "last_step": (trial, endings[..., 1].astype(int), about("last step reached, or -1")),
        },
        coords={
            "problem": list(problems),
            "title": ("problem", [panel.title for panel in problems.values()]),
            "b2": ("problem", [panel.b2 for panel in problems.values()]),
            "state": list(STATES),
            "rtol": ("rtol", rtols, about("relative tolerance")),
            "trial": list(tried),
            "trial_title": ("trial", [panel.title for panel in tried.values()]),
        },
    )


def reference(panel: Panel) -> tuple[np.ndarray, np.ndarray]:
    """θ and u at every whole step, each (steps + 1, 4), by neither JAX nor diffrax."""
    if isinstance(panel.problem, GradientStream):
        return _stream_reference(np.asarray(panel.problem.gradients), panel.steps, panel.b2)
    return _smooth_reference(panel)


def _stream_reference(
    gradients: np.ndarray, steps: int, b2: float
) -> tuple[np.ndarray, np.ndarray]:
    """The moments relax exponentially towards a held gradient; θ is the quadrature of u."""
    m = np.empty_like(gradients)
    v = np.empty_like(gradients)
    m[0], v[0] = (1 - B1) * gradients[0], (1 - b2) * gradients[0] ** 2
    for n in range(1, len(m)):
        m[n] = B1 * m[n - 1] + (1 - B1) * gradients[n]
        v[n] = b2 * v[n - 1] + (1 - b2) * gradients[n] ** 2

    def update(s: Any, n: Any, m0: np.ndarray, v0: np.ndarray, g: np.ndarray) -> np.ndarray:
        """u at n + s, s in [0, 1], from the moments at n."""
        m_now = g + (m0 - g) * B1**s
        # expm1: 1 - b2^s by subtraction loses the start of a return after a gap.
        v_now = v0 * b2**s - g**2 * np.expm1(s * np.log(b2))
        root = np.sqrt(v_now / (1 - b2 ** (n + 1 + s)))
        return m_now / (1 - B1 ** (n + 1 + s)) / (root + EPS)

    n = np.arange(steps)[:, None]
    integral = np.zeros((steps, gradients.shape[1]))
    for s, weight in _graded_quadrature():
        integral += weight * update(s, n, m[:steps], v[:steps], gradients[1 : steps + 1])
    path = np.array(START) - LEARNING_RATE * np.cumsum(integral, axis=0)
    whole = np.arange(steps + 1)[:, None]
    u = update(0.0, whole, m[: steps + 1], v[: steps + 1], gradients[: steps + 1])
    return np.concatenate([[START], path]), u


def _graded_quadrature() -> list[tuple[float, float]]:
    """Nodes and weights on [0, 1], Gauss-Legendre on intervals that double in length: where a
    gradient returns after a gap, u changes within 1e-11 of a step, and then ever slower."""
    edges = np.append(0, 2.0 ** np.arange(-60, 1))
    nodes, weights = np.polynomial.legendre.leggauss(12)
    half = np.diff(edges)[:, None] / 2
    points = edges[:-1, None] + half * (1 + nodes)
    return list(zip(points.ravel(), (half * weights).ravel(), strict=True))


def _smooth_reference(panel: Panel) -> tuple[np.ndarray, np.ndarray]:
    """SciPy's DOP853 at a relative tolerance of 1e-13, restarted at every whole step so that
    nothing is interpolated."""
    from scipy.integrate import solve_ivp

    a, b, size = -np.log(B1), -np.log(panel.b2), len(START)
    gradient = panel.problem.gradient
    slope = np.asarray(gradient(0, jnp.ones(size)))  # a diagonal quadratic around 0: h itself

    def update(s: float, m: np.ndarray, v: np.ndarray) -> np.ndarray:
        root = np.sqrt(v / (1 - panel.b2 * np.exp(-b * s)))
        return m / (1 - B1 * np.exp(-a * s)) / (root + EPS)

    def field(s: float, y: np.ndarray) -> np.ndarray:
        theta, m, v = y.reshape(3, size)
        g = slope * theta
        return np.concatenate([-LEARNING_RATE * update(s, m, v), a * (g - m), b * (g**2 - v)])

    g = slope * np.array(START)
    states = [np.concatenate([START, (1 - B1) * g, (1 - panel.b2) * g**2])]
    atol = np.repeat([1e-16, 1e-17, 1e-300], size)
    for n in range(panel.steps):
        step = solve_ivp(field, (n, n + 1), states[-1], "DOP853", rtol=1e-13, atol=atol)
        states.append(step.y[:, -1])
    theta, m, v = np.array(states).reshape(-1, 3, size).swapaxes(0, 1)
    return theta, update(np.arange(panel.steps + 1)[:, None], m, v)  # pyright: ignore[reportArgumentType]


def evaluations_at(
    target: float, errors: Shaped[np.ndarray, " n"], evaluations: Shaped[np.ndarray, " n"]
) -> float:
    """Evaluations at which the error falls below `target` for good, interpolated between two
    tolerances in logarithms; those of the loosest where it is below from the start; or NaN."""
    above = np.flatnonzero(~(errors <= target))
    last = above.max(initial=-1)
    if last == len(errors) - 1:
        return float("nan")
    if last < 0:
        return float(evaluations[0])
    # An error of exactly 0 would have no logarithm.
    high, low = np.log(np.maximum(errors[last : last + 2], 1e-300))
    share = (high - np.log(target)) / (high - low)
    begin, end = np.log(evaluations[last : last + 2])
    return float(np.exp(begin + share * (end - begin)))


def numbers(dataset: "xarray.Dataset") -> dict[str, Any]:
    """Evaluations to an error of `TARGET`, a state, of u and of θ; and who survived what."""
    found: dict[str, Any] = {}
    for what in ALLOWED:
        table = {str(name): _to_target(dataset, str(name), what) for name in dataset.problem.values}
        found[f"evaluations to an error of {TARGET:g} in {what}"] = table
    found["reached the last step"] = {
        str(trial): {
            str(state): _verdict(dataset.sel(trial=trial, state=state))
            for state in dataset.state.values
        }
        for trial in dataset.trial.values
    }
    return found


def _to_target(dataset: "xarray.Dataset", problem: str, what: str) -> dict[str, float]:
    """Evaluations a state, and those of v over those of its better rival."""
    row = dataset.sel(problem=problem)
    used = {}
    for state in STATES:
        # A run cut short says nothing of the error at the end, nor of the work that it takes.
        whole = row.sel(state=state).isel(rtol=row.successful.sel(state=state).values)
        used[state] = evaluations_at(
            TARGET, whole[f"{what}_error"].values, whole.evaluations.values
        )
    rival = np.nanmin([np.inf, *(used[state] for state in RIVALS)])
    return {
        **{k: round(x, 1) for k, x in used.items()},
        "v over better of sqrt_v, ln_v": used["v"] / rival,
    }


def _verdict(ending: "xarray.Dataset") -> str:
    if ending.survived:
        return "solved"
    step = int(ending.last_step)
    return "cannot start" if step <= 0 else f"stalls after step {step}"


def check(dataset: "xarray.Dataset") -> list[str]:
    missing = []
    for name in map(str, dataset.problem.values):
        for what, most in ALLOWED.items():
            ratio = _to_target(dataset, name, what)["v over better of sqrt_v, ln_v"]
            if not ratio <= most:
                missing.append(
                    f"{name}, {what}: v takes {ratio:.3g} times its better rival's work."
                )
        # Three formulations of one equation must meet at one answer, the reference's.
        worst = float(dataset.update_error.sel(problem=name).isel(rtol=-1).max(skipna=False))
        if not worst <= 1e-8:
            missing.append(f"{name}: at the tightest tolerance an error of {worst:.1e} remains.")
    for name in map(str, dataset.trial.values):
        survivors = [s for s in STATES if dataset.survived.sel(trial=name, state=s)]
        if "v" not in survivors or set(survivors) & set(RIVALS):
            missing.append(f"{name}: survived by {', '.join(survivors) or 'none'}.")
    if "quadratic" in dataset.problem.values:
        used = _to_target(dataset, "quadratic", "update")
        if not used["exponential"] > used["v"]:
            missing.append("quadratic: exponential memories take less work than v.")
        if not used["floor"] > 0.8 * used["v"]:
            missing.append("quadratic: a floor under the solver's steps saves a fifth.")
    return missing


_LABELS = {
    "v": "v", "sqrt_v": "√v", "ln_v": "ln v", "exponential": "v, exponential memories",
    "floor": f"v, solver steps ≥ 1/{1 / FLOOR:.0f}",
}  # fmt: skip
_LOOKS = {
    "v": ("blue", "o"), "sqrt_v": ("vermilion", "^"), "ln_v": ("green", "s"),
    "exponential": ("purple", "D"), "floor": ("orange", "v"),
}  # fmt: skip
_ROWS = {
    "update": "error of update u\nmax |Δu| / max(1, |u|)",
    "params": "error of parameters θ\nmax |Δθ| / distance travelled",
}


def plot(dataset: "xarray.Dataset") -> "Figure":
    """A column a problem; above the error of u, below that of θ; endings in the legend."""
    import matplotlib.pyplot as plt

    from ct_adam.plotting import PAGE, style

    with style():
        count = dataset.sizes["problem"]
        figure, axes = plt.subplots(
            2, count, figsize=(PAGE, 4.1), sharex="col", sharey="row", squeeze=False
        )
        for column, name in enumerate(dataset.problem.values):
            row = dataset.sel(problem=name)
            for axis, what in zip(axes[:, column], _ROWS, strict=True):
                _work_precision(axis, row, what)
                _ratio(axis, _to_target(dataset, name, what)["v over better of sqrt_v, ln_v"])
            title = f"({'abcdefgh'[column]}) {row.title.item()}\nb1 = {B1}, b2 = {row.b2.item()}"
            axes[0, column].set_title(title, fontsize=7)
            axes[1, column].set_xlabel("gradient evaluations", fontsize=7)
        for axis, label in zip(axes[:, 0], _ROWS.values(), strict=True):
            axis.set_ylabel(label, fontsize=7)
            axis.set_ylim(top=3)  # room for the words above the lines
        _endings(figure, dataset)
    return figure


def _work_precision(axis: "Axes", row: "xarray.Dataset", what: str) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    from ct_adam.plotting import OKABE_ITO

    axis.set(xscale="log", yscale="log")
    # Powers of ten alone would leave some panels with a single label.
    axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.0f}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.yaxis.set_major_locator(LogLocator(base=100, numticks=12))  # the target is among them
    axis.axhline(TARGET, color="0.7", lw=0.6, zorder=0)
    for state in STATES:
        line = row.sel(state=state)
        colour, marker = OKABE_ITO[_LOOKS[state][0]], _LOOKS[state][1]
        work, left = line.evaluations.values, line[f"{what}_error"].values
        axis.plot(work, left, color=colour, lw=0.9)
        # Open where the run did not reach its end: the error is that of the part it did.
        for mask, face in ((line.successful.values, colour), (~line.successful.values, "white")):
            axis.plot(work[mask], left[mask], marker, ms=3, mfc=face, mec=colour, mew=0.7)


def _ratio(axis: "Axes", ratio: float) -> None:
    text = f"evaluations at $10^{{-6}}$:\nv / better of √v, ln v = {ratio:.2f}"
    axis.text(0.98, 0.98, text, transform=axis.transAxes, ha="right", va="top", fontsize=6.5)


def _endings(figure: "Figure", dataset: "xarray.Dataset") -> None:
    """The legend as a table: a row a state, and how each trial ended."""
    from matplotlib.lines import Line2D

    from ct_adam.plotting import OKABE_ITO

    def blank(label: str) -> Line2D:
        return Line2D([], [], color="none", label=label)

    first, last = np.log10(dataset.rtol.values[[0, -1]])
    handles = [blank(f"state (rtol $10^{{{first:.0f}}}$ … $10^{{{last:.0f}}}$)")]
    for state in STATES:
        colour, marker = _LOOKS[state]
        look = {"color": OKABE_ITO[colour], "marker": marker, "ms": 4, "lw": 0.9}
        handles.append(Line2D([], [], label=_LABELS[state], **look))
    for trial in dataset.trial.values:
        handles.append(blank(dataset.trial_title.sel(trial=trial).item()))
        handles += [blank(_verdict(dataset.sel(trial=trial, state=state))) for state in STATES]
    columns = 1 + dataset.sizes["trial"]
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, columnspacing=1)
