"""A reference to one matrix of a checkpoint: where it stands and what it is for."""

from __future__ import annotations

from dataclasses import dataclass

from geonb.records import Record

ROLES = ("q", "k", "v", "o", "gate", "up", "down", "fused", "conv", "router", "embed", "head", "other")


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixRef(Record):
    """One matrix in the orientation (out, in): its unique name, the module that holds it, and its role.

    `name` is the module's path with ".weight", or with "[expert]" for one expert of a 3-D parameter; `parts` are the
    stored tensors that make it up (several where a checkpoint keeps apart what the model joins).
    """

    name: str
    module: str
    role: str  # one of ROLES
    layer: int | None
    expert: int | None
    shape: tuple[int, int]  # (out, in)
    dtype: str  # as stored: float64, float32, float16 or bfloat16
    targetable: bool
    because: str
    parts: tuple[str, ...]
    transposed: bool = False  # stored as (in, out), as GPT-2's Conv1D is
    slice: int | None = None  # index into the first axis of a stored 3-D tensor

    @property
    def parameters(self) -> int:
        """out x in."""
        return self.shape[0] * self.shape[1]

    def summary(self) -> str:
        return f"MatrixRef({self.name!r}, {self.role}, {self.shape[0]}x{self.shape[1]}, {self.dtype})"
