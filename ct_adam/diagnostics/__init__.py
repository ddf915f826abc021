"""What one measures on a given loss: its curvature, and how an optimizer descends on it."""

from .descent import DescentRun as DescentRun
from .descent import DescentTerms as DescentTerms
from .descent import ZhouState as ZhouState
from .descent import descent_along as descent_along
from .descent import descent_path as descent_path
from .descent import descent_terms as descent_terms
from .gauss_newton import gauss_newton_product as gauss_newton_product
from .gauss_newton import gauss_newton_spectrum as gauss_newton_spectrum
from .gauss_newton import gauss_newton_trace as gauss_newton_trace
from .sharpness import preconditioned_sharpness as preconditioned_sharpness
