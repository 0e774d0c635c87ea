"""Pure mathematics of matrices and point clouds."""

from __future__ import annotations

from geonb import _lazy

_NAMES = {
    "Measurement": "measurement",
    "Spectrum": "spectrum",
    "Welford": "statistics",
    "ball_step": "ball",
    "bootstrap_interval": "statistics",
    "cayley_chart": "stiefel",
    "clopper_pearson": "statistics",
    "debiased_linear_cka": "cka",
    "duality_gap": "ball",
    "full_basis": "bases",
    "h0_persistence": "dimension",
    "mcnemar": "statistics",
    "mle_dimension": "dimension",
    "paired_bootstrap": "statistics",
    "polar": "ball",
    "procrustes": "cka",
    "product_norm": "low_rank",
    "product_singular_values": "low_rank",
    "random_basis": "bases",
    "tail_basis": "bases",
    "top_basis": "bases",
    "two_nn": "dimension",
    "wen_yin_step": "stiefel",
    "wilson": "statistics",
}

__getattr__, __dir__, __all__ = _lazy.attach(__name__, _NAMES)
