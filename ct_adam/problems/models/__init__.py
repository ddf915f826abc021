"""Small networks, each a PyTree of floating arrays: it is the model and its own parameters."""

from .convnet import ConvNet as ConvNet
from .layers import count_parameters as count_parameters
from .layers import describe as describe
from .loss import apply as apply
from .loss import cross_entropy as cross_entropy
from .mlp import MLP as MLP
from .transformer import Transformer as Transformer
