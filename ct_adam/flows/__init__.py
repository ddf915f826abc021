"""The continuous side: optimizers as differential equations."""

from .adam import AdamFlow as AdamFlow
from .adam import KAdamFlow as KAdamFlow
from .base import AbstractFlow as AbstractFlow
from .base import as_dynamic as as_dynamic
from .interpolating import InterpolatingFlow as InterpolatingFlow
from .interpolating import InterpolatingState as InterpolatingState
from .modified import ModifiedFlow as ModifiedFlow
from .momentum import MomentumFlow as MomentumFlow
from .momentum import MomentumState as MomentumState
from .radius_direction import RadiusDirectionFlow as RadiusDirectionFlow
from .radius_direction import RadiusDirectionState as RadiusDirectionState
from .rmsprop import RMSPropFlow as RMSPropFlow
from .sde import AbstractSDE as AbstractSDE
from .sde import AdamSDE as AdamSDE
from .sde import RMSPropSDE as RMSPropSDE
from .sde_sgd import SGDSDE as SGDSDE
from .second_order import SMEFlow as SMEFlow
from .second_order import StaggeredFlow as StaggeredFlow
from .sign import SignFlow as SignFlow
from .stages import AbstractAdamFlow as AbstractAdamFlow
from .stages import AdamState as AdamState
