"""Several adapters or several models into one: the arithmetic of one weight.

Shapes: O, I are the outputs and inputs of a layer, R is a rank. Every function takes what it needs
as plain arguments, computes in float32 (the small cores in float64) in the order that is given, and
rounds once.
"""

import hashlib
import math
from collections.abc import Sequence

import torch
import yaml
from torch import Tensor

from monotreme.merge.change import Factors

NEARLY_PARALLEL = 0.9995  # cosine over which slerp's weights would be 0 / 0; mergekit's limit too


# ── adapters ─────────────────────────────────────────────────────────────────────────────────────


def concatenated(factors: Sequence[Factors]) -> Factors:
    """One pair of factors whose product is the sum of all products; their ranks add up.

    Exact but for the rounding of scale · b. Adding up the `a` and the `b` instead would give every
    product of one adapter's `b` with another's `a` besides.
    """
    return Factors(
        torch.cat([each.a for each in factors]),
        torch.cat([each.b * each.scale for each in factors], dim=1),
        1.0,
        transposed=factors[0].transposed,
        embedding=factors[0].embedding,
    )


def compressed(factors: Factors, rank: int) -> tuple[Factors, float]:
    """The nearest pair of factors of a lower rank (Eckart and Young 1936), without a dense delta.

    With b = Q_b R_b and aᵀ = Q_a R_a the delta is Q_b (R_b R_aᵀ) Q_aᵀ: its singular values are
    those of the small core in the middle.

    Returns:
        The factors, and the energy that is lost: the share of ‖delta‖² (Frobenius) that is left out.
    """
    b_basis, b_core = torch.linalg.qr(factors.b.double() * factors.scale)
    a_basis, a_core = torch.linalg.qr(factors.a.double().T)
    left, values, right = torch.linalg.svd(b_core @ a_core.T)
    energy = values.square()
    root = values[:rank].sqrt()
    b_OR = b_basis @ left[:, :rank] * root
    a_RI = root[:, None] * (right[:rank] @ a_basis.T)
    lost = float(energy[rank:].sum() / energy.sum()) if energy.sum() else 0.0
    near = Factors(a_RI.float(), b_OR.float(), 1.0, factors.transposed, factors.embedding)
    return near, lost


# ── deltas of several models or adapters ─────────────────────────────────────────────────────────


def task_arithmetic(base: Tensor, deltas: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """round(base + Σ weight · delta) (Ilharco et al. 2023), in the base's dtype.

    Args:
        deltas: float32, of the base's shape: tuned − base, or `Factors.delta`.
    """
    return (base.float() + _weighted(deltas, weights)).to(base.dtype)


def ties(deltas: Sequence[Tensor], weights: Sequence[float], density: float) -> Tensor:
    """One delta that keeps what the deltas agree on (TIES, Yadav et al. 2023, algorithm 1).

    Of each delta the largest `density` share of elements stays; every element's sign is that of
    the weighted sum; the mean is over those that have it. Where nothing is elected it is 0.
    """
    kept = [_largest(delta, density) for delta in deltas]
    sign = _weighted(kept, weights).sign()
    total = torch.zeros_like(sign)
    count = torch.zeros_like(sign)
    for delta, weight in zip(kept, weights, strict=True):
        agrees = (delta * weight).sign() == sign
        total += torch.where(agrees, delta * weight, 0)
        count += torch.where(agrees, abs(weight), 0)
    return torch.where(count > 0, total / count, 0)


def dare(delta: Tensor, density: float, seed: int, name: str) -> Tensor:
    """A random `density` share of a delta's elements, scaled up by 1/density (Yu et al. 2024).

    The draw depends on the seed and the weight's name alone, not on what was drawn before.
    """
    generator = torch.Generator().manual_seed(seed_of(seed, name))
    stays = torch.rand(delta.shape, generator=generator) < density
    return torch.where(stays, delta.float() / density, 0)


def seed_of(seed: int, name: str) -> int:
    """A generator's seed for one tensor."""
    return int.from_bytes(hashlib.sha256(f"{seed}\0{name}".encode()).digest()[:8], "little") >> 1


def _weighted(tensors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    total = torch.zeros_like(tensors[0], dtype=torch.float32)
    for tensor, weight in zip(tensors, weights, strict=True):
        total += tensor.float() * weight
    return total


def _largest(delta: Tensor, density: float) -> Tensor:
    """The largest elements by size, the others 0; of equal ones at the border all stay."""
    num = math.ceil(density * delta.numel())
    sizes = delta.float().abs()
    least = sizes.flatten().kthvalue(delta.numel() - num + 1).values
    return torch.where(sizes >= least, delta.float(), 0)


# ── whole models ─────────────────────────────────────────────────────────────────────────────────


def linear(tensors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """The weighted mean of one weight of several models, in the first one's dtype."""
    return (_weighted(tensors, weights) / sum(weights)).to(tensors[0].dtype)


def slerp(first: Tensor, second: Tensor, share: float) -> Tensor:
    """The weight a `share` of the angle from the first to the second (Shoemake 1985).

    Each weight is one long vector. Nearly parallel ones, and a vector of zeros, are mixed linearly.
    """
    a, b = first.double(), second.double()
    cosine = float((a * b).sum() / (a.norm() * b.norm())) if a.any() and b.any() else 1.0
    if abs(cosine) > NEARLY_PARALLEL:
        return ((1 - share) * a + share * b).to(first.dtype)
    angle = math.acos(cosine)
    mixed = math.sin((1 - share) * angle) * a + math.sin(share * angle) * b
    return (mixed / math.sin(angle)).to(first.dtype)


def mergekit_yaml(
    method: str,
    models: Sequence[tuple[str, dict[str, float]]],
    *,
    base: str | None = None,
    dtype: str = "bfloat16",
    parameters: dict[str, float | bool] | None = None,
) -> str:
    """The configuration of a merge that mergekit knows and Monotreme does not.

    Args:
        method: one of mergekit's, such as "della" or "model_stock".
        models: each a name or folder (with "+" and an adapter's folder, if it has one) and what
            goes for it, such as {"weight": 0.5, "density": 0.3}.
        parameters: of the method as a whole.
    """
    config = {
        "merge_method": method,
        "base_model": base,
        "dtype": dtype,
        "models": [{"model": name, **({"parameters": own} if own else {})} for name, own in models],
        "parameters": parameters,
    }
    return yaml.safe_dump({k: v for k, v in config.items() if v is not None}, sort_keys=False)
