"""Open a checkpoint lazily, find its matrices and their roles, see their geometry, run it."""

from __future__ import annotations

from geonb import _lazy

_NAMES = {
    "Checkpoint": "checkpoint",
    "MatrixGeometry": "geometry",
    "MatrixRef": "matrix_ref",
    "ModelCapacity": "capacity",
    "ModelInfo": "info",
    "TorchRuntime": "runtime",
    "ModelSpectra": "spectra",
    "checkpoint_geometry": "geometry",
    "model_capacity": "capacity",
    "model_info": "info",
    "model_spectra": "spectra",
    "stream_geometry": "geometry",
}

__getattr__, __dir__, __all__ = _lazy.attach(__name__, _NAMES)
