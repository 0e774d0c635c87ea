"""One cell of the benchmark judged: geonb's arm beside the best tuned AdamW there, in fit, retention, memory and cost."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from geonb.records import Record
from geonb.workbench.benchmark.arm import Arm
from geonb.workbench.benchmark.job import Row


@dataclass(frozen=True, slots=True, kw_only=True)
class CellResult(Record):
    """One cell: geonb's arm beside the AdamW-LoRA of the lowest validation loss there, over the seeds that both have.

    `ratio` is validation loss over the rival's; `damage` the rise of the loss on base text over the rival's rise (below
    one: forgets less; None where the rival did not forget). `difference` is the mean paired difference in nats and
    `half_width` its 95 % interval by Student's t over seeds, None with one seed. `frontier` is the validation loss minus
    that of the rivals' scaled adapters at equal loss on base text (below zero: ahead), None where theirs do not reach it.
    """

    cell: str
    arm: str
    rival: str
    rival_interior: bool  # the rival's rate has a worse neighbour on both sides
    seeds: int
    validation: float
    rival_validation: float
    ratio: float
    difference: float
    half_width: float | None
    verdict: str  # "win", "loss" or "tie" where the seeds can tell; "lower" or "higher" with one seed
    damage: float | None
    exact: float
    rival_exact: float
    frontier: float | None
    dominated: bool  # an AdamW-LoRA, scaled after training or not, forgets no more and fits no worse
    bits_per_byte: float | None  # of the counted text, at the same seeds
    rival_bits_per_byte: float | None
    seconds: float  # of one run of the arm: the median of the cell's runs that do the same work
    tuning_runs: int  # how many runs at seed 0 the choice of the rival took
    tuning_seconds: float  # of all of them, each at the median of the cell's runs that do the same work
    state_bytes: int  # what the controller keeps between steps
    rival_state_bytes: int


def rows_by_cell(rows: Mapping[str, Row]) -> dict[str, list[Row]]:
    """The rows of each cell, cells in the order of their names; of a model that was trained anew the one with the most rows.

    A model that was made anew is another one: what it gave is compared with its own kind.
    """
    grouped: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows.values():
        grouped[row.cell, row.model_digest].append(row)
    kept = {cell: group for (cell, _), group in sorted(grouped.items(), key=lambda item: len(item[1]))}
    return dict(sorted(kept.items()))


def is_tuned_lora(arm: Arm) -> bool:
    """Whether it is an AdamW-LoRA in its plain form over all targets: the kind that the rival of a cell is chosen from."""
    return arm.method == "adamw" and arm.form == "lora" and arm.targets == "all"


def judge_cell(
    cell: str, group: list[Row], arm: str, is_rival: Callable[[Arm], bool] = is_tuned_lora
) -> CellResult | None:
    """The cell's result for the arm with the key `arm`; None where the arm or every rival is missing at seed 0.

    The rival is the best at seed 0 of the arms that `is_rival` accepts.
    """
    ours = {row.job.seed: row for row in group if row.job.arm.key == arm and row.validation is not None}
    if 0 not in ours:
        return None
    data = ours[0].data_digest
    tried = [row for row in group if row.job.seed == 0 and row.data_digest == data and is_rival(row.job.arm)]
    tuned = [row for row in tried if row.validation is not None]
    if not tuned:
        return None
    best = min(tuned, key=lambda row: row.validation or 0.0)
    theirs = {row.job.seed: row for row in group if row.job.arm == best.job.arm and row.validation is not None}
    seeds = [
        seed
        for seed in sorted(ours)
        if seed in theirs and ours[seed].data_digest == theirs[seed].data_digest
    ]  # fmt: skip
    first = [ours[seed].validation or 0.0 for seed in seeds]
    second = [theirs[seed].validation or 0.0 for seed in seeds]
    differences = [a - b for a, b in zip(first, second, strict=True)]
    width = half_width(differences)
    difference = statistics.mean(differences)
    if width is None:
        verdict = "lower" if difference < 0 else "higher"
    else:
        verdict = "tie" if abs(difference) <= width else ("win" if difference < 0 else "loss")
    rises = [(rise(ours[seed]), rise(theirs[seed])) for seed in seeds]
    suffered = sum(b for _, b in rises)
    costs = _costs(group)
    return CellResult(
        cell=cell,
        arm=arm,
        rival=best.job.arm.key,
        rival_interior=_is_interior(best, tried),
        seeds=len(seeds),
        validation=statistics.mean(first),
        rival_validation=statistics.mean(second),
        ratio=statistics.mean(first) / statistics.mean(second),
        difference=difference,
        half_width=width,
        verdict=verdict,
        damage=sum(a for a, _ in rises) / suffered if suffered > 0 else None,
        exact=statistics.mean(ours[seed].exact or 0.0 for seed in seeds),
        rival_exact=statistics.mean(theirs[seed].exact or 0.0 for seed in seeds),
        frontier=_ahead(ours[0], tuned),
        dominated=_is_dominated(ours[0], tuned),
        bits_per_byte=_mean(ours[seed].bits_per_byte for seed in seeds),
        rival_bits_per_byte=_mean(theirs[seed].bits_per_byte for seed in seeds),
        seconds=costs[_work(ours[0].job.arm)],
        tuning_runs=len(tried),
        tuning_seconds=sum(costs.get(_work(row.job.arm), row.seconds) for row in tried),
        state_bytes=ours[0].state_bytes,
        rival_state_bytes=best.state_bytes,
    )


def gaps(group: list[Row]) -> dict[str, float]:
    """Of every arm of a cell at seed 0: loss / best loss of the cell - 1; infinite where it diverged."""
    first = [row for row in group if row.job.seed == 0]
    losses = {row.job.arm.key: row.validation for row in first if row.data_digest == first[0].data_digest}
    known = [loss for loss in losses.values() if loss is not None]
    return {key: float("inf") if loss is None else loss / min(known) - 1 for key, loss in losses.items()}


def rise(row: Row) -> float:
    """How far the loss on base text rose above the untouched model's, in nats a token."""
    return (row.retention or 0.0) - row.base["retention"]


def geometric_mean(ratios: Iterable[float]) -> float | None:
    """exp of the mean logarithm; None of nothing."""
    found = [math.log(ratio) for ratio in ratios]
    return math.exp(statistics.mean(found)) if found else None


def median(values: Iterable[float]) -> float | None:
    """The median; None of nothing."""
    found = list(values)
    return statistics.median(found) if found else None


def _work(arm: Arm) -> Arm:
    """The arm without what changes no cost: its rate, its radius and its constants."""
    rate = 1.0 if arm.is_tuned else arm.rate
    return dataclasses.replace(arm, rate=rate, budget=1.0, unit_of_budget="sigma_max", unit=1.0, momentum=0.5)


def _costs(group: list[Row]) -> dict[Arm, float]:
    """Median seconds of the runs of each kind of work: the machine is shared, so a single run's time says little."""
    seconds: dict[Arm, list[float]] = defaultdict(list)
    for row in group:
        if row.validation is not None:  # a run that diverged ended early
            seconds[_work(row.job.arm)].append(row.seconds)
    return {work: statistics.median(values) for work, values in seconds.items()}


def _mean(values: Iterable[float | None]) -> float | None:
    found = list(values)
    return statistics.mean(value or 0.0 for value in found) if None not in found else None


def half_width(values: list[float]) -> float | None:
    """Half of Student's 95 % interval of the mean; None below two values."""
    from scipy.stats import t

    if len(values) < 2:
        return None
    return float(t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / len(values) ** 0.5


def mean_interval(values: list[float]) -> tuple[float | None, float | None]:
    """The mean and half of Student's 95 % interval; None and None below two values."""
    return (statistics.mean(values), half_width(values)) if len(values) > 1 else (None, None)


def _is_interior(best: Row, tried: Iterable[Row]) -> bool:
    # one that diverged is a worse neighbour too
    rates = [row.job.arm.rate or 0.0 for row in tried if row.job.arm.rank == best.job.arm.rank]
    return min(rates) < (best.job.arm.rate or 0.0) < max(rates)


def scaled_points(row: Row) -> list[tuple[float, float]]:
    """(loss on base text, validation loss) of an adapter scaled after training, from nothing to all of it."""
    points = [(row.base["retention"], row.base["validation"])]
    points += [(kept, loss) for _, loss, kept in row.frontier]
    if row.validation is not None and row.retention is not None:
        points.append((row.retention, row.validation))
    return points


def _ahead(row: Row, rivals: Iterable[Row]) -> float | None:
    """Loss of `row` minus the lowest that a scaled rival has at the same loss on base text, by linear interpolation.

    The curve of a scaled adapter is convex and its chords lie above it, which flatters `row` a little. None where no
    rival's curve reaches that loss on base text.
    """
    reached = []
    for rival in rivals:
        points = sorted(scaled_points(rival))
        if rival.frontier and row.retention is not None and points[0][0] <= row.retention <= points[-1][0]:
            kept, losses = zip(*points, strict=True)
            reached.append(float(np.interp(row.retention, kept, losses)))
    return (row.validation or 0.0) - min(reached) if reached else None


def _is_dominated(row: Row, rivals: Iterable[Row]) -> bool:
    if row.validation is None or row.retention is None:
        return False
    points = (point for rival in rivals for point in scaled_points(rival))
    return any(kept <= row.retention and loss <= row.validation for kept, loss in points)
