"""The fifteen hyperparameters and what replaces each: one file for each, and the table that lists them."""

from geonb._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "Calibration": "context",
        "DerivationContext": "context",
        "MatrixFacts": "context",
        "Derivation": "derivation",
        "Outcome": "derivation",
        "FIFTEEN": "table",
        "derive_all": "table",
        "recompute": "table",
    },
)
