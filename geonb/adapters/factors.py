"""The factors of a bounded low-rank adapter, one class for each way of keeping ||BA||_2 within a budget.

MATH.md section 3. Every class is a module whose call returns `(B, A)` with B: (out, r), A: (r, in), dW = B A, and
whose `trained()` names the leaves that a controller may move. dW is zero for all of them at step 0.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

# float32 rounding of a convex combination may leave the ball by one unit in the last place, and of A's rows by a few:
# every radius is used a hair (2^-20, about 1e-6) inside what the plan promises, so the promise holds as measured
SAFE = 1.0 - 2.0**-20


class Factors(nn.Module):
    """What every kind of factors offers: the product's two sides, and the budget it must keep."""

    def __init__(self, *, budget: float) -> None:
        super().__init__()
        self.budget = float(budget)  # R, spectral norm that dW = B A may not exceed

    def forward(self) -> tuple[Tensor, Tensor]:
        """The pair (B, A), float32."""
        raise RuntimeError(f"{type(self).__name__} does not say what its factors are")

    def trained(self) -> dict[str, nn.Parameter]:
        """The leaves that a controller moves, by name, in a fixed order."""
        return dict(self.named_parameters())

    @torch.no_grad()
    def product_norm(self) -> float:
        """||BA||_2 exactly, by the r x r core in float64: lambda_max of L^T (B^T B) L with A A^T = L L^T."""
        left, right = self()
        left, right = left.double(), right.double()
        values, vectors = torch.linalg.eigh(right @ right.mT)
        root = vectors * values.clamp_min(0).sqrt()
        core = root.mT @ (left.mT @ left) @ root
        return float(torch.linalg.eigvalsh((core + core.mT) / 2)[-1].clamp_min(0).sqrt())


class OneSidedFactors(Factors):
    """A has orthonormal rows and stays; B is trained in {||B||_2 <= R}, so ||dW||_2 = ||B||_2 (MATH.md section 3).

    `basis` is A: (r, in), float32 with orthonormal rows; the trained B starts at zero.
    """

    A: Tensor

    def __init__(self, basis: Tensor, out_features: int, *, budget: float) -> None:
        super().__init__(budget=budget)
        self.register_buffer("A", basis.to(torch.float32).contiguous())
        self.B = nn.Parameter(torch.zeros(out_features, basis.shape[0], device=basis.device))

    def forward(self) -> tuple[Tensor, Tensor]:
        return self.B, self.A

    def radius(self, leaf: str) -> float:
        """The radius D of the ball that `leaf` lives in."""
        del leaf
        return self.budget * SAFE


class TwoSidedFactors(Factors):
    """Both factors are trained, each in the ball of radius sqrt(R): ||dW||_2 <= R (MATH.md section 3).

    A starts at sqrt(R) times orthonormal rows, B at zero.
    """

    def __init__(self, basis: Tensor, out_features: int, *, budget: float) -> None:
        super().__init__(budget=budget)
        self.A = nn.Parameter(basis.to(torch.float32).contiguous() * self.radius("A"))
        self.B = nn.Parameter(torch.zeros(out_features, basis.shape[0], device=basis.device))

    def forward(self) -> tuple[Tensor, Tensor]:
        return self.B, self.A

    def radius(self, leaf: str) -> float:
        """The radius D = sqrt(R) of the ball that `leaf` lives in."""
        del leaf
        return self.budget**0.5 * SAFE


class CayleyFactors(Factors):
    """NB-LoRA's fixed Cayley chart: dW = 2 B^T diag(S) A with A A^T + B B^T = I and 0 <= S <= b (Wang et al. 2025).

    The leaves are X: (r, r), Y: (in + out - r, r) and S: (r,). With S >= 0, s_j(dW) <= S_(j) for every j
    (Bhatia-Kittaneh), so S may reach the whole budget. X starts at N(0, 1/in) on the input side and Y's output part at
    zero, so dW = 0 without favouring the first r input coordinates. S starts at half the budget (convention).
    """

    def __init__(self, in_features: int, out_features: int, rank: int, *, budget: float, generator: torch.Generator):
        super().__init__(budget=budget)
        if rank > in_features:
            raise ValueError(f"rank {rank} exceeds the {in_features} input features of a Cayley chart")
        self.in_features, self.out_features, self.rank = in_features, out_features, rank
        free_inputs = torch.randn(in_features, rank, generator=generator) / in_features**0.5
        self.X = nn.Parameter(free_inputs[:rank].clone())
        self.Y = nn.Parameter(torch.cat([free_inputs[rank:], torch.zeros(out_features, rank)]))
        self.S = nn.Parameter(torch.full((rank,), 0.5 * budget * SAFE))

    def chart(self) -> Tensor:
        """Q = [(I-Z)(I+Z)^-1 ; -2Y(I+Z)^-1], Z = X - X^T + Y^T Y; Q^T Q = I. Solved in float64 (MATH.md section 3)."""
        free, below = self.X.double(), self.Y.double()
        skew = free - free.mT + below.mT @ below
        eye = torch.eye(self.rank, dtype=torch.float64, device=skew.device)
        top = torch.linalg.solve(eye + skew, eye - skew, left=False)
        bottom = -2 * torch.linalg.solve(eye + skew, below, left=False)
        return torch.cat([top, bottom])

    def forward(self) -> tuple[Tensor, Tensor]:
        frame = self.chart()
        right = frame[: self.in_features].mT
        left = 2 * frame[self.in_features :] * self.S.clamp(0.0, self.budget * SAFE).double()
        # row by row in memory, as a file holds them: BLAS rounds differently on a transposed view
        return left.float().contiguous(), right.float().contiguous()

    @torch.no_grad()
    def clip(self) -> None:
        """Bring S back to [0, b] after a step: a negative S would double the attainable norm."""
        self.S.clamp_(0.0, self.budget * SAFE)


class StiefelFactors(Factors):
    """A point Q on the Stiefel manifold and S >= 0: dW = 2 Q_out diag(S) Q_in^T, moved along Wen-Yin curves.

    Q: (in + out, r) with Q^T Q = I, Q_in its first `in` rows. Q_in starts as the transposed basis, Q_out at zero.
    """

    def __init__(self, basis: Tensor, out_features: int, *, budget: float) -> None:
        super().__init__(budget=budget)
        rank, self.in_features = basis.shape
        start = torch.cat([basis.mT, torch.zeros(out_features, rank, dtype=basis.dtype, device=basis.device)])
        self.Q = nn.Parameter(start.to(torch.float32))
        self.S = nn.Parameter(torch.full((rank,), 0.5 * budget * SAFE, device=basis.device))

    def forward(self) -> tuple[Tensor, Tensor]:
        # row by row in memory, as a file holds it: BLAS rounds differently on a transposed view
        right = self.Q[: self.in_features].mT.contiguous()
        left = 2 * self.Q[self.in_features :] * self.S
        return left, right

    @torch.no_grad()
    def clip(self) -> None:
        """Bring S back to [0, b] after a step."""
        self.S.clamp_(0.0, self.budget * SAFE)


class FreeFactors(Factors):
    """Plain LoRA factors with no bound, for baselines: A as given, B zero, dW = scale B A.

    `scale` is alpha / r; 2 is the custom (alpha = 2r).
    """

    def __init__(self, right: Tensor, out_features: int, *, scale: float = 2.0) -> None:
        super().__init__(budget=float("inf"))
        self.scale = scale
        self.A = nn.Parameter(right.to(torch.float32).contiguous())
        self.B = nn.Parameter(torch.zeros(out_features, right.shape[0], device=right.device))

    def forward(self) -> tuple[Tensor, Tensor]:
        return self.scale * self.B, self.A
