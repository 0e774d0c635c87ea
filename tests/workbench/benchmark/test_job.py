"""A run as it is asked for: its key says all that sets it apart, and rows that were stored read back."""

import dataclasses
import json
import math
from pathlib import Path

import pytest

from geonb.errors import InputError
from geonb.workbench.benchmark.arm import OPEN, STRICT
from geonb.workbench.benchmark.job import Job, Row


def job(arm, **changes):
    return Job(**{"model": "llama-1m", "domain": "kjv", "horizon": 200, "batch": 16, "seed": 0, "arm": arm, **changes})


def test_the_key_is_made_of_everything_that_sets_a_run_apart():
    first = job(OPEN)
    assert first.key == "llama-1m/kjv/T200/b16/s0/frank-wolfe"
    others = [job(STRICT), job(OPEN, domain="chat"), job(OPEN, horizon=5), job(OPEN, batch=4), job(OPEN, seed=1)]
    assert len({first.key, *(other.key for other in others)}) == 6
    assert [other.cell == first.cell for other in others] == [True, False, False, False, True]


def test_conditions_are_part_of_the_key_and_a_job_without_them_has_the_key_it_always_had():
    plain = job(OPEN)
    assert plain.key == "llama-1m/kjv/T200/b16/s0/frank-wolfe" and plain.is_plain and plain.steps == 200
    changed = [
        dataclasses.replace(plain, **change)
        for change in (
            {"planned": 50},
            {"planned": 800},
            {"loss_scale": 1000.0},
            {"loss_scale": 1000.0, "planned": 50},
            {"domain": "kjv+64"},
            {"domain": "base"},
            {"model": "llama-1m+bf16"},
        )
    ]
    assert [job.key.removesuffix("/s0/frank-wolfe") for job in changed] == [
        "llama-1m/kjv/T200/b16/planned50",
        "llama-1m/kjv/T200/b16/planned800",
        "llama-1m/kjv/T200/b16/loss*1000",
        "llama-1m/kjv/T200/b16/planned50/loss*1000",
        "llama-1m/kjv+64/T200/b16",
        "llama-1m/base/T200/b16",
        "llama-1m+bf16/kjv/T200/b16",
    ]
    assert not any(job.is_plain for job in changed)
    assert [job.steps for job in changed[:3]] == [50, 200, 200]
    assert all(Job.from_json(job.to_json()) == job for job in changed)


def test_every_row_that_was_made_before_there_were_conditions_still_reads_and_keeps_its_key():
    path = Path(__file__).parents[3] / "papers" / "zero-knob" / "results.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) >= 69

    def grown(old, new):
        """Whether `new` says all that `old` says, and perhaps more."""
        if isinstance(old, dict):
            return isinstance(new, dict) and all(name in new and grown(value, new[name]) for name, value in old.items())
        return old == new

    for line in lines:
        stored = json.loads(line)
        row = Row.from_json(line)
        assert (row.key, row.cell) == (row.job.key, row.job.cell) == (stored["key"], stored["cell"])
        assert grown(stored, row.to_dict())
        if "planned" not in stored["job"]:
            assert row.job.is_plain and row.first is None


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"planned": 0}, "a job was given the planned horizon 0; allowed is any number of steps from 1 on."),
        ({"loss_scale": 0.0}, "a job was given the scale 0 of its loss; allowed is any finite number above 0."),
        ({"loss_scale": math.inf}, "a job was given the scale inf of its loss; allowed is any finite number above 0."),
    ],
)
def test_a_condition_that_makes_no_sense_is_one_sentence(change, sentence):
    with pytest.raises(InputError) as caught:
        job(OPEN, **change)
    assert str(caught.value) == sentence
