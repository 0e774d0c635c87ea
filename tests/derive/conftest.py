"""A small, fully known set of matrices for the derivations."""

import numpy as np
import pytest

from geonb.derive import Calibration, DerivationContext, MatrixFacts
from geonb.geometry import Spectrum


def facts(name, values, shape, *, role="q", layer=0, expert=None, targetable=True, because=""):
    spectrum = Spectrum.of(values, shape=shape)
    names = (
        "is_zero sigma_max sigma_k effective_rank structural_rank k_certified full_rank tail_dims gap_inside "
        "gap_boundary knee_rank noise_rank"
    )
    return MatrixFacts(
        name=name,
        role=role,
        layer=layer,
        expert=expert,
        shape=shape,
        targetable=targetable,
        because=because,
        **{field: getattr(spectrum, field) for field in names.split()},
    )


@pytest.fixture
def make_facts():
    return facts


@pytest.fixture
def context():
    matrices = (
        facts("layers.0.q", 2.0 ** -np.arange(8), (8, 12)),
        facts("layers.0.up", [10, 9.5, 9, 1, 0.9], (5, 5), role="up"),
        facts("layers.0.expert[0]", [5, 3, 1], (3, 3), role="up", expert=0),
        facts("embed", [5, 3, 1], (3, 3), role="embed", layer=None, targetable=False, because="an embedding"),
        facts("layers.0.zero", [0, 0], (2, 2)),
        facts("layers.0.gate", [1.5], (1, 4)),
    )
    return DerivationContext(
        matrices=matrices,
        n_train=100,
        n_eval=32,
        resolves=0.03,
        targets=("layers.0.q", "layers.0.up"),
        ranks={"layers.0.q": 6, "layers.0.up": 2},
        batch_size=16,
        horizon=400,
        horizon_source="as the test says",
        calibration=Calibration(
            n_examples=32,
            resolved=True,
            noise_scale=6.25,
            noise_scale_interval=(4.0, 9.0),
            signal_to_noise=0.16,
            residual_gains={"layers.0": 1.5, "layers.1": 1e9},
            gradient_ranks={"layers.0.q": 3, "layers.0.up": 9},
            because="a test",
        ),
    )
