"""What fewer bits cost is what reading with and without them differs by, counted here by hand."""

import pytest
import torch

from geonb.coordinates.analyze import encoded
from geonb.coordinates.quantise import quantise_phases, quantise_weights, restore_phases, stored_bytes
from geonb.coordinates.reduced import Reduced, reduced_cores, reduced_phases, reduced_weights
from geonb.coordinates.run import load_model, load_tokenizer
from tests.coordinates.small import small_coordinate_run

TEXTS = ["The baker does not close the clock in the field.", "Well, the mayor fetched the rope, you know."]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return small_coordinate_run(tmp_path_factory.mktemp("reduced") / "run")


def logits(model, tokenizer, phases=None):
    with torch.no_grad():
        rows = [torch.tensor([encoded(tokenizer, text)[:64]]) for text in TEXTS]
        return torch.cat([model(row, phases=phases and phases(row)).logits[0] for row in rows]).double()


def test_int8_weights_are_measured_against_the_model_as_it_was(run):
    tokenizer, model, twin = load_tokenizer(run), load_model(run), load_model(run)
    before = logits(twin, tokenizer)
    found = reduced_weights(model, tokenizer, texts=TEXTS)
    quantise_weights(twin)
    after = logits(twin, tokenizer)
    assert found.logit_change == pytest.approx(float((after - before).norm() / before.norm()), rel=1e-6)
    assert found.largest_change == pytest.approx(float((after - before).abs().max()), rel=1e-6)
    assert found.bytes_after == stored_bytes(model) == stored_bytes(twin) < 0.6 * found.bytes_before
    assert found.tokens == len(before) and 0 < found.logit_change < 0.05 and found.certified is None
    assert Reduced.from_json(found.to_json()) == found and "MB of weights" in found.to_html()


def test_eight_bit_phases_are_measured_and_certified(run):
    tokenizer, model = load_tokenizer(run), load_model(run)

    def rounded(row):
        theta = model(row).theta
        return [restore_phases(quantise_phases(layer.directions.phases(theta))) for layer in model.uses]

    before, after = logits(model, tokenizer), logits(model, tokenizer, rounded)
    found = reduced_phases(model, tokenizer, texts=TEXTS)
    assert found.logit_change == pytest.approx(float((after - before).norm() / before.norm()), rel=0.05)
    assert (found.bytes_before, found.bytes_after) == (4 * 64, 2 * 8)
    assert 0 < found.certified < 2


def test_reuse_is_measured_and_says_how_often(run):
    found, policy = reduced_cores(load_model(run), load_tokenizer(run), 1.0, texts=TEXTS)
    assert found.certified == policy.largest <= 1 and f"{policy.share:.0%} reused" in found.name
    assert found.bytes_before is None and "->" not in found.summary().split("logits")[0]
