"""Who takes a step of AdamW or k-Adam: optax and ours, PyTorch and our twin, a bare copy."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import ct_adam as ct
from ct_adam.ensemble.cores import cpus

from .race import need, release
from .timing import seconds

LEAVES = 8
B1, B2 = (0.9, 0.7, 0.5), (0.999, 0.99, 0.95)
SHARED: dict[str, Any] = {"eps": 1e-8, "weight_decay": 0.01}
LR = 1e-3
WARM_STEPS = 3
SAMPLE = 1000  # parameters of which NumPy checks the first steps
CLOSE = 2e-6  # roundings of θ, which is below 5, in float32; a wrong step is off by LR


class Step(NamedTuple):
    """Who steps: `run` takes a step and waits for it, `sample` is θ's first numbers."""

    run: Callable[[], Any]
    sample: Callable[[], np.ndarray]
    k: int
    less: str = ""  # who does the same with a stage less
    settle: Callable[[], str] = str  # chooses how to run, and says what it chose


class Data(NamedTuple):
    """Parameters and gradients, leaf by leaf."""

    params: list[np.ndarray]
    grads: list[np.ndarray]


def data(size: int) -> Data:
    """The first numbers are the same whatever the size."""
    shape = (LEAVES, max(size // LEAVES, SAMPLE))
    draws = (np.random.default_rng(i).standard_normal(shape, dtype=np.float32) for i in (0, 1))
    return Data(*map(list, draws))


Maker = Callable[[Data], Step]
ADAMW, OURS = "optax.adamw", "k_adam, k = 1"
FUSED, FOREACH = "AdamW(fused=True)", "AdamW(foreach=True)"


def by_jax() -> dict[str, Maker]:
    """optax and ours."""
    made: dict[str, Maker] = {
        ADAMW: partial(jax_step, optax.adamw(LR, B1[0], B2[0], **SHARED), 1, "")
    }
    for k in range(1, len(B1) + 1):
        ours = ct.k_adam(LR, B1[:k], B2[:k], **SHARED)
        less = f"k_adam, k = {k - 1}" if k > 1 else ""
        made[f"k_adam, k = {k}"] = partial(jax_step, ours, k, less)
    return made


def by_torch() -> dict[str, Maker]:
    """PyTorch's own and our twin, as it is and compiled."""
    made: dict[str, Maker] = {
        name: partial(torch_step, None, 1, "", **{kind: True})
        for name, kind in ((FUSED, "fused"), (FOREACH, "foreach"))
    }
    for kind, options in {"foreach=True": {"foreach": True}, "compiled": {}}.items():
        for k in (1, 2):
            less = f"KAdam({kind}), k = {k - 1}" if k > 1 else ""
            made[f"KAdam({kind}), k = {k}"] = partial(torch_step, kind, k, less, **options)
    return made


def copy_step(work: Data) -> Step:
    """One pass over as many numbers, read and written in place."""
    pass_over = jax.jit(lambda xs: [-x for x in xs], donate_argnums=0)
    held = [jnp.array(x) for x in work.params]

    def run() -> None:
        nonlocal held
        held = jax.block_until_ready(pass_over(held))

    return Step(run, lambda: np.zeros(0), 0)


def jax_step(optimizer: optax.GradientTransformation, k: int, less: str, work: Data) -> Step:
    """`update` and `apply_updates` in one jitted function that owns its buffers."""

    def step(params: Any, state: Any, grads: Any) -> Any:
        delta, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, delta), state

    compiled = jax.jit(step, donate_argnums=(0, 1))
    held: Any = [jnp.array(x) for x in work.params]
    state, grads = optimizer.init(held), [jnp.array(x) for x in work.grads]

    def run() -> None:
        nonlocal held, state
        held, state = jax.block_until_ready(compiled(held, state, grads))

    return Step(run, lambda: np.asarray(held[0][:SAMPLE]), k, less)


def torch_step(kind: str | None, k: int, less: str, work: Data, **options: Any) -> Step:
    """`torch.optim.AdamW` for no `kind`, else our twin."""
    torch = need("torch")
    params = [torch.tensor(x, requires_grad=True) for x in work.params]
    for p, g in zip(params, work.grads, strict=True):
        p.grad = torch.from_numpy(g)  # shared: nobody writes to gradients
    if kind is None:
        optimizer = torch.optim.AdamW(params, LR, (B1[0], B2[0]), **SHARED, **options)
    else:
        from ct_adam.torch import KAdam

        lr, options = (LR, options) if options else (torch.tensor(LR), {"capturable": True})
        optimizer = KAdam(params, lr, B1[:k], B2[:k], **SHARED, **options)
    torch.compiler.reset()  # else races of other sizes count against its limit of compilations
    step = torch.compile(optimizer.step) if kind == "compiled" else optimizer.step
    threads = cpus()

    def run() -> None:
        torch.set_num_threads(threads)
        step()

    def settle() -> str:
        """Threads that wait for each other lose where cores are shared."""
        nonlocal threads
        spent = {}
        for threads in {cpus(), 1}:
            run()
            spent[threads] = min(seconds(run) for _ in range(3))
        threads = min(spent, key=spent.__getitem__)
        return f"{release('torch')}, {threads} threads"

    return Step(run, lambda: params[0].detach().numpy()[:SAMPLE], k, less, settle)


def checked(one: Step, work: Data) -> Step:
    """Steps a few times, which compiles, and compares with NumPy."""
    for _ in range(WARM_STEPS):
        one.run()
    if one.k and not np.max(np.abs(one.sample() - by_numpy(one.k, work))) < CLOSE:
        raise ValueError("WRONG: its first steps are not those of NumPy")
    return one


def by_numpy(k: int, work: Data) -> np.ndarray:
    """EQUATIONS §4 in float64, of the first parameters."""
    theta, g = (part[0][:SAMPLE].astype(float) for part in work)
    m, v = np.zeros((2, k, SAMPLE))
    for n in range(1, WARM_STEPS + 1):
        u = g
        for i in range(k):
            m[i] = B1[i] * m[i] + (1 - B1[i]) * u
            v[i] = B2[i] * v[i] + (1 - B2[i]) * u**2
            u = m[i] / (1 - B1[i] ** n) / (np.sqrt(v[i] / (1 - B2[i] ** n)) + SHARED["eps"])
        theta = theta - LR * (u + SHARED["weight_decay"] * theta)
    return theta
