"""Factoring a matrix of known condition number by gradient descent and by ScaledGD (Tong, Ma & Chi 2021)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from geonb.errors import InputError


@dataclass(frozen=True, slots=True)
class Problem:
    """min ||L R^T - M||_F^2 / 2 with M of rank r and singular values from 1 to 1/kappa; `left`, `right` are the start."""

    matrix: np.ndarray  # (m, n)
    left: np.ndarray  # (m, r)
    right: np.ndarray  # (n, r)


def make_problem(kappa: float, seed: int, *, shape: tuple[int, int] = (60, 50), rank: int = 5) -> Problem:
    """A random problem whose start lies 0.1 sqrt(sigma_r) in spectral norm off each balanced factor of the solution.

    Raises `InputError` for a condition number below 1 and a rank that the shape does not have.
    """
    if kappa < 1 or not 1 <= rank <= min(shape):
        raise InputError(
            f"kappa {kappa:g} and rank {rank} were given for {shape}; allowed are kappa from 1 on and a rank of the shape."
        )
    rng = np.random.default_rng([seed, 3])
    values = np.geomspace(1.0, 1.0 / kappa, rank)
    sides = [np.linalg.qr(rng.standard_normal((size, rank)))[0] for size in shape]
    starts = []
    for side in sides:
        noise = rng.standard_normal(side.shape)
        starts.append(side * np.sqrt(values) + 0.1 * np.sqrt(values[-1]) * noise / np.linalg.norm(noise, 2))
    return Problem(matrix=(sides[0] * values) @ sides[1].T, left=starts[0], right=starts[1])


def errors(
    problem: Problem, *, scaled: bool, ridge: float = 0.0, step: float = 0.5, most: int = 20_000, until: float = 1e-6
) -> list[float]:
    """||L R^T - M||_F over the first one, step by step, until it is at most `until` or `most` steps are made.

    Gradient descent moves by step / sigma_max(M); ScaledGD by step with each gradient times the inverse of the other
    factor's Gram matrix plus `ridge` I.
    """
    left, right = problem.left.copy(), problem.right.copy()
    eye = np.eye(left.shape[1])
    rate = step if scaled else step / np.linalg.norm(problem.matrix, 2)
    found: list[float] = []
    first = np.linalg.norm(left @ right.T - problem.matrix)
    for _ in range(most + 1):
        residual = left @ right.T - problem.matrix
        found.append(float(np.linalg.norm(residual) / first))
        if not found[-1] > until:
            break
        for_left, for_right = residual @ right, residual.T @ left
        if scaled:
            for_left = np.linalg.solve(right.T @ right + ridge * eye, for_left.T).T
            for_right = np.linalg.solve(left.T @ left + ridge * eye, for_right.T).T
        left -= rate * for_left
        right -= rate * for_right
    return found
