"""The parts of `bounds` as labelled datasets."""

from typing import TYPE_CHECKING, Any

import numpy as np

import ct_adam as ct

from . import _bounds as measured
from . import _bounds_networks as networks

if TYPE_CHECKING:
    import xarray

CURVES = ((0.9, 0.999), (0.9, 0.95))
BOUNDARIES = ("C = 0", "b2 = b1²")


def _about(name: str, units: str = "1") -> dict[str, str]:
    return {"long_name": name, "units": units}


def _decays(dims: str | tuple[str, ...], b1: Any, b2: Any) -> dict[str, Any]:
    return {
        "b1": (dims, b1, _about("first-moment decay")),
        "b2": (dims, b2, _about("second-moment decay")),
    }


def on_the_curve(num: int) -> tuple[np.ndarray, np.ndarray]:
    """`num` pairs on the normal curve through the default pair, and it, in the order of b1."""
    b1, b2 = (np.asarray(x) for x in ct.theory.normal_curve(*measured.DEFAULT, num))
    order = np.argsort(np.append(b1, measured.DEFAULT[0]))
    return np.append(b1, measured.DEFAULT[0])[order], np.append(b2, measured.DEFAULT[1])[order]


def curves() -> "xarray.Dataset":
    """Angles and crossings of `CURVES`."""
    import xarray

    found = [measured.normal_curve(*pair) for pair in CURVES]
    point = ("curve", "point")
    return xarray.Dataset(
        {
            "cosine": (
                point, np.stack([c.cosine for c in found]),
                _about("cosine of the angle between normal and level curve"),
            ),
            "crossing": (
                ("curve", "boundary", "decay"), np.stack([c.crossings for c in found]),
                _about("where the normal curve crosses a boundary"),
            ),
            "cosine_discrete": (
                "curve", [c.cosine_discrete for c in found],
                _about("cosine of the angle between normal curve and b2 = b1²"),
            ),
        },
        coords={
            "curve": [f"through {pair}" for pair in CURVES],
            "boundary": list(BOUNDARIES),
            "decay": ["b1", "b2"],
            **_decays(point, np.stack([c.b1 for c in found]), np.stack([c.b2 for c in found])),
        },
    )  # fmt: skip


def optimizer(pairs: int, steps: int, size: int, seed: int) -> "xarray.Dataset":
    """|u|/bound of worst case and random streams along the normal curve through the default."""
    import xarray

    gradients = measured.random_gradients(steps, size, seed)
    decays, rows = on_the_curve(pairs), []
    for b1, b2 in zip(*decays, strict=True):
        ratio = measured.optimizer_ratios(b1, b2, gradients)
        streams = np.split(ratio[steps // 2 :, 1:], len(measured.STREAMS), axis=1)
        rows.append(
            {
                "quantiles": [measured.quantiles_of(stream) for stream in streams],
                "exceedance": [measured.exceedance_of(stream) for stream in streams],
                "bound": measured.bound(b1, b2, steps, "discrete")[-1],
                "largest": ratio.max(),
                "worst": [ratio[:, 0].min(), ratio[:, 0].max()],
            }
        )
    half = "in the second half of the run"
    about = {
        "quantiles": (("stream", "quantile"), f"|u|/bound {half}"),
        "exceedance": (("stream", "threshold"), f"part of |u|/bound {half} from a threshold on"),
        "bound": ((), "bound at the last step"),
        "largest": ((), "largest |u|/bound of all streams and steps"),
        "worst": (("end",), "least and largest |u|/bound of the worst case over all steps"),
    }
    return xarray.Dataset(
        {
            key: (("pair", *dims), np.array([row[key] for row in rows]), _about(name))
            for key, (dims, name) in about.items()
        },
        coords={
            **_decays("pair", *decays),
            "stream": list(measured.STREAMS),
            "quantile": list(measured.QUANTILES),
            "threshold": measured.THRESHOLDS,
            "end": ["least", "largest"],
        },
        attrs={"steps": steps},
    )


def flows(count: int, pairs: int, steps: int, size: int, seed: int) -> "xarray.Dataset":
    """|u| over the bounds of the last `count` flows, their gradients held over each step."""
    import xarray

    gradients = measured.random_gradients(steps, size, seed)
    decays, kinds = on_the_curve(pairs), ("held", "flow", "continuous")
    sides = measured.FLOWS[-count:]
    found = [
        [measured.flow_ratios(side, b1, b2, gradients) for b1, b2 in zip(*decays, strict=True)]
        for side in sides
    ]

    def of(reduce: Any) -> np.ndarray:
        return np.array([[[reduce(ratio[k]) for k in kinds] for ratio in row] for row in found])

    late = steps // 2
    dims = ("flow", "pair", "kind")
    return xarray.Dataset(
        {
            "largest": (dims, of(np.max), _about("largest |u|/bound of all streams and steps")),
            "quantiles": (
                (*dims, "quantile"), of(lambda ratio: measured.quantiles_of(ratio[late:, 1:])),
                _about("|u|/bound of the random streams in the second half of the run"),
            ),
            "worst": (
                (*dims, "end"), of(lambda ratio: (ratio[:, 0].min(), ratio[:, 0].max())),
                _about("least and largest |u|/bound of the held worst case over all steps"),
            ),
        },
        coords={
            **_decays("pair", *decays),
            "flow": [side.name for side in sides],
            "kind": list(kinds),
            "quantile": list(measured.QUANTILES),
            "end": ["least", "largest"],
        },
    )  # fmt: skip


def paper(pairs: int) -> "xarray.Dataset":
    """The `lag` flow from zero under its worst case, on the curve and where it exceeds most."""
    import xarray

    b1, b2, *_ = measured.largest_excess()
    decays = np.concatenate([on_the_curve(pairs), [[b1], [b2]]], axis=1)
    found = [measured.continuous_ratios(x, y) for x, y in zip(*decays, strict=True)]
    ratio = {key: np.array([row[key] for row in found]) for key in ("flow", "continuous")}
    return xarray.Dataset(
        {
            "worst": (
                ("pair", "end"), np.stack([ratio["flow"].min(1), ratio["flow"].max(1)], axis=1),
                _about("least and largest |u|/bound of the flow's worst case over all steps"),
            ),
            "excess": (
                "pair", ratio["continuous"].max(1) - 1, _about("largest |u|/paper's bound − 1")
            ),
            "steps": (
                "pair", ratio["continuous"].argmax(1) + 1, _about("gradients seen there", "steps")
            ),
        },
        coords={**_decays("pair", *decays), "end": ["least", "largest"]},
    )  # fmt: skip


def caps(count: int) -> "xarray.Dataset":
    """The largest |u| after the gradient has vanished, and the slope of its logarithm, over `count`
    values of σ/eps."""
    import xarray

    pairs = np.array([*measured.CAPPED, measured.far_pair()])
    scales = np.geomspace(1e2, 1e6, count)
    largest = measured.caps(pairs, scales)
    r = np.array([[measured.exponent(b1, b2, s) for s in measured.SIDES] for b1, b2 in pairs])
    closed = np.stack([[measured.cap(x, scales) for x in row] for row in r])
    logs = np.log(largest).reshape(-1, len(scales)).T
    slope = np.polyfit(np.log(scales), logs, 1)[0].reshape(r.shape)
    side, scale = ("pair", "side"), ("pair", "side", "scale")
    return xarray.Dataset(
        {
            "largest": (scale, largest, _about("largest |u| after the gradient has vanished")),
            "closed_form": (scale, closed, _about("the same in closed form, between steps too")),
            "slope": (side, slope, _about("d ln max|u| / d ln σ, least squares")),
            "exponent": (side, 1 - r, _about("1 − r, r = 2a/b")),
        },
        coords={
            **_decays("pair", *pairs.T),
            "side": list(measured.SIDES),
            "scale": ("scale", scales, _about("σ/eps")),
        },
        attrs={"eps": measured.EPS},
    )


def network(name: str, steps: int, learning_rate: float, seed: int) -> "xarray.Dataset":
    """|u|/bound over the training of one of `networks.NETWORKS`."""
    import xarray

    problem, params = networks.NETWORKS[name](seed)
    found = networks.ratios(problem, params, steps, learning_rate)
    about = {
        "quantiles": (("step", "quantile"), "|u|/bound over the coordinates"),
        "live": (("step",), "part of the coordinates with u ≠ 0"),
        "loss": (("step",), "loss before the step"),
        "exceedance": (
            ("threshold",), "part of |u|/bound in the second half of the run from a threshold on"
        ),
        "nearest_step": (("half",), "step at which a coordinate comes nearest to the bound"),
        "nearest_ratio": (("half",), "its |u|/bound there"),
        "nearest_name": (("half",), "which coordinate"),
        "nearest_gradient": (("half", "step"), "its gradients up to there"),
    }  # fmt: skip
    return xarray.Dataset(
        {key: (dims, np.asarray(found[key]), _about(what)) for key, (dims, what) in about.items()},
        coords={
            "step": ("step", np.arange(1, steps + 1), _about("gradients seen", "steps")),
            "quantile": list(measured.QUANTILES),
            "threshold": measured.THRESHOLDS,
            "half": ["first", "second"],
        },
        attrs={"b1": measured.DEFAULT[0], "b2": measured.DEFAULT[1], "room": networks.ROOM},
    )
