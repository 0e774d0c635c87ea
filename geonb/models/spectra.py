"""The spectra of a whole checkpoint as one record: what `geonb spectra` returns and the explorer draws."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from geonb.models.checkpoint import Checkpoint
from geonb.models.geometry import MatrixGeometry, Progress, stream_geometry
from geonb.record_tables import table_html
from geonb.records import Record

_COLUMNS = ("matrix", "role", "out x in", "sigma_max", "sigma_k", "k", "eff. rank", "tail", "noise edge")
_SHOWN = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpectra(Record):
    """Every matrix of a checkpoint with its singular values, in the checkpoint's order."""

    source: str
    digest: str
    matrices: tuple[MatrixGeometry, ...]

    def summary(self) -> str:
        return f"ModelSpectra({self.source!r}, {len(self.matrices)} matrices)"

    def matrix(self, name: str) -> MatrixGeometry:
        """The matrix called `name`; raises `KeyError`."""
        for found in self.matrices:
            if name in (found.ref.name, found.ref.module):
                return found
        raise KeyError(name)

    def _rows(self):
        for matrix in self.matrices:
            spectrum, shape = matrix.spectrum, f"{matrix.ref.shape[0]} x {matrix.ref.shape[1]}"
            yield (
                matrix.ref.name, matrix.ref.role, shape, spectrum.sigma_max, spectrum.sigma_k, spectrum.structural_rank,
                spectrum.effective_rank, spectrum.tail_dims, spectrum.noise_edge,
            )  # fmt: skip

    def to_text(self) -> str:
        width = max((len(matrix.ref.name) for matrix in self.matrices), default=6)
        lines = [f"{self.source}: spectra of {len(self.matrices)} matrices"]
        lines.append(
            f"  {'matrix':{width}}  {'role':6} {'sigma_max':>10} {'sigma_k':>10} {'k':>6} {'tail':>6}  tail / q"
        )
        for matrix in self.matrices:
            spectrum = matrix.spectrum
            share = spectrum.tail_dims / spectrum.full_rank if spectrum.full_rank else 0.0
            lines.append(
                f"  {matrix.ref.name:{width}}  {matrix.ref.role:6} {spectrum.sigma_max:>10.4g} {spectrum.sigma_k:>10.4g} "
                f"{spectrum.structural_rank:>6} {spectrum.tail_dims:>6}  {'█' * round(12 * share):12} {share:.0%}"
            )
        return "\n".join(lines)

    def to_html(self) -> str:
        more = f" (the first {_SHOWN} of {len(self.matrices)})" if len(self.matrices) > _SHOWN else ""
        return table_html(_COLUMNS, list(self._rows())[:_SHOWN], caption=f"{self.source}: spectra{more}")


def model_spectra(
    source: str | Path | Checkpoint,
    *,
    workers: int = 2,
    progress: Progress | None = None,
    watch: Callable[[MatrixGeometry], None] | None = None,
) -> ModelSpectra:
    """Measure every matrix of `source` (a folder, a hub id, "embedded" or an open `Checkpoint`).

    `watch` is given each matrix as soon as it is measured, `progress` is called as in `stream_geometry`.

    >>> model_spectra("embedded").matrices[0].ref.role
    'embed'
    """
    checkpoint = source if isinstance(source, Checkpoint) else Checkpoint.open(source)
    found = []
    for geometry in stream_geometry(checkpoint, workers=workers, progress=progress):
        found.append(geometry)
        if watch is not None:
            watch(geometry)
    return ModelSpectra(source=str(checkpoint.source), digest=checkpoint.digest, matrices=tuple(found))
