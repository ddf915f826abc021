"""What `dynamic_regularization` computes of PAC-Bayes terms: over chosen spectra, and over that of
a digits network's Gauss–Newton matrix (EQUATIONS §6)."""

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

import ct_adam as ct
from ct_adam import theory
from ct_adam.problems import trainable
from ct_adam.problems.models import MLP, apply, cross_entropy
from ct_adam.theory.stationary import PRECONDITIONERS, RULES, Rule

if TYPE_CHECKING:
    import xarray

NAMES = {"adamw": "AdamW", "adam_l2": "Adam-ℓ2", "adam": "Adam"}
SPECTRA = {
    "power law 1": 10 / np.arange(1, 101),
    "power law 2": 10 / np.arange(1, 101) ** 2.0,
    "two levels": np.repeat([10.0, 0.01], [10, 90]),
    "all below 1": np.geomspace(1e-3, 0.9, 100),
    "all above 1": np.geomspace(1.1, 100, 100),
}
"""Chosen: eigenvalues from 1e-3 to 100, on both sides of 1."""
PAC: dict[str, Any] = {"learning_rate": 1e-3, "batch_size": 32.0, "weight_decay": 0.1}
SQUARE = 0.01
"""‖θ*‖² a mode of the chosen spectra, as at a usual initialisation. The network has its own."""
PRIORS = (1e-4, 1e-2, 1.0)
"""ρ: 1e-2 is the variance of a usual initialisation. At the smallest not all x > 1."""
TRAINED_AT = 1e-2
"""η of the network's run, which is not that of the terms: for 1000 steps to end near a minimum."""
CUTOFFS = (1e-8, 1e-6)
"""Eigenvalues of a network that are not above are left out: rounding decides those below 1e-8
(EQUATIONS §6). Where all x > 1 begins is the cutoff's choice, so that there are two."""
NETWORKS = tuple(f"digits MLP, σ > 1e-{round(-np.log10(cut))}" for cut in CUTOFFS)


def pac_bayes(network: "xarray.Dataset") -> "xarray.Dataset":
    """x and the PAC-Bayes term by spectrum, preconditioner, prior variance, rule and mode;
    `network` as `network_spectrum` gives it."""
    import xarray

    sigma = network.eigenvalue.values
    seen = {name: sigma[sigma > cut] for name, cut in zip(NETWORKS, CUTOFFS, strict=True)}
    spectra = SPECTRA | seen
    longest = max(map(len, spectra.values()))
    padded = np.array([np.pad(s, (0, longest - len(s)), constant_values=np.nan)
                       for s in spectra.values()])  # fmt: skip
    # The closed forms take no NaN: 1 instead, and NaN after.
    some, there = np.nan_to_num(padded, nan=1.0), np.isfinite(padded)

    def ratio(kind: Any, rho: float, rule: Rule) -> np.ndarray:
        found = theory.spread_ratio(some, **PAC, prior_variance=rho, rule=rule, preconditioner=kind)
        return np.where(there, found, np.nan)

    x = np.array(
        [[[ratio(kind, rho, rule) for rule in RULES] for rho in PRIORS] for kind in PRECONDITIONERS]
    )
    crossing = [
        float(theory.crossing_curvature(PAC["batch_size"], preconditioner=kind))
        for kind in PRECONDITIONERS
    ]
    squares = [SQUARE * len(s) for s in SPECTRA.values()]
    squares += [network.attrs["center_square"]] * len(NETWORKS)
    dims = ("preconditioner", "prior_variance", "rule", "spectrum", "mode")
    found = xarray.Dataset(
        {
            "eigenvalue": (("spectrum", "mode"), padded),
            "ratio": (dims, x),
            "center_square": ("spectrum", squares),
            "crossing": ("preconditioner", crossing),
        },
        coords={
            "preconditioner": [*PRECONDITIONERS],
            "prior_variance": [*PRIORS],
            "rule": [NAMES[rule] for rule in RULES],
            "spectrum": [*spectra],
        },
        attrs=PAC,
    ).transpose("spectrum", "preconditioner", "prior_variance", "rule", "mode")
    return _with_terms(found)


def _with_terms(found: "xarray.Dataset") -> "xarray.Dataset":
    """Adds, per parameter (means over modes): `term` at the given prior; `fitted` and `centred`,
    ln x at the prior that fits each rule best, without and with ‖θ*‖². And in how many modes with
    x > 1 and without them the ordering is as §6 says, or plain Adam's is the largest."""
    import xarray

    x, sigma = found.ratio, found.eigenvalue
    f = np.log(x) + 1 / x
    inside = x.sel(rule="Adam") > 1  # Adam's x is the least
    sides = {"inside": inside, "outside": ~inside & np.isfinite(x.sel(rule="Adam"))}
    least = f.sel(rule="Adam") <= f.min("rule")
    largest = f.sel(rule="Adam") >= f.max("rule")
    lower = (f.sel(rule="AdamW") < f.sel(rule="Adam-ℓ2")) == (sigma < found.crossing)
    for name, side in sides.items():
        found[name] = side.sum("mode")
        found[f"adam_least_{name}"] = (least & side).sum("mode")
        found[f"adam_largest_{name}"] = (largest & side).sum("mode")
        found[f"adamw_as_predicted_{name}"] = (lower & side).sum("mode")
    variance = found.prior_variance.values[0] / x.isel(prior_variance=0, drop=True)
    for name, square in {"fitted": 0.0, "centred": found.center_square}.items():
        found[name] = xarray.apply_ufunc(
            _fitted, variance, square, input_core_dims=[["mode"], []], vectorize=True
        )
    return found.assign(term=f.mean("mode"))


def _fitted(variance: Float[np.ndarray, " mode"], square: float) -> float:
    """Mean of ln(ρ/C) at the best ρ."""
    known = variance[np.isfinite(variance)]
    return float(np.log(theory.best_prior_variance(known, square)) - np.log(known).mean())


def priors(spectrum: "xarray.Dataset") -> "xarray.Dataset":
    """On a network's spectrum, over Q, rule, cutoff and prior variance ρ: the PAC-Bayes term per
    mode; over Q and cutoff the ρ above which all x > 1, η/(2b√σ_min) with Zhou et al.'s Q."""
    import xarray

    sigma, rho = spectrum.eigenvalue.values, np.geomspace(1e-7, 1.0, 57)
    sigma = sigma[sigma > min(CUTOFFS)]
    kept = [sigma > cut for cut in CUTOFFS]

    def terms(q: Any, rule: Rule) -> list[np.ndarray]:
        x = theory.spread_ratio(
            sigma[:, None], **PAC, prior_variance=rho, rule=rule, preconditioner=q
        )
        found = np.asarray(theory.flatness_term(x))
        return [found[modes].mean(0) for modes in kept]

    def widest(q: Any) -> list[float]:
        variance = theory.stationary_variance(sigma[:, None], **PAC, rule="adam", preconditioner=q)
        return [float(np.asarray(variance)[modes].max()) for modes in kept]

    dims = ("preconditioner", "rule", "cutoff", "prior_variance")
    values = [[terms(q, rule) for rule in RULES] for q in PRECONDITIONERS]
    edges = [widest(q) for q in PRECONDITIONERS]
    return xarray.Dataset(
        {
            "term": (dims, np.array(values)),
            "inside_from": (("preconditioner", "cutoff"), edges),
            "modes": ("cutoff", [int(modes.sum()) for modes in kept]),
        },
        {
            "preconditioner": list(PRECONDITIONERS),
            "rule": [NAMES[rule] for rule in RULES],
            "cutoff": list(CUTOFFS),
            "prior_variance": rho,
        },
    )


def network_spectrum(
    hidden: int, images: int, steps: int, leading: int = 10, seed: int = 0
) -> "xarray.Dataset":
    """All eigenvalues of the Gauss–Newton matrix of a digits MLP, trained by AdamW at `TRAINED_AT`
    on all of the images at once, and the `leading` ones by Lanczos without the matrix."""
    import xarray

    inputs, labels = ct.problems.digits_data(images)
    params, rebuild = trainable(MLP((64, hidden, 10), seed=seed))
    inputs, labels = jnp.asarray(inputs), jnp.asarray(labels)

    def outputs(params: Any) -> Array:
        return apply(rebuild(params), inputs)

    def criterion(logits: Array) -> Array:
        return cross_entropy(logits, labels)

    def loss(params: Any) -> Array:
        return criterion(outputs(params))

    optimizer = ct.adamw(TRAINED_AT, weight_decay=PAC["weight_decay"])

    def step(_: Any, carry: Any) -> Any:
        params, state = carry
        delta, state = optimizer.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, delta), state

    @jax.jit
    def trained(params: Any) -> tuple[Any, Array]:
        end, _ = jax.lax.fori_loop(0, steps, step, (params, optimizer.init(params)))
        return end, loss(end)

    end, value = trained(params)
    every = ct.diagnostics.gauss_newton_spectrum(outputs, criterion, end)
    first = ct.diagnostics.gauss_newton_spectrum(outputs, criterion, end, leading)
    square = sum(float(jnp.sum(leaf**2)) for leaf in jax.tree.leaves(end))
    return xarray.Dataset(
        {"eigenvalue": ("mode", every), "lanczos": ("leading", first)},
        attrs={"center_square": square, "loss": float(value), "images": images,
               "hidden": hidden, "steps": steps},
    )  # fmt: skip
