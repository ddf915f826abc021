"""What is optimized: analytic losses, gradient streams, small networks on embedded data."""

from .analytic import quadratic as quadratic
from .analytic import rosenbrock as rosenbrock
from .base import AbstractProblem as AbstractProblem
from .base import LossProblem as LossProblem
from .base import as_params as as_params
from .base import as_problem as as_problem
from .base import check_problem as check_problem
from .base import working_dtype as working_dtype
from .batches import Minibatches as Minibatches
from .batches import fixed_batch as fixed_batch
from .batches import full_batch as full_batch
from .digits import digits_data as digits_data
from .digits import digits_logistic as digits_logistic
from .digits import digits_mlp as digits_mlp
from .streams import ContinuousStream as ContinuousStream
from .streams import GradientStream as GradientStream
from .streams import alternating_stream as alternating_stream
from .streams import constant_stream as constant_stream
from .streams import random_stream as random_stream
from .streams import vanishing_stream as vanishing_stream
from .streams import worst_case_stream as worst_case_stream
from .trainable import trainable as trainable
