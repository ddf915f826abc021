"""k-Adam for PyTorch: the twin of `ct_adam.k_adam`, imported only on request.

`import ct_adam` does not import it; it needs PyTorch, an extra of this package.
"""

from .k_adam import KAdam as KAdam
