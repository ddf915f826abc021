"""PAC-Bayes terms of AdamW's rules: by spectrum, by curvature, by prior variance."""

from typing import TYPE_CHECKING

import numpy as np

from .axes import plain_ticks
from .flatness import LOOKS, SMALL, TITLE, look_of

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes


def spectra(axis: "Axes", pac: "xarray.Dataset", letter: str) -> None:
    """By spectrum, terms less plain Adam's: of one prior (filled; crossed where some x < 1), of the
    best for each rule with θ* = 0 (open) and with the minimum's own ‖θ*‖² (half filled)."""
    rho = float(pac.prior_variance[1])
    one = pac.sel(preconditioner="frozen")
    held = one.sel(prior_variance=rho)
    readings = [(held.term, "full"), (one.fitted, "none"), (one.centred, "left")]
    each = np.arange(one.sizes["spectrum"])
    for rule, side in (("Adam-ℓ2", -0.12), ("AdamW", 0.12)):
        for term, filled in readings:
            apart = term.sel(rule=rule) - term.sel(rule="Adam")
            look = look_of(rule, lw=0, mew=0.7, ms=4, fillstyle=filled, markerfacecoloralt="w")
            axis.plot(apart, each + side, **look)
            if filled == "full":
                out = held.outside.values > 0
                axis.plot(apart[out], (each + side)[out], "wx", ms=3, mew=0.9)
    grey = {"color": "0.4", "marker": "o", "lw": 0, "ms": 4, "markerfacecoloralt": "w"}
    for words, filled in (("full", f"ρ = {rho:g}"), ("none", "fitted, θ* = 0"),
                          ("left", "fitted, with ‖θ*‖²")):  # fmt: skip
        axis.plot([], [], fillstyle=words, label=filled, **grey)
    axis.plot([], [], "s", color="0.4", ms=4, label="× some x < 1")
    for rule in ("Adam-ℓ2", "AdamW"):
        axis.plot([], [], label=rule, **look_of(rule, lw=0))
    names = [str(name).replace("digits MLP, ", "digits, ") for name in pac.spectrum.values]
    axis.axvline(0, 0, 0.68, color="k", lw=0.6, ls=":")
    axis.set_xscale("symlog", linthresh=0.1, linscale=0.6)
    axis.set_yticks(each, names, fontsize=SMALL)
    axis.set(ylim=(len(names) - 0.4, -3.4))
    axis.set_xlabel("term − plain Adam's, per mode\n(linear within ±0.1, then log)")
    plain_ticks(axis.xaxis, (-1, -0.1, 0, 0.1, 1, 10))
    axis.legend(fontsize=SMALL, loc="upper left", ncol=2, columnspacing=0.8, handletextpad=0.2)
    axis.set_title(f"({letter}) above 0: plain Adam less", fontsize=TITLE)


def by_curvature(axis: "Axes", pac: "xarray.Dataset", letter: str) -> None:
    """The term of a mode less plain Adam's, for a narrow prior and a wider one; dashed where
    Adam's x < 1."""
    modes = pac.sel(preconditioner="frozen", spectrum=["all below 1", "all above 1"])
    there = np.isfinite(modes.eigenvalue.values)
    sigma = modes.eigenvalue.values[there]  # in order: 1e-3 to 0.9, 1.1 to 100
    for rho, width in zip(pac.prior_variance.values[:2], (1.6, 0.8), strict=True):
        x = modes.ratio.sel(prior_variance=rho)
        term = np.log(x) + 1 / x
        above = x.sel(rule="Adam").values[there] > 1
        for rule in ("Adam-ℓ2", "AdamW"):
            apart = (term.sel(rule=rule) - term.sel(rule="Adam")).values[there]
            look = {"lw": width, "color": look_of(rule)["color"]}
            axis.plot(sigma, np.where(above, apart, np.nan), label=f"{rule}, ρ = {rho:g}", **look)
            axis.plot(sigma, np.where(above, np.nan, apart), "--", **look)
    axis.plot([], [], "k--", lw=0.8, label="Adam's x < 1")
    axis.axhline(0, color="k", lw=0.6, ls=":")
    axis.axvline(1, 0.42, color="k", lw=0.6, ls=":")
    axis.set_xscale("log")
    axis.set_yscale("symlog", linthresh=0.03, linscale=0.5)
    plain_ticks(axis.yaxis, (-1, -0.1, 0, 0.1, 1))
    axis.set(xlabel="Hessian's eigenvalue σ", ylabel="term of a mode − Adam's")
    axis.set_ylim(bottom=-9)
    axis.legend(fontsize=SMALL, loc="lower right")
    axis.set_title(f"({letter}) AdamW below ℓ2 where σ < 1", fontsize=TITLE)


def by_prior(axis: "Axes", priors: "xarray.Dataset", letter: str) -> None:
    """The term on the network's spectrum by prior variance, for two cutoffs of small eigenvalues;
    from where on all x > 1."""
    one = priors.sel(preconditioner="frozen")
    rho = one.prior_variance.values
    for cut, line, grey in zip(one.cutoff.values, ("-", "--"), ("0.82", "0.92"), strict=True):
        edge = float(one.inside_from.sel(cutoff=cut))
        words = f"σ > 10$^{{{round(np.log10(cut))}}}$"
        axis.axvspan(edge, rho[-1], color=grey, lw=0, zorder=edge - 1)
        axis.plot([], [], line, color="0.4", lw=1, label=words)
        for rule in LOOKS:
            term = one.term.sel(rule=rule, cutoff=cut).values
            colour = look_of(rule)["color"]
            axis.loglog(rho, term, line, color=colour, lw=1, label=rule if line == "-" else None)
            best = int(np.argmin(term))
            axis.plot(rho[best], term[best], "v", ms=3.5, color=colour, zorder=3)
    axis.plot([], [], "v", ms=3.5, color="0.4", label="ρ fitted")
    axis.set(xlabel="prior variance ρ", ylabel="mean of ln x + 1/x", xlim=(rho[0], rho[-1]))
    axis.legend(fontsize=SMALL)
    axis.set_title(f"({letter}) digits MLP; grey: all x > 1", fontsize=TITLE)
