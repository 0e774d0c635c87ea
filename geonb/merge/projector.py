"""The directions that a map's inputs use, and the projector onto those that they leave free.

Inputs A: (n, d), one row a token, not centred and not normalised; s_i its singular values, V its right singular vectors.
All that is kept of A is its Gram matrix A^T A, so a singular value below about 1e-7 of the largest cannot be told from 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from geonb.errors import InputError
from geonb.geometry.spectrum import Spectrum

# what each rule keeps of a direction with singular value s
RULES = {
    "soft": "l / (s^2 + l), l the square of the noise edge of A's spectrum",
    "hard": "1 where no probe uses the direction (s = 0), else 0",
    "edge": "1 where s is at most the noise edge, else 0",
    "none": "1: the plain sum of the changes, for comparison",
}


@dataclass(frozen=True, slots=True)
class RowSpace:
    """The eigenvectors of A^T A as the columns of `vectors`, (d, d), and s: (d,), float64, ascending, 0 where none."""

    values: np.ndarray
    vectors: Any  # torch tensor, float64
    tokens: int

    @property
    def spectrum(self) -> Spectrum:
        """A's min(n, d) singular values."""
        wide = min(self.tokens, len(self.values))
        return Spectrum.of(self.values[len(self.values) - wide :], shape=(self.tokens, len(self.values)))

    @property
    def noise_edge(self) -> float:
        """sigma (sqrt n + sqrt d), the largest singular value of pure noise (Marchenko & Pastur 1967).

        sigma^2 = median(s^2) / max(n, d) over the median of the Marchenko-Pastur law at ratio min(n, d) / max(n, d),
        with the median over all min(n, d) singular values; its square is n sigma^2 (1 + sqrt(d / n))^2.
        """
        return self.spectrum.noise_edge


def row_space(gram: Any, tokens: int) -> RowSpace:
    """The row space of A from A^T A: (d, d), a float64 tensor, and the number of A's rows.

    Eigenvalues up to d eps lambda_max are round-off and count as 0 (eps = 2^-52).
    """
    import torch

    if tokens < 1:
        raise InputError("a row space was asked of no activations at all: give probes that reach this matrix.")
    if not bool(torch.isfinite(gram).all()):
        raise InputError("the target's activations hold NaN or infinity on the probes: check the target's weights.")
    squares, vectors = torch.linalg.eigh((gram + gram.mT) / 2)
    found = squares.cpu().numpy()
    found = np.where(found > len(found) * 2.0**-52 * max(found[-1], 0.0), found, 0.0)
    # n rows span at most n directions: what stands beyond is round-off, however large
    found[: max(0, len(found) - tokens)] = 0.0
    return RowSpace(values=np.sqrt(found), vectors=vectors, tokens=tokens)


@dataclass(frozen=True, slots=True)
class Projector:
    """P = V diag(w) V^T with 0 <= w <= 1: the identity where inputs do not go, less the more they go there."""

    space: RowSpace
    weights: np.ndarray  # (d,), in the order of `space.values`

    @property
    def kept(self) -> float:
        """sum of w: how many of the d input directions are left free."""
        return float(self.weights.sum())

    @property
    def null_preserved(self) -> float:
        """sqrt(sum w^2 / d): what the same weights on directions drawn at random (Haar) would preserve of any change.

        The root of the exact mean of ||dW Q diag(w) Q^T||_F^2 / ||dW||_F^2 over orthogonal Q.
        """
        return math.sqrt(float((self.weights**2).mean()))

    def apply(self, change: Any) -> Any:
        """dW P for dW: (out, d), float64."""
        import torch

        if (self.weights == 1.0).all():
            return change
        weights = torch.from_numpy(self.weights).to(change.device)
        return (change @ self.space.vectors) * weights @ self.space.vectors.mT


def projector(space: RowSpace, rule: str = "soft") -> Projector:
    """The projector of one of the `RULES`.

    soft: w_i = l / (s_i^2 + l), l = `noise_edge`^2, Tikhonov's filter factors; where the edge is 0 (half of the spectrum
    or more is zero) it is the hard rule. Raises `InputError` for an unknown rule.
    """
    check_rule(rule)
    values = space.values
    if rule == "none":
        weights = np.ones_like(values)
    elif rule == "hard" or space.noise_edge == 0.0:
        weights = np.where(values == 0.0, 1.0, 0.0)
    elif rule == "edge":
        weights = np.where(values <= space.noise_edge, 1.0, 0.0)
    else:
        # the ratio first: the square of a tiny edge could underflow
        weights = 1.0 / (1.0 + (values / space.noise_edge) ** 2)
    return Projector(space=space, weights=weights)


def check_rule(rule: str) -> None:
    """Raise the `InputError` for a rule that is not one of `RULES`."""
    if rule not in RULES:
        raise InputError(f"the rule {rule!r} was given; allowed are {', '.join(RULES)}: give one of them.")


def response_norm(matrix: Any, gram: Any) -> float:
    """||A M^T||_F = sqrt(tr(M A^T A M^T)) for M: (out, d): how much the map M answers to the inputs A."""
    return math.sqrt(max(0.0, float(((matrix @ gram) * matrix).sum())))
