"""The coordinate model: its size, causality, cache and modes, each against an independent computation."""

import numpy as np
import pytest
import torch

from geonb.coordinates.cache import KeyValueCache
from geonb.coordinates.configuration import Configuration, preset
from geonb.coordinates.model import CoordinateModel
from geonb.errors import InputError


def alive(name="tiny", seed=0, **changes):
    """A model whose cores are not zero."""
    sizes = Configuration.from_dict({**preset(name).to_dict(), **changes})
    model = CoordinateModel(sizes, seed=seed).eval()
    with torch.no_grad():
        for layer in model.layers:
            for linear in layer.modulated.values():
                factors = linear.factors
                (factors.cores if hasattr(factors, "cores") else factors.left).normal_(
                    std=0.2, generator=torch.Generator().manual_seed(1)
                )
    return model


TEXT = torch.randint(0, 512, (2, 20), generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize(("name", "total"), [("B", 9_999_232), ("C", 9_997_712), ("D", 9_982_352)])
def test_a_preset_has_ten_million_parameters_to_the_last_one(name, total):
    model = CoordinateModel(preset(name))
    assert sum(one.numel() for one in model.parameters()) == total == sum(preset(name).counts().values())
    assert model.components() == preset(name).counts()


@pytest.mark.parametrize("factors", ["shared", "independent"])
def test_no_later_token_changes_an_earlier_logit(factors):
    model = alive(factors=factors)
    with torch.no_grad():
        whole = model(TEXT).logits
        for place in (1, 7, 19):
            changed = TEXT.clone()
            changed[:, place:] = (changed[:, place:] + 5) % 512
            assert torch.equal(model(changed).logits[:, :place], whole[:, :place])


@torch.no_grad()
def plainly(model, tokens, theta):
    """The model written out with a weight matrix for every token, in float64 NumPy loops."""
    sizes = model.sizes
    value = lambda p: p.detach().double().numpy()  # noqa: E731
    norm = lambda x, g: x / np.sqrt((x**2).mean(-1, keepdims=True) + sizes.norm_epsilon) * value(g)  # noqa: E731
    x = value(model.embedding.weight)[tokens]
    count, half = len(tokens), sizes.head_width // 2
    angles = np.arange(count)[:, None] * sizes.rope_base ** (-np.arange(half) / half)
    for layer in model.layers:
        phases = theta @ value(layer.directions.directions).T
        weights = np.concatenate([np.cos(phases), np.sin(phases)], -1)

        def apply(name, h, layer=layer, weights=weights):
            linear = layer.modulated[name]
            change = linear.dense_change(torch.tensor(weights, dtype=torch.float32)).double().numpy()
            return np.stack([(value(linear.base.weight) + change[t]) @ h[t] for t in range(count)])

        h = norm(x, layer.attention_norm.weight)
        q, k, v = (apply(name, h).reshape(count, -1, sizes.head_width) for name in ("q", "k", "v"))
        for part in (q, k):
            a, b = part[..., :half].copy(), part[..., half:].copy()
            part[..., :half] = a * np.cos(angles)[:, None] - b * np.sin(angles)[:, None]
            part[..., half:] = b * np.cos(angles)[:, None] + a * np.sin(angles)[:, None]
        mixed = np.zeros_like(q)
        group = sizes.heads // sizes.key_value_heads
        for head in range(sizes.heads):
            for t in range(count):
                scores = k[: t + 1, head // group] @ q[t, head] / np.sqrt(sizes.head_width)
                share = np.exp(scores - scores.max())
                mixed[t, head] = share / share.sum() @ v[: t + 1, head // group]
        x = x + mixed.reshape(count, -1) @ value(layer.block.o.weight).T
        h = norm(x, layer.feed_forward_norm.weight)
        gate = apply("gate", h)
        x = x + (gate / (1 + np.exp(-gate)) * (h @ value(layer.block.up.weight).T)) @ value(layer.block.down.weight).T
    return norm(x, model.norm.weight) @ value((model.output or model.embedding).weight).T


@pytest.mark.parametrize("changes", [{}, {"tied": True}, {"distinct_blocks": 1}, {"factors": "independent"}])
def test_the_model_is_what_its_formulas_say(changes):
    model = alive(**changes)
    with torch.no_grad():
        found = model(TEXT)
    theta = found.theta[0].double().numpy()
    assert np.linalg.norm(theta, axis=-1) == pytest.approx(np.full(20, 8.0), rel=1e-5)
    expected = plainly(model, TEXT[0].numpy(), theta)
    np.testing.assert_allclose(found.logits[0].numpy(), expected, atol=2e-4 * np.abs(expected).max())


@pytest.mark.parametrize("steps", [[20], [1] * 20, [7, 1, 1, 11], [19, 1]])
def test_a_text_read_in_pieces_is_the_text_read_at_once(steps):
    model, cache = alive(), KeyValueCache(mode="token")
    with torch.no_grad():
        pieces = [model(piece, cache=cache).logits for piece in TEXT.split(steps, dim=1)]
        torch.testing.assert_close(torch.cat(pieces, 1), model(TEXT).logits, rtol=1e-5, atol=1e-6)
    assert cache.tokens == 20 and cache.values_per_token() == 2 * 2 * 2 * 16


@pytest.mark.parametrize("mode", ["token", "sequence"])
def test_phases_from_the_predictors_units_are_the_directions_times_theta(mode):
    model = alive()
    with torch.no_grad():
        model.predictor.leave.bias.normal_(generator=torch.Generator().manual_seed(5))
        got = model(TEXT, mode=mode)
        theta = model.predict(model.embedding(TEXT), mode)
    assert torch.allclose(got.theta, theta, atol=1e-5)
    for layer, phases in zip(model.uses, got.phases, strict=True):
        expected = theta.double().numpy() @ layer.directions.directions.detach().double().numpy().T
        assert np.abs(phases.numpy() - expected).max() < 3e-5
    # with a graph theta itself is what the directions are multiplied with
    assert torch.allclose(model(TEXT, mode=mode).logits.detach(), got.logits, atol=1e-5)


def test_phases_follow_directions_that_changed():
    model = alive()
    with torch.no_grad():
        before = model(TEXT).phases[0]
        model.uses[0].directions.directions *= 2
        assert torch.allclose(model(TEXT).phases[0], 2 * before, atol=1e-4)


def test_under_one_theta_a_cache_goes_on_and_under_another_it_refuses():
    model = alive()
    theta = torch.randn(2, 1, 64, generator=torch.Generator().manual_seed(5))
    cache = KeyValueCache(mode="sequence")
    with torch.no_grad():
        first = model(TEXT[:, :12], theta=theta, mode="sequence", cache=cache).logits
        rest = model(TEXT[:, 12:], theta=theta, mode="sequence", cache=cache).logits
        whole = model(TEXT, theta=theta, mode="sequence").logits
        torch.testing.assert_close(torch.cat([first, rest], 1), whole, rtol=1e-5, atol=1e-6)
        with pytest.raises(InputError, match="the cache holds 20 tokens under another coordinate"):
            model(TEXT[:, :1], theta=theta + 1, mode="sequence", cache=cache)
        with pytest.raises(InputError, match="filled in mode sequence and used in mode token"):
            model(TEXT[:, :1], cache=cache)


def test_segments_are_what_a_theta_a_token_would_be():
    model = alive()
    theta = torch.randn(2, 3, 64, generator=torch.Generator().manual_seed(6))
    slots = torch.tensor([[0] * 8 + [1] * 6 + [2] * 6] * 2)
    with torch.no_grad():
        segments = model(TEXT, theta=theta, mode="segment", slots=slots).logits
        spread = theta.gather(1, slots[..., None].expand(-1, -1, 64))
        torch.testing.assert_close(segments, model(TEXT, theta=spread).logits, rtol=1e-5, atol=1e-6)


def test_what_lies_outside_the_directions_is_not_felt():
    model = alive(coordinates=128)
    rows = torch.cat([layer.directions.directions for layer in model.layers]).detach()
    assert model.effective_dimensions() == 16
    _, _, vt = torch.linalg.svd(rows)
    theta = torch.randn(2, 1, 128)
    with torch.no_grad():
        near, far = (model(TEXT, theta=one, mode="sequence").logits for one in (theta, theta + 20 * vt[-1]))
    torch.testing.assert_close(near, far, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"mode": "word"}, "allowed are token, sequence, segment"),
        ({"mode": "segment"}, "given no slots or no theta"),
        ({"tokens": torch.zeros(1, 300, dtype=torch.long)}, "the context of tiny is 256"),
        ({"tokens": torch.full((1, 3), 512)}, "a token is 512; allowed are 0 to 511"),
        ({"tokens": torch.zeros(3, dtype=torch.long)}, "allowed is \\(batch, tokens\\)"),
    ],
)
def test_what_cannot_be_read_is_told(options, told):
    options = dict(options)
    with pytest.raises(InputError, match=told):
        alive()(options.pop("tokens", TEXT), **options)
