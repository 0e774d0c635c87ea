"""Calibration: what a few training examples say about the loaded base model before any adapter exists.

An adapter dW = B A with B = 0 has the gradient dL/dB = (dL/dy)^T (x A^T), which needs the input x and the output
gradient of the base map only: two hooks, no adapter. Examples are weighted by their tokens, as a batch weights them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from geonb.derive.context import Calibration
from geonb.derive.rounding import MEASURED_DIGITS, rounded
from geonb.plan.hooks import Observer, block_paths, example_passes
from geonb.plan.noise import noise_scale
from geonb.plan.target import TargetPlan

N_EXAMPLES = 32  # a convention: thirty-two passes take seconds on a CPU, and resolve scales up to about as many
_NUMBERS = 256 * 2**20  # gradients of at most this many numbers are held at once; matrices beyond it are left out
_RANK_SIDE = 1024  # split-half ranks need a decomposition; larger matrices are left unmeasured


def calibrate(
    runtime: Any,
    examples: Sequence[Any],
    targets: Sequence[TargetPlan],
    bases: Callable[[TargetPlan], np.ndarray | None],
    *,
    seed: int,
    n_examples: int = N_EXAMPLES,
    progress: Callable[[str], None] | None = None,
) -> Calibration:
    """Noise scale, signal to noise, residual gains and split-half gradient ranks from up to `n_examples` examples.

    `bases(target)` gives A, (rank, in), for one target, or None for all input directions. Two passes over the examples:
    the first sums gradients and keeps their square norms, the second takes each one's inner product with the sum, which
    is all that the debiased estimate and its jackknife need. Every float is rounded to three significant digits.
    """
    import torch

    rows = choose(len(examples), n_examples, seed)
    measured = _affordable([target for target in targets if target.chosen])
    device = runtime.device
    projections = {}
    for target in measured:
        rows_of_a = bases(target)
        # a copy, not a view: one row with a negative stride passes for contiguous and is refused by torch
        projections[target.module] = (
            None if rows_of_a is None else torch.from_numpy(np.array(rows_of_a, dtype=np.float32, order="C")).to(device)
        )
    tell = progress or (lambda text: None)
    tokens = float(np.mean([sum(examples[row].loss_mask) for row in rows]))

    halves: list[dict[str, Any]] = [{}, {}]
    squares, inners = np.zeros(len(rows)), np.zeros(len(rows))
    blocks = block_paths(measured)
    with Observer(runtime.model, projections, blocks) as observer:
        for index, gradients in example_passes(runtime, observer, examples, rows, tokens):
            tell(f"calibration: example {index + 1} of {len(rows)}")
            for name, gradient in gradients.items():
                squares[index] += _dot(gradient, gradient)
                half = halves[index % 2]
                half[name] = half[name].add_(gradient) if name in half else gradient.clone()
        gains = observer.residual_gains()
    total = {name: halves[0].get(name, 0) + halves[1].get(name, 0) for name in {**halves[0], **halves[1]}}
    with Observer(runtime.model, projections, ()) as observer:
        for index, gradients in example_passes(runtime, observer, examples, rows, tokens):
            tell(f"calibration: second pass, example {index + 1} of {len(rows)}")
            inners[index] = sum(_dot(gradient, total[name]) for name, gradient in gradients.items())
    noise = noise_scale(squares, inners, float(inners.sum()))
    ranks = {}
    for target in measured:
        both = [half[target.module] for half in halves if target.module in half]
        if len(both) == 2 and min(both[0].shape) <= _RANK_SIDE:
            ranks[target.name] = split_half_rank(*(half.cpu().double().numpy() for half in both))
    part = "" if len(measured) == len([t for t in targets if t.chosen]) else f" of {len(measured):,} matrices"
    return Calibration(
        n_examples=len(rows),
        resolved=noise.resolved,
        noise_scale=rounded(noise.scale, MEASURED_DIGITS),
        noise_scale_interval=rounded(noise.interval, MEASURED_DIGITS),
        signal_to_noise=rounded(noise.signal_to_noise, MEASURED_DIGITS),
        residual_gains=rounded(gains, MEASURED_DIGITS),
        gradient_ranks=ranks,
        because=f"{len(rows)} training examples, gradients of B at B = 0{part}: {noise.because}",
    )


def choose(n: int, wanted: int, seed: int) -> list[int]:
    """Up to `wanted` of `n` examples, by a generator of their own, in ascending order."""
    rng = np.random.default_rng([seed, 8])
    return sorted(int(row) for row in rng.choice(n, size=min(n, wanted), replace=False))


def split_half_rank(first: np.ndarray, second: np.ndarray) -> int:
    """Effective rank of the part of a gradient that two halves of the examples agree on; 0 where they agree on nothing.

    With first = U diag(s) V^T: energies e_j = max(0, s_j u_j^T second v_j), which noise makes negative half of the
    time; the rank is the exponential of their entropy, floored.

    >>> split_half_rank(np.diag([3.0, 0.0]), np.diag([2.0, 0.0]))
    1
    """
    left, values, right = np.linalg.svd(first, full_matrices=False)
    energy = np.maximum(0.0, values * np.einsum("mj,mn,jn->j", left, second, right, optimize=True))
    if energy.sum() <= 0:
        return 0
    share = energy[energy > 0] / energy.sum()
    # three digits first: an entropy differs in the last place between linear-algebra libraries
    return max(1, int(rounded(float(np.exp(-(share * np.log(share)).sum())), MEASURED_DIGITS) + 1e-9))


def gradient_bases(
    runtime: Any, examples: Sequence[Any], targets: Sequence[TargetPlan], *, seed: int, n_examples: int = N_EXAMPLES
) -> dict[str, np.ndarray]:
    """A for the `gradient` basis by matrix name: the top right singular vectors of dW's mean gradient, (rank, in)."""
    from geonb.geometry.bases import top_basis

    rows = choose(len(examples), n_examples, seed)
    tokens = float(np.mean([sum(examples[row].loss_mask) for row in rows]))
    totals: dict[str, Any] = {}
    whole: Mapping[str, None] = dict.fromkeys(target.module for target in targets)
    with Observer(runtime.model, whole, ()) as observer:
        for _, gradients in example_passes(runtime, observer, examples, rows, tokens):
            for name, gradient in gradients.items():
                totals[name] = totals[name].add_(gradient) if name in totals else gradient.clone()
    return {
        target.name: top_basis(totals[target.module].cpu().double().numpy(), target.rank)
        for target in targets
        if target.module in totals
    }


def gradient_basis(runtime: Any, examples: Sequence[Any], target: TargetPlan, *, seed: int) -> np.ndarray:
    """`gradient_bases` for one target."""
    return gradient_bases(runtime, examples, [target], seed=seed)[target.name]


def _dot(first: Any, second: Any) -> float:
    import torch

    # the sum runs in float64 where the device has it: squares of a million float32 numbers lose four digits otherwise
    if first.device.type == "mps":
        first, second = first.cpu(), second.cpu()
    return float((first * second).sum(dtype=torch.float64))


def _affordable(targets: list[TargetPlan]) -> list[TargetPlan]:
    """Every k-th target, k the smallest step with which the gradients of the rest fit the allowance."""
    for step in range(1, len(targets) + 1):
        kept = targets[::step]
        if sum(target.shape[0] * _columns(target) for target in kept) <= _NUMBERS:
            return kept
    return targets[:1]


def _columns(target: TargetPlan) -> int:
    return target.shape[1] if target.basis in ("gradient", "full") else target.rank
