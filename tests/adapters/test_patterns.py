"""Expressions of strangers: what people write passes, and nothing that passes takes long."""

import json
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geonb.adapters.patterns import refuse_unsafe_patterns, why_unsafe
from geonb.errors import InputError


@pytest.mark.parametrize(
    "pattern",
    [
        "q_proj", r"^model\.layers\.0\.self_attn\.q_proj$", r".*\.(q|k|v|o)_proj", r"model\.layers\.\d+\.mlp\..*",
        r"(?:.*\.)?layers\.(1[0-9]|2[0-3])\.mlp\.down_proj", "[qv]_proj", "", "a{1,3}b?",
    ],
)  # fmt: skip
def test_what_people_write_is_matched(pattern):
    assert why_unsafe(pattern) is None


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("(a+)+$", "repeats a repeat"), ("(a|a)*$", "repeats a repeat"), ("(.*)*x", "repeats a repeat"),
        ("((a?){30}){30}", "repeats a repeat"), (r"(\w+\.)*\w+x", "repeats a repeat"), (r"(a)\1", "repeats a repeat"),
        (".*" * 12 + "x", "12 repeats without a bound"), ("a" * 5000, "5,000 characters long"), ("(", "no regular"),
        ("a{1,99999999999999999999}", "no regular"),
    ],
)  # fmt: skip
def test_what_can_blow_up_is_not_matched(pattern, reason):
    assert reason in why_unsafe(pattern)


@given(st.text(alphabet=r"ab.*+?()|[]{}\^$0123,d", max_size=24))
def test_a_pattern_that_passes_is_matched_in_time(pattern):
    if why_unsafe(pattern) is None:
        # 120 characters: cubic is a moment, exponential would not come back
        re.match(rf"(.*\.)?({pattern})$", "ab" * 60)


def test_a_config_is_refused_by_field_and_pattern():
    refuse_unsafe_patterns({"rank_pattern": {"q_proj": 4}, "target_modules": ["(a+)+"]}, "x")
    for field in ("rank_pattern", "alpha_pattern"):
        with pytest.raises(
            InputError, match=rf"x holds the pattern '\(a\+\)\+' in {field}, .* write plain module names"
        ):
            refuse_unsafe_patterns({field: {"(a+)+": 4}}, "x")
    with pytest.raises(InputError, match="in target_modules"):
        refuse_unsafe_patterns({"target_modules": "(a+)+"}, "x")


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
