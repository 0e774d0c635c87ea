"""Moving adapters between small models, and into a turned copy of one."""

import pytest
import torch

from geonb.claims.experiments.adapter_transfer import (
    RANK,
    Contexts,
    SmallModel,
    activations,
    changed,
    contexts_of,
    copied,
    loss_of,
    mapped,
    random_mapped,
    rotation,
    train_adapter,
    train_model,
    unigram_loss,
)
from geonb.claims.experiments.turned_copy import turned_copy, turned_error
from geonb.errors import InputError
from geonb.models.checkpoint import Checkpoint
from geonb.models.runtime import TorchRuntime


@pytest.fixture(scope="module")
def runtime():
    return TorchRuntime.load(Checkpoint.open("embedded"), device="cpu")


def _cyclic(n, vocabulary=20, seed=0, step=1):
    tokens = torch.randint(vocabulary, (n, 4), generator=torch.Generator().manual_seed(seed))
    return Contexts(tokens, (tokens[:, -1] + step) % vocabulary)


def test_a_small_model_learns_and_its_adapter_learns_another_rule():
    base, task = _cyclic(2000), _cyclic(2000, seed=1, step=3)
    model = train_model(SmallModel(20, 16, 0), base, steps=200)
    model.requires_grad_(False)
    assert loss_of(model, base) < 0.5 < loss_of(model, task)
    change = train_adapter(model, task, steps=300)
    with changed(model, change):
        assert loss_of(model, task) < 0.5 * 3
    assert all(torch.linalg.matrix_rank(delta) <= RANK for delta in change.values())


def test_after_a_change_the_model_is_as_it_was():
    model = SmallModel(20, 16, 0)
    before = {name: module.weight.clone() for name, module in model.matrices().items()}
    with changed(model, {"up.0": torch.ones(32, 16)}):
        assert not torch.equal(model.up[0].weight, before["up.0"])
    assert all(torch.equal(module.weight, before[name]) for name, module in model.matrices().items())


def test_the_unigram_loss_is_the_entropy_of_equal_frequencies():
    data = Contexts(torch.zeros(400, 4, dtype=torch.long), torch.arange(400) % 4)
    assert unigram_loss(data, data, 4) == pytest.approx(torch.log(torch.tensor(4.0)).item())


def test_the_rotation_of_a_turned_cloud_is_the_turn_whatever_the_width():
    x = torch.randn(200, 8, generator=torch.Generator().manual_seed(0))
    turn = torch.linalg.qr(torch.randn(12, 8, generator=torch.Generator().manual_seed(1)))[0]
    assert torch.allclose(rotation(x, x @ turn.T + 3), turn, atol=1e-5)


def test_mapped_into_its_own_model_an_adapter_stays_itself():
    model, data = SmallModel(20, 16, 0), _cyclic(500)
    change = {name: torch.randn(module.weight.shape) for name, module in model.matrices().items()}
    seen = activations(model, data)
    for name, delta in mapped(change, seen, seen).items():
        # Procrustes centres: what the centred activations never show, their mean among it, may be turned at will
        given, out = (one - one.mean(0) for one in seen[name])
        wanted = out @ change[name] @ given.T
        assert torch.allclose(out @ delta @ given.T, wanted, rtol=1e-2, atol=1e-3 * float(wanted.abs().max()))


def test_a_random_map_keeps_the_size_where_the_target_is_as_large_and_a_copy_is_filled_with_zeros():
    small, large = SmallModel(20, 16, 0), SmallModel(20, 24, 1)
    change = {name: torch.randn(module.weight.shape) for name, module in small.matrices().items()}
    for name, delta in random_mapped(change, small, seed=0).items():
        assert torch.linalg.norm(delta) == pytest.approx(float(torch.linalg.norm(change[name])), rel=1e-4)
    filled = copied(change, large)
    assert filled["up.0"].shape == (48, 24)
    assert torch.equal(filled["up.0"][:32, :16], change["up.0"]) and not filled["up.0"][32:].any()


def test_windows_are_runs_of_one_text_and_too_few_are_refused(runtime):
    found = contexts_of(runtime.tokenizer, ["a b c d e f g h i j"], most=3)
    ids = runtime.tokenizer("a b c d e f g h i j", add_special_tokens=False)["input_ids"]
    runs = {tuple(ids[place : place + 5]) for place in range(len(ids) - 4)}
    assert {(*row.tolist(), int(last)) for row, last in zip(found.tokens, found.following, strict=True)} <= runs
    with pytest.raises(InputError, match="999 windows were asked"):
        contexts_of(runtime.tokenizer, ["a b c d e f g"], most=999)


def test_a_turned_copy_says_the_same_with_other_weights(runtime):
    width = runtime.model.config.hidden_size
    turn = torch.linalg.qr(torch.randn(width, width, generator=torch.Generator().manual_seed(0)))[0]
    twin = turned_copy(runtime.model, turn)
    ids = torch.tensor([[5, 80, 300, 41, 7]])
    assert torch.allclose(twin(input_ids=ids).logits, runtime.model(input_ids=ids).logits, atol=1e-3)
    turned, plain = (one.model.layers[0].mlp.down_proj.weight for one in (twin, runtime.model))
    assert not torch.allclose(turned, plain, atol=1e-2)


def test_the_fitted_turn_carries_the_adapter_and_a_copy_does_not(runtime):
    texts = torch.randint(2048, (10, 60), generator=torch.Generator().manual_seed(0)).tolist()
    found = turned_error(runtime.model, texts[:8], texts[8:], seed=0)
    assert found.fitted < 1e-3 and found.copied > 0.3 and found.random > 0.3


def test_a_model_without_rms_norms_is_refused():
    with pytest.raises(InputError, match="allowed is a Llama-like model"):
        turned_copy(SmallModel(20, 16, 0), torch.eye(16))
