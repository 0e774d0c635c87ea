"""Every other way of fine-tuning that is asked beside geonb's and plain AdamW-LoRA, and how each of them fares."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from geonb.records import Record
from geonb.workbench.benchmark.arm import FOLKLORE, PEER_DEFAULT, Arm, adamw
from geonb.workbench.benchmark.cells import CellResult, geometric_mean, is_tuned_lora, judge_cell, median, rows_by_cell
from geonb.workbench.benchmark.job import Row

# the rival that the rule speaks of, for comparison
PLAIN = "AdamW-LoRA, best of the ranks"


@dataclass(frozen=True, slots=True)
class Rival:
    """One way of fine-tuning; `start` are the rates that its bracket begins with, none where no rate is searched."""

    title: str
    arm: Arm
    start: tuple[float, ...] = ()

    def at(self, rate: float) -> Arm:
        """Its arm with another learning rate."""
        return dataclasses.replace(self.arm, rate=rate)

    def holds(self, arm: Arm) -> bool:
        """Whether `arm` is this rival, at whatever rate where one is searched."""
        if arm.method != self.arm.method or not self.start:
            return arm == self.arm
        return arm.rate is not None and self.at(arm.rate) == arm and not any(arm == one.arm for one in FIXED)


# as their authors, or those who ship them, would have one use them: nothing is searched
FIXED = (
    Rival("LoRA at 2e-4, rank 8, q and v (the customary setting)", FOLKLORE),
    Rival("PiSSA at 2e-4, rank 32", PEER_DEFAULT),
    Rival("Prodigy", Arm(method="prodigy", rank="32")),
    Rival("schedule-free AdamW", Arm(method="schedule-free", rank="32")),
    Rival("DoG", Arm(method="dog", rank="32")),
    Rival("MASS, one norm for all layers", Arm(method="mass")),
    Rival("MASS for each layer", Arm(method="mass-layer")),
)
# with a learning rate that is bracketed in every cell
TUNED = (
    Rival("full fine-tuning", Arm(method="full", rate=1e-3), (3e-4, 1e-3, 3e-3)),
    Rival("Muon", Arm(method="muon", rate=1e-2, rank="32"), (3e-3, 1e-2, 3e-2)),
    Rival("NB-LoRA", Arm(method="nb-lora", rate=1e-3, rank="32"), (3e-4, 1e-3, 3e-3)),
    Rival("ScaledGD", Arm(method="scaled-gd", rate=1e-1), (3e-2, 1e-1, 3e-1)),
    Rival("rsLoRA", adamw(1e-3, "32", form="rslora"), (3e-4, 1e-3, 3e-3)),
    Rival("LoRA+", adamw(1e-3, "32", form="lora+"), (3e-4, 1e-3, 3e-3)),
    Rival("PiSSA", adamw(1e-3, "32", form="pissa"), (3e-4, 1e-3, 3e-3)),
    Rival("DoRA", adamw(3e-3, "32", form="dora"), (1e-3, 3e-3, 1e-2)),
    Rival("LoRA on q and v", adamw(3e-3, "32", targets="q+v"), (1e-3, 3e-3, 1e-2)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RivalResult(Record):
    """geonb's arm beside one rival, over the cells that were asked it; the rival's rate is the best of each cell at seed 0.

    Ratios are geonb's over the rival's, so below one geonb is ahead. `edges` counts the cells in which the best rate that
    was tried has no worse neighbour on both sides; it is 0 for a rival without a rate to search.
    """

    rival: str
    searched: bool  # whether its rate is
    cells: tuple[CellResult, ...]
    diverged: int  # cells in which no run of the rival ended with a finite loss
    geometric_mean: float | None  # of validation losses
    best: float | None
    worst: float | None
    wins: int  # these three: of the cells with three paired seeds
    ties: int
    losses: int
    damage: float | None  # median ratio of the rises on base text
    memory: float | None  # median ratio of what is kept between steps
    cost: float | None  # median ratio of all seconds: one run of geonb's, and every rate tried of the rival's
    edges: int

    def summary(self) -> str:
        if self.geometric_mean is None:
            return f"RivalResult({self.rival}: no cell has both)"
        return f"RivalResult({self.geometric_mean:.3f} of the loss of {self.rival} over {len(self.cells)} cells)"


def ratio_text(value: float | None) -> str:
    """A ratio to two digits; beyond 100, as of the few numbers that MASS keeps, the digits say nothing.

    >>> ratio_text(0.938), ratio_text(64144.5), ratio_text(None)
    ('0.94', '> 100', '')
    """
    if value is None:
        return ""
    return "> 100" if value > 100 else f"{value:.2f}"


def rival_results(rows: Mapping[str, Row], arm: str, *, seeds: int) -> tuple[RivalResult, ...]:
    """How the arm with the key `arm` fares beside AdamW-LoRA and every rival that was run, where no condition was made.

    Means of rivals are compared with one another, so they are over the same cells: those that were asked the most rivals.
    The rivals are in the order of the mean ratio, the strongest first; those without a row are left out. A win, a tie or
    a loss is counted in cells with `seeds` paired seeds alone.
    """
    by_cell = rows_by_cell({key: row for key, row in rows.items() if row.job.is_plain})
    known = {cell: sum(any(one.holds(row.job.arm) for row in group) for one in _ALL) for cell, group in by_cell.items()}
    most = max(known.values(), default=0)
    asked = {cell: group for cell, group in by_cell.items() if most and known[cell] == most}
    kinds = [(PLAIN, is_tuned_lora, True)]
    kinds += [(one.title, one.holds, bool(one.start)) for one in _ALL]
    found = []
    for title, holds, is_searched in kinds:
        there = {cell: group for cell, group in asked.items() if any(holds(row.job.arm) for row in group)}
        judged = [judge_cell(cell, group, arm, holds) for cell, group in there.items()]
        if not there:
            continue
        cells = tuple(one for one in judged if one is not None)
        tested = [one.verdict for one in cells if one.seeds >= seeds]
        found.append(
            RivalResult(
                rival=title,
                searched=is_searched,
                cells=cells,
                diverged=sum(_all_diverged(group, holds) for group in there.values()),
                geometric_mean=geometric_mean([one.ratio for one in cells]),
                best=min((one.ratio for one in cells), default=None),
                worst=max((one.ratio for one in cells), default=None),
                wins=tested.count("win"),
                ties=tested.count("tie"),
                losses=tested.count("loss"),
                damage=median([one.damage for one in cells if one.damage is not None]),
                memory=median([one.state_bytes / one.rival_state_bytes for one in cells if one.rival_state_bytes]),
                cost=median([one.seconds / one.tuning_seconds for one in cells if one.tuning_seconds > 0]),
                edges=sum(is_searched and not one.rival_interior for one in cells),
            )
        )
    return tuple(sorted(found, key=lambda one: -(one.geometric_mean or 0.0)))


_ALL = (*FIXED, *TUNED)


def _all_diverged(group: list[Row], holds: Callable[[Arm], bool]) -> bool:
    return all(row.validation is None for row in group if holds(row.job.arm) and row.job.seed == 0)
