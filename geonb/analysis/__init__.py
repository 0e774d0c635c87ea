"""The measurements that the claims rest on: each figure with its interval, its sample size, its null and its operator."""

from __future__ import annotations

from geonb import _lazy

# no submodule is called as what it offers: once imported it would take the name
_NAMES = {
    "Activations": "activations",
    "LayerProfile": "profile",
    "LogitLens": "lens",
    "Measured": "measured",
    "TokenTrajectory": "trajectory",
    "adapter_geometry": "weight_change",
    "collect": "collecting",
    "compare": "comparison",
    "drift": "adapter_drift",
    "layer_profile": "profile",
    "logit_lens": "lens",
    "random_twin": "twin",
    "spectra": "matrix_spectra",
    "token_trajectory": "trajectory",
}

__getattr__, __dir__, __all__ = _lazy.attach(__name__, _NAMES)
