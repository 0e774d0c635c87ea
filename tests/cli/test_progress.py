"""Progress of long work, on a terminal and where there is none."""

import sys
import time

import pytest

from geonb.cli import progress
from geonb.cli.progress import PretrainingBar


@pytest.mark.parametrize("first", [0, 1500], ids=["from its beginning", "taken up again"])
def test_without_a_terminal_a_training_says_a_line_for_every_tenth(first, monkeypatch, capsys):
    clock = iter(range(10_000))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    bar = PretrainingBar("a-model")
    for step in range(first + 1, 3001):
        bar(step, 3000, 8.0 - step / 1000)
    lines = capsys.readouterr().err.splitlines()
    tenths = [step for step in range(300, 3000, 300) if step > first]
    assert [line.split(",")[0] for line in lines] == [f"a-model: step {step} of 3000" for step in tenths]
    assert lines[-1].startswith("a-model: step 2700 of 3000, loss 5.300, about ")


def test_the_time_that_is_left_is_that_of_the_steps_that_were_made(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    bar = PretrainingBar("a-model")
    for step in range(1501, 1801):  # 2 s a step, 1200 steps from the end
        bar(step, 3000, 4.0)
        now[0] += 2.0
    assert capsys.readouterr().err == "a-model: step 1800 of 3000, loss 4.000, about 40 min left\n"


def test_on_a_terminal_it_is_a_bar_with_the_loss(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    bar = PretrainingBar("a-model")
    for step in range(1, 5):
        bar(step, 4, 2.5)
        time.sleep(0.12)  # a bar is drawn ten times a second
    shown = capsys.readouterr().err
    assert "a-model" in shown and "loss 2.500" in shown and "min left" not in shown
