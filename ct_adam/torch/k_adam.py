"""The optimizer class: hyperparameters, groups and state, as PyTorch keeps them."""

from collections.abc import Callable, Iterable
from typing import Any

from ..decays import Decay, Hyperparameters, check_hyperparameters
from .pytorch import torch
from .update import moment_names, update


class KAdam(torch.optim.Optimizer):
    """k stages of Adam, each fed with the update of the one before; k = 1 is AdamW.

    u⁰ = g, then for i = 1…k the stage of EQUATIONS §4, θ ← θ - η(u^k + λθ). Source: Gould &
    Tanaka (arXiv 2411.05746), §4. Equal to `ct_adam.k_adam` to rounding, given the same gradients.

    The learning rate is called `lr`, as PyTorch's schedulers and parameter groups call it; all
    other names are those of `ct_adam.k_adam`: PyTorch's `betas` is one pair, here are two tuples.

    **Arguments:**

    - `params`: parameters, named parameters, or groups of them as in every PyTorch optimizer. A
        group may have hyperparameters of its own, the number of stages included.
    - `lr`: η; a tensor only with `capturable`.
    - `b1`, `b2`: first- and second-moment decays per step in [0, 1), one a stage; a 0 removes
        that moment.
    - `eps`, `eps_root`: added outside and inside the root. With both 0 the update is 0 wherever
        v = 0.
    - `weight_decay`: λ, as in `torch.optim.AdamW`.
    - `decay`: `"decoupled"`, or `"l2"` (g + λθ before stage 1, as in `torch.optim.Adam`).
    - `foreach`: all parameters of a group in one call an operation; `None` does so where all of
        them are on CUDA devices. It takes two further tensors a parameter while it runs.
    - `maximize`: climb, with -g in place of g.
    - `capturable`: steps are counted on the parameters' device, as CUDA graphs want it. Under
        `torch.compile` give a tensor as `lr` too, else each new value compiles anew.

    **Raises:** `ValueError` for a value outside its range, complex parameters, sparse gradients.

    !!! example
        >>> import torch
        >>> params = torch.tensor([1.0, -2.0], requires_grad=True)
        >>> optimizer = KAdam([params], lr=0.1, b1=(0.9,), b2=(0.999,))
        >>> (params**2).sum().backward()
        >>> optimizer.step()
        >>> print(params.detach())
        tensor([ 0.9000, -1.9000])
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: Any = 1e-3,
        b1: float | tuple[float, ...] = (0.9, 0.9),
        b2: float | tuple[float, ...] = (0.999, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        eps_root: float = 0.0,
        decay: Decay = "decoupled",
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
    ):
        super().__init__(
            params,
            {
                "lr": lr,
                "b1": b1,
                "b2": b2,
                "eps": eps,
                "weight_decay": weight_decay,
                "eps_root": eps_root,
                "decay": decay,
                "foreach": foreach,
                "maximize": maximize,
                "capturable": capturable,
            },
        )

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group, whose hyperparameters are the optimizer's where it has none of its own."""
        super().add_param_group(param_group)
        try:
            group = self.param_groups[-1]
            group.update(_checked(group))
            if any(torch.is_complex(p) for p in group["params"]):
                raise ValueError("A parameter is complex: give real and imaginary part apart.")
        except ValueError:
            self.param_groups.pop()
            raise

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step with the gradients at hand, or with those that `closure` computes.

        **Returns:** what `closure` returns, the loss.
        """
        self._check_capture()
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        work = []
        for group in self.param_groups:
            params, grads, steps, moments = [], [], [], []
            self._init_group(group, params, grads, steps, moments)
            if params:
                work.append((group, params, grads, steps, moments))
        # Only now: a gradient that is refused leaves every group as it was.
        for group, params, grads, steps, moments in work:
            update(group, params, grads, steps, moments)
        return loss

    def _check_capture(self) -> None:
        """A captured graph would repeat the bias corrections of the step that it saw."""
        if torch.compiler.is_compiling() or not torch.cuda.is_available():
            return
        capturable = all(group["capturable"] for group in self.param_groups)
        if torch.cuda.is_current_stream_capturing() and not capturable:
            raise ValueError("A CUDA graph captures this step: give KAdam capturable=True.")

    def _init_group(
        self,
        group: dict[str, Any],
        params: list[Any],
        grads: list[Any],
        steps: list[Any],
        moments: list[Any],
    ) -> None:
        """Appends what there is a gradient for, to `moments` m1, v1, m2, … of one parameter after
        the other; makes the state at the first one.

        `torch.compile` knows this name and these flat lists: it calls it outside of the graph.
        """
        names = moment_names(group)
        for p in group["params"]:
            if p.grad is None:
                continue
            if p.grad.layout is not torch.strided:
                raise ValueError("A gradient is sparse: KAdam needs dense ones (sparse=False).")
            state = self.state[p]
            if not state:
                device = p.device if group["capturable"] else "cpu"
                state["step"] = torch.zeros((), dtype=torch.float32, device=device)
                for name in names:
                    state[name] = torch.zeros_like(p, memory_format=torch.preserve_format)
            params.append(p)
            grads.append(p.grad)
            steps.append(state["step"])
            moments.extend(state[name] for name in names)


def _checked(group: dict[str, Any]) -> dict[str, Any]:
    """A group's hyperparameters as Python numbers; `ValueError` for one outside its range."""
    lr = group["lr"]
    if isinstance(lr, torch.Tensor):
        if not group["capturable"]:
            raise ValueError("lr is a tensor: give a number, or capturable=True.")
        if lr.ndim:
            raise ValueError(f"lr has shape {tuple(lr.shape)}: give one number.")
    # A tensor's value is not looked at: that would wait for its device.
    check_hyperparameters({} if isinstance(lr, torch.Tensor) else {"lr": lr})
    b1, b2, eps, decay = group["b1"], group["b2"], group["eps"], group["decay"]
    shared = Hyperparameters(0.0, b1, b2, eps, group["weight_decay"], group["eps_root"], decay)
    numbers = ("eps", "weight_decay", "eps_root")
    return {
        "lr": lr if isinstance(lr, torch.Tensor) else float(lr),
        "b1": tuple(map(_number, shared.b1)),
        "b2": tuple(map(_number, shared.b2)),
        **{name: _number(getattr(shared, name)) for name in numbers},
    }


def _number(value: Any) -> float:
    return float(value)
