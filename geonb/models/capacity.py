"""`model capacity`: the room that each matrix has, and the rank that its tail recommends."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from geonb.errors import InputError
from geonb.models.checkpoint import Checkpoint
from geonb.models.geometry import MatrixGeometry, Progress, stream_geometry
from geonb.record_tables import table_html
from geonb.records import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixCapacity(Record):
    """The scalars of one matrix that say how much an adapter may change and hold."""

    name: str
    role: str
    layer: int | None
    expert: int | None
    shape: tuple[int, int]
    sigma_max: float
    sigma_k: float
    effective_rank: float
    structural_rank: int
    k_certified: bool
    recommended_rank: int  # tail_dims
    noise_rank: int
    parameters: int  # of an adapter of that rank, both factors
    targetable: bool
    because: str


_COLUMNS = (
    ("matrix", "name"),
    ("role", "role"),
    ("out x in", "shape"),
    ("sigma_max", "sigma_max"),
    ("sigma_k", "sigma_k"),
    ("eff. rank", "effective_rank"),
    ("k", "structural_rank"),
    ("tail = rank", "recommended_rank"),
    ("parameters", "parameters"),
)
# name on the command line -> (attribute, largest first)
SORT_KEYS = {
    "layer": ("layer", False),
    "name": ("name", False),
    "recommended-rank": ("recommended_rank", True),
    "sigma-k": ("sigma_k", True),
    "budget": ("sigma_max", True),
    "parameters": ("parameters", True),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCapacity(Record):
    """All matrices of a checkpoint with their capacity, in the order asked for."""

    source: str
    sort_by: str
    matrices: tuple[MatrixCapacity, ...]

    def summary(self) -> str:
        return f"ModelCapacity({self.source!r}, {len(self.matrices)} matrices, by {self.sort_by})"

    def _rows(self):
        for matrix in self.matrices:
            yield [
                f"{matrix.shape[0]} x {matrix.shape[1]}" if attribute == "shape" else getattr(matrix, attribute)
                for _, attribute in _COLUMNS
            ]

    def to_text(self) -> str:
        rows = [[f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row] for row in self._rows()]
        head = [title for title, _ in _COLUMNS]
        widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
        lines = [f"{self.source}: capacity of {len(rows)} matrices, by {self.sort_by}"]
        for row in [head, *rows]:
            cells = [
                cell.ljust(width) if column < 2 else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ]
            lines.append("  " + "  ".join(cells).rstrip())
        unsure = [matrix.name for matrix in self.matrices if not matrix.k_certified]
        lines.append(f"  k is certified in {len(rows) - len(unsure)} of {len(rows)} matrices")
        return "\n".join(lines)

    def to_html(self) -> str:
        return table_html([title for title, _ in _COLUMNS], self._rows(), caption=f"{self.source}, by {self.sort_by}")


def model_capacity(
    source: str | Path, *, sort_by: str = "layer", progress: Progress | None = None, workers: int = 2
) -> ModelCapacity:
    """Measure every matrix of `source` and list it by `sort_by` (one of `SORT_KEYS`).

    >>> model_capacity("embedded", sort_by="recommended-rank").matrices[0].recommended_rank > 100
    True
    """
    if sort_by not in SORT_KEYS:
        raise InputError(f"--sort-by was given {sort_by!r}; allowed are {', '.join(SORT_KEYS)}.")
    checkpoint = Checkpoint.open(source)
    found = [_capacity(geometry) for geometry in stream_geometry(checkpoint, workers=workers, progress=progress)]
    attribute, largest_first = SORT_KEYS[sort_by]
    if attribute != "layer":
        found.sort(key=lambda matrix: getattr(matrix, attribute), reverse=largest_first)
    return ModelCapacity(source=checkpoint.source, sort_by=sort_by, matrices=tuple(found))


def _capacity(geometry: MatrixGeometry) -> MatrixCapacity:
    ref, spectrum = geometry.ref, geometry.spectrum
    rank = spectrum.tail_dims
    zero = " (a zero matrix has no scale, so it is not targetable)" if spectrum.is_zero else ""
    return MatrixCapacity(
        name=ref.name,
        role=ref.role,
        layer=ref.layer,
        expert=ref.expert,
        shape=ref.shape,
        sigma_max=spectrum.sigma_max,
        sigma_k=spectrum.sigma_k,
        effective_rank=spectrum.effective_rank,
        structural_rank=spectrum.structural_rank,
        k_certified=spectrum.k_certified,
        recommended_rank=rank,
        noise_rank=spectrum.noise_rank,
        parameters=rank * sum(ref.shape),
        targetable=ref.targetable and not spectrum.is_zero and rank > 0,
        because=ref.because + zero,
    )
