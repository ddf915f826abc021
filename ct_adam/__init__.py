"""The laboratory for optimizers as differential equations."""

from . import decays as decays
from . import flows as flows
from . import optimizers as optimizers
from . import problems as problems
from . import theory as theory
from .ensemble import Case as Case
from .ensemble import ensemble as ensemble
from .flows import AdamFlow as AdamFlow
from .flows import InterpolatingFlow as InterpolatingFlow
from .flows import KAdamFlow as KAdamFlow
from .flows import ModifiedFlow as ModifiedFlow
from .flows import MomentumFlow as MomentumFlow
from .flows import RMSPropFlow as RMSPropFlow
from .flows import SignFlow as SignFlow
from .flows import SMEFlow as SMEFlow
from .flows import StaggeredFlow as StaggeredFlow
from .optimizers import adam_l2 as adam_l2
from .optimizers import adam_prox as adam_prox
from .optimizers import adamw as adamw
from .optimizers import decoupled as decoupled
from .optimizers import frank_wolfe as frank_wolfe
from .optimizers import k_adam as k_adam
from .optimizers import k_adam_decays as k_adam_decays
from .optimizers import sgdw as sgdw
from .optimizers import sign_descent as sign_descent
from .optimizers import stage_updates as stage_updates
from .optimizers import steepest_descent as steepest_descent
from .optimizers import warm_restarts as warm_restarts
from .simulate import OUTCOME as OUTCOME
from .simulate import Comparison as Comparison
from .simulate import RunError as RunError
from .simulate import Trajectory as Trajectory
from .simulate import compare as compare
from .simulate import fit_order as fit_order
from .simulate import run as run
from .simulate import solve as solve
from .sweep import Grid as Grid
from .sweep import Refine as Refine
from .sweep import Sweep as Sweep
from .sweep import axes as axes
from .sweep import boundary as boundary
from .sweep import open as open
from .theory import Advice as Advice
from .theory import advise as advise

__version__ = "0.1.0"
