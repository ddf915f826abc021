"""Arrays of a store as text: short enough for a page, exact enough to be read off it."""

import base64
import zlib
from typing import Any

import numpy as np

PRECISION = 2.0**-13
"""Largest relative error of a number on the page: twelve bits of the significand are kept."""

NOT_DONE = 255
"""Stands for an outcome of −1: the lane has not run."""

_KEPT = 24
"""Bits of a float64: sign, eleven of the exponent, twelve of the significand."""


def measured(values: np.ndarray) -> np.ndarray:
    """As floats; a count of −1, which is none yet, becomes NaN."""
    found = values.astype(float)
    counts = np.issubdtype(values.dtype, np.signedinteger)
    return np.where(found < 0, np.nan, found) if counts else found


def outcome_codes(values: np.ndarray) -> np.ndarray:
    """One byte each, `NOT_DONE` for what is no code."""
    return np.where((values >= 0) & (values < NOT_DONE), values, NOT_DONE).astype(np.uint8)


def encode(values: np.ndarray) -> dict[str, Any]:
    """Numbers as text: float64 rounded to `PRECISION` in three bytes, or one byte as it is.

    A floating array keeps the upper 24 bits of each number, so that its range (1e±308, infinities
    and NaN) is float64's. What is stored are differences along the last axis, modulo 2^24 (2^8), in
    planes of equal significance, compressed (zlib), in base64.

    **Arguments:**

    - `values`: float64, or uint8, of any shape but ().

    **Returns:** `shape`, `bytes` a number and `data`, of JSON's types; `decode` is the way back.

    !!! example
        >>> back = decode(encode(np.array([1.0, -np.inf, 3e300])))
        >>> print(back[:2], f"{back[2]:.3g}")
        [  1. -inf] 3e+300
    """
    values = np.asarray(values)
    if values.dtype == np.uint8:
        size, codes = 1, values.astype(np.uint32)
    else:
        size, codes = 3, _codes(values.astype(float))
    steps = np.diff(codes, axis=-1, prepend=np.zeros_like(codes[..., :1])) % 256**size
    planes = [(steps >> 8 * k & 255).astype(np.uint8) for k in reversed(range(size))]
    packed = zlib.compress(np.stack(planes).tobytes(), 9)
    return {
        "shape": list(values.shape),
        "bytes": size,
        "data": base64.b64encode(packed).decode(),
    }


def decode(text: dict[str, Any]) -> np.ndarray:
    """The array of `encode`'s text; a floating one is float64."""
    size = text["bytes"]
    raw = np.frombuffer(zlib.decompress(base64.b64decode(text["data"])), np.uint8)
    planes = raw.reshape(size, *text["shape"]).astype(np.uint64)
    steps = sum(planes[k] << np.uint64(8 * (size - 1 - k)) for k in range(size))
    codes = np.cumsum(steps, axis=-1, dtype=np.uint64) % np.uint64(256**size)
    return codes.astype(np.uint8) if size == 1 else (codes << np.uint64(64 - _KEPT)).view(float)


def _codes(values: np.ndarray) -> np.ndarray:
    # Rounding is an addition to the bits; a NaN's could carry over, the plain one's does not.
    plain = np.where(np.isnan(values), np.nan, values)
    bits = np.ascontiguousarray(plain).view(np.uint64)
    dropped = 64 - _KEPT
    return ((bits + np.uint64(1 << dropped - 1)) >> np.uint64(dropped)).astype(np.uint32)
