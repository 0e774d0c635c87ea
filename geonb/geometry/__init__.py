"""Pure mathematics of matrices and point clouds."""

from __future__ import annotations

from geonb import _lazy

_NAMES = {
    "Measurement": "measurement",
    "Spectrum": "spectrum",
    "Welford": "statistics",
    "auc": "inference",
    "ball_step": "ball",
    "bootstrap_interval": "statistics",
    "cayley_chart": "stiefel",
    "clopper_pearson": "statistics",
    "correlation": "inference",
    "debiased_linear_cka": "cka",
    "duality_gap": "ball",
    "full_basis": "bases",
    "h0_persistence": "dimension",
    "mcnemar": "statistics",
    "mle_dimension": "dimension",
    "over_seeds": "inference",
    "paired_bootstrap": "statistics",
    "permutation_p": "inference",
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
