"""The bound on a matcher's steps holds for every name, and is what can be counted by hand."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geonb.adapters import matching
from geonb.adapters.matching import Unbounded, bound, value

# an expression as a tree of its own: ("char", set), ("free", set), ("maybe", tree), ("either", trees), ("then", trees)
LETTERS = st.sets(st.sampled_from("ab."), min_size=1, max_size=3)
TREES = st.recursive(
    st.tuples(st.sampled_from(["char", "char", "free"]), LETTERS),
    lambda inner: st.one_of(
        st.tuples(st.just("maybe"), inner),
        st.tuples(st.sampled_from(["either", "then", "then"]), st.lists(inner, min_size=1, max_size=4)),
    ),
    max_leaves=9,
)


def written(tree) -> str:
    kind, inner = tree
    match kind:
        case "char":
            return f"[{''.join(sorted(inner))}]"
        case "free":
            return f"[{''.join(sorted(inner))}]*"
        case "maybe":
            return f"(?:{written(inner)})?"
        case "either":
            # Python's reader joins alternatives that begin alike; groups keep them apart, as `walk` does
            return f"(?:{'|'.join(f'({written(one)})' for one in inner)})"
    return "".join(map(written, inner))


def walk(tree, text: str, at: int, count: list[int]):
    """Every place that the tree can end at, one after another and as often as there are ways; counts looks at the text."""
    kind, inner = tree
    if kind == "char":
        count[0] += 1
        if at < len(text) and text[at] in inner:
            yield at + 1
    elif kind == "free":
        yield at
        while at < len(text) and text[at] in inner:
            count[0] += 1
            at += 1
            yield at
    elif kind == "maybe":
        yield at
        yield from walk(inner, text, at, count)
    elif kind == "either":
        for one in inner:
            yield from walk(one, text, at, count)
    elif inner:
        for middle in walk(inner[0], text, at, count):
            yield from walk(("then", inner[1:]), text, middle, count)
    else:
        yield at


@settings(max_examples=300, deadline=None)
@given(TREES, st.text(alphabet="ab.", max_size=14))
def test_no_walk_through_an_expression_takes_more_steps_than_its_bound(tree, text):
    try:
        most = value(bound(written(tree)), len(text))
    except Unbounded:
        return
    count = [0]
    for _ in walk(tree, text, 0, count):
        if count[0] > 200_000:
            break
    assert count[0] <= most


@pytest.mark.parametrize("k", [1, 2, 3])
def test_free_repeats_one_after_another_are_tried_at_every_choice_of_their_ends(k):
    # k ends in order among n + 1 places: C(n + k, k); each is a step of the letter behind them
    choices = math.comb(50 + k, k)
    assert choices <= value(bound(".*" * k + "x"), 50) <= 20 * choices


def test_a_word_that_does_not_overlap_itself_thins_out_the_places_behind_a_repeat():
    far, near = (value(bound(f".*{word}.*{word}.*"), 200) for word in ("layers", "aaaaaa"))
    assert far < near / 10


def test_a_repeat_that_stops_at_what_follows_has_one_way():
    assert value(bound(r"[^.]+\.[^.]+\.[^.]+\.x"), 200) < 5000 < value(bound(r".+\..+\..+\.x"), 200)


def test_alternatives_that_differ_in_their_first_letters_are_no_choice():
    assert value(bound("(?:self_attn|mlp|attention)" * 30 + "X"), 200) < 10_000
    with pytest.raises(Unbounded, match="too many ways"):
        bound("(?:.*a|.*b)" * 9)
    assert value(bound("(?:a|a|ab)" * 30 + "X"), 200) > 1e9


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("(a+)+", "several ways"), ("(?:a|ab)*", "several ways"), ("(?:a?){20}", "several ways"), ("(?:)*", "several ways"),
        (r"(a)\1", "refers back"), (r"(a)?(?(1)b|c)", "refers back"), ("(?i:a)", "flag"), ("(?i)a", "flag"),
        (".*" * 8, "too many ways"),
    ],
)  # fmt: skip
def test_what_nothing_bounds_is_told(expression, reason):
    with pytest.raises(Unbounded, match=reason):
        bound(expression)


def test_a_python_that_does_not_show_how_it_reads_gives_no_bound(monkeypatch):
    monkeypatch.setattr(matching, "parser", None)
    with pytest.raises(Unbounded, match="does not show"):
        bound("a*")
