"""Each figure is that of an independent computation at its layer, and a Gaussian's own figures are its null."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geonb.analysis import LayerProfile, collect, layer_profile, logit_lens, random_twin
from geonb.errors import InputError
from geonb.geometry.dimension import mle_dimension, two_nn

FAST = {"scales": (1, 2), "draws": 1, "halves": 4}
INVARIANT = ("two_nn", "mle", "gride_2", "participation_ratio", "effective_rank")


@pytest.fixture(scope="module")
def collected(runtime, verses):
    return collect(runtime, verses, pool="mean")


@pytest.fixture(scope="module")
def profile(collected, runtime):
    return layer_profile(collected, lens=runtime, scales=(1, 2, 4))


def angle(first, second):
    cosine = (first * second).sum(1) / np.linalg.norm(first, axis=1) / np.linalg.norm(second, axis=1)
    return np.arccos(np.clip(cosine, -1, 1)).mean()


def test_every_figure_is_that_of_its_layer(profile, collected, runtime):
    lens = logit_lens(runtime)
    for layer in (0, 1, 2, 3):
        before, middle, after = (
            collected.matrix(*place).astype(np.float64) for place in ((layer - 1,), (layer, "mid"), (layer,))
        )
        found = profile[layer]
        by_hand = {
            "two_nn": two_nn(after),
            "mle": mle_dimension(after),
            "turning_angle": angle(before, after),
            "turning_attention": angle(before, middle),
            "turning_mlp": angle(middle, after),
            "mean_norm": np.linalg.norm(after, axis=1).mean(),
            "lens_entropy": lens.entropy(after).mean(),
        }
        unit = after / np.linalg.norm(after, axis=1, keepdims=True)
        by_hand["mean_cosine"] = (unit @ unit.T)[~np.eye(len(unit), dtype=bool)].mean()
        by_hand["attention_share"] = by_hand["turning_attention"] / (
            by_hand["turning_attention"] + by_hand["turning_mlp"]
        )
        for name, value in by_hand.items():
            assert found[name].value == pytest.approx(value, rel=1e-4), name
            assert found[name].interval[0] < value < found[name].interval[1] and found[name].n == 40, name
            assert found[name].null is not None and "half samples" in found[name].operator


def test_the_first_layer_turns_from_nothing(profile):
    assert "turning_angle" not in profile[-1].measured and "two_nn" in profile[-1].measured
    assert set(profile.curve("turning_angle")) == {0, 1, 2, 3} and set(profile.curve("mle")) == {-1, 0, 1, 2, 3}


def test_a_profile_goes_through_json_and_shows_itself(profile):
    assert LayerProfile.from_json(profile.to_json()) == profile
    assert profile.to_text().count("\n") == 6 and "two_nn" in profile.to_html()


@given(st.integers(0, 500), st.floats(1e-2, 1e2))
def test_dimensions_know_neither_scale_nor_rotation_nor_order(seed, scale):
    rng = np.random.default_rng(seed)
    points = rng.standard_normal((30, 5)) * np.arange(1, 6)
    turned = (points @ np.linalg.qr(rng.standard_normal((5, 5)))[0] * scale)[rng.permutation(30)]
    first, second = (layer_profile([one], **FAST)[0] for one in (points, turned))
    for name in INVARIANT:
        assert second[name].value == pytest.approx(first[name].value, rel=1e-5), name


def test_a_gaussian_is_its_own_null_and_a_curve_is_not():
    rng = np.random.default_rng(0)
    angle = rng.uniform(0, 2 * np.pi, 300)
    circle = np.column_stack([np.cos(angle), np.sin(angle), np.cos(2 * angle), np.sin(2 * angle)])
    found = layer_profile([rng.standard_normal((300, 4)), circle], scales=(2, 8), distortion=(10,))
    for name in ("two_nn", "gride_8", "distortion_10"):
        low, high = found[0][name].interval
        assert low - (high - low) < found[0][name].null < high + (high - low), name
    assert found[1]["gride_8"].value == pytest.approx(1, abs=0.15) and found[1]["gride_8"].null > 2
    assert found[1]["distortion_10"].value > 2 * found[1]["distortion_10"].null
    # in covariance the circle fills four directions, as its Gaussian does
    assert found[1]["participation_ratio"].value == pytest.approx(found[1]["participation_ratio"].null, rel=0.1)


def test_an_untrained_twin_is_the_null_where_it_is_given(collected, runtime, verses):
    twins = [collect(random_twin(runtime, seed), verses) for seed in (0, 1)]
    found = layer_profile(collected, twin=twins, lens=runtime, scales=(1,), halves=4)
    alone = [layer_profile(one, **FAST) for one in twins]
    for name in ("two_nn", "turning_angle", "participation_ratio"):
        assert found[2].nulls[name] == pytest.approx([one[2][name].value for one in alone])
        assert found[2][name].null == pytest.approx(np.mean(found[2].nulls[name]))
    assert "2 untrained twin(s)" in found[2]["two_nn"].operator and found[2]["lens_entropy"].null is None


def test_normalisations_take_out_what_they_say():
    rng = np.random.default_rng(0)
    points = rng.standard_normal((60, 20))
    massive = points.copy()
    massive[:, 3] += rng.normal(1000, 200, 60)
    plain, raw, dropped = (
        layer_profile([one], normalise=how, **FAST)
        for one, how in ((np.delete(points, 3, axis=1), "raw"), (massive, "raw"), (massive, "drop-outliers"))
    )
    assert dropped.dropped == (3,) and raw.dropped == () and raw[0]["participation_ratio"].value < 1.01
    for name in INVARIANT:
        assert dropped[0][name].value == pytest.approx(plain[0][name].value, rel=1e-9), name
    scaled = layer_profile([points * rng.uniform(0.1, 10, (60, 1))], normalise="rms", **FAST)
    assert scaled[0]["mean_norm"].value == pytest.approx(np.sqrt(20))
    assert scaled[0]["two_nn"].value == pytest.approx(
        layer_profile([points], normalise="rms", **FAST)[0]["two_nn"].value
    )


def test_tokens_are_pooled_on_demand_and_halved_by_text(runtime, verses):
    tokens = collect(runtime, verses, pool="tokens", states=("out",))
    pooled = layer_profile(tokens, pool="mean", **FAST)
    assert pooled.n == 40 and pooled.pool == "mean"
    assert pooled[3]["two_nn"].value == pytest.approx(
        layer_profile(collect(runtime, verses, states=("out",)), **FAST)[3]["two_nn"].value, rel=1e-4
    )
    rows = layer_profile(tokens, rows=300, **FAST)
    assert rows.n == 300 and rows.pool == "tokens" and rows[3]["mean_norm"].interval is not None


@pytest.mark.parametrize(
    ("given", "options", "sentence"),
    [
        ([np.eye(9)], {"normalise": "z"}, "the normalisation 'z' was given; allowed are raw, rms, drop-outliers"),
        ([np.eye(9)], {"scales": (0,)}, "the scale 0 was given"),
        ([np.eye(9)], {"neighbours": 2}, "the number of neighbours 2 was given"),
        ([np.eye(9)], {"halves": 2}, "the number of half samples 2 was given"),
        ([np.eye(9)], {"outlier_ratio": 1.0}, "the outlier ratio 1.0 was given"),
        ([np.eye(9)], {"draws": 0}, "0 draws of the null"),
        ([np.eye(9)], {"pool": "mean"}, "pooling was asked of plain matrices"),
        ([np.eye(9)], {"twin": []}, "the twin is no collected activations"),
        ([np.eye(7)], {}, "8 or more: give more texts"),
        ([np.eye(9), np.eye(10)], {}, "equally many rows at every layer"),
        ([], {}, "no layer was given"),
        ([np.ones(3)], {}, "layer 0 has the shape"),
    ],
)
def test_what_has_no_profile_is_refused(given, options, sentence):
    with pytest.raises(InputError, match=sentence):
        layer_profile(given, **options)


def test_a_twin_of_other_texts_and_a_layer_that_was_not_profiled_are_refused(collected, profile, runtime, verses):
    with pytest.raises(InputError, match="the twin has 10 rows"):
        layer_profile(collected, twin=collect(runtime, verses[:10]))
    with pytest.raises(InputError, match="layer 9 was not profiled; there are -1, 0, 1, 2, 3"):
        profile[9]
    with pytest.raises(InputError, match="'nothing' was measured at no layer"):
        profile.curve("nothing")
