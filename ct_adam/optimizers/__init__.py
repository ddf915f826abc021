"""The discrete side: optimizers that people train with, made of one stage."""

from .adam import adam_l2 as adam_l2
from .adam import adam_prox as adam_prox
from .adam import adamw as adamw
from .adam import from_hyperparameters as from_hyperparameters
from .adam import k_adam as k_adam
from .adam import stage_updates as stage_updates
from .k_adam_decays import k_adam_decays as k_adam_decays
from .sgdw import sgdw as sgdw
from .sign import sign_descent as sign_descent
from .stage import Optimizer as Optimizer
from .stage import StageState as StageState
from .stage import UpdateRule as UpdateRule
from .stage import averaged as averaged
from .stage import map_moments as map_moments
from .stage import normalized as normalized
from .stage import scale_by_stage as scale_by_stage
from .stage import stage_states as stage_states
from .steepest import frank_wolfe as frank_wolfe
from .steepest import frank_wolfe_rate as frank_wolfe_rate
from .steepest import steepest_descent as steepest_descent
from .steepest import steepest_direction as steepest_direction
from .step import optimizer_step as optimizer_step
