"""Factors on the residual branches of a model: measured on real activations, put in place, and measured again."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from geonb.derive.context import SQRT_EPS
from geonb.errors import InputError


def block_names(model: nn.Module, layers: int) -> list[str]:
    """The paths of the residual blocks x + f(x): the modules of the one list in the model that has `layers` members."""
    lists = [
        (path, module)
        for path, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == layers
    ]
    if len(lists) != 1:
        raise InputError(
            f"the model has {len(lists)} lists of {layers} blocks; allowed is exactly one: give another model."
        )
    path, blocks = lists[0]
    return [f"{path}.{place}" for place in range(len(blocks))]


def power_norm(matrix: Tensor, iterations: int = 3) -> float:
    """||matrix||_2 by power iterations from the vector of ones, as documented; it may miss the norm altogether.

    >>> power_norm(torch.tensor([[1.0, -1.0], [1.0, -1.0]]))
    0.0
    """
    vector = torch.ones(matrix.shape[1], dtype=matrix.dtype)
    vector /= vector.norm()
    for _ in range(iterations):
        image = matrix.mT @ (matrix @ vector)
        if not float(image.norm()) > 0:
            return 0.0
        vector = image / image.norm()
    return float((matrix @ vector).norm())


def exact_norm(matrix: Tensor) -> float:
    """||matrix||_2."""
    return float(torch.linalg.matrix_norm(matrix, 2))


@contextmanager
def scaled_blocks(model: nn.Module, factors: Mapping[str, float]) -> Iterator[None]:
    """Inside the block each named residual block gives x + factor f(x) in the place of x + f(x)."""
    handles = []
    for path, factor in factors.items():

        def forward(module: nn.Module, args: tuple, kwargs: dict, output: Any, factor: float = factor) -> Any:
            del module
            before = args[0] if args else kwargs["hidden_states"]
            after = output[0] if isinstance(output, tuple) else output
            changed = before + factor * (after - before)
            return (changed, *output[1:]) if isinstance(output, tuple) else changed

        handles.append(model.get_submodule(path).register_forward_hook(forward, with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def branch_norms(
    model: nn.Module, paths: Sequence[str], examples: Sequence[Any], *, norm: Any = exact_norm
) -> dict[str, list[tuple[float, float]]]:
    """(norm of x, norm of what the block adds to it) of each block and example; tokens x hidden, in float64.

    What hooks have put in place is measured with it, where they were put before this.
    """
    found: dict[str, list[tuple[float, float]]] = {path: [] for path in paths}
    handles = []
    for path in paths:

        def forward(module: nn.Module, args: tuple, kwargs: dict, output: Any, path: str = path) -> None:
            del module
            before = (args[0] if args else kwargs["hidden_states"])[0].double()
            after = (output[0] if isinstance(output, tuple) else output).double()
            after = after[0] if after.ndim == 3 else after
            found[path].append((norm(before), norm(after - before)))

        handles.append(model.get_submodule(path).register_forward_hook(forward, with_kwargs=True))
    try:
        device = next(model.parameters()).device
        for example in examples:
            model(input_ids=torch.tensor([example.input_ids], device=device), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return found


def documented_factors(norms: Mapping[str, Sequence[tuple[float, float]]]) -> dict[str, float]:
    """The median over the examples of sigma_max(x) / sigma_max(f(x)), clamped to [sqrt(eps), 1 / sqrt(eps)].

    A branch that is measured as zero has the largest factor.

    >>> documented_factors({"layers.0": [(2.0, 1.0), (6.0, 1.0), (3.0, 1.0)]})
    {'layers.0': 3.0}
    """
    found = {}
    for path, pairs in norms.items():
        ratios = sorted(before / branch if branch > 0 else math.inf for before, branch in pairs)
        found[path] = min(max(ratios[len(ratios) // 2], SQRT_EPS), 1 / SQRT_EPS)
    return found


def distance_from_one(norms: Mapping[str, Sequence[tuple[float, float]]]) -> float:
    """exp(mean |log(branch / stream)|) over blocks and examples: 1 where every branch is as large as its stream."""
    logs = [
        abs(math.log(branch / before))
        for pairs in norms.values()
        for before, branch in pairs
        if before > 0 and branch > 0
    ]
    return math.exp(sum(logs) / len(logs))
