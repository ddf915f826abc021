"""Rules of whole arrays: sums and the like, contractions, slices at a live position."""

import itertools
from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np

from .atoms import LoweringError
from .lower_numbers import chosen, plus, times


def reduction(rule: Callable[..., list[Any]]) -> Callable:
    """A rule of two numbers over axes, from the first entry on."""

    def reduced(source: Any, eqn: Any, x: np.ndarray) -> list[Any]:
        axes = eqn.params["axes"]
        moved = np.moveaxis(x, axes, range(len(axes)))
        rest = moved.shape[len(axes) :]
        if not x.size:
            raise LoweringError(f"the primitive {eqn.primitive.name} of nothing")
        flat = moved.reshape(-1, *rest)
        rows = [flat[i : i + 1].reshape(rest) for i in range(len(flat))]
        return [reduce(lambda a, b: rule(source, eqn, a, b)[0], rows)]

    return reduced


def dot_general(source: Any, eqn: Any, a: np.ndarray, b: np.ndarray) -> list[Any]:
    (a_sum, b_sum), (a_batch, b_batch) = eqn.params["dimension_numbers"]

    def arranged(x: np.ndarray, batch: Any, summed: Any) -> tuple[np.ndarray, list[int]]:
        free = [axis for axis in range(x.ndim) if axis not in (*batch, *summed)]
        shape = [x.shape[axis] for axis in free]
        moved = np.transpose(x, (*batch, *free, *summed))
        sizes = [int(np.prod([x.shape[axis] for axis in axes])) for axes in (batch, free, summed)]
        return moved.reshape(sizes), shape

    left, left_free = arranged(a, a_batch, a_sum)
    right, right_free = arranged(b, b_batch, b_sum)
    products = times(source, eqn, left[:, :, None, :], right[:, None, :, :])[0]
    if not products.size:
        raise LoweringError("the primitive dot_general of nothing")
    rows = [products[..., i] for i in range(products.shape[-1])]
    summed = reduce(lambda x, y: plus(source, eqn, x, y)[0], rows)
    shape = [*(a.shape[axis] for axis in a_batch), *left_free, *right_free]
    return [summed.reshape(shape)]


def dynamic_slice(source: Any, eqn: Any, operand: Any, *starts: np.ndarray) -> list[Any]:
    """One read a number, from a table or by selection; starts are clamped as JAX clamps them."""
    sizes = eqn.params["slice_sizes"]
    shape = operand.shape
    strides = [int(np.prod(shape[axis + 1 :])) for axis in range(len(shape))]
    at = []
    for start, size, length in zip(starts, sizes, shape, strict=True):
        index: Any = start[()]
        if length == size:
            at.append(None)
        elif index.value is not None:
            at.append(int(np.clip(index.value, 0, length - size)))
        else:
            # NaN, in a place that holds no lane, must not read outside.
            line = f"select({{0}} > 0.0, minimum({{0}}, {float(length - size)}), 0.0)"
            at.append(source.line(line, "i", index))
    results = np.empty(sizes, object)
    for offsets in itertools.product(*(range(size) for size in sizes)):
        fixed, moving = 0, []
        for place, offset, stride in zip(at, offsets, strides, strict=True):
            fixed += stride * offset
            if isinstance(place, int):
                fixed += stride * place
            elif place is not None:
                moving.append((place, stride))
        results[offsets] = _read_at(source, operand, fixed, moving)
    return [results]


def _read_at(source: Any, operand: Any, fixed: int, moving: list[tuple[Any, int]]) -> Any:
    if not moving and isinstance(operand, np.ndarray):
        return operand.ravel()[fixed]
    terms = " + ".join(f"{{{i}}} * {float(stride)}" for i, (_, stride) in enumerate(moving))
    position = source.line(f"{terms} + {float(fixed)}", "i", *(atom for atom, _ in moving))
    if not isinstance(operand, np.ndarray):
        source.kept[f"offset{operand.index}"] = "f8"
        return source.line(
            f"read_{operand.kind}(table{operand.index}, {{0}} + offset{operand.index})",
            operand.kind,
            position,
        )
    return chosen(source, position, list(operand.ravel()))
