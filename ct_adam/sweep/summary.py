"""Results in words: a region map beside theory with its worst cells, and how well flows follow."""

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import xarray


def panel_summary(panel: "xarray.Dataset") -> dict[str, dict[str, float]]:
    """Numbers of one panel, by side.

    - `answered`, `unstable`: fractions of all cells, and of the answered ones.
    - `agreement`: fraction of answered cells whose side of the theory's boundary is the measured
      one; `farthest`: the largest distance in b2 of a cell that disagrees.
    - `b1`, `b2`, `max_update`: the worst answered cell. `bound_ratio`: largest measured
      update over what theory allows; `bound_approach`: the same of cells where that is above 2.
    """
    summary = {}
    for side in panel.side.values:
        cell = panel.sel(side=side)
        answered = cell.answered.values
        if not answered.any():
            summary[str(side)] = {"answered": 0.0}
            continue
        signed = cell.boundary.values[:, None] - cell.b2.values[None, :]
        differs = answered & (cell.unstable.values != (signed > 0))
        log_ratio = np.log(cell.max_update.values) - cell.log_bound.values
        ratio = np.where(answered, log_ratio, -np.inf)
        # Where next to nothing is allowed, u(0) = 1 meets the bound whatever follows.
        approach = np.where(cell.log_bound.values > np.log(2), ratio, -np.inf)
        size = np.where(answered, cell.max_update.values, -np.inf)
        i, j = np.unravel_index(np.argmax(size), size.shape)
        summary[str(side)] = {
            "answered": float(answered.mean()),
            "unstable": float(cell.unstable.values[answered].mean()),
            "agreement": 1 - float(differs.sum() / answered.sum()),
            "farthest": float(np.abs(signed[differs]).max()) if differs.any() else 0.0,
            "b1": float(cell.b1[i]),
            "b2": float(cell.b2[j]),
            "max_update": float(size[i, j]),
            "bound_ratio": float(np.exp(ratio.max())),
            "bound_approach": float(np.exp(approach.max())),
        }
    return summary


def sides_agreement(panel: "xarray.Dataset") -> float:
    """Fraction of the cells that both sides answered on which they say the same."""
    both = panel.answered.all("side").values
    same = (panel.unstable.isel(side=0) == panel.unstable.isel(side=1)).values
    return float(same[both].mean()) if both.any() else float("nan")


def region_summary(tree: "xarray.DataTree") -> dict[str, Any]:
    """Of JSON's types: the configuration, and by panel `panel_summary` by side and how many cells
    the sides agree on."""
    panels = {
        name: {
            "title": panel.attrs["title"],
            "steps": panel.attrs["steps"],
            "sides": panel_summary(panel),
            "sides_agree": _plain(sides_agreement(panel)),
        }
        for name, node in tree.children.items()
        for panel in [node.to_dataset()]
    }
    return {"config": json.loads(tree.attrs["config"]), "panels": panels}


def _plain(value: float) -> float | None:
    """JSON has no NaN."""
    return value if math.isfinite(value) else None


def describe(tree: "xarray.DataTree") -> str:
    """The summary as a table of plain text, a row a panel and side."""
    head = (
        f"{'problem':<46}{'side':<11}{'answered':>9}{'unstable':>9}{'theory':>8}"
        f"{'off by':>8}{'max |u|':>10}  {'at b1, b2':<14}{'|u|/bound':>9}"
    )
    lines = [head, "-" * len(head)]
    for name, node in tree.children.items():
        panel = node.to_dataset()
        title = f"{panel.attrs['title']}, {panel.attrs['steps']} steps"
        for side, row in panel_summary(panel).items():
            if row["answered"] == 0:
                lines.append(f"{title:<46}{side:<11}{'0 %':>9}  no cell has an answer")
                continue
            compares = name in ("worst_case", "vanishing")
            lines.append(
                f"{title:<46}{side:<11}{row['answered']:>8.1%} {row['unstable']:>8.1%}"
                + (f"{row['agreement']:>8.2%}{row['farthest']:>8.4f}" if compares else f"{'':>16}")
                + f"{row['max_update']:>10.3g}  {row['b1']:.3f}, {row['b2']:.3f}"
                + (f"{row['bound_approach']:>12.4f}" if row["bound_approach"] else f"{'–':>12}")
            )
            title = ""
        lines.append(f"{'':<46}flow and optimizer agree on {sides_agreement(panel):.2%} of cells")
        if (optimizer := panel.attrs.get("optimizer", "Adam")) != "Adam":
            lines.append(
                f"{'':<46}(the flow and the bound are Adam's, the optimizer is {optimizer})"
            )
    lines.append(
        "theory: share of cells on the side of the boundary that was measured; off by: the largest "
        "distance\nin b2 of a cell that is not. Losses are bounded, not predicted, by theory."
    )
    return "\n".join(lines)


def describe_following(dataset: "xarray.Dataset") -> str:
    """The dataset as a table of plain text, a row a flow, and advice where one is not trusted."""
    wide = max(8, *(len(name) + 2 for name in dataset.flow.values))
    head = (
        f"{'flow':<{wide}}{'max error':>12}{'relative':>11}{'rms error':>12}{'solver steps':>14}"
        f"{'evaluations':>13}{'seconds':>9}  {'trusted':<9}outcome"
    )
    about = f"{dataset.attrs['parameters']} parameters; optimizer: "
    lines = [about + dataset.attrs["optimizer_outcome"], head, "-" * len(head)]
    if dataset.attrs["interrupted"]:
        lines.insert(0, "Interrupted: the flows that were done.")
    for name in dataset.flow.values:
        row = dataset.sel(flow=name)
        lines.append(
            f"{name:<{wide}}{float(row.max_error):>12.3e}{float(row.relative_error):>11.3e}"
            f"{float(row.rms_error):>12.3e}{int(row.solver_steps):>14}{int(row.evaluations):>13}"
            f"{float(row.wall_seconds):>9.2f}  {row.trusted.item():<9}{row.outcome.item()}"
        )
    return "\n".join(lines + _advice(dataset))


def _advice(dataset: "xarray.Dataset") -> list[str]:
    """A line for each flow that is not trusted, and for one whose order was chosen; and what
    published flows are beside an optimizer that is not of this package."""
    lines, optimizer = [], json.loads(dataset.attrs["config"])["optimizer"]
    known = [name for name in dataset.flow.values if not name.startswith("interpolating")]
    if known and ":" in optimizer:
        lines.append(
            f"{', '.join(known)}: published, of Adam's family at these hyperparameters; whatever "
            f"else is in {optimizer} only interpolating flows follow."
        )
    for name in dataset.flow.values:
        row = dataset.sel(flow=name)
        chosen = name.startswith("interpolating-auto")
        if row.trusted.item() == "no" or chosen:
            lines.append(
                f"{name} (order {int(row.trust_order)}, stride {int(row.trust_stride)}, estimated "
                f"relative error {float(row.trust_estimate):.1e}): {row.trust_advice.item()}"
            )
    return lines
