"""How near a program is to what the machine can do: operations counted, peaks measured."""

import math
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ct_adam.ensemble.cores import cpus
from ct_adam.ensemble.prepared import Prepared

from .timing import seconds

SIDE = 2048  # of the matrices whose product measures arithmetic
WORDS = 2**25  # numbers that a copy moves: far beyond the caches
TRIES = 7


@cache
def peak(dtype: str) -> float:
    """Floating-point operations per second, of the best of a few large matrix products.

    By the libraries that come nearest: BLAS on a CPU, XLA's on a GPU, where float64 goes through
    the matrix units that no ordinary kernel reaches.
    """
    if jax.default_backend() == "cpu":
        square = np.random.default_rng(0).random((SIDE, SIDE)).astype(dtype)
        run = lambda: square @ square  # noqa: E731
    else:
        on_device = jax.random.uniform(jax.random.key(0), (4 * SIDE, 4 * SIDE), dtype)
        product = jax.jit(lambda x: jnp.matmul(x, x, precision="highest"))
        run = lambda: product(on_device).block_until_ready()  # noqa: E731
    side = len(run())
    return 2 * side**3 / min(seconds(run) for _ in range(TRIES))


@cache
def bandwidth() -> float:
    """Bytes per second, read and written, of the best of a few large copies on all cores."""
    if jax.default_backend() != "cpu":
        on_device = jnp.ones(8 * WORDS)
        copy = jax.jit(jnp.copy)
        copy(on_device).block_until_ready()
        best = min(seconds(lambda: copy(on_device).block_until_ready()) for _ in range(TRIES))
        return 2 * on_device.nbytes / best
    threads = cpus()
    source, target = np.ones((threads, WORDS // threads)), np.zeros((threads, WORDS // threads))
    with ThreadPoolExecutor(threads) as pool:
        best = min(seconds(lambda: list(pool.map(np.copyto, target, source))) for _ in range(TRIES))
    return 2 * source.nbytes / best


def body_operations(made: Prepared, lane: dict[str, Any]) -> float:
    """Operations of one pass of a lane's body, as XLA counts them in the lowered program.

    A division, a root or an exponential counts as one, as do comparisons and selections.
    """
    program = made.program

    def body(arrays: Any) -> Any:
        program, lane, fixed, carry = eqx.combine(arrays, static)
        return eqx.filter(program.body(lane, fixed, carry), eqx.is_array)

    # On a CPU: elsewhere JAX does not count what was not compiled.
    with jax.default_device(jax.devices("cpu")[0]):
        fixed, carry = program.init(jax.tree.map(np.asarray, lane))
        arrays, static = eqx.partition((program, lane, fixed, carry), eqx.is_array)
        # Copies, so that nothing stands on another device already.
        arrays = jax.tree.map(np.asarray, arrays)
        cost: Any = jax.jit(body).lower(arrays).cost_analysis()
    return float(cost.get("flops", 0.0)) + float(cost.get("transcendentals", 0.0))


def carry_bytes(made: Prepared, lane: dict[str, Any]) -> int:
    """Bytes of what a lane carries: the least that goes in and comes out."""
    carry = jax.eval_shape(lambda lane: made.program.init(lane)[1], lane)
    return sum(math.prod(x.shape) * np.dtype(x.dtype).itemsize for x in jax.tree.leaves(carry))


def limits(made: Prepared, lanes: dict[str, np.ndarray], passes: float, spent: float) -> dict:
    """What a run of `passes` bodies in `spent` seconds is of the machine's limits.

    Bytes are those of all lanes' carries, read once and written once: between them a lane's
    numbers need not leave a core.
    """
    lane = {name: jnp.asarray(column[0]) for name, column in lanes.items()}
    operations = body_operations(made, lane) * passes
    count = len(next(iter(lanes.values())))
    moved = 2 * count * carry_bytes(made, lane)
    most = peak(str(made.program.settings.steps.dtype))
    return {
        "operations": operations,
        "operations_per_s": operations / spent,
        "peak_operations_per_s": most,
        "fraction_of_peak": operations / spent / most,
        "bytes": moved,
        "bandwidth_bytes_per_s": bandwidth(),
        "fraction_of_bandwidth": moved / spent / bandwidth(),
    }


def told(found: dict) -> str:
    """One line of it."""
    return (
        f"auto does {found['operations_per_s'] / 1e9:.3g} Gop/s, {found['fraction_of_peak']:.1%} "
        f"of the {found['peak_operations_per_s'] / 1e9:.3g} of a matrix product; must move "
        f"{found['bytes'] / 1e6:.3g} MB, {found['fraction_of_bandwidth']:.2%} of the bandwidth"
    )
