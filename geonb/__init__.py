"""geonb: see a model's geometry, derive its fine-tuning, verify the adapter.

Importing this package loads numpy and nothing heavier; every public name below is fetched on first use.
"""

from __future__ import annotations

from geonb import _lazy
from geonb._version import __version__ as __version__

_NAMES = {
    "Checkpoint": "models.checkpoint",
    "MatrixGeometry": "models.geometry",
    "Plan": "plan.plan",
    "Spectrum": "geometry.spectrum",
    "build_plan": "plan.build",
    "singular_values": "geometry.singular_values",
    "spectrum": "geometry.singular_values",
    "run_training": "train.execute",
}

__getattr__, __dir__, __all__ = _lazy.attach(__name__, _NAMES)


def load_ipython_extension(shell) -> None:
    """Register `%geonb` and `%%geonb` with a notebook; called by `%load_ext geonb`."""
    from geonb.magics import register

    register(shell)


def unload_ipython_extension(shell) -> None:
    """Take the magics out of a notebook again; called by `%unload_ext geonb`."""
    from geonb.magics import unregister

    unregister(shell)
