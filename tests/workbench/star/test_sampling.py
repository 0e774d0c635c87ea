"""Draws follow the model's softmax, belong to their own key, and greedy decoding is the runtime's."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from scipy.stats import chisquare

from geonb.errors import InputError
from geonb.workbench.bench import Bench
from geonb.workbench.star.sampling import Request, generate, pick
from tests.tiny import tiny_model, tiny_run

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    adapter = tiny_run(tmp_path_factory) / "adapter"
    return Bench.open(tiny_model(tmp_path_factory), {"adapter": adapter}, device="cpu")


def base_logits(bench, prompt):
    with bench.using(None):
        return bench.runtime.logits(prompt)[-1].double().numpy()


def ids(bench, text):
    return tuple(bench.runtime.tokenizer(text)["input_ids"])


@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.6])
def test_first_tokens_are_drawn_from_the_softmax_of_the_models_own_logits(bench, temperature):
    prompt = ids(bench, "7 apples and")
    drafts = generate(
        bench, None, [Request(prompt, (0, n)) for n in range(3000)], temperature=temperature, max_tokens=1, seed=(4,)
    )
    logits = base_logits(bench, prompt) / temperature
    expected = np.exp(logits - logits.max())
    expected /= expected.sum()
    end = bench.runtime.tokenizer.eos_token_id
    counts = np.bincount([one.tokens[0] if one.tokens else end for one in drafts], minlength=len(expected))
    # the rarest tokens together, so that every cell expects enough
    order = np.argsort(-expected)
    common = order[:20]
    observed = [*counts[common], counts[order[20:]].sum()]
    assert chisquare(observed, 3000 * np.array([*expected[common], expected[order[20:]].sum()])).pvalue > 0.001


def test_a_second_token_is_drawn_given_the_first(bench):
    prompt = ids(bench, "7 apples and")
    requests = [Request(prompt, (0, n)) for n in range(20)]
    drafts = generate(bench, None, requests, temperature=0.4, max_tokens=2, seed=(4,))
    assert any(len(one.tokens) == 2 for one in drafts)
    for number, one in enumerate(drafts):
        if not one.tokens:
            continue
        again = np.random.default_rng([4, 0, number]).random(2)
        logits = base_logits(bench, [*prompt, one.tokens[0]]) / 0.4
        share = np.exp(logits - logits.max())
        edges = (share / share.sum()).cumsum()
        token = one.tokens[1] if len(one.tokens) > 1 else bench.runtime.tokenizer.eos_token_id
        assert (edges[token - 1] if token else 0) - 1e-5 <= again[1] <= edges[token] + 1e-5


def test_a_draw_belongs_to_its_key_and_not_to_its_neighbours(bench):
    requests = [Request(ids(bench, text), (n, 0)) for n, text in enumerate(["7 apples", "3 and", "1 is a", "7 pears"])]
    settings = {"temperature": 1.0, "max_tokens": 8, "seed": (1, 2)}
    together = generate(bench, None, requests, **settings)
    alone = [generate(bench, None, [one], **settings)[0] for one in requests]
    assert together == alone == generate(bench, None, requests, **settings)
    other = generate(bench, None, requests, **{**settings, "seed": (1, 3)})
    assert other != together


@pytest.mark.parametrize("label", [None, "adapter"])
def test_temperature_zero_is_the_runtimes_greedy_decoding(bench, label):
    prompts = [list(ids(bench, text)) for text in ("7 apples", "3 and 5 is", "12 pears and 4")]
    drafts = generate(bench, label, [Request(tuple(one), (0,)) for one in prompts], temperature=0, max_tokens=12)
    with bench.using(label):
        expected = bench.runtime.generate(prompts, max_new_tokens=12)
    end = bench.runtime.tokenizer.eos_token_id
    for draft, tokens in zip(drafts, expected, strict=True):
        assert draft.ended == (tokens[-1] == end)
        assert list(draft.tokens) == (tokens[:-1] if draft.ended else tokens)


def test_progress_counts_texts_to_their_number(bench):
    told = []
    requests = [Request(ids(bench, "7 apples"), (n,)) for n in range(70)]
    generate(bench, None, requests, temperature=1.0, max_tokens=1, progress=lambda *one: told.append(one), stage="draw")
    assert told[0] == ("draw", 0, 70) and told[-1] == ("draw", 70, 70)
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)


def test_a_prompt_without_room_for_a_solution_is_refused(bench):
    context = bench.runtime.checkpoint.context_length
    with pytest.raises(InputError, match=rf"a prompt has {context} tokens and the model's context is {context}"):
        generate(bench, None, [Request((5,) * context, (0,))], temperature=1.0, max_tokens=4)


@given(
    some.lists(some.sampled_from([-np.inf, -700.0, -3.0, 0.0, 2.5, 700.0]), min_size=1, max_size=8),
    some.floats(0, 1, exclude_max=True),
)
def test_a_token_without_probability_is_never_picked(logits, uniform):
    if max(logits) == -np.inf:
        return
    token = int(pick(np.array([logits]), np.array([uniform]))[0])
    assert np.exp(logits[token] - max(logits)) > 0


@given(some.integers(0, 10**6), some.integers(1, 6))
def test_the_pick_is_the_first_token_whose_cumulative_share_exceeds_the_uniform_number(seed, size):
    rng = np.random.default_rng(seed)
    logits, uniform = rng.normal(size=size), rng.random()
    share = np.exp(logits) / np.exp(logits).sum()
    total = 0.0
    for token in range(size):
        total += share[token]
        if uniform < total:
            break
    assert int(pick(logits[None], np.array([uniform]))[0]) == token
