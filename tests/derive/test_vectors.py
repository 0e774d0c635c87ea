"""Worked vectors of the specification, and the invariants of each formula."""

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geonb.derive import (
    adam_epsilon,
    batch_size,
    dropout,
    initialisation,
    learning_rate,
    lora_rank,
    lora_scale,
    momentum,
    residual_scaling,
    target_modules,
    weight_decay,
)
from geonb.derive.context import SQRT_EPS, DerivationContext
from geonb.derive.rounding import rounded, significant

positive = st.floats(1e-3, 1e3)


def one(value):
    return {"w": value}


@pytest.mark.parametrize(("sigma_k", "sigma_max", "ceiling"), [(0.1, 10, 0.01), (1, 1, 1), (5, 10, 0.5)])
def test_documented_ceiling(sigma_k, sigma_max, ceiling):
    out = learning_rate.compute(
        controller="mass",
        sigma_k=one(sigma_k),
        sigma_max=one(sigma_max),
        gap_boundary=one(0.0),
        budget=one(sigma_max),
        horizon=10,
        batches_per_epoch=100,
    )
    assert out.documented == pytest.approx(ceiling)
    assert out.used == pytest.approx(ceiling / 10)


def test_ceiling_takes_the_extremes_over_layers():
    out = learning_rate.compute(
        controller="mass",
        sigma_k={"a": 0.5, "b": 0.2},
        sigma_max={"a": 1.0, "b": 4.0},
        gap_boundary={},
        budget={},
        horizon=1,
        batches_per_epoch=1,
    )
    assert out.documented == pytest.approx(0.05)


@given(sigma_k=positive, ratio=st.floats(1, 100), horizon=st.integers(1, 10_000), strict=st.booleans())
def test_first_step_respects_both_bounds(sigma_k, ratio, horizon, strict):
    budget = sigma_k if strict else sigma_k * ratio
    step = learning_rate.compute(
        controller="frank-wolfe",
        sigma_k=one(sigma_k),
        sigma_max=one(sigma_k * ratio),
        gap_boundary=one(0.0),
        budget=one(budget),
        horizon=horizon,
        batches_per_epoch=1,
    ).used["w"]
    assert 0 < step <= budget and step <= sigma_k / math.sqrt(horizon) * (1 + 1e-12)
    shrinkage = weight_decay.compute(
        controller="frank-wolfe",
        sigma_k=one(sigma_k),
        sigma_max=one(sigma_k * ratio),
        budget=one(budget),
        horizon=horizon,
    ).used["w"]
    assert shrinkage == pytest.approx(step / budget) and 0 < shrinkage <= 1


@pytest.mark.parametrize(("sigma_max", "sigma_k", "ridge"), [(10, 0.1, 0.0345267), (1, 0.5, 0.25), (0, 0, 0)])
def test_epsilon_vectors(sigma_max, sigma_k, ridge):
    out = adam_epsilon.compute(controller="frank-wolfe", sigma_k=one(sigma_k), sigma_max=one(sigma_max))
    assert out.documented["w"] == pytest.approx(ridge, rel=1e-6)
    assert out.used == "none"


def test_momentum_and_flat_decay():
    assert momentum.compute(controller="frank-wolfe", horizon=100).used == pytest.approx(0.9)
    assert momentum.compute(controller="frank-wolfe", horizon=1).used == 0
    flat = weight_decay.compute(controller="mass", sigma_k=one(2.0), sigma_max=one(2.0), budget=one(2.0), horizon=9)
    assert flat.documented == one(1.0) and flat.used == 0.0


@given(scale=st.one_of(st.none(), positive), n=st.integers(1, 5000))
def test_batch_is_a_count_of_examples_that_exist(scale, n):
    used = batch_size.compute(noise_scale=scale, n_train=n, fallback=16).used
    assert 1 <= used <= n
    if scale is not None and scale <= n:
        assert used - 1 < scale <= used


def test_scale_vectors():
    strict = lora_scale.compute(budget="strict", sigma_k=one(0.46), sigma_max=one(4.6))
    assert strict.used == one(0.46) and strict.documented == one(1.0)
    balanced = lora_scale.compute(budget="balanced", sigma_k=one(0.46), sigma_max=one(4.6))
    assert balanced.used["w"] == pytest.approx(1.38) and balanced.documented["w"] == pytest.approx(1 / 3)
    flat = lora_scale.compute(budget="balanced", sigma_k=one(0.46), sigma_max=one(0.88))
    assert flat.used == one(0.88)
    opened = lora_scale.compute(budget="open", sigma_k=one(0.46), sigma_max=one(0.88))
    assert opened.documented["w"] == pytest.approx(0.522727, abs=1e-6)


def test_dropout_vector_is_far_above_the_documented_range():
    out = dropout.compute(effective_rank=one(2.116144), full_rank=one(8), rank=one(6))
    assert out.documented["w"] == pytest.approx(0.551611, abs=1e-6)
    assert dropout.compute(effective_rank=one(8.0), full_rank=one(8), rank=one(1)).documented == one(0.0)
    assert out.used == 0.0


def test_documented_init_starts_at_the_whole_strict_budget():
    assert initialisation.compute(basis="tail", sigma_k=one(0.3)) == (0.0, one(0.3))


def test_residual_gain_is_clamped():
    out = residual_scaling.compute(residual_gains={"low": 1e-9, "high": 1e9, "plain": 2.0})
    assert out.documented == {"low": SQRT_EPS, "high": 1 / SQRT_EPS, "plain": 2.0}
    assert out.used == 1.0 and residual_scaling.compute(residual_gains=None).documented is None


tails = st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 60), min_size=1)


@given(tails=tails, limit=st.one_of(st.none(), st.integers(0, 200_000)), cap=st.one_of(st.none(), st.integers(1, 80)))
def test_rank_never_exceeds_tail_cap_or_memory(tails, limit, cap):
    shapes = {name: (64, 70) for name in tails}
    used = lora_rank.compute(
        tail_dims=tails, shapes=shapes, basis="tail", sides="one", max_rank=cap, memory_limit=limit
    ).used
    assert all(1 <= used[name] <= tails[name] for name in tails)
    if cap is not None:
        assert max(used.values()) <= cap
    if limit is not None and max(used.values()) > 1:
        assert lora_rank.adapter_bytes(shapes, used, "one") <= limit
    if limit is None and cap is None:
        assert used == tails


def test_memory_takes_from_the_largest_first_and_as_little_as_possible():
    shapes = {"a": (10, 10), "b": (10, 10)}
    room = lora_rank.adapter_bytes(shapes, {"a": 6, "b": 3}, "one")
    arguments = {"tail_dims": {"a": 9, "b": 3}, "shapes": shapes, "basis": "tail", "sides": "one", "max_rank": None}
    assert lora_rank.compute(**arguments, memory_limit=room).used == {"a": 6, "b": 3}
    assert lora_rank.compute(**arguments, memory_limit=room - 1).used == {"a": 5, "b": 3}


def test_ceilings_are_shown_with_their_cost(context):
    derivation = lora_rank.derive(context)
    beside = derivation.beside
    assert beside["data"] == {"lowest": 2, "highest": 6, "parameters": 6 * 8 + 2 * 5}
    assert beside["gradient"] == {"lowest": 2, "highest": 3, "parameters": 3 * 8 + 2 * 5}
    # 2^-i: k 2, tail 6, knee 1 of 8 -> floor(6/8), at least one; (10, 9.5, 9, 1, .9): knee 3 of 5, tail 2 -> 1
    assert beside["knee"] == {"lowest": 1, "highest": 1, "parameters": 8 + 5}
    assert derivation.because.startswith("Decided by tail_dims in every matrix.")


def test_the_plan_says_which_bound_decided(context):
    capped = lora_rank.derive(dataclasses.replace(context, max_rank=3))
    assert "--max-rank 3 in 1 of 2" in capped.because
    short = lora_rank.derive(dataclasses.replace(context, memory_limit=600, memory_source="600 bytes"))
    assert "memory limit (600 bytes)" in short.because


def test_target_rule_is_vacuous_and_geonb_says_what_it_skips(context: DerivationContext):
    derivation = target_modules.derive(context)
    assert derivation.value == ("layers.0.q", "layers.0.up")
    assert set(derivation.documented_value) == {"layers.0.q", "layers.0.up", "layers.0.expert[0]", "embed"}
    reasons = {matrix.name: target_modules.reason(matrix) for matrix in context.matrices}
    assert "every entry is zero" in reasons["layers.0.zero"]
    assert "one singular value" in reasons["layers.0.gate"]
    assert "an embedding" in reasons["embed"]
    assert "--target-experts" in reasons["layers.0.expert[0]"]
    assert reasons["layers.0.q"] == "targeted: 6 of 8 directions lie beyond the 2 that carry its structure"


def test_a_named_expert_is_a_target(context):
    named = dataclasses.replace(context, chosen_experts=("layers.0.expert[0]",))
    assert "layers.0.expert[0]" in target_modules.derive(named).value


@given(st.floats(allow_nan=False))
def test_rounding_is_idempotent(value):
    once = significant(value)
    assert significant(once) == once
    assert rounded(rounded([value])) == rounded([value])
