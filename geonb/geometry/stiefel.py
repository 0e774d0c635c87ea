"""Moving on the Stiefel manifold: Wen-Yin curves, and the Cayley chart of NB-LoRA (MATH.md section 3)."""

from __future__ import annotations

import numpy as np


def skew_direction(point, gradient) -> np.ndarray:
    """A_s = G Q^T - Q G^T: (N, N), for Q: (N, p) with Q^T Q = I and G = dF/dQ."""
    q, g = np.asarray(point, dtype=np.float64), np.asarray(gradient, dtype=np.float64)
    return g @ q.T - q @ g.T


def wen_yin_step_dense(point, gradient, t: float) -> np.ndarray:
    """Q(t) = (I + t/2 A_s)^-1 (I - t/2 A_s) Q (Wen & Yin 2013, eq. 7): orthonormal for every t; cost N^3."""
    q = np.asarray(point, dtype=np.float64)
    half = 0.5 * t * skew_direction(point, gradient)
    eye = np.eye(len(q))
    return np.linalg.solve(eye + half, (eye - half) @ q)


def wen_yin_step(point, gradient, t: float) -> np.ndarray:
    """The same curve by Sherman-Morrison-Woodbury: Q - t U (I + t/2 V^T U)^-1 V^T Q, U = [G, Q], V = [Q, -G]; cost N p^2.

    dF/dt at 0 is -1/2 ||A_s||_F^2.
    """
    q, g = np.asarray(point, dtype=np.float64), np.asarray(gradient, dtype=np.float64)
    if 2 * q.shape[1] > len(q):
        return wen_yin_step_dense(q, g, t)
    u, v = np.concatenate([g, q], axis=1), np.concatenate([q, -g], axis=1)
    core = np.eye(u.shape[1]) + 0.5 * t * (v.T @ u)
    return q - t * u @ np.linalg.solve(core, v.T @ q)


def skew_norms(point, gradient) -> tuple[float, float]:
    """(||A_s||_F, ||A_s||_2) from the 2p x 2p core of A_s = [G, Q] [Q, -G]^T, never from the N x N matrix."""
    q, g = np.asarray(point, dtype=np.float64), np.asarray(gradient, dtype=np.float64)
    first = np.linalg.qr(np.concatenate([g, q], axis=1), mode="r")
    second = np.linalg.qr(np.concatenate([q, -g], axis=1), mode="r")
    values = np.linalg.svd(first @ second.T, compute_uv=False)
    return float(np.sqrt((values**2).sum())), float(values[0])


def cayley_chart(free, below) -> np.ndarray:
    """Q = [(I-Z)(I+Z)^-1 ; -2Y(I+Z)^-1] with Z = X - X^T + Y^T Y; X: (r, r), Y: (N - r, r). Q^T Q = I.

    I + Z is invertible because its symmetric part is I + Y^T Y >= I.
    """
    x, y = np.asarray(free, dtype=np.float64), np.asarray(below, dtype=np.float64)
    z = x - x.T + y.T @ y
    inverse = np.linalg.inv(np.eye(len(x)) + z)
    return np.concatenate([(np.eye(len(x)) - z) @ inverse, -2 * y @ inverse])
