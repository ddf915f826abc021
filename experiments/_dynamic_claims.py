"""What `dynamic_regularization` says of each of its topics, and where it is not as theory says."""

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jaxtyping import Array

from ct_adam import theory
from ct_adam.theory.stationary import RULES

from . import _complexity, _descent, _stationary
from ._crossing import interval
from ._flatness import FLATNESS, METHODS, SCORES
from ._pac_bayes import NAMES, NETWORKS
from ._statistics import paired

if TYPE_CHECKING:
    import xarray

AGAINST = ("Adam-ℓ2", "Adam")
"""What AdamW is said to generalise better than."""
GAPS = ("gap in loss", "gap in error")
"""Test less train."""
DIFFERENCES = (*GAPS, "test loss", "test error")
"""Compared by differences, `FLATNESS` by ratios."""
SLOPE = 0.08
"""Beside its interval, of an exponent: half way to the next ones that theory knows, a sixth from ½.
Terms of lower order in T are allowed no more."""
PARTS = {
    "by the fall of λ_k": _descent.BROKEN_WEIGHTS,
    "by the step": _descent.BROKEN_RATE,
}
"""Which settings must violate the inequality, and in which of its two parts."""
QUARTER = 0.25
"""η over the largest stable one; at b1 = 0 it is ηκ = ½ (EQUATIONS §6)."""
REJECTED = 10.0
"""Standard errors by which a wrong law must be missed."""
NEAR = "the noise alone in v"
"""§6's own law of real Adam, Q = √b diag(H)^{-1/2}, is of first order in η: it is rejected too, but
by how much is a matter of η and not of the theory, so that no distance is asked for."""
LEVEL = "toy's mean / its noise's level, at the largest T"
VALUES = {"AdamW": 1.25e-3, "Adam-ℓ2": 1.6129e-4, "Adam": 5e-3, "Adam with √b": 1.5811e-3}
"""Printed variances: η = 0.01, b = 10, λ = 0.3, h = 0.01; the last at h = 1."""
LANCZOS = "leading eigenvalues, Lanczos against the whole matrix"
PAC_COUNTS = {
    "": "all",
    "adam_least": "plain Adam least",
    "adam_largest": "plain Adam largest",
    "adamw_as_predicted": "AdamW below Adam-ℓ2 iff predicted",
}
BY_FORMULA = ("adam_least", "adamw_as_predicted")
"""What follows from the printed x where all x > 1: the count guards the code, not the theory."""


def of_descent(descent: "xarray.Dataset") -> dict[str, Any]:
    found = {}
    for case in descent.case.values:
        row = descent.sel(case=case)
        found[str(case)] = {
            "in the regime": bool(case in _descent.INSIDE),
            "μ": float(row.mu),
            "η over its limit": float(row.learning_rate / row.learning_rate_sufficient),
            "η over its printed limit": float(row.learning_rate / row.learning_rate_printed),
            "steps": int(descent.attrs["steps"] * descent.sizes["seed"]),
            "violations": int(row.violations.sum()),
            "by the fall of λ_k": int(row.by_reweighting.sum()),
            "by the step": int(row.by_step.sum()),
            "last violation, step": int(row.last_violation.max()),
            "steps with λ_k alive": int(row.live_steps.sum()),
            "median of error / gradient term": float(row.error_over_gradient.median()),
            "smallest slack / terms": float(row.smallest_relative.min()),
            "largest |g| / c_∞": float(row.largest_gradient.max() / row.true_bound),
            "largest curvature found / L": float(row.curvature / row.smoothness),
        }
    return found


def of_gradients(node: Mapping[str, "xarray.Dataset"]) -> dict[str, Any]:
    """Exponents of T with 95 % intervals; averages over what bounds their expectation."""
    general, stages = node["general"], node["toy_stages"]
    found: dict[str, Any] = {
        "general": _exponent(general.slope, -0.5),
        **{
            f"toy, {schedule}": _exponent(node["toy_rates"].slope.sel(schedule=schedule), power)
            for schedule, (power, _) in _complexity.RATES.items()
        },
        "toy, in stages": _exponent(stages.slope, -1.0),
    }
    found["largest mean / bound"] = {
        "general": float((general.average.mean("seed") / general.bound).max()),
        "in stages": float((stages.gap.mean("group") / stages.promised).max()),
    }
    found[LEVEL] = {}
    for schedule in _complexity.RATES:
        one = node["toy_rates"].sel(schedule=schedule).isel(horizon=-1)
        mean, half = interval((one.square / one.predicted).values)
        found[LEVEL][schedule] = {"found": mean, "±": half, "η": float(one.learning_rate)}
    return found


def _exponent(slopes: "xarray.DataArray", expected: float) -> dict[str, float]:
    mean, half = interval(slopes.values)
    return {"exponent": mean, "±": half, "expected": expected}


@jax.jit
def _variances() -> dict[str, Array]:
    """Those that §6 prints."""
    at = partial(theory.stationary_variance, learning_rate=0.01, batch_size=10)
    found = {NAMES[rule]: at(0.01, weight_decay=0.3, rule=rule) for rule in RULES}
    found["Adam with √b"] = at(1.0, weight_decay=0.0, rule="adam", preconditioner="adam")
    return found


def of_variances(live: "xarray.Dataset") -> dict[str, Any]:
    found = {name: float(value) for name, value in _variances().items()}
    chosen = (live.problem == "modes") & (live.rule == "Adam") & (live.b1 == 0)
    (lane,) = np.flatnonzero(chosen)
    h = list(np.diag(_stationary.LIVE_HESSIANS["modes"])).index(1.0)
    one = live.isel(lane=lane, row=h, column=h)
    found["Adam measured"], found["± 1.96 σ"] = float(one.measured), 1.96 * float(one.error)
    return found


def of_laws(chains: "xarray.Dataset") -> dict[str, Any]:
    """Agreement with the own law; of every wrong one the least |z| (lanes at ηκ = ½, or a quarter
    of the largest η with momentum, where learning rates vary); of `NEAR`, by problem."""
    found: dict[str, Any] = dict(_stationary.agreement(chains))
    if "part" in chains.coords:
        chains = chains.isel(lane=np.flatnonzero(np.isclose(chains.part, QUARTER)))
    found["wrong laws, least |z|"] = {
        str(wrong): float(chains.wrong_z.sel(wrong=wrong).min()) for wrong in chains.wrong.values
    }
    if NEAR in chains.wrong.values:
        near = chains.wrong_z.sel(wrong=NEAR).groupby("problem")
        found[f"{NEAR}, |z|"] = {
            str(problem): [float(z.min()), float(z.max())] for problem, z in near
        }
    return found


def of_pac_bayes(
    pac: "xarray.Dataset", network: "xarray.Dataset", priors: "xarray.Dataset"
) -> dict[str, Any]:
    """By Q the orderings; by spectrum AdamW and Adam-ℓ2 against plain Adam; of the network, by
    cutoff, the ρ above which all x > 1."""
    edges = priors.inside_from.sel(preconditioner="frozen")
    whole = network.eigenvalue.values[: network.sizes["leading"]]
    return {
        **_orderings(pac),
        **{str(name): _against_adam(pac.sel(spectrum=name)) for name in pac.spectrum.values},
        "network, all x > 1 from ρ": {
            f"σ > {cut:g}": float(edges.sel(cutoff=cut)) for cut in edges.cutoff.values
        },
        LANCZOS: float(np.abs(network.lanczos.values / whole - 1).max()),
    }


def _orderings(pac: "xarray.Dataset") -> dict[str, dict[str, int]]:
    """By Q, over spectra (the network's with the first cutoff) and priors, in how many modes the
    ordering is as said, where all x > 1 and where not."""
    once = pac.sel(spectrum=[name for name in pac.spectrum.values if name not in NETWORKS[1:]])
    return {
        f"modes, Q {q}": {
            f"{words}, {where}": int(row[f"{name}_{side}" if name else side].sum())
            for side, where in (("inside", "x > 1"), ("outside", "some x < 1"))
            for name, words in PAC_COUNTS.items()
        }
        for q in pac.preconditioner.values
        for row in [once.sel(preconditioner=q)]
    }


def _against_adam(spectrum: "xarray.Dataset") -> dict[str, float]:
    """At the middle prior each rule's term less plain Adam's, per mode; the same with the prior
    that fits each rule best, for a minimum at 0 and at its ‖θ*‖²."""
    row, prior = spectrum.sel(preconditioner="frozen"), spectrum.prior_variance.values[1]
    readings = {
        f"ρ = {prior:g}": row.term.sel(prior_variance=prior),
        "ρ fitted, θ* = 0": row.fitted,
        "ρ fitted, with ‖θ*‖²": row.centred,
    }
    return {
        **{
            f"{rule} − Adam, {words}": float(term.sel(rule=rule) - term.sel(rule="Adam"))
            for words, term in readings.items()
            for rule in ("Adam-ℓ2", "AdamW")
        },
        "‖θ*‖²": float(row.center_square),
        f"modes with x < 1 at ρ = {prior:g}": int(row.outside.sel(prior_variance=prior)),
    }


def of_network(net: "xarray.Dataset", networks: int) -> dict[str, Any]:
    """Cells and means by method; AdamW against the others, with intervals that hold at once for
    all networks, quantities and pairs: differences, and ratios (means of logarithms) of flatness.
    "holds": AdamW's is the smaller."""
    comparisons = networks * len(AGAINST) * len(DIFFERENCES + FLATNESS)
    found: dict[str, Any] = {}
    for method in METHODS:
        row = net.sel(optimizer=method)
        found[method] = {"rate": float(row.rate), "decay": float(row.decay)}
        for name in (*SCORES, *FLATNESS):
            found[method][name] = float(row[name].mean())
    for other in AGAINST:
        pair = {}
        for name in (*DIFFERENCES, *FLATNESS):
            ours, theirs = (net[name].sel(optimizer=m).values for m in ("AdamW", other))
            if name in DIFFERENCES:
                pair[name] = paired(ours - theirs, comparisons, above=False)
            else:
                log = paired(np.log(ours / theirs), comparisons, above=False)
                ratio = {key: float(np.exp(log[key])) for key in ("found", "low", "high")}
                pair[name] = {**log, **ratio}
        found[f"AdamW against {other}"] = pair
    return found


def check_descent(found: Mapping[str, Any]) -> list[str]:
    missing = []
    for case, row in found.items():
        if case in (*_descent.INSIDE, _descent.SLOWEST) and row["violations"]:
            missing.append(f"{case}: the inequality is violated {row['violations']} times.")
        for part, broken in PARTS.items():
            if case in broken and not row[part]:
                missing.append(f"{case}: no step violates the inequality {part}.")
        if not row["largest |g| / c_∞"] <= 1:
            missing.append(
                f"{case}: a gradient is above c_∞, so that the case is not what it says."
            )
    return missing


def check_gradients(found: Mapping[str, Any]) -> list[str]:
    missing = []
    for name, row in found.items():
        if "exponent" in row and not abs(row["exponent"] - row["expected"]) <= SLOPE + row["±"]:
            missing.append(
                f"{name}: exponent {row['exponent']:.3f} ± {row['±']:.3f}, not {row['expected']:g}."
            )
    for name, ratio in found["largest mean / bound"].items():
        if not ratio <= 1:
            missing.append(f"Gradients, {name}: {ratio:.3g} of what bounds them.")
    for name, row in found[LEVEL].items():
        # Twice the 95 % interval, and the share of order η that the level leaves out.
        if not abs(row["found"] - 1) <= 2 * row["±"] + row["η"]:
            missing.append(f"Toy, {name}: {row['found']:.3g} of the level that the noise keeps up.")
    return missing


def check_laws(found: Mapping[str, Any]) -> list[str]:
    missing = [
        f"{name}: variance {found['variances of §6'][name]:.5g}, not {value:g}."
        for name, value in VALUES.items()
        if not np.isclose(found["variances of §6"][name], value, rtol=5e-5)  # as printed
    ]
    for name, row in found["laws"].items():
        if not row["largest |z|"] <= row["limit"]:
            missing.append(
                f"{name}: a covariance is {row['largest |z|']:.2f} standard errors from its law, "
                f"with {row['comparisons']} compared."
            )
        missing += [
            f"{name}: {wrong} law is but {z:.2f} standard errors away."
            for wrong, z in row["wrong laws, least |z|"].items()
            if wrong != NEAR and not z > REJECTED
        ]
    return missing


def check_pac(found: Mapping[str, Any]) -> list[str]:
    missing = []
    if not found[LANCZOS] <= 1e-5:  # ARPACK is asked for 1e-6
        missing.append(f"Gauss–Newton: {LANCZOS} differ by {found[LANCZOS]:.2g}.")
    for name, row in found.items():
        if not name.startswith("modes"):
            continue
        missing += [
            f"PAC-Bayes, {name}: {words} in {row[f'{words}, x > 1']} of {row['all, x > 1']} modes "
            "where all x > 1."
            for words in map(PAC_COUNTS.__getitem__, BY_FORMULA)
            if row[f"{words}, x > 1"] != row["all, x > 1"]
        ]
    return missing
