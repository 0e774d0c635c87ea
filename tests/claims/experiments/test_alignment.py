"""In sample a map makes anything equal; held out it finds what is there and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from geonb.claims.experiments import alignment as experiment
from geonb.errors import InputError

RNG = np.random.default_rng(0)


def test_cka_is_that_of_the_cross_covariances():
    x, y = RNG.standard_normal((30, 4)), RNG.standard_normal((30, 6))
    a, b = x - x.mean(0), y - y.mean(0)
    expected = np.linalg.norm(a.T @ b) ** 2 / (np.linalg.norm(a.T @ a) * np.linalg.norm(b.T @ b))
    assert experiment.linear_cka(x, y) == pytest.approx(expected)


def test_noise_is_sent_anywhere_by_as_many_directions():
    x, y = RNG.standard_normal((20, 40)), RNG.standard_normal((20, 40))
    assert np.allclose(x @ experiment.least_map(x, y), y)
    assert experiment.linear_cka(x @ experiment.least_map(x, y), y) == pytest.approx(1, abs=1e-12)


def test_a_map_of_noise_does_nothing_on_other_rows():
    x, y = RNG.standard_normal((400, 20)), RNG.standard_normal((400, 20))
    found = experiment.judged(experiment.least_map(x[:20], y[:20]), x[20:], y[20:], y[:20].mean(0))
    assert abs(found.aligned) < 0.1 and abs(found.raw) < 0.1 and found.explained < 0


def test_a_linear_relation_is_found_with_enough_rows():
    x = RNG.standard_normal((400, 20))
    y = x @ RNG.standard_normal((20, 12))
    found = experiment.judged(experiment.least_map(x[:200], y[:200]), x[200:], y[200:], y[:200].mean(0))
    assert found.aligned == pytest.approx(1, abs=1e-6) and found.explained == pytest.approx(1)


def test_ridge_is_that_of_the_normal_equations():
    x, y = RNG.standard_normal((30, 5)), RNG.standard_normal((30, 3))
    top = np.linalg.norm(x, 2) ** 2
    (found,) = experiment.ridge_path(x, y, [0.1])
    assert np.allclose(found, np.linalg.solve(x.T @ x + 0.1 * top * np.eye(5), x.T @ y))


def test_cross_validation_predicts_every_row_from_the_others_alone():
    x = RNG.standard_normal((60, 8))
    y = x @ RNG.standard_normal((8, 4)) + 3.0
    guesses, explained = experiment.cross_validated(x, y)
    assert np.allclose(guesses, y, atol=1e-3) and explained > 0.999
    noise = RNG.standard_normal((60, 4))
    assert experiment.cross_validated(x, noise)[1] < 0.1
    # a row's own target has no part in its guess
    changed = noise.copy()
    order = np.random.default_rng(0).permutation(60)
    fold = np.array_split(order, 5)[0]
    changed[fold] += 100.0
    first, second = experiment.cross_validated(x, noise)[0], experiment.cross_validated(x, changed)[0]
    assert np.allclose(first[fold], second[fold])


def test_too_few_rows_for_the_folds_are_refused():
    with pytest.raises(InputError, match="5 a fold or more"):
        experiment.cross_validated(np.zeros((10, 2)), np.zeros((10, 2)))
