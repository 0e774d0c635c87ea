"""Calibration against independent oracles: autograd through a real adapter, brute-force statistics, simulation."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from geonb.geometry import random_basis
from geonb.models.checkpoint import Checkpoint
from geonb.models.runtime import TorchRuntime
from geonb.plan.calibrate import calibrate, choose, gradient_bases, split_half_rank
from geonb.plan.hooks import Observer, example_passes
from geonb.plan.inputs import load_inputs
from geonb.plan.noise import noise_scale


@pytest.fixture(scope="module")
def runtime():
    return TorchRuntime.load(Checkpoint.open("embedded"), device="cpu")


@pytest.fixture(scope="module")
def examples(quick_plan):
    return load_inputs(quick_plan).training


def test_hooked_gradient_is_the_gradient_of_a_real_adapter(runtime, quick_plan, examples):
    target = next(t for t in quick_plan.chosen() if t.role == "down")
    basis = torch.from_numpy(random_basis(target.shape[1], 5, seed=1)).float()
    tokens = float(sum(examples[0].loss_mask))
    with Observer(runtime.model, {target.module: basis}, ()) as observer:
        ((_, hooked),) = list(example_passes(runtime, observer, examples, [0], tokens))

    factor = torch.zeros(target.shape[0], 5, requires_grad=True)
    handle = runtime.module(target.module).register_forward_hook(
        lambda module, args, output: output + (args[0] @ basis.mT) @ factor.mT
    )
    try:
        pair = (examples[0].input_ids, examples[0].loss_mask)
        ids = torch.tensor([examples[0].input_ids])
        labels = torch.tensor([[i if m else -100 for i, m in zip(*pair, strict=True)]])
        logits = runtime.model(input_ids=ids).logits
        functional.cross_entropy(logits[0, :-1], labels[0, 1:], ignore_index=-100).backward()
    finally:
        handle.remove()
    torch.testing.assert_close(hooked[target.module], factor.grad, rtol=1e-4, atol=1e-7)


def test_calibration_leaves_the_model_as_it_was(runtime, quick_plan, examples):
    before = {name: weight.clone() for name, weight in runtime.model.state_dict().items()}
    hooks = sum(len(module._forward_hooks) for module in runtime.model.modules())
    targets = quick_plan.chosen()[:3]
    found = calibrate(
        runtime, examples, targets, lambda t: random_basis(t.shape[1], t.rank, seed=0), seed=3, n_examples=6
    )
    assert found.n_examples == 6 and set(found.gradient_ranks) == {target.name for target in targets}
    assert sum(len(module._forward_hooks) for module in runtime.model.modules()) == hooks
    assert all(torch.equal(before[name], weight) for name, weight in runtime.model.state_dict().items())
    assert all(weight.grad is None and not weight.requires_grad for weight in runtime.model.parameters())


def test_calibration_matches_statistics_of_stored_gradients(runtime, quick_plan, examples):
    target = quick_plan.chosen()[0]
    basis = random_basis(target.shape[1], 4, seed=0)
    rows = choose(len(examples), 6, 3)
    tokens = float(np.mean([sum(examples[row].loss_mask) for row in rows]))
    with Observer(runtime.model, {target.module: torch.from_numpy(basis).float()}, ()) as observer:
        stored = np.array(
            [
                g[target.module].double().numpy().ravel()
                for _, g in example_passes(runtime, observer, examples, rows, tokens)
            ]
        )
    covariance = np.trace(np.cov(stored.T))
    scale = covariance / ((stored.mean(0) ** 2).sum() - covariance / 6)
    found = calibrate(runtime, examples, [target], lambda t: basis, seed=3, n_examples=6)
    assert found.noise_scale == pytest.approx(scale, rel=2e-3)
    assert found.signal_to_noise == pytest.approx(1 / scale, rel=2e-3)


def test_gradient_basis_is_orthonormal_and_spans_the_gradient(runtime, quick_plan, examples):
    target = quick_plan.chosen()[1]
    basis = gradient_bases(runtime, examples, [target], seed=3, n_examples=4)[target.name]
    assert basis.shape == (target.rank, target.shape[1])
    np.testing.assert_allclose(basis @ basis.T, np.eye(target.rank), atol=1e-8)


def test_worked_vector_of_the_noise_scale():
    gradients = np.array([[1.0, 0], [0, 1], [1, 1], [2, 0]])
    found = noise_scale((gradients**2).sum(1), gradients @ gradients.sum(0), float((gradients.sum(0) ** 2).sum()))
    assert (found.scale, found.covariance, found.signal) == (1.0, 1.0, 1.0)


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6), count=st.integers(3, 40), shift=st.floats(0, 3))
def test_noise_scale_agrees_with_brute_force(seed, count, shift):
    gradients = np.random.default_rng(seed).standard_normal((count, 5)) + shift
    found = noise_scale((gradients**2).sum(1), gradients @ gradients.sum(0), float((gradients.sum(0) ** 2).sum()))
    covariance = np.trace(np.cov(gradients.T))
    pairs = gradients @ gradients.T
    unbiased = (pairs.sum() - np.trace(pairs)) / (count * (count - 1))
    assert found.covariance == pytest.approx(covariance)
    assert found.signal == pytest.approx(unbiased, abs=1e-9)
    if found.resolved:
        assert found.interval[0] < found.scale < found.interval[1] < np.inf


def test_pure_noise_stays_unresolved_and_signal_is_found():
    rng = np.random.default_rng(0)
    resolved, inside = 0, 0
    for _ in range(200):
        noise = rng.standard_normal((32, 200))
        resolved += _scale(noise).resolved
        signal = noise + 0.5
        found = _scale(signal)
        inside += found.resolved and found.interval[0] <= 1 / 0.25 <= found.interval[1]
    assert resolved <= 10  # 2.5 % expected of a one-sided test at 95 % two-sided
    assert inside >= 170


def _scale(gradients):
    return noise_scale((gradients**2).sum(1), gradients @ gradients.sum(0), float((gradients.sum(0) ** 2).sum()))


@pytest.mark.parametrize("gradients", [np.ones((2, 3)), np.zeros((5, 3))])
def test_too_little_to_tell(gradients):
    found = _scale(gradients)
    assert found.scale is None and not found.resolved and found.interval is None


def test_split_half_rank_finds_what_both_halves_share():
    rng = np.random.default_rng(0)
    shared = rng.standard_normal((40, 3)) @ rng.standard_normal((3, 30)) * 10
    first, second = (shared + rng.standard_normal((40, 30)) * 0.1 for _ in range(2))
    assert split_half_rank(first, second) in (2, 3)
    assert split_half_rank(first, -first) == 0
