"""The cores of several modulated matrices at once: one product, one look at the budget, one pass through the small space.

Four matrices of a layer share its weights phi(theta), and all layers' are known before the first is read, so that what would be
done for each matrix, layer and token apart is done here for all of them together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from geonb.coordinates.known import Known, without_graph
from geonb.coordinates.modulated_linear import ModulatedLinear, SharedFactors, placed
from geonb.coordinates.spectral_budget import scale_within

Rows = Sequence[Sequence[ModulatedLinear]]  # layers of matrices of one rank


def together(linears: Sequence[ModulatedLinear]) -> bool:
    """Whether these matrices may be computed at once: shared factors, and nobody's own way to a core."""
    return all(type(one.factors) is SharedFactors and "bounded_core" not in vars(one) for one in linears)


def bounded_cores(rows: Rows, weights: Sequence[Tensor], known: Known, *, orthonormal: bool = False) -> Tensor:
    """M(w) within the budget of all `rows`: weights (batch, slots, count) a row -> (rows, batch, slots, matrices, r, r).

    With `orthonormal`, where no graph is kept, it is R_u M R_v^T of U = Q_u R_u and V = Q_v R_v, which stands between Q_u and
    Q_v: its singular values are those of the change itself, so that a look at the budget needs no product of its own.
    """
    factors = [[_shared(one) for one in row] for row in rows]
    width, rank = len(rows[0]), factors[0][0].cores.shape[-1]
    tensors = [tensor for row in factors for one in row for tensor in (one.cores, one.left, one.right)]
    if orthonormal:
        stacked = known.once("orthonormal cores", tensors, lambda: _stacked(factors, SharedFactors.small))
    else:
        stacked = _known_or_now(known, "cores", tensors[::3], lambda: _stacked(factors, lambda one, core: core))
    given = torch.stack(list(weights))
    with torch.autocast(given.device.type, enabled=False):  # what is bounded is not rounded
        core = (given.flatten(1, 2) @ stacked).unflatten(1, given.shape[1:3]).unflatten(-1, (width, rank, rank))
        tensors += [tensor for row in rows for one in row for tensor in one.own_tensors()]
        scale = _scale(known.once("budget", tensors, lambda: _budget(rows)), core, orthonormal)
        if scale is None:
            return core
        return core * scale if core.requires_grad else core.mul_(scale)


@torch.no_grad()
def _scale(budget: tuple[Tensor, Tensor, Tensor] | None, core: Tensor, orthonormal: bool) -> Tensor | None:
    """What brings each core within its budget, or None where all are."""
    if budget is None:
        return None
    beta, left, right = budget  # (rows, 1, 1, matrices) and twice (rows, 1, 1, matrices, r, r)
    scale = scale_within(core.float() if orthonormal else left @ core.float() @ right.mT, beta)
    return scale[..., None, None].to(core.dtype) if bool((scale < 1).any()) else None


def changed(
    linears: Sequence[ModulatedLinear],
    x: Tensor,
    cores: Tensor,
    slots: Tensor | None,
    known: Known,
    *,
    orthonormal: bool = False,
) -> list[Tensor]:
    """W x + U M V^T x of matrices that read the same x (batch, tokens, in); cores (batch, slots, matrices, r, r).

    With `orthonormal` the cores stand between Q_u and Q_v of U = Q_u R_u and V = Q_v R_v.
    """
    factors = [_shared(one) for one in linears]
    lefts: list[Tensor] = [one.left for one in factors]
    rights: list[Tensor] = [one.right for one in factors]
    if orthonormal:
        tensors = [*lefts, *rights]
        lefts, right = known.once(f"bases of {len(lefts)}", tensors, lambda: (_bases(lefts), _beside(_bases(rights))))
    elif len(rights) == 1:
        right = rights[0]
    else:
        right = _known_or_now(known, f"right of {len(rights)}", rights, lambda: _beside(rights))
    inner = (x @ right).unflatten(-1, (len(rights), -1))
    inner = through(inner, placed(cores, slots)).to(x.dtype)
    if not orthonormal:
        return [one.base(x) + inner[..., place, :] @ lefts[place].T for place, one in enumerate(linears)]
    flat = inner.flatten(0, 1)
    # a sum and a product in one
    mapped = (
        torch.addmm(one.base(x).flatten(0, 1), flat[:, place], lefts[place].T) for place, one in enumerate(linears)
    )
    return [one.unflatten(0, x.shape[:2]) for one in mapped]


def _bases(factors: Sequence[Tensor]) -> list[Tensor]:
    """Q of each factor: the same decomposition as that of `SharedFactors.triangles`."""
    return [torch.linalg.qr(one).Q for one in factors]


def _beside(factors: Sequence[Tensor]) -> Tensor:
    return torch.cat(list(factors), dim=1)


def through(inner: Tensor, cores: Tensor) -> Tensor:
    """M z of inner (batch, tokens, matrices, r) and cores (batch, 1 or tokens, matrices, r, r), in the cores' precision."""
    if torch.is_autocast_enabled(inner.device.type):
        with torch.autocast(inner.device.type, enabled=False):
            return _through(inner.to(cores.dtype), cores)
    return _through(inner.to(cores.dtype), cores)


def _through(inner: Tensor, cores: Tensor) -> Tensor:
    if cores.shape[1] == 1:  # one core for all tokens: one product instead of one a token
        return (inner.transpose(1, 2) @ cores[:, 0].mT).transpose(1, 2)
    return (cores @ inner.unsqueeze(-1)).squeeze(-1)


def _budget(rows: Rows) -> tuple[Tensor, Tensor, Tensor] | None:
    """beta (infinite where no weights can reach it), R_u and R_v of every matrix; None where none can be reached."""
    device = rows[0][0].factors.left.device
    beta = torch.tensor(
        [[torch.inf if one.always_within() else one.allowed() for one in row] for row in rows], device=device
    )
    if bool(beta.isinf().all()):
        return None
    triangles = [_shared(one).triangles() for row in rows for one in row]
    left, right = (torch.stack([pair[side] for pair in triangles]).detach().float() for side in (0, 1))
    shape = (len(rows), 1, 1, len(rows[0]))
    return beta.reshape(shape), left.reshape(*shape, *left.shape[1:]), right.reshape(*shape, *right.shape[1:])


def _stacked(factors: list[list[SharedFactors]], form: Callable[[SharedFactors, Tensor], Tensor]) -> Tensor:
    """(rows, count, matrices x r x r) of each matrix's cores in a form."""
    return torch.stack([torch.cat([form(one, one.cores).flatten(1) for one in row], dim=1) for row in factors])


def _known_or_now(known: Known, name: str, tensors: list, compute) -> Tensor:
    return known.once(name, tensors, compute) if without_graph(tensors) else compute()


def _shared(linear: ModulatedLinear) -> SharedFactors:
    assert isinstance(linear.factors, SharedFactors)
    return linear.factors
