"""The fastest on Adam's flow over five decades of error: one race is one point of a curve.

The order of a Taylor series follows its tolerance in whole numbers, so that its errors come in
steps: at one error it is lucky, at another it is not.
"""

from .ensemble import FAST, Event, measured
from .output import finish
from .workloads import FlowLanes, uniform

ERRORS = (1e-3, 1e-4, 1e-5, 1e-6, 1e-7)


def main(quick: bool) -> None:
    """The quadratic, at the rates of the paper."""
    lanes = uniform(128 if quick else 1024)
    reports = [
        measured(
            Event(FlowLanes(f"quadratic to {error:g}", **lanes), error, peers=FAST),
            3 if quick else 7,
        )
        for error in ERRORS
    ]
    finish("precision", quick, reports)
