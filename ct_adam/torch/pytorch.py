"""PyTorch, or the sentence that says how to get it."""

from importlib import import_module
from typing import Any

try:
    # Not `import torch`: where PyTorch is missing, type checkers take that for this package.
    torch: Any = import_module("torch")
except ModuleNotFoundError as error:
    if error.name != "torch":  # it is there, but not whole
        raise
    raise ImportError(
        "ct_adam.torch needs PyTorch: pip install '.[torch]' in ct_adam's repository."
    ) from None
