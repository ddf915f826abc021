"""Derives the coefficients of flows with more evaluations than their order.

    python tools/derive_coefficients.py            # derives them and compares; exit code 1 if worse
    python tools/derive_coefficients.py --write    # writes ct_adam/theory/coefficients.py

A flow of order p and degree s gives a mode of Φ with multiplier μ the rate

    P(μ) = ℓ_p(μ) + (1 - μ)^{p+1} Σ_{k < s-p} x_k μ^k

(EQUATIONS §1): whatever x, P(e^h) = h + O(h^{p+1}). The x are those of the linear program

    minimise M   over x, M
    such that    Re P(μ) ≤ 0        on |μ| = r      (no mode of the disc grows: maximum principle)
                 |P(μ)| ≤ M         on |μ| = r      (the solver's steps are about 3/M long)

with r = `DAMPED` = 0.95, above √0.9, the modulus of Adam's curved directions. The circle is 1000
points of its upper half, |P| ≤ M a polygon of 64 sides (M is low by at most 0.12 %). Near the
optimum M is flat in x: two solvers may find different x of one M, so M is what is compared.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

from ct_adam.theory import coefficients as kept
from ct_adam.theory.interpolation import interpolated_rate

WANTED = ((2, 6), (3, 7))
"""(order, degree) of the table: those that win somewhere in `experiments.work_precision`. Of the
others (2, 3), (2, 4), (3, 4) and (3, 5) lie between these and the plain orders in everything, and
(4, 8), (4, 10), (5, 13) cost more gradients (s·M) than order 3 and grow modes above 0.95."""
POINTS, SIDES, DIGITS = 1000, 64, 6
FILE = Path(kept.__file__)


def derive(order: int, degree: int, radius: float, points: int = POINTS) -> np.ndarray | None:
    """The x of one entry, None where no polynomial of that degree damps the circle."""
    from scipy.optimize import linprog

    mu = radius * np.exp(1j * np.linspace(0, np.pi, points))
    plain: Any = interpolated_rate(mu, order)
    columns: Any = (1 - mu[:, None]) ** (order + 1) * mu[:, None] ** np.arange(degree - order)
    turns = np.exp(2j * np.pi * np.arange(SIDES) / SIDES)
    rows = [np.column_stack([columns.real, np.zeros(points)])]
    rows += [np.column_stack([(columns * turn).real, -np.ones(points)]) for turn in turns]
    limits = np.concatenate([-plain.real, *(-(plain * turn).real for turn in turns)])
    goal = np.append(np.zeros(degree - order), 1.0)
    free = [(None, None)] * (degree - order) + [(0, None)]
    found = linprog(goal, np.concatenate(rows), limits, bounds=free, method="highs")
    return np.round(found.x[:-1], DIGITS) if found.status == 0 else None


def largest_rate(order: int, x: np.ndarray, radius: float) -> float:
    """M on a circle between the points of the program too."""
    mu = radius * np.exp(1j * np.linspace(0, np.pi, 20_001))
    return float(np.abs(rate(mu, order, x)).max())


def rate(mu: np.ndarray, order: int, x: np.ndarray) -> np.ndarray:
    return interpolated_rate(mu, order) + (1 - mu) ** (order + 1) * np.polyval(x[::-1], mu)


def written(table: dict[tuple[int, int], np.ndarray], radius: float) -> str:
    """The module that holds the table."""
    rows = [
        f"    ({order}, {degree}): ({', '.join(map(repr, map(float, x)))},),"
        for (order, degree), x in table.items()
    ]
    return "\n".join(
        [
            '"""Coefficients x of flows with a degree above their order: EXTRA[order, degree].',
            "",
            "Written by `tools/derive_coefficients.py --write`, which says what they are best for.",
            '"""',
            "",
            f"DAMPED = {radius}",
            '"""Modes of Φ up to this modulus are damped by every entry, whatever their phase."""',
            "",
            "EXTRA: dict[tuple[int, int], tuple[float, ...]] = {",
            *rows,
            "}",
            "",
        ]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="Derive the coefficients of extra evaluations.")
    parser.add_argument("--write", action="store_true", help=f"rewrite {FILE.name}")
    write = parser.parse_args().write
    table, worse = {}, 0
    for order, degree in WANTED:
        x = derive(order, degree, kept.DAMPED)
        if x is None:
            print(f"order {order}, degree {degree}: no polynomial damps |μ| = {kept.DAMPED}")
            return 1
        table[order, degree] = x
        line = f"order {order}, degree {degree}: M = {largest_rate(order, x, kept.DAMPED):.3f}"
        if not write:
            old = kept.EXTRA.get((order, degree))
            ratio = np.inf
            if old is not None:
                now = largest_rate(order, np.array(old), kept.DAMPED)
                ratio = now / largest_rate(order, x, kept.DAMPED)
            worse += not 0.995 < ratio < 1.005
            line += f", the table's is {ratio:.5f} times that"
        print(line)
    if write:
        FILE.write_text(written(table, kept.DAMPED), encoding="utf-8")
        print(f"Wrote {FILE}: format it with ruff.")
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
