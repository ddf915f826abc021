"""One step of k-Adam on tensors, written twice: a parameter at a time, and all of them at once."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from .pytorch import torch

Tensors = Sequence[Any]
"""A tensor a parameter."""
Numbers = Sequence[Any]
"""A Python number a parameter, or a tensor without dimensions (`capturable`)."""


def moment_names(group: dict[str, Any]) -> list[str]:
    """The state's names m1, v1, m2, … without the moments that a 0 removes."""
    pairs = enumerate(zip(group["b1"], group["b2"], strict=True), start=1)
    both = [one for i, (b1, b2) in pairs for one in ((f"m{i}", b1), (f"v{i}", b2))]
    return [name for name, b in both if b]


class Stage(NamedTuple):
    """One stage's decays and moments, None where a 0 removes them."""

    b1: float
    b2: float
    m: Tensors | None
    v: Tensors | None


def _stages(group: dict[str, Any], moments: Tensors, index: Sequence[int]) -> list[Stage]:
    """The moments of the parameters at `index`, stage by stage."""
    # No function in here: torch.compile would stumble over its annotations.
    names = moment_names(group)
    taken = {
        name: [moments[i * len(names) + place] for i in index] for place, name in enumerate(names)
    }
    pairs = enumerate(zip(group["b1"], group["b2"], strict=True), start=1)
    return [Stage(b1, b2, taken.get(f"m{i}"), taken.get(f"v{i}")) for i, (b1, b2) in pairs]


def update(
    group: dict[str, Any], params: Tensors, grads: Tensors, steps: Tensors, moments: Tensors
) -> None:
    """One step of a group; `moments` are those of one parameter after the other."""
    foreach = group["foreach"]
    if foreach is None:
        foreach = all(p.is_cuda for p in params)
    if not foreach:
        for i in range(len(params)):
            stages = _stages(group, moments, (i,))
            _one_tensor(group, params[i], grads[i], steps[i], stages)
        return
    for index in _alike(params):
        ps, gs, ns = ([tensors[i] for i in index] for tensors in (params, grads, steps))
        _many_tensors(group, ps, gs, ns, _stages(group, moments, index))


def _alike(params: Tensors) -> list[list[int]]:
    """Which parameters share a device and a dtype, as fast `foreach` operations want it."""
    if torch.compiler.is_compiling():  # there it is of no use
        return [list(range(len(params)))]
    found: dict[Any, list[int]] = {}
    for i, p in enumerate(params):
        found.setdefault((p.device, p.dtype), []).append(i)
    return list(found.values())


def _one_tensor(group: dict[str, Any], p: Any, g: Any, step: Any, stages: list[Stage]) -> None:
    """EQUATIONS §4 as it is written, in place: m̂ = m/B1 and v̂ = v/B2."""
    lr, weight_decay, eps, eps_root = (
        group[name] for name in ("lr", "weight_decay", "eps", "eps_root")
    )
    step += 1
    n = _count(group, step, p)
    u = -g if group["maximize"] else g
    if weight_decay and group["decay"] == "l2":
        u = u + weight_decay * p
    for stage in stages:
        m_hat, v_hat = u, u * u
        if stage.m is not None:
            m_hat = stage.m[0].lerp_(u, 1 - stage.b1) / _response(stage.b1, n)
        if stage.v is not None:
            v = stage.v[0].mul_(stage.b2).addcmul_(u, u, value=1 - stage.b2)
            v_hat = v / _response(stage.b2, n)
        u = m_hat / _never_zero((v_hat + eps_root).sqrt_().add_(eps), eps, eps_root)
    if weight_decay and group["decay"] == "decoupled":
        p.mul_(1 - lr * weight_decay)
    p.sub_(lr * u)


def _many_tensors(
    group: dict[str, Any], params: Tensors, grads: Tensors, steps: Tensors, stages: list[Stage]
) -> None:
    """The same with few passes over memory: u = c·m/d, c = √B2/B1, d = √(v + B2·eps_root) + √B2·eps
    has every bias correction in one number a parameter."""
    lr, weight_decay = group["lr"], group["weight_decay"]
    torch._foreach_add_(steps, 1)
    counts = [_count(group, step, p) for step, p in zip(steps, params, strict=True)]
    # Never written to: at first they are the caller's.
    u = torch._foreach_neg(grads) if group["maximize"] else grads
    if weight_decay and group["decay"] == "l2":
        u = torch._foreach_add(u, params, alpha=weight_decay)
    elif weight_decay:
        torch._foreach_mul_(params, 1 - lr * weight_decay)
    for i, stage in enumerate(stages, start=1):
        m, d, scales = _quotient(group, stage, u, counts)
        del u  # two lists live at once, not three
        if i == len(stages) and not isinstance(scales[0], torch.Tensor):
            torch._foreach_addcdiv_(params, m, d, [-lr * scale for scale in scales])
            return
        u = torch._foreach_div(m, d)
        del m, d
        if i == len(stages):
            scales = [-lr * scale for scale in scales]
        torch._foreach_mul_(u, scales)
    torch._foreach_add_(params, u)


def _quotient(
    group: dict[str, Any], stage: Stage, u: Tensors, counts: Numbers
) -> tuple[Tensors, Tensors, Numbers]:
    """Takes u into the moments. **Returns** m, d and c of the update c·m/d."""
    eps, eps_root = group["eps"], group["eps_root"]
    m, v = u, stage.v
    if stage.m is not None:
        m = stage.m
        torch._foreach_lerp_(m, u, 1 - stage.b1)
    if v is not None:
        torch._foreach_mul_(v, stage.b2)
        torch._foreach_addcmul_(v, u, u, 1 - stage.b2)
    responses = [_response(stage.b2, n) for n in counts]
    roots = [response**0.5 for response in responses]
    # A removed v is made here, and ours to overwrite.
    d = torch._foreach_mul(u, u) if v is None else v
    if eps_root:
        d = torch._foreach_add(d, [eps_root * response for response in responses])
        torch._foreach_sqrt_(d)
    else:
        d = torch._foreach_sqrt(d)
    if eps:
        torch._foreach_add_(d, [eps * root for root in roots])
    for one in d:
        _never_zero(one, eps, eps_root)
    pairs = zip(roots, counts, strict=True)
    return m, d, [root / _response(stage.b1, n) for root, n in pairs]


def _never_zero(d: Any, eps: float, eps_root: float) -> Any:
    """d with ∞ in place of 0, so that u is 0 there (EQUATIONS §0, Zero); in place.

    Costs two passes, so only where eps and eps_root may vanish in this dtype: 1e-8 does in
    float16. The factor leaves room for B2, which multiplies both.
    """
    if max(eps, eps_root) < 1e6 * torch.finfo(d.dtype).tiny:
        d.masked_fill_(d == 0, math.inf)
    return d


def _count(group: dict[str, Any], step: Any, p: Any) -> Any:
    """n: a Python number, or a tensor where none may be read."""
    if not group["capturable"] and not torch.compiler.is_compiling():
        return step.item()
    return step.to(torch.float64 if p.dtype == torch.float64 else torch.float32)


def _response(b: float, n: Any) -> Any:
    """1 - bⁿ, the moment's response to n unit gradients; 1 for a removed one.

    Of tensors by expm1: 1 - 0.999ⁿ has lost four of float32's seven digits at n = 1.
    """
    if not b:
        return 1.0
    return -torch.expm1(n * math.log(b)) if isinstance(n, torch.Tensor) else 1 - b**n
