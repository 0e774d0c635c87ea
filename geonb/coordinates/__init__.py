"""The coordinate-modulated language model: weights as a function of a coordinate, counted, bounded and tested."""

from __future__ import annotations

from geonb import _lazy

_NAMES = {
    "Configuration": "configuration",
    "CoordinateModel": "model",
    "KeyValueCache": "cache",
    "ModulatedLinear": "modulated_linear",
    "Predictor": "predictor",
    "kernel": "phases",
    "orthogonal_phases": "phases",
    "preset": "configuration",
    "read_configuration": "configuration",
    "welch_bound": "phases",
}

__getattr__, __dir__, __all__ = _lazy.attach(__name__, _NAMES)
