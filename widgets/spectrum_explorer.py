"""SpectrumExplorer: the model as a map of layers and roles, and the spectrum behind each cell."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from geonb.errors import GeonbError, InputError
from geonb.models.checkpoint import Checkpoint
from geonb.models.geometry import MatrixGeometry, stream_geometry
from geonb.models.matrix_ref import ROLES, MatrixRef
from geonb.models.spectra import ModelSpectra
from geonb.widgets.packing import pack
from geonb.widgets.spectrum_picture import unit_twin
from geonb.widgets.spectrum_scalars import SCALARS, domain
from geonb.widgets.view import View, picture_html

# points of one curve, evenly spread over log(index): what a plot of this size can show
_POINTS = 96
# every curve travels with the map up to here, so that choosing one needs no answer from a kernel that may be busy
_ALL_CURVES = 1000
_SECONDS_BETWEEN = 0.3


class SpectrumExplorer(View):
    """Layers x roles coloured by one scalar of MATH.md section 1; a cell opens its spectrum beside a random twin.

    `source` is a `ModelSpectra`, a list of `MatrixGeometry`, an open `Checkpoint`, a model's folder or hub id, or
    "embedded". From a checkpoint the map fills in live, in a thread of its own. `scalar` is one of `SCALARS`, `select`
    the name of the matrix to begin with.

    Raises `InputError` for a scalar or matrix that does not exist.
    """

    name = "spectrum_explorer"

    def __init__(self, source: Any, *, scalar: str = "tail_share", select: str | None = None) -> None:
        super().__init__()
        if scalar not in SCALARS:
            raise InputError(f"scalar was given {scalar!r}; allowed are {', '.join(SCALARS)}: choose one of them.")
        self.scalar = scalar
        self._checkpoint: Checkpoint | None = None
        self._record: ModelSpectra | None = None
        self._thread: threading.Thread | None = None
        self._leave = threading.Event()
        self._broken: GeonbError | None = None
        found: Sequence[MatrixGeometry] = ()
        if isinstance(source, ModelSpectra):
            self._record, found, self.title = source, source.matrices, source.source
        elif isinstance(source, str | Path | Checkpoint):
            self._checkpoint = source if isinstance(source, Checkpoint) else Checkpoint.open(source)
            self.title = self._checkpoint.name
        else:
            found = tuple(source)
            self.title = f"{len(found)} matrices"
        self.refs: tuple[MatrixRef, ...] = (
            self._checkpoint.refs if self._checkpoint is not None else tuple(geometry.ref for geometry in found)
        )
        self._places = {ref.name: place for place, ref in enumerate(self.refs)}
        self._found: list[MatrixGeometry | None] = [None] * len(self.refs)
        for geometry in found:
            self._found[self._places[geometry.ref.name]] = geometry
        self._curves: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
        self._selected = 0
        self.select(select if select is not None else self._first_inside())

    def __repr__(self) -> str:
        return f"SpectrumExplorer({self.title!r}, {len(self.refs)} matrices)"

    def _first_inside(self) -> str:
        inside = [ref.name for ref in self.refs if ref.layer is not None]
        return inside[0] if inside else self.refs[0].name if self.refs else ""

    # -- what is known --------------------------------------------------------------------------------------------

    @property
    def record(self) -> ModelSpectra | None:
        """The spectra as a record, once all of them are there."""
        if self._record is None and self.is_complete and self._checkpoint is not None:
            self._record = ModelSpectra(
                source=str(self._checkpoint.source), digest=self._checkpoint.digest, matrices=tuple(self.geometries)
            )
        return self._record

    @property
    def geometries(self) -> list[MatrixGeometry]:
        """The matrices measured so far."""
        return [geometry for geometry in self._found if geometry is not None]

    @property
    def is_complete(self) -> bool:
        """Whether every matrix was measured."""
        return all(geometry is not None for geometry in self._found)

    @property
    def selected(self) -> MatrixGeometry | None:
        """The chosen matrix, None while it is not measured yet."""
        return self._found[self._selected] if self._found else None

    @property
    def label(self) -> str:
        """What the colours mean."""
        return SCALARS[self.scalar].label

    def select(self, name: str) -> None:
        """Choose the matrix called `name`."""
        if name not in self._places:
            if not self.refs:
                return
            raise InputError(
                f"no matrix is called {name!r}; allowed are names such as {self.refs[0].name!r}: see `geonb model info`."
            )
        self._selected = self._places[name]
        self.push()

    def selected_title(self) -> str:
        """The name of the chosen matrix."""
        return self.refs[self._selected].name if self.refs else "no matrix"

    def add(self, geometry: MatrixGeometry) -> None:
        """Take in one measured matrix."""
        self._found[self._places[geometry.ref.name]] = geometry

    # -- filling in -----------------------------------------------------------------------------------------------

    def complete(self) -> SpectrumExplorer:
        """Measure what is missing now, and return this view."""
        self._measure(threading.Event())
        return self

    def begin(self) -> None:
        if self._checkpoint is None or self.is_complete:
            return
        # an event of its own for each thread: one that was told to leave never comes back
        self._leave = threading.Event()
        self._thread = threading.Thread(target=self._fill, args=(self._leave,), name="geonb-spectra", daemon=True)
        self._thread.start()

    def rest(self) -> None:
        self._leave.set()

    def wait(self) -> SpectrumExplorer:
        """Wait until the map has filled in; raises what broke it off."""
        if self._thread is not None:
            self._thread.join()
        if self._broken is not None:
            raise self._broken
        return self.complete()

    def _fill(self, leave: threading.Event) -> None:
        try:
            self._measure(leave)
        except GeonbError as error:
            self._broken, self._error = error, str(error)
        except OSError as error:
            self._error = f"{error.filename or self.title} cannot be read any more: {error.strerror or error}."
            self._broken = InputError(self._error)
        self.push()

    def _measure(self, leave: threading.Event) -> None:
        missing = tuple(ref for ref, geometry in zip(self.refs, self._found, strict=True) if geometry is None)
        if not missing:
            return
        assert self._checkpoint is not None
        shown = time.monotonic()
        for geometry in stream_geometry(self._checkpoint, refs=missing):
            self.add(geometry)
            if leave.is_set():
                return
            if time.monotonic() - shown > _SECONDS_BETWEEN:
                shown = time.monotonic()
                self.push()

    # -- what is sent ---------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        return {
            "title": self.title,
            "scalar": self.scalar,
            "scalars": [[scalar.key, scalar.label, scalar.share] for scalar in SCALARS.values()],
            "roles": [role for role in ROLES if any(ref.role == role for ref in self.refs)],
            "matrices": [
                {"name": ref.name, "role": ref.role, "layer": ref.layer, "expert": ref.expert, "shape": list(ref.shape),
                 "why": ref.because}
                for ref in self.refs
            ],
            "selected": self._selected,
            "done": len(self.geometries),
        }  # fmt: skip

    def data(self) -> bytes:
        columns: dict[str, np.ndarray] = {}
        for key, scalar in SCALARS.items():
            columns[key] = np.array(
                [math.nan if g is None or g.is_zero else scalar.of(g.spectrum) for g in self._found], dtype=np.float32
            )
        wanted = range(len(self._found)) if len(self._found) <= _ALL_CURVES else [self._selected]
        drawn = [place for place in wanted if self._found[place] is not None]
        for place in drawn:
            if place not in self._curves:
                self._curves[place] = _curve(self._found[place])
        curves = [self._curves[place] for place in drawn]
        columns["curve_of"] = np.array(drawn, dtype=np.int32)
        columns["noise_edge"] = np.array([g.noise_edge if g is not None else math.nan for g in self._found])
        for number, name in enumerate(("index", "values", "twin")):
            parts = [curve[number] for curve in curves] or [np.zeros(0, dtype=np.float32)]
            columns[name] = np.concatenate(parts).astype(np.float32)
        return pack(columns, points=_POINTS)

    def receive(self, event: dict[str, Any]) -> None:
        if event.get("kind") == "select" and isinstance(event.get("name"), str):
            self.select(event["name"])
        elif event.get("kind") == "scalar" and event.get("key") in SCALARS:
            self.scalar = event["key"]

    # -- still pictures -------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        self.complete()

    def grid(self) -> tuple[list[Any], list[str], np.ndarray]:
        """(layers, roles, medians of the scalar by layer and role), nan where there is no such matrix."""
        layers = sorted({ref.layer for ref in self.refs if ref.layer is not None})
        rows: list[Any] = [*layers, *([None] if any(ref.layer is None for ref in self.refs) else [])]
        roles = [role for role in ROLES if any(ref.role == role for ref in self.refs)]
        values = np.full((len(rows), len(roles)), np.nan)
        members: dict[tuple[int, int], list[float]] = {}
        for geometry in self.geometries:
            place = rows.index(geometry.ref.layer), roles.index(geometry.ref.role)
            if not geometry.is_zero:
                members.setdefault(place, []).append(SCALARS[self.scalar].of(geometry.spectrum))
        for place, found in members.items():
            values[place] = float(np.median(found))
        return [row if row is not None else "–" for row in rows], roles, values

    def domain(self) -> Any:
        """The colour scale of the map."""
        return domain(SCALARS[self.scalar], [float(value) for value in self.grid()[2].reshape(-1)])

    def static(self) -> str:
        from geonb.widgets.explorer_picture import explorer_picture

        return picture_html(explorer_picture(self), alt=f"Spectra of {self.title}: {self.label}")

    def figure(self) -> Any:
        from geonb.widgets.figures import spectrum_figure

        return spectrum_figure(self.complete())


def _curve(geometry: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(index from 1, singular values, random twin), `_POINTS` of each; short spectra are padded with nan."""
    values = geometry.spectrum.values
    places = np.unique(np.geomspace(1, max(1, len(values)), _POINTS).round().astype(int)) - 1
    norm = float(np.sqrt((values**2).sum()))
    block = np.full((3, _POINTS), np.nan)
    block[0, : len(places)] = places + 1
    block[1, : len(places)] = values[places]
    block[2, : len(places)] = unit_twin(geometry.spectrum.shape)[places] * norm
    return block[0], block[1], block[2]
