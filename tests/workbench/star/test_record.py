"""A result is told as text and as a still picture that can run nothing, whatever stands in its names."""

import math
import re
from urllib.parse import unquote

import pytest

from geonb.geometry.measurement import Measurement
from geonb.workbench.compare_adapters import paired_test
from geonb.workbench.star.options import StarOptions
from geonb.workbench.star.picture import accuracy_picture
from geonb.workbench.star.record import StarControl, StarRound, StarRun
from geonb.workbench.star.scores import accuracy_of
from tests.tiny import pictures

HOSTILE = "</svg><script>x</script>\x1b[2J"


def measured(value, low, high):
    return Measurement(value=value, interval=(low, high), n=50, null=None, unit="", operator="")


@pytest.fixture
def run():
    options = StarOptions(
        model=HOSTILE, model_digest="", data="d", data_digest="", eval_data=None, eval_digest=None, initial_adapter=None,
        initial_digest=None, rounds=1, problems_per_round=5, samples=2, temperature=1.0, strategy="fresh_base", few_shot=0,
        max_generation_tokens=8, max_generation_source="", rationalise=False, control=True, all_rounds=False,
        max_steps=None, seed=0, seed_source="",
    )  # fmt: skip
    before, after = [1.0] * 5 + [0.0] * 15, [1.0] * 18 + [0.0] * 2
    test = paired_test(before, after, higher_is_better=True, unit="of the problems", seed=0)
    control = StarControl(
        solutions=7, best_step=3, accuracy=accuracy_of([True, False]), versus=test, verification="passed", because=""
    )
    made = StarRound(
        number=1, asked=5, sampled=10, correct=7, by_chance=measured(2.0, 1.0, 4.0),
        without_answer=1, solved=4, pass_at={"1": measured(0.7, 0.5, 0.9)},
        distinct=7, rationalised=0, kept=7, train=6, validation=1, steps=3, adapter="round-1/run/adapter", base=HOSTILE,
        verification="passed", accuracy=accuracy_of([bool(one) for one in after]), by_group={HOSTILE: (18, 20)},
        versus_previous=test, versus_start=test, control=control,
    )  # fmt: skip
    return StarRun(
        options=options, split="20", pool=9, start=accuracy_of([bool(one) for one in before]),
        start_by_group={HOSTILE: (5, 20)}, rounds=(made,), stop="rounds done", because=HOSTILE, final=1,
        adapter="round-1/run/adapter", comparison=test, outcome=test.outcome, notes=(HOSTILE,),
    )  # fmt: skip


def test_the_page_holds_one_still_picture_and_escapes_every_name(run):
    page = run.to_html()
    (text,) = pictures(page)
    assert "round 1" in text and "control" in text
    assert "<script>" not in page and "&lt;script&gt;" in page
    assert "\x1b" not in run.to_text() and "improved" in run.to_text()


def test_a_record_comes_back_from_its_json(run):
    assert StarRun.from_json(run.to_json()) == run


def test_points_and_intervals_stand_where_their_values_say():
    points = [("start", measured(0.0, 0.0, 0.1)), ("round 1", measured(0.25, 0.2, 0.4))]
    drawing = unquote(accuracy_picture(points, {}))
    dots = [tuple(map(float, one)) for one in re.findall(r'circle cx="([\d.]+)" cy="([\d.]+)"', drawing)]
    # the axis runs from 0 (the first point) to 0.5, the first stop above the highest interval's end
    lines = [float(one) for one in re.findall(r'<line x1="48"[^>]* y1="([\d.]+)"', drawing)]
    assert dots[0][1] == lines[0] and math.isclose(dots[1][1], (lines[0] + lines[2]) / 2, abs_tol=0.1)
    assert dots[0][0] < dots[1][0]
    ends = [tuple(map(float, one)) for one in re.findall(r'y1="([\d.]+)" y2="([\d.]+)" stroke="#1f77b4"', drawing)]
    assert math.isclose(lines[0] - ends[1][1], 0.4 / 0.5 * (lines[0] - lines[2]), abs_tol=0.2)
