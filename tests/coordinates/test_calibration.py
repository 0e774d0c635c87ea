"""Thresholds draw at the share that was asked for, on other texts too, and are found again only for the same model."""

import numpy as np
import pytest
import torch

from geonb.coordinates.analyze import encoded
from geonb.coordinates.calibration import FOLDER, calibrate, calibration_of, held_out_texts
from geonb.coordinates.quantise import quantise_weights
from geonb.coordinates.run import load_model, load_tokenizer
from geonb.coordinates.uncertainty import innovations
from geonb.errors import InputError
from tests.coordinates.small import small_coordinate_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return small_coordinate_run(tmp_path_factory.mktemp("calibration") / "run")


def one_by_one(model, tokenizer, texts):
    """u and entropy of every token with a past, each text read by itself."""
    surprise, entropies = [], []
    for text in texts:
        with torch.no_grad():
            reading = model(torch.tensor([encoded(tokenizer, text)[:96]]))
        p = reading.logits[0, 1:].double().softmax(-1)
        surprise += innovations(reading.theta)[0, 1:].tolist()
        entropies += (-(p * p.log()).sum(-1)).tolist()
    return np.array(surprise), np.array(entropies)


@pytest.mark.parametrize("share", [0.1, 0.25, 0.6])
def test_both_switches_get_the_same_share_of_the_texts_that_they_are_found_on(run, share):
    model, tokenizer = load_model(run), load_tokenizer(run)
    texts = held_out_texts(24)
    found = calibrate(model, tokenizer, share=share, texts=texts)
    mine = [one for place, one in enumerate(texts) if place // 2 % 2 == 0]
    other = [one for place, one in enumerate(texts) if place // 2 % 2]
    u, entropy = one_by_one(model, tokenizer, mine)
    assert found.tokens == len(u)
    assert np.mean(u > found.uncertainty) == pytest.approx(share, abs=0.01)
    assert np.mean(entropy > found.entropy) == pytest.approx(share, abs=0.01)
    u, entropy = one_by_one(model, tokenizer, other)
    assert np.mean(u > found.uncertainty) == pytest.approx(found.uncertainty_reached, abs=0.01)
    assert np.mean(entropy > found.entropy) == pytest.approx(found.entropy_reached, abs=0.01)
    assert found.threshold("coordinates") == found.uncertainty and found.threshold("entropy") == found.entropy


def test_it_is_kept_with_the_model_and_found_again_for_the_same_alone(run):
    model, tokenizer = load_model(run), load_tokenizer(run)
    first = calibration_of(run, model, tokenizer, share=0.2)
    kept = run / FOLDER / f"{first.fingerprint[:16]}.json"
    changed = kept.read_text().replace(repr(first.uncertainty), "0.123")
    kept.write_text(changed)
    # it is what stands there that is read
    assert calibration_of(run, model, tokenizer, share=0.2).uncertainty == 0.123
    kept.write_text("no record")
    assert calibration_of(run, model, tokenizer, share=0.2) == first
    assert calibration_of(run, model, tokenizer, share=0.3).fingerprint != first.fingerprint
    quantise_weights(model)
    assert calibration_of(run, model, tokenizer, share=0.2).fingerprint != first.fingerprint
    texts = held_out_texts(24, seed=5)
    assert calibration_of(run, model, tokenizer, share=0.2, texts=texts).fingerprint != first.fingerprint


def test_the_texts_are_a_function_of_their_seed():
    assert held_out_texts(6) == held_out_texts(6) != held_out_texts(6, seed=1)


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0, float("nan")])
def test_a_share_lies_between_none_and_all(run, share):
    with pytest.raises(InputError, match="allowed is a number above 0 and below 1"):
        calibration_of(run, load_model(run), load_tokenizer(run), share=share)


def test_too_few_tokens_are_told(run):
    with pytest.raises(InputError, match="needed are 40: give more"):
        calibrate(load_model(run), load_tokenizer(run), texts=["The baker."])
