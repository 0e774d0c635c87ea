"""What a plan says of one matrix: whether it is trained, at which rank, within which budget, and why."""

from __future__ import annotations

from dataclasses import dataclass

from geonb.records import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetPlan(Record):
    """One analysed matrix, chosen or not; a matrix that was not chosen has rank, budget and parameters 0.

    `shape` is (out, in); `budget` is R, the spectral norm that dW never exceeds; `rank` counts rows of A;
    `parameters` counts trained numbers; `dropout_documented` is the specification's (1 - erank/q)(r/q), not applied.
    """

    name: str
    module: str
    role: str
    layer: int | None
    expert: int | None
    shape: tuple[int, int]
    chosen: bool
    because: str
    rank: int
    basis: str
    budget: float
    parameters: int
    sigma_k: float
    sigma_max: float
    gap_boundary: float
    effective_rank: float
    structural_rank: int
    k_certified: bool
    tail_dims: int
    knee_rank: int
    noise_rank: int
    dropout_documented: float

    def summary(self) -> str:
        if not self.chosen:
            return f"TargetPlan({self.name}: {self.because})"
        return f"TargetPlan({self.name}: rank {self.rank}, R {self.budget:.4g})"
