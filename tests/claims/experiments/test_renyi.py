"""Renyi-2 information against its definition by eigenvalues, by enumeration, and against Shannon's."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geonb.claims.experiments.renyi import (
    discrete_renyi2_information,
    gaussian_gram,
    merged,
    renyi2_entropy,
    renyi2_information,
    shannon_information,
    two_point_information,
)
from geonb.errors import InputError


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_the_entropy_is_that_of_the_normalised_gram_matrix_eigenvalues(seed):
    gram = gaussian_gram(np.random.default_rng(seed).standard_normal((12, 3)))
    shares = np.linalg.eigvalsh(gram) / 12
    assert renyi2_entropy(gram) == pytest.approx(-np.log2((shares**2).sum()))
    assert 0 <= renyi2_entropy(gram) <= np.log2(12)


@given(st.fractions(0, 1), st.fractions(0, 1))
def test_the_exact_form_for_two_points_is_that_of_their_gram_matrices(a, b):
    grams = [np.array([[1.0, float(one)], [float(one), 1.0]]) for one in (a, b)]
    assert np.log2(float(two_point_information(a, b))) == pytest.approx(renyi2_information(*grams), abs=1e-9)


def test_information_about_a_constant_is_nothing():
    gram = gaussian_gram(np.arange(6.0)[:, None])
    assert renyi2_information(gram, np.ones((6, 6))) == pytest.approx(0.0, abs=1e-12)
    assert two_point_information(Fraction(1, 3), Fraction(1)) == 1


tables = st.lists(st.integers(0, 6), min_size=6, max_size=6).filter(lambda counts: sum(counts) > 0)


@given(tables)
def test_merging_values_never_raises_shannons_information(counts):
    total = sum(counts)
    table = [[Fraction(one, total) for one in counts[:3]], [Fraction(one, total) for one in counts[3:]]]
    assert shannon_information(merged(table, [(0, 1), (2,)])) <= shannon_information(table) + 1e-12


def test_an_independent_table_has_no_information_of_either_kind():
    table = [[Fraction(1, 8), Fraction(1, 8)], [Fraction(3, 8), Fraction(3, 8)]]
    assert discrete_renyi2_information(table) == 1
    assert shannon_information(table) == pytest.approx(0.0, abs=1e-12)


def test_a_copy_of_a_fair_coin_has_one_bit_of_either_kind():
    half, none = Fraction(1, 2), Fraction(0)
    assert discrete_renyi2_information([[half, none], [none, half]]) == 2
    assert shannon_information([[half, none], [none, half]]) == pytest.approx(1.0)


def test_a_table_that_is_none_and_points_that_coincide_are_refused():
    with pytest.raises(InputError, match="no distribution"):
        discrete_renyi2_information([[Fraction(1), Fraction(1)]])
    with pytest.raises(InputError, match="points that differ"):
        gaussian_gram(np.zeros((5, 2)))
