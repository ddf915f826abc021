"""A step of k-Adam beside `optax.adamw`, PyTorch's AdamW, and what memory allows."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import ct_adam as ct
from ct_adam.ensemble.cores import cpus

from .output import finish, print_rows
from .race import AbsentError, failure, need, release
from .timing import interleave, seconds
from .words import duration, plain, span

NOTE = (
    "One step in float32, gradients at hand, {leaves} arrays, JAX's buffers donated, {threads} "
    "threads (PyTorch: one, where that is faster); compiled before. Ratios are medians over rounds "
    "of those within a round. The copy is JAX's, in place, of as many numbers as there are "
    "parameters. A limit is what the copy's bandwidth makes of the numbers that must be moved: 7 a "
    "parameter for the first stage (θ, g, m, v read; θ, m, v written), 4 for a further one (m, v), "
    "whose time is that beyond the same with a stage less. On a CPU XLA's loops write one array "
    "each: m, v and u of a further stage move 9 numbers, not 4."
)
LEAVES = 8
B1, B2 = (0.9, 0.7, 0.5), (0.999, 0.99, 0.95)
SHARED: dict[str, Any] = {"eps": 1e-8, "weight_decay": 0.01}
LR = 1e-3
WARM_STEPS = 3
SAMPLE = 1000  # parameters of which NumPy checks the first steps
CLOSE = 2e-6  # roundings of θ, which is below 5, in float32; a wrong step is off by LR
COPIED, FIRST, FURTHER = 2, 7, 4  # numbers moved a parameter
ARRAYS = 30  # of a race, at most: what all contenders hold, and what one needs while it runs
AS_ADAMW, OF_LIMIT = 1.05, 1.3


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


def main(quick: bool) -> None:
    """Each size by itself, JAX apart from PyTorch: each has its copy beside it."""
    sizes = (10**5, 10**6) if quick else (10**6, 10**7, 10**8)
    rounds = 5 if quick else 15
    reports = [
        measured(library, makers(), base, size, rounds)
        for size in sizes
        for library, makers, base in (("JAX", by_jax, ADAMW), ("PyTorch", by_torch, FUSED))
    ]
    finish("optimizer", quick, reports)


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


def measured(
    library: str, makers: dict[str, Maker], base: str, size: int, rounds: int
) -> dict[str, Any]:
    """All in turns, so that a disturbance hits neighbours; who cannot run is named."""
    title = f"{library}, 10^{math.log10(size):g} parameters"
    print(f"\n{title}", flush=True)
    wanted, free = 4 * size * ARRAYS, free_bytes()
    if wanted > free:
        said = f"Not measured: {wanted / 1e9:.3g} GB of memory wanted, {free / 1e9:.3g} free."
        print(said)
        return {"title": title, "kind": "optimizer", "note": said}
    work = data(size)
    able, unable = entered({"copy": copy_step} | makers, work)
    notes = {name: one.settle() for name, one in able.items()}
    found = interleave([one.run for one in able.values()], rounds)
    times = {name: np.array(rounds) for name, rounds in zip(able, found, strict=True)}
    rows = [row(name, one, times, base, notes[name]) for name, one in able.items()]
    rows += [{"contender": name, "note": why} for name, why in unable.items()]
    for one in rows:
        if one["contender"] == "copy":
            one["GB/s"] = COPIED * 4e-9 * size / one["median_s"]
    show(rows)
    claims = judged(rows) if library == "JAX" else []
    for one in claims:
        print(", ".join(map(plain, one.values())))
    note = NOTE.format(leaves=LEAVES, threads=cpus())
    return {"title": title, "kind": "optimizer", "note": note, "rows": rows, "claims": claims}


def free_bytes() -> float:
    """Memory that can be had; unknown is unlimited."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return math.inf
    (free,) = (line.split()[1] for line in lines if line.startswith("MemAvailable:"))
    return 1024.0 * int(free)


def entered(makers: dict[str, Maker], work: Data) -> tuple[dict[str, Step], dict[str, str]]:
    """Who runs and is right; the reason of everybody else."""
    able: dict[str, Step] = {}
    unable: dict[str, str] = {}
    for name, make in makers.items():
        try:
            able[name] = checked(make(work), work)
        except AbsentError as why:
            unable[name] = str(why)
        except Exception as error:  # a failure is a result, not the end of the race
            unable[name] = failure(error)
    return able, unable


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


def row(name: str, one: Step, times: dict[str, np.ndarray], base: str, note: str) -> dict[str, Any]:
    """Times and ratios of one contender."""
    mine = times[name]
    found: dict[str, Any] = {
        "contender": name,
        "note": note,
        "median_s": float(np.median(mine)),
        "rounds_s": mine.tolist(),
    }
    found[f"beside {base}"] = ratio(mine, times.get(base))
    if one.k:
        copies = times["copy"]
        numbers = FIRST + FURTHER * (one.k - 1)
        found["times its limit"] = ratio(mine, copies * numbers / COPIED)
        if one.less in times:
            rounds = min(map(len, (mine, times[one.less], copies)))
            beyond = mine[:rounds] - times[one.less][:rounds]
            found["further stage_s"] = float(np.median(beyond))
            found["times the limit of a stage"] = ratio(beyond, copies * FURTHER / COPIED)
    return found


def ratio(mine: np.ndarray, others: np.ndarray | None) -> float | None:
    """The median of the ratios within a round."""
    if others is None:
        return None
    rounds = min(len(mine), len(others))
    return float(np.median(mine[:rounds] / others[:rounds]))


def judged(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What was claimed before anything was measured."""
    by_name = {one["contender"]: one for one in rows}
    claims = [(f"{OURS} beside {ADAMW}", by_name[OURS].get(f"beside {ADAMW}"), AS_ADAMW)]
    for k in range(2, len(B1) + 1):
        stage = by_name[f"k_adam, k = {k}"].get("times the limit of a stage")
        claims.append((f"stage {k} beside its limit", stage, OF_LIMIT))
    return [
        {"claim": what, "found": found, "at most": most, "verdict": verdict(found, most)}
        for what, found, most in claims
    ]


def verdict(found: float | None, most: float) -> str:
    if found is None:
        return "not measured"
    return "met" if found <= most else "NOT MET"


def show(rows: list[dict[str, Any]]) -> None:
    """The table on a terminal, medians and spans for the raw rounds."""
    keys = list(dict.fromkeys(key for one in rows for key in one if key != "rounds_s"))

    def cell(one: dict[str, Any], key: str) -> str:
        value = one.get(key)
        if key.endswith("_s") and value is not None:
            rounds = f" ({span(one['rounds_s'])})" if key == "median_s" else ""
            return duration(value) + rounds
        return "" if value is None else plain(value)

    heading = [key.removesuffix("_s") for key in keys]
    print_rows(heading, [[cell(one, key) for key in keys] for one in rows])
