"""Descent, complexity, stationary laws and PAC-Bayes terms of AdamW; flatness of networks."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .axes import head_room, plain_ticks
from .flatness import LOOKS, SMALL, TITLE, against, look_of, scatter
from .pac_bayes import by_curvature, by_prior, spectra
from .style import OKABE_ITO, PAGE, style

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SHORTER = {"the noise alone in v": "first order in η"}


def dynamic_regularization_figure(tree: "xarray.DataTree", numbers: Mapping[str, Any]) -> "Figure":
    """Twelve panels: descent; stationary laws; PAC-Bayes terms; networks."""
    import matplotlib.pyplot as plt

    node = {name: one.to_dataset() for name, one in tree.children.items()}
    nets = [one for name, one in node.items() if name.startswith("network")]
    with style():
        figure = plt.figure(figsize=(PAGE, 14.0), layout="constrained")
        axes = figure.subplots(6, 2, height_ratios=(1.5, 1.25, 1, 1.1, 1, 1)).ravel()
        _slack(axes[0], node["descent"], numbers["descent"], "a")
        _terms(axes[1], node["descent"], "b")
        _gradients(axes[2], node, "c")
        _rejected(axes[3], {name: node[name] for name in ("modes", "matrices", "live")}, "d")
        _variances(axes[4], node["modes"], "e")
        _real(axes[5], node["live"], "f")
        spectra(axes[6], node["pac_bayes"], "g")
        by_curvature(axes[7], node["pac_bayes"], "h")
        by_prior(axes[8], node["priors"], "i")
        networks = numbers["networks"]
        against(axes[9], networks, ("sharpness", "relative sharpness", "trace"), "j")
        against(axes[10], networks, ("test error", "gap in error"), "k")
        scatter(axes[11], nets, "l")
        # Once: else every file that is written pays for it.
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
    return figure


def _terms(axis: "Axes", descent: "xarray.Dataset", letter: str) -> None:
    """What the inequality adds and subtracts along one run in the regime, and its slack."""
    case = descent.attrs["shown"]
    run = descent.sel(case=case)
    step = run.step + 1
    terms = {
        "error": ("+ (η/2c₁)‖∇F − m‖²", "vermilion"),
        "gradient": ("− (η/2c₂)‖∇F$_k$‖²", "blue"),
        "update": ("− (η/4c₂)‖u‖²", "sky"),
    }
    for name, (words, colour) in terms.items():
        axis.loglog(step, np.abs(run[name]), color=OKABE_ITO[colour], lw=0.8, label=words)
    axis.loglog(step, run.slack, "k", lw=0.8, label="right − left side")
    axis.set(xlabel="optimizer step k", ylabel="terms of the inequality")
    axis.loglog(step, -run.reweighting, ":", color="0.4", lw=1, label="fall by the new λ$_k$v$_k$")
    head_room(axis, 0.45)
    axis.legend(fontsize=SMALL, loc="upper right")
    axis.set_title(f"({letter}) F$_{{k+1}}$ ≤ F$_k$ + terms, {_typeset(case)}", fontsize=TITLE)


def _slack(
    axis: "Axes", descent: "xarray.Dataset", numbers: Mapping[str, Any], letter: str
) -> None:
    """By setting and seed the smallest slack over the sum of the terms; how often it was < 0."""
    cases = descent.case.values
    steps = numbers[cases[0]]["steps"]
    for i, case in enumerate(cases):
        inside = numbers[case]["in the regime"]
        colour = OKABE_ITO["blue" if inside else "vermilion"]
        one = descent.smallest_relative.sel(case=case)
        axis.plot(one, np.full(one.size, i), "o", ms=2.5, mfc="none", mew=0.7, color=colour)
        many = numbers[case]["violations"]
        axis.text(
            0.99, i, f"{many}", color=colour, fontsize=SMALL, va="center", ha="right",
            transform=axis.get_yaxis_transform(),
        )  # fmt: skip
    axis.axvline(0, 0, 0.84, color="k", lw=0.6, ls=":")
    axis.set_xscale("symlog", linthresh=1, linscale=1)
    plain_ticks(axis.xaxis, (-10, -1, 0, 1))
    names = [_typeset(str(case)) for case in cases]
    axis.set_yticks(range(len(cases)), names, fontsize=SMALL)
    axis.set(ylim=(len(cases) - 0.2, -3.0), xlim=(-60, 15))
    axis.set_xlabel("smallest slack / terms\n(linear within ±1, then log)")
    for colour, words in (("blue", "in the regime"), ("vermilion", "outside")):
        axis.plot([], [], "o", ms=2.5, mfc="none", mew=0.7, color=OKABE_ITO[colour], label=words)
    axis.legend(fontsize=SMALL, loc="upper left")
    axis.set_title(f"({letter}) violations in {steps:,} steps", fontsize=TITLE)


def _typeset(case: str) -> str:
    for plain, signs in (("λ_k", "λ$_k$"), ("c_∞", "c$_∞$"), ("1e-4", "10⁻⁴"), ("1e-5", "10⁻⁵")):
        case = case.replace(plain, signs)
    return case.replace("1e5", "10⁵")


def _gradients(axis: "Axes", node: Mapping[str, "xarray.Dataset"], letter: str) -> None:
    """Squared gradients by T on a nonconvex loss and on the toy, with the exponents of theory."""
    general, rates, stages = node["general"], node["toy_rates"], node["toy_stages"]
    lines = [
        ("nonconvex, mean", general.steps, general.average.mean("seed"), -0.5, "blue", "o"),
        ("toy, η ∝ T$^{-1/2}$", rates.horizon, rates.square[0].mean("group"), -0.5, "sky", "s"),
        ("toy, η ∝ 1/T", rates.horizon, rates.square[1].mean("group"), -1.0, "orange", "^"),
        ("toy, in stages", stages.steps, 2 * stages.gap.mean("group"), -1.0, "green", "D"),
    ]
    for words, steps, values, power, colour, marker in lines:
        steps, values = np.asarray(steps, float), np.asarray(values)
        axis.loglog(steps, values, marker, ms=3, color=OKABE_ITO[colour], label=words)
        axis.loglog(steps, values[-1] * (steps / steps[-1]) ** power, "k:", lw=0.7)
    axis.loglog(general.steps, general.bound, "--", lw=0.8, color=OKABE_ITO["blue"], label="bound")
    axis.plot([], [], "k:", lw=0.7, label="T$^{-1/2}$, T$^{-1}$")
    axis.set(xlabel="steps T", ylabel="squared gradient")
    head_room(axis, 0.6)
    axis.legend(fontsize=SMALL, loc="upper right")
    axis.set_title(f"({letter}) complexity", fontsize=TITLE)


def _variances(axis: "Axes", modes: "xarray.Dataset", letter: str) -> None:
    """Of one mode, over the flow's: measured in chains, lines by the chain's closed form. By
    theory Adam's and Adam-ℓ2's are one curve, with momentum or without: markers lie around it."""
    strong = float(modes.weight_decay.max())
    for i, rule in enumerate(LOOKS):
        for b1 in np.unique(modes.b1):
            decay = 0.0 if rule == "Adam" else strong
            lanes = modes.isel(
                lane=np.flatnonzero(
                    (modes.rule == rule) & (modes.b1 == b1) & (modes.weight_decay == decay)
                )
            ).sortby("part")
            flow = lanes.wrong_theory.sel(wrong="the flow's")
            look = look_of(rule, lw=0, mew=0.8, ms=2 if b1 else 5.5)
            look["mfc"] = look["color"] if b1 else "none"
            place = lanes.part + 0.018 * (i - 1)
            error = 3 * lanes.error / flow
            axis.errorbar(place, lanes.measured / flow, error, elinewidth=0.7, **look)
            line = {"ls": "-" if b1 else "--", "lw": 0.8, "zorder": 1}
            axis.plot(lanes.part, lanes.theory / flow, color=look["color"], **line)
    axis.axhline(1, color="k", lw=0.6, ls=":")
    axis.set(xlabel="η / largest stable η", ylabel="variance / the flow's")
    axis.set_title(
        f"({letter}) one mode, h = {modes.attrs['curvature']:g}, λ = {strong:g}", fontsize=TITLE
    )
    _rules_legend(axis)


def _rules_legend(axis: "Axes") -> None:
    from matplotlib.lines import Line2D

    grey = {"color": "0.4", "lw": 0.8, "marker": "o"}
    handles = [Line2D([], [], label=rule, **look_of(rule, lw=0)) for rule in LOOKS]
    handles.append(Line2D([], [], mfc="0.4", ms=2, ls="-", label="b1 = 0.9", **grey))
    handles.append(Line2D([], [], mfc="none", ms=5.5, ls="--", label="b1 = 0", **grey))
    axis.legend(handles=handles, fontsize=SMALL, loc="upper left")


def _rejected(axis: "Axes", chains: Mapping[str, "xarray.Dataset"], letter: str) -> None:
    """In standard errors, how far every law is from what was measured: its own, and wrong ones."""
    names: list[str] = []
    columns: list[tuple[Any, ...]] = []
    for title, name in (("one mode", "modes"), ("Q, H coupled", "matrices"), ("real Adam", "live")):
        dataset = chains[name]
        own = np.abs(dataset.z)
        # Where learning rates vary it is one quarter of the largest for which a distance is asked.
        asked = np.isclose(dataset.get("part", 0.25 + 0 * dataset.b1).values, 0.25)
        within = [dim for dim in own.dims if dim != "lane"]
        columns.append((dataset.rule.values, own.max(within).values, np.full(asked.shape, True)))
        names.append(f"{title}: its law")
        for wrong in dataset.wrong.values:
            columns.append((dataset.rule.values, dataset.wrong_z.sel(wrong=wrong).values, asked))
            names.append(_SHORTER.get(str(wrong), str(wrong)))
    top = 2000.0
    for i, column in enumerate(columns):
        for rule, value, dark in zip(*column, strict=True):
            look = look_of(rule, lw=0, mew=0.7, ms=3, mfc="none", alpha=1 if dark else 0.25)
            place = i + 0.22 * (list(LOOKS).index(rule) - 1)
            if np.isinf(value):
                axis.plot(top, place, **{**look, "marker": ">"})
            elif np.isfinite(value):
                axis.plot(value, place, **look)
    axis.set_xscale("log")
    for z in (3, 10):
        axis.axvline(z, color="k", lw=0.6, ls=":")
    axis.set_yticks(range(len(names)), names, fontsize=SMALL)
    axis.set_xlabel("|z|, standard errors\n(pale: η other than ¼ of the largest)")
    axis.set(ylim=(len(names) - 0.4, -0.6), xlim=(0.02, 2 * top))
    axis.set_title(f"({letter}) laws beside chains", fontsize=TITLE)


def _real(axis: "Axes", live: "xarray.Dataset", letter: str) -> None:
    """Adam with a live v on uncoupled modes, by curvature; with Zhou et al.'s Q dashed."""
    lanes = live.isel(lane=np.flatnonzero((live.problem == "modes") & (live.b1 == 0)))
    h = np.asarray(live.attrs["curvatures"])
    each = np.arange(len(h))
    for rule in LOOKS:
        one = lanes.isel(lane=int(np.flatnonzero(lanes.rule == rule)[0]))
        look = look_of(rule, lw=0)
        error = 3 * one.error.values[each, each]
        axis.errorbar(h, one.measured.values[each, each], error, zorder=3, elinewidth=0.8, **look)
        axis.loglog(h, one.theory.values[each, each], color=look["color"], lw=0.8, label=rule)
        theirs = one.wrong_theory.sel(wrong="Zhou's Q").values[each, each]
        axis.loglog(h, theirs, "--", color=look["color"], lw=0.8)
    axis.plot([], [], "k--", lw=0.8, label="Zhou et al.: no √b")
    plain_ticks(axis.yaxis, (2e-4, 5e-4, 1e-3, 2e-3, 5e-3))
    axis.set(xlabel="curvature h", ylabel="variance of θ (3 s.e.)")
    head_room(axis, 0.25)
    axis.legend(fontsize=SMALL)
    eta, decay, batch = float(lanes.learning_rate[0]), live.weight_decay, live.batch_size
    axis.set_title(f"({letter}) real Adam: η={eta:g}, b={batch:g}, λ={decay:g}", fontsize=TITLE)
