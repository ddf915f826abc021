"""`ct-adam compare`: flows beside the optimizer."""

import json
import math
from pathlib import Path
from typing import Annotated, Any

import tyro

from .. import plotting, sweep
from ..flows.registry import describe_flows
from ..sweep import FollowConfig
from .told import tell, tell_kept


def compare(
    config: Annotated[FollowConfig, tyro.conf.arg(name="")] = FollowConfig(),  # noqa: B008
    out: Path = Path("out"),
    json_: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> None:
    """Compare optimizers as ODEs with the discrete optimizer, on any loss.

    Writes compare.zarr, compare.png and compare.pdf, and prints a table: largest and relative
    error over all parameters, solver steps, gradient evaluations, wall time, and whether an
    interpolating flow can be trusted. --flow list prints the published flows instead. A result of
    other settings in that folder is kept beside it, as compare-….zarr.

    Args:
        config: which flows beside which optimizer, on what
        out: folder for the results
        json_: print one JSON object in place of the table
    """
    if config.flow.strip() == "list":
        print(describe_flows())
        return
    folder = sweep.writable_folder(out)
    store = folder / "compare.zarr"
    sweep.check_replaceable(store)
    dataset = sweep.follow(config, lambda label: tell("compare", f"running {label} …"))
    tell_kept("compare", sweep.keep_earlier(store, dataset.attrs["config"]))
    sweep.write_dataset(dataset, store)
    paths = plotting.save_figure(
        plotting.following_figure(dataset), folder / "compare", dataset.attrs
    )
    if json_:
        print(json.dumps(as_json(dataset)))
    else:
        print(sweep.describe_following(dataset))
        print(f"\nWrote {store}, {', '.join(map(str, paths))}.")


def as_json(dataset: Any) -> dict[str, Any]:
    """Configuration and, by flow, the numbers of the table."""
    rows = {
        name: {
            key: _plain(key, dataset[key].sel(flow=name).item())
            for key in dataset.data_vars
            if dataset[key].dims == ("flow",)
        }
        for name in dataset.flow.values.tolist()
    }
    return {
        "config": json.loads(dataset.attrs["config"]),
        "parameters": dataset.attrs["parameters"],
        "optimizer_outcome": dataset.attrs["optimizer_outcome"],
        "interrupted": bool(dataset.attrs["interrupted"]),
        "flows": rows,
    }


def _plain(key: str, value: Any) -> Any:
    """JSON has no NaN, but it has yes and no."""
    if key == "trusted":
        return {"yes": True, "no": False}.get(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value
