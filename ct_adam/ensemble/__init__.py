"""Many trajectories at once."""

from .api import ensemble as ensemble
from .case import Case as Case
from .table import METRICS as METRICS
