"""Adam by PyTorch: its own optimizer in a loop, or written over all lanes, also compiled.

PyTorch is imported where a peer is entered: it is optional, and takes seconds.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ct_adam.ensemble.cores import cpus

from ..race import AbsentError, Contender, Run, need, release
from ..timing import seconds
from ..workloads import CHAIN, CURVATURES, QUADRATIC, Lanes

SAMPLED_STEPS = 4000
"""Steps that the loop takes in all lanes together, about; one takes a tenth of a millisecond."""
FEWEST_LANES = 4

TorchLoss = Callable[[Any], Any]
"""θ, a tensor of one lane, to a scalar."""
Step = Callable[..., tuple[Any, ...]]


class Form(NamedTuple):
    """Which axis the lanes are on, and how many steps, at most, are compiled as one."""

    axis: int = 0
    unrolled: int = 1


def _quadratic() -> TorchLoss:
    curvatures = need("torch").tensor(CURVATURES)
    return lambda x: 0.5 * (curvatures * x**2).sum()


def _chain() -> TorchLoss:
    return lambda x: ((1 - x[:-1]) ** 2 + 10 * (x[1:] - x[:-1] ** 2) ** 2).sum()


LOSSES = {QUADRATIC.name: _quadratic, CHAIN.name: _chain}
# What came out fastest. Where coordinates are coupled, every unrolled step computes its neighbours'
# anew, and a slice along the outer axis costs the loop its SIMD.
FORMS = {QUADRATIC.name: Form(axis=1, unrolled=10)}


def loop(work: Lanes, loss: TorchLoss | None = None) -> Contender:
    """`torch.optim.Adam`, a lane after the other, on a sample of them.

    Fused it is the fastest on a CPU (0.13 s for 1000 steps of the quadratic; 0.15 s with
    foreach=False, 0.19 s with foreach), and one thread is enough for so few numbers.
    """
    torch, loss = need("torch"), _checked(work, loss)
    lanes = max(FEWEST_LANES, SAMPLED_STEPS // work.steps)
    # Odd, so that on a square of lanes they do not all lie in one column.
    every = max(1, len(work.b1) // lanes - 1) | 1

    def lane(b1: float, b2: float) -> np.ndarray:
        x = torch.tensor(work.loss.start, requires_grad=True)
        method = torch.optim.Adam([x], work.learning_rate, (b1, b2), work.eps, fused=True)
        for _ in range(work.steps):
            method.zero_grad()
            loss(x).backward()
            method.step()
        return x.detach().numpy()

    def run() -> np.ndarray:
        with _threads(1):
            pairs = zip(work.b1[::every].tolist(), work.b2[::every].tolist(), strict=True)
            return np.array([lane(*pair) for pair in pairs])

    sample = "" if every == 1 else f", one lane in {every}"
    note = f"{release('torch')}, torch.optim.Adam(fused=True){sample}"
    return Contender("torch loop", lambda _: run, (None,), every=every, note=note)


def mapped(work: Lanes, loss: TorchLoss | None = None) -> Contender:
    """All lanes at once, a Python loop over the steps."""
    run = _all_lanes(work, _checked(work, loss), Form(), lambda step: step)
    note = f"{release('torch')}, torch.func.vmap of grad, one thread or {cpus()}"

    def prepare(_: float | None) -> Run:
        # Where something else keeps a core busy, the threads' barriers cost thirty times the work.
        fastest = min((1, cpus()), key=lambda threads: seconds(lambda: run(threads, 5)))
        return lambda: run(fastest)

    return Contender("torch vmap", prepare, (None,), note=note)


def compiled(work: Lanes, loss: TorchLoss | None = None) -> Contender:
    """The same through `torch.compile`, where that is faster several steps at once."""
    torch, loss = need("torch"), _checked(work, loss)
    form = FORMS.get(work.loss.name, Form())
    all_lanes = _all_lanes(work, loss, form, partial(torch.compile, dynamic=False))

    def run() -> np.ndarray:
        try:
            return all_lanes(cpus())
        except torch._inductor.exc.InductorError as error:
            if not isinstance(error.inner_exception, torch._inductor.exc.InvalidCxxCompiler):
                raise
            raise AbsentError("torch.compile needs a C++ compiler, and there is none") from None

    note = f"{release('torch')}, up to {form.unrolled} steps at once, {cpus()} threads"
    return Contender("torch.compile", lambda _: run, (None,), note=note)


def _checked(work: Lanes, loss: TorchLoss | None) -> TorchLoss:
    """The workload's loss in PyTorch; its gradient is compared with the workload's own."""
    torch = need("torch")
    if loss is None:
        if work.loss.name not in LOSSES:
            raise AbsentError(f"the loss {work.loss.name!r} is not written in PyTorch")
        loss = LOSSES[work.loss.name]()
    found = torch.func.grad(loss)(torch.tensor(work.loss.start)).numpy()
    np.testing.assert_allclose(found, work.loss.slopes(work.loss.start), rtol=1e-9, atol=1e-12)
    return loss


def _all_lanes(
    work: Lanes, loss: TorchLoss, form: Form, through: Callable[[Step], Step]
) -> Callable[..., np.ndarray]:
    """Runs a step, or several in one, until all are done (or so many calls of it)."""
    torch = need("torch")
    slopes = torch.func.vmap(torch.func.grad(loss), in_dims=form.axis, out_dims=form.axis)
    unrolled = max(n for n in range(1, form.unrolled + 1) if work.steps % n == 0)
    # One number a lane, beside all of its coordinates.
    b1, b2 = (torch.tensor(decay).unsqueeze(1 - form.axis) for decay in (work.b1, work.b2))
    start = (
        torch.tensor(work.loss.start)
        .unsqueeze(form.axis)
        .repeat_interleave(len(work.b1), form.axis)
    )

    def several(x: Any, m: Any, v: Any, power1: Any, power2: Any) -> tuple[Any, ...]:
        for _ in range(unrolled):
            g = slopes(x)
            m, v = g.lerp(m, b1), (g * g).lerp(v, b2)
            power1, power2 = power1 * b1, power2 * b2
            scale = work.learning_rate / (1 - power1)
            x = x - scale * m / ((v / (1 - power2)).sqrt() + work.eps)
        return x, m, v, power1, power2

    step = through(several)

    def run(threads: int, calls: int = work.steps // unrolled) -> np.ndarray:
        with _threads(threads), torch.no_grad():
            zeros, ones = torch.zeros_like(start), torch.ones_like(b1)
            state = (start, zeros, zeros, ones, ones)
            for _ in range(calls):
                state = step(*state)
            return np.moveaxis(state[0].numpy(), form.axis, 0)

    return run


def _threads(count: int) -> AbstractContextManager[None]:
    """PyTorch on so many threads, and as before afterwards."""
    torch = need("torch")

    @contextmanager
    def limited() -> Any:
        before = torch.get_num_threads()
        torch.set_num_threads(count)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    return limited()
