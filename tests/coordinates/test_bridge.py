"""Out to Hugging Face and PEFT, in from LoRAs, spectra through small cores: each against the dense computation."""

import numpy as np
import pytest
import torch

from geonb.coordinates.configuration import Configuration, preset
from geonb.coordinates.export import export_base, export_style, style_factors
from geonb.coordinates.imports import import_styles
from geonb.coordinates.model import CoordinateModel
from geonb.coordinates.style_spectra import overlap, style_spectra
from geonb.errors import InputError
from tests.coordinates.test_model import TEXT, alive

pytestmark = pytest.mark.filterwarnings("ignore")


def peft_logits(base, adapter=None):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, adapter)
    with torch.no_grad():
        return model.eval()(TEXT).logits


@pytest.mark.parametrize("changes", [{}, {"tied": True}, {"distinct_blocks": 1}])
def test_the_base_and_a_style_are_a_llama_and_a_lora_for_everybody(tmp_path, changes):
    model = alive(**changes)
    base = export_base(model, tmp_path / "base")
    theta = torch.randn(64, generator=torch.Generator().manual_seed(2))
    adapter = export_style(model, theta, tmp_path / "style", base=base)
    with torch.no_grad():
        plain, styled = (
            model(TEXT, modulate=False).logits,
            model(TEXT, theta=theta.expand(2, 1, 64), mode="sequence").logits,
        )
    torch.testing.assert_close(peft_logits(base), plain, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(peft_logits(base, adapter), styled, rtol=1e-4, atol=1e-5)
    assert (styled - plain).abs().max() > 1e-2


def test_a_style_that_leaves_the_model_and_comes_back_is_the_same_style():
    model = alive(seed=1)
    thetas = torch.randn(5, 64, generator=torch.Generator().manual_seed(3))
    gone = [style_factors(model, [layer.directions.phases(one) for layer in model.uses]) for one in thetas]
    home = CoordinateModel(model.sizes, seed=1)
    coordinates, found = import_styles(home, gone)
    assert found.is_exact and found.styles == 5, found
    with torch.no_grad():
        for theta, back in zip(thetas, coordinates, strict=True):
            before = model(TEXT, theta=theta.expand(2, 1, 64), mode="sequence").logits
            after = home(TEXT, theta=back.expand(2, 1, 64), mode="sequence").logits
            torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-5)


def lora(rng, sizes, rank=1, size=1e-3):
    out = {}
    for number in range(sizes.layers):
        for path, name in (("self_attn.q_proj", "q"), ("mlp.gate_proj", "gate")):
            inputs, outputs = sizes.shapes[name]
            out[f"model.layers.{number}.{path}"] = (
                torch.tensor(rng.normal(size=(outputs, rank)) * size),
                torch.tensor(rng.normal(size=(rank, inputs))),
            )
    return out


def test_as_many_as_twice_the_pairs_come_in_exactly_when_their_spaces_fit():
    sizes = Configuration.from_dict({**preset("tiny").to_dict(), "pairs": 2, "rank": 4})
    adapters = [lora(np.random.default_rng(k), sizes) for k in range(4)]
    coordinates, found = import_styles(CoordinateModel(sizes), adapters)
    assert found.is_exact and coordinates.shape == (4, 64)
    # a fifth has no orthogonal phase left
    with pytest.raises(InputError, match="2 pairs hold 1 to 4"):
        import_styles(CoordinateModel(sizes), [*adapters, adapters[0]])
    # and two of rank three do not fit a space of four: the best four directions of both remain
    wide = [lora(np.random.default_rng(k), sizes, rank=3) for k in range(2)]
    _, found = import_styles(CoordinateModel(sizes), wide)
    stacked = np.hstack([(b @ a).numpy() for b, a in (one["model.layers.0.self_attn.q_proj"] for one in wide)])
    lost = np.sqrt((np.linalg.svd(stacked, compute_uv=False)[4:] ** 2).sum()) / np.linalg.norm(stacked)
    assert not found.is_exact and found.errors["model.layers.0.self_attn.q_proj"] >= 0.9 * lost > 0.1


def test_an_adapter_beyond_the_budget_is_named_and_one_for_another_model_refused():
    sizes = preset("tiny")
    _, found = import_styles(CoordinateModel(sizes), [lora(np.random.default_rng(0), sizes, size=10.0)])
    assert set(found.over_budget) >= {"model.layers.0.self_attn.q_proj"} and not found.is_exact
    for wrong, told in (
        ({"model.layers.0.mlp.up_proj": (torch.ones(96, 1), torch.ones(1, 64))}, "modulates q, k, v and gate"),
        ({"model.layers.0.self_attn.q_proj": (torch.ones(8, 1), torch.ones(1, 64))}, "made for this base"),
        ({}, "changes no matrix"),
    ):
        with pytest.raises(InputError, match=told):
            import_styles(CoordinateModel(sizes), [wrong])


def test_spectra_through_small_cores_are_those_of_the_whole_matrices():
    model = alive(seed=2)
    theta = torch.randn(64, generator=torch.Generator().manual_seed(4))
    found = {one.matrix: one for one in style_spectra(model, theta)}
    assert len(found) == 8
    for number, layer in enumerate(model.uses):
        phases = layer.directions.phases(theta).detach()
        for name, linear in layer.changes.items():
            dense = linear.dense_change(torch.cat([phases.cos(), phases.sin()])).detach().double().numpy()
            values = np.linalg.svd(dense, compute_uv=False)
            one = found[f"{number}.{name}"]
            np.testing.assert_allclose(one.singular_values, values[:4], rtol=1e-4, atol=1e-6)
            assert one.stable_rank == pytest.approx((values**2).sum() / values[0] ** 2, rel=1e-4)
            assert 0 < one.budget_used <= 1 + 1e-5


def test_the_overlap_of_coordinates_is_that_of_their_changes():
    model = alive(seed=3)
    thetas = torch.randn(4, 64, generator=torch.Generator().manual_seed(5))
    changes = []
    for theta in thetas:
        parts = []
        for layer in model.uses:
            phases = layer.directions.phases(theta).detach()
            weights = torch.cat([phases.cos(), phases.sin()])
            parts += [
                linear.factors.dense(weights).detach().double().numpy().ravel() for linear in layer.changes.values()
            ]
        changes.append(np.concatenate(parts))
    changes = np.array(changes) / np.linalg.norm(changes, axis=1, keepdims=True)
    np.testing.assert_allclose(overlap(model, thetas), changes @ changes.T, atol=1e-5)


def test_nothing_is_written_over_and_literal_factors_are_no_lora(tmp_path):
    model = alive()
    base = export_base(model, tmp_path / "base")
    with pytest.raises(InputError, match="is there; allowed is a folder that is not"):
        export_base(model, base)
    with pytest.raises(InputError, match="is there"):
        export_style(model, torch.zeros(64), base, base=base)
    with pytest.raises(InputError, match="a theta of shape"):
        export_style(model, torch.zeros(3), tmp_path / "x", base=base)
    with pytest.raises(InputError, match="a LoRA needs shared factors"):
        export_style(alive(factors="independent"), torch.zeros(64), tmp_path / "x", base=base)
    assert not (tmp_path / "x").exists()
