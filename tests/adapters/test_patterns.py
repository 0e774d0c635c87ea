"""Expressions of strangers: what people write passes, and nothing that passes takes long."""

import json
import re
import subprocess
import sys
import time

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from geonb.adapters import matching, patterns
from geonb.adapters.patterns import FORMS, compiled, refuse_unsafe_patterns, why_unsafe
from geonb.errors import InputError

# what a trainer for vision models writes into target_modules
UNSLOTH_LIKE = (
    r"(?:.*?(?:vision|image|visual|patch|language|text).*?(?:self_attn|attention|attn|mlp|feed_forward|ffn|dense).*?"
    r"(?:k_proj|v_proj|q_proj|out_proj|fc1|fc2|o_proj).*?)|(?:\bmodel\.layers\.[\d]{1,}\.(?:self_attn|mlp)\.(?:k|v|q)_proj)"
)


@pytest.mark.parametrize(
    "pattern",
    [
        "q_proj", r"^model\.layers\.0\.self_attn\.q_proj$", r".*\.(q|k|v|o)_proj", r"model\.layers\.\d+\.mlp\..*",
        r"(?:.*\.)?layers\.(1[0-9]|2[0-3])\.mlp\.down_proj", "[qv]_proj", "", "a{1,3}b?", r"model\.layers\.\d+\..*",
        r".*\.layers\.(0|1|2)\..*_proj", r"^(?!.*visual).*(?:q_proj|k_proj|gate_proj|up_proj).*", ".*attn.*",
        r"base_model.*\.layers\.([0-9]|1[0-9]|2[0-7])\.(self_attn|mlp)\.(q|k|v|o|gate|up|down)_proj",
    ],
)  # fmt: skip
@pytest.mark.parametrize("field", ["rank_pattern", "target_modules"])
def test_what_people_write_is_matched(pattern, field):
    assert why_unsafe(pattern, field) is None


def test_what_people_write_for_whole_names_is_matched():
    for pattern in (
        UNSLOTH_LIKE,
        r".*language_model.*\.(self_attn|mlp).*\.(q_proj|k_proj|v_proj|o_proj)",
        "all-linear",
    ):
        assert why_unsafe(pattern, "target_modules") is None
        assert why_unsafe(pattern, "exclude_modules") is None


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("(a+)+$", "several ways"), ("(a|a)*$", "several ways"), ("(.*)*x", "several ways"),
        ("((a?){30}){30}", "several ways"), (r"(\w+\.)*\w+x", "several ways"), (r"(a)\1", "refers back"),
        (".*" * 12 + "x", "too many ways"), ("a" * 5000, "5,000 characters long"), ("(", "no regular"),
        ("a{1,99999999999999999999}", "no regular"), (".?" * 40 + "X", "steps"), ("(.|.)" * 30 + "X", "steps"),
        ("(a|ab|abc)" * 40 + "X", "steps"), ("[a-z]*" * 5 + "X", "steps"), ("a)|(b", "no regular"), ("(?i)q_proj", "regular"),
    ],
)  # fmt: skip
def test_what_can_blow_up_is_not_matched(pattern, reason):
    assert reason in why_unsafe(pattern)


ATOMS = st.sampled_from(
    ["a", "b", r"\.", ".", "[ab]", r"\w", "[^.]", r"\d", "a*", ".*", ".*?", ".+", r"\w+", "[^.]*", ".?", "a?", "a{1,3}",
     ".{2,}", "(?:ab)*", "(a.)+", "$", "^", "layers", r"\b", ".*+"]
)  # fmt: skip
EXPRESSIONS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=8).map("".join),
        st.lists(inner, min_size=1, max_size=4).map(lambda parts: f"({'|'.join(parts)})"),
        inner.map(lambda part: f"(?:{part})?"),
        inner.map(lambda part: f"(?={part})"),
        inner.map(lambda part: f"(?!{part})"),
        st.tuples(inner, st.integers(2, 30)).map(lambda part: part[0] * part[1]),
        inner.map(lambda part: f"(?:{part})*"),
    ),
    max_leaves=12,
).map(lambda expression: expression + "X")
NAMES = st.one_of(
    st.text(alphabet="ab._1é", max_size=200),
    st.tuples(st.text(alphabet="ab._1", min_size=1, max_size=8), st.integers(1, 200)).map(
        lambda n: (n[0] * n[1])[:200]
    ),
)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(EXPRESSIONS | st.text(alphabet=r"ab.*+?()|[]{}\^$0123,d", max_size=24), NAMES, st.sampled_from(sorted(FORMS)))
@example(".*.*x", "." * 200, "rank_pattern")
@example(".?" * 22 + "X", "a" * 200, "target_modules")
@example(UNSLOTH_LIKE, ("text" * 16 + "mlp" * 22 + "fc1" * 30)[:199] + "\n", "target_modules")
@example("(a){1,3}[ab]+.+(?!b\\d)(a)*\\d!", "a" * 200, "target_modules")
def test_a_pattern_that_passes_is_matched_in_time(pattern, name, field):
    if why_unsafe(pattern, field) is None:
        expression = compiled(pattern, field)
        start = time.process_time()
        expression.fullmatch(name) if field in ("target_modules", "exclude_modules") else expression.match(name)
        assert time.process_time() - start < 0.2


@given(st.text(alphabet="ab.*+?()|[", max_size=12), st.sampled_from(sorted(FORMS)))
def test_a_pattern_that_passes_is_compiled_as_peft_compiles_it(pattern, field):
    if why_unsafe(pattern, field) is None:
        assert isinstance(compiled(pattern, field), re.Pattern)


@pytest.mark.parametrize("start", ["", "(", "(?:", "[", "(a|b.|c)?"])
def test_a_judgement_does_not_take_long_itself(start):
    begin = time.process_time()
    for part in ("(a|b.|c)?", "(?:ab|[a-z]c|d.)", "[a-f]*x", ".{1,9}", "a?", "(?=.*b)", "(?!a|b|cd)", "(a|(b|(c|d?)))"):
        why_unsafe((start + part * 300)[:2000])
    assert time.process_time() - begin < 4


def test_a_python_that_does_not_show_how_it_reads_still_matches_plain_names(monkeypatch):
    monkeypatch.setattr(matching, "parser", None)
    patterns._judged.cache_clear()
    assert why_unsafe(r"^model\.layers\.0\.self_attn\.q_proj$") is None
    assert why_unsafe("lm_head", "modules_to_save") is None
    assert "more than a plain name" in str(why_unsafe(".*q_proj"))
    patterns._judged.cache_clear()


def test_a_config_is_refused_by_field_and_pattern():
    refuse_unsafe_patterns({"rank_pattern": {"q_proj": 4}, "target_modules": ["(a+)+"]}, "x")
    for field in ("rank_pattern", "alpha_pattern"):
        with pytest.raises(
            InputError, match=rf"x holds the pattern '\(a\+\)\+' in {field}, .* write plain module names"
        ):
            refuse_unsafe_patterns({field: {"(a+)+": 4}}, "x")
    for field in ("target_modules", "exclude_modules", "modules_to_save", "layers_pattern"):
        with pytest.raises(InputError, match=f"in {field}"):
            refuse_unsafe_patterns({field: "(a+)+"}, "x")
    for field in ("modules_to_save", "layers_pattern"):
        with pytest.raises(InputError, match=f"in {field}"):
            refuse_unsafe_patterns({field: ["layers", "(a+)+"]}, "x")
    with pytest.raises(InputError, match="in target_modules"):
        refuse_unsafe_patterns({"target_modules": ["(a+)+"], "ensure_weight_tying": True}, "x")


def test_many_patterns_are_refused_where_together_they_take_too_long():
    names = {f"^model\\.layers\\.{layer}\\.mlp\\.{kind}_proj$": 4 for layer in range(126) for kind in "abcdefg"}
    refuse_unsafe_patterns({"rank_pattern": names, "alpha_pattern": names}, "x")
    refuse_unsafe_patterns({"modules_to_save": ["lm_head", "embed_tokens"], "target_modules": [1, None]}, "x")
    with pytest.raises(InputError, match="together they can take too long"):
        refuse_unsafe_patterns({"rank_pattern": {f"name{number}": 4 for number in range(100_000)}}, "x")
    with pytest.raises(InputError, match="together they can take too long"):
        refuse_unsafe_patterns({"rank_pattern": {f".*.*{number}": 4 for number in range(200)}}, "x")


def test_an_adapter_with_such_a_pattern_is_refused_before_peft_meets_it(tmp_path):
    from safetensors.numpy import save_file

    (tmp_path / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "r": 4, "rank_pattern": {"(.*.*)*x": 8}, "target_modules": ["q_proj"]})
    )
    save_file({}, tmp_path / "adapter_model.safetensors")
    code = (
        "import sys; from geonb.workbench.bench import Bench\n"
        "from geonb.errors import InputError\n"
        "try: Bench.open('embedded', {'a': sys.argv[1]}, device='cpu')\n"
        "except InputError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert "in rank_pattern, which is not matched" in done.stdout, done.stderr[-500:]
