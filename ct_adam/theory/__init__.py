"""Closed forms and diagnostics, one module a topic of EQUATIONS.md."""

from . import advice as advice
from . import interpolation as interpolation
from . import stability as stability
from .advice import Advice as Advice
from .advice import advise as advise
from .degenerate import degenerate_boundary as degenerate_boundary
from .degenerate import degenerate_radius as degenerate_radius
from .degenerate import degenerate_rate as degenerate_rate
from .interpolation import error_constant as error_constant
from .interpolation import interpolated_rate as interpolated_rate
from .interpolation import smallest_stride as smallest_stride
from .interpolation import stability_radius as stability_radius
from .linear_stability import spectral_radius as spectral_radius
from .linear_stability import step_matrix as step_matrix
from .regimes import REGIME as REGIME
from .regimes import regime as regime
from .sharpness import preconditioned_sharpness as preconditioned_sharpness
from .sharpness import stability_edge as stability_edge
from .stability import growth_rate as growth_rate
from .stability import level_curve as level_curve
from .stability import normal_curve as normal_curve
from .stability import stability_boundary as stability_boundary
from .stability import stability_coefficient as stability_coefficient
from .stability import update_bound as update_bound
from .stability import worst_case_gradients as worst_case_gradients
