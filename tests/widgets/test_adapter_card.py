"""An adapter as a card: each row is its own matrix's change, in the unit that the card names."""

import dataclasses
import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from geonb.adapters.audit import audit_adapter
from geonb.adapters.peft_files import WEIGHTS, save_adapter
from geonb.errors import InputError
from geonb.geometry.spectrum import Spectrum
from geonb.widgets.adapter_card import AdapterCard
from tests import tiny

Q, DOWN = "model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"
EVIL = "<script>alert(1)</script>\x1b[31m"


def factors(rows, columns, rank, seed):
    import torch

    generator = torch.Generator().manual_seed(seed)
    left = torch.randn(rows, rank, generator=generator) / 20
    return left, torch.randn(rank, columns, generator=generator) / columns**0.5


@pytest.fixture
def saved(tmp_path):
    """An adapter of two matrices with random factors; nothing is known of its base."""
    made = {Q: factors(32, 32, 3, 1), DOWN: factors(32, 48, 5, 2)}
    return save_adapter(tmp_path / "saved", made, base="somewhere/else")


@pytest.fixture
def base(tmp_path_factory):
    return tiny.tiny_model(tmp_path_factory)


def rewrite(folder, change):
    save_file(change(load_file(folder / WEIGHTS)), folder / WEIGHTS)


def changes(folder):
    """dW = B A of every matrix, straight from the file (scale 1)."""
    stored = load_file(folder / WEIGHTS)
    return {
        name: stored[f"base_model.model.{name}.lora_B.weight"] @ stored[f"base_model.model.{name}.lora_A.weight"]
        for name in (Q, DOWN)
    }


def test_what_is_sent_is_strict_json_and_small(saved, base):
    assert len(json.dumps(AdapterCard(saved, base=base).state(), allow_nan=False)) < 3000


def test_rows_are_norms_in_units_of_sigma_k_of_the_base_matrix(saved, base):
    card = AdapterCard(saved, base=base)
    weights = load_file(base / "model.safetensors")
    rows = {row["name"]: row for row in card.state()["rows"]}
    assert set(rows) == {Q, DOWN} and card.is_relative and card.state()["unit"] == "‖dW‖₂ / σₖ"
    for name, change in changes(saved).items():
        own = Spectrum.of(np.linalg.svd(weights[f"{name}.weight"], compute_uv=False))
        values = np.linalg.svd(change, compute_uv=False)
        row = rows[name]
        assert row["size"] == pytest.approx(values[0] / own.sigma_k, rel=1e-4)
        assert row["limit"] == pytest.approx(own.sigma_max / own.sigma_k, rel=1e-4)
        assert row["norm"] == pytest.approx(values[0], rel=1e-4)
        assert row["rank"] == {Q: 3, DOWN: 5}[name]
        assert row["rank_used"] == pytest.approx(Spectrum.of(values).effective_rank, rel=1e-4)
        # the random adapter has the same Frobenius norm, so it lies between flat and rank one
        flat, frobenius = np.linalg.norm(change) / row["rank"] ** 0.5, np.linalg.norm(change)
        assert flat <= row["null"] * own.sigma_k * (1 + 1e-5) and row["null"] * own.sigma_k <= frobenius
        assert row["null_low"] < row["null"] < row["null_high"]


def test_without_a_base_norms_stand_as_they_are(saved):
    card = AdapterCard(saved)
    assert card.state()["unit"] == "‖dW‖₂" and not card.state()["is_relative"] and card.state()["base"] is None
    for row in card.rows():
        values = np.linalg.svd(changes(saved)[row["name"]], compute_uv=False)
        assert row["size"] == row["norm"] == pytest.approx(values[0], rel=1e-4) and row["limit"] is None


def test_it_is_the_card_of_the_audit_that_it_was_given(saved, base):
    audit = audit_adapter(saved, base=base)
    card = AdapterCard(audit)
    assert card.record is audit and repr(card) == "AdapterCard('saved', 2 matrices)"
    assert card.state() == AdapterCard(saved, base=base).state()
    assert card.state()["verdict"] == audit.scale_verdict and card.state()["because"] == audit.because
    declared = card.state()["declared"]
    assert (declared["r"], declared["alpha"], declared["rule"]) == (
        audit.declared_rank, audit.declared_alpha, audit.scale_rule,
    )  # fmt: skip
    assert declared["parameters"] == 3 * (32 + 32) + 5 * (32 + 48)


def test_a_matrix_that_the_base_does_not_have_is_not_measured(saved, base):
    rewrite(saved, lambda stored: {key.replace("q_proj", "query_net"): value for key, value in stored.items()})
    card = AdapterCard(saved, base=base)
    stray = next(row for row in card.rows() if "query_net" in row["name"])
    assert card.is_relative and stray["norm"] > 0
    assert (stray["size"], stray["null"], stray["null_low"], stray["limit"]) == (None,) * 4
    (text,) = tiny.pictures(card.static())
    assert "broken" in text and "not measured" in text
    assert list(card.figure().data[0].x).count(None) == 1
    json.dumps(card.state(), allow_nan=False)


def test_a_matrix_that_never_moved_says_so(saved, base):
    rewrite(saved, lambda stored: {key: value * 0 if "lora_B" in key else value for key, value in stored.items()})
    card = AdapterCard(saved, base=base)
    assert [row["moved"] for row in card.rows()] == [False, False] and card.state()["verdict"] == "unmoved"
    assert tiny.pictures(card.static())[0].count("did not move") == 2 and card.figure().data
    json.dumps(card.state(), allow_nan=False)


def test_matrices_that_never_moved_are_named_without_a_base_too(saved):
    rewrite(saved, lambda stored: {key: value * 0 if "lora_B" in key else value for key, value in stored.items()})
    card = AdapterCard(saved)
    assert card.state()["verdict"] == "unmoved" and card.figure().data
    assert tiny.pictures(card.static())[0].count("did not move") == 2


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_none_are_left_out_of_the_page(saved, base, value):
    def break_one(stored):
        return {key: np.full_like(array, value) if DOWN in key else array for key, array in stored.items()}

    rewrite(saved, break_one)
    card = AdapterCard(saved, base=base)
    row = next(row for row in card.rows() if row["name"] == DOWN)
    assert (row["size"], row["null"], row["norm"], row["rank_used"]) == (None,) * 4
    json.dumps(card.state(), allow_nan=False)
    assert card.state()["verdict"] == "broken" and tiny.pictures(card.static()) and card.figure().data


def test_the_still_picture_shows_every_matrix_and_the_verdict(saved, base):
    card = AdapterCard(saved, base=base)
    (text,) = tiny.pictures(card.static())
    assert Q in text and DOWN in text and card.audit.scale_verdict in text and "random adapter" in text


def test_a_large_adapter_shows_a_sample_of_its_matrices(saved, base):
    audit = audit_adapter(saved, base=base)
    card = AdapterCard(dataclasses.replace(audit, layers=audit.layers * 100))
    assert "64 of 200 matrices" in tiny.pictures(card.static())[0]
    assert len(json.dumps(card.state(), allow_nan=False)) < 200 * 500


def test_the_figure_holds_a_bar_for_each_matrix_and_the_random_adapter(saved, base):
    card = AdapterCard(saved, base=base)
    bars, random = card.figure().data
    assert (bars.type, random.type, random.name) == ("bar", "scatter", "random adapter")
    assert list(bars.x) == [row["size"] for row in card.rows()] and list(bars.y) == [row["name"] for row in card.rows()]
    assert list(random.error_x.array) == [row["null_high"] - row["null"] for row in card.rows()]


def test_names_of_strangers_stay_text(saved, base, tmp_path):
    rewrite(saved, lambda stored: {key.replace("q_proj", EVIL): value for key, value in stored.items()})
    folder = saved.rename(tmp_path / EVIL.replace("/", "_"))
    card = AdapterCard(folder, base=base)
    tiny.pictures(card.static())
    assert "<script" not in card.static()
    assert "<script" not in json.dumps(card.figure().to_dict(), default=str)
    assert any(EVIL in row["name"] for row in card.state()["rows"])


def test_an_adapter_without_a_matrix_still_has_its_pictures(saved):
    card = AdapterCard(dataclasses.replace(audit_adapter(saved), layers=(), findings=()))
    assert tiny.pictures(card.static()) and card.figure().layout.title.text and card.state()["rows"] == []


def test_what_is_no_adapter_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no adapter_config"):
        AdapterCard(tmp_path)
