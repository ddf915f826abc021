"""One trajectory: of a flow (`solve`), of an optimizer (`run`), and the distance between them."""

from .compare import Comparison as Comparison
from .compare import compare as compare
from .controllers import ErrorScale as ErrorScale
from .controllers import WholeStepBreaks as WholeStepBreaks
from .orders import OrderFit as OrderFit
from .orders import fit_order as fit_order
from .outcome import OUTCOME as OUTCOME
from .run import run as run
from .solve import solve as solve
from .trajectory import RunError as RunError
from .trajectory import Trajectory as Trajectory
from .trust import VERDICT as VERDICT
from .trust import Trust as Trust
