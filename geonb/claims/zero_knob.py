"""The rule of papers/zero-knob/README.md as checks on the rows of the benchmark."""

from __future__ import annotations

from collections.abc import Mapping

from geonb.claims.checks import EVIDENCE, HOLDS, REFUTED, Check
from geonb.workbench.benchmark.arm import DEFAULT, OPEN
from geonb.workbench.benchmark.cells import CellResult
from geonb.workbench.benchmark.design import DECIDING, SEEDS, STAGES
from geonb.workbench.benchmark.job import Row
from geonb.workbench.benchmark.queue import pending
from geonb.workbench.benchmark.tables import Radius, ZeroKnobResults, chosen_radius, results

# ||dW||_2 / R may lie above 1 by the round-off of float32 alone
ROUND_OFF = 1e-4


def plain_rows(rows: Mapping[str, Row]) -> dict[str, Row]:
    """The rows that the rule speaks of: those under no condition that was made to break a method."""
    return {key: row for key, row in rows.items() if row.job.is_plain}


def deciding_rows(rows: Mapping[str, Row]) -> dict[str, Row]:
    """The rows of the cells that decide the rule; the others are shown and count for nothing."""
    cells = {cell.job(OPEN).cell for cell in DECIDING}
    return {key: row for key, row in rows.items() if row.cell in cells}


def bracketed_rows(rows: Mapping[str, Row], arm: str) -> dict[str, Row]:
    """The rows of cells whose rival is tuned: a rate with no worse neighbour on one side is no searched rate yet."""
    waiting = {one.cell for one in results(rows, arm).cells if not one.rival_interior}
    return {key: row for key, row in rows.items() if row.cell not in waiting}


def default_arm(rows: Mapping[str, Row]) -> str:
    """The key of the arm that the rule calls the default: the radius of the least worst regret over the looked-at cells.

    Where no looked-at cell has all three radii it is the product's default, or sigma_max where no row has that.
    """
    if chosen := chosen_radius(plain_rows(rows)):
        return chosen
    return (DEFAULT if any(row.job.arm == DEFAULT for row in rows.values()) else OPEN).key


def judged(rows: Mapping[str, Row]) -> ZeroKnobResults:
    """The default arm over the cells that decide and whose rival is tuned: what the rule speaks of."""
    deciding = deciding_rows(plain_rows(rows))
    arm = default_arm(rows)
    return results(bracketed_rows(deciding, arm), arm)


def runs_lacking(rows: Mapping[str, Row]) -> int:
    """How many runs of the cells that decide the rule are known to lack: geonb's radii and AdamW."""
    deciding = tuple(stage for stage in STAGES if stage.decides)
    return len({job.key for _, missing in pending(dict(rows), deciding) for job in missing})


def rule_checks(rows: Mapping[str, Row], *, lacking: int | None = None) -> tuple[Check, ...]:
    """The pre-registered rule, for every part of the claim `zero-knob`; `lacking` is by default `runs_lacking(rows)`.

    While runs are lacking the parts stay open, but for the bound, which speaks of each run by itself, under whatever
    condition, and for retention and frontier where a cell of three seeds breaks them: they speak of every cell, and no
    further run can mend a counterexample. Raises `InputError` where the rows hold no plain run of geonb's arm at R = sigma_max.
    """
    if lacking is None:
        lacking = runs_lacking(rows)
    every, rows = rows, deciding_rows(plain_rows(rows))
    arm = default_arm(rows)
    rows = bracketed_rows(rows, arm)
    found = results(rows, arm)
    universal, broken = _retention(found)
    checks = [
        Check.of("runs that the rule lacks", lacking, "<=", 0, part=part, decides=EVIDENCE)
        for part in ("fit", "worst-case", "retention", "frontier", "regret")
        if part not in broken
    ]
    checks += _fit(found, sum(row.job.arm.key == arm and row.validation is None for row in rows.values()))
    checks += universal
    checks += _regret(found)
    checks += _bound(every)
    return tuple(checks)


def _fit(found: ZeroKnobResults, diverged: int) -> list[Check]:
    mean = found.geometric_mean
    # without a cell nothing was counted, and none of these is a zero
    losses, surplus = (found.losses, found.losses - found.wins) if found.cells else (None, None)
    checks = [
        Check.of(f"mean of loss / rival's over {len(found.cells)} cells", mean, "<=", 0.95, part="fit", decides=HOLDS),
        Check.of("that mean", mean, ">", 1, part="fit", decides=REFUTED),
    ]
    # with fewer there is no interval, and what cannot lose has not been tested
    untested = sum(one.seeds < len(SEEDS) for one in found.cells)
    for part in ("fit", "worst-case"):
        checks += [
            Check.of("cells without three paired seeds", untested, "<=", 0, part=part, decides=EVIDENCE),
            Check.of("cells that are losses", losses, "<=", 0, part=part, decides=HOLDS),
            # a cell in which the arm diverged has no ratio
            Check.of("runs of the arm that diverged", diverged, "<=", 0, part=part, decides=HOLDS),
            Check.of("losses less wins", surplus, ">", 0, part=part, decides=REFUTED),
        ]
    return checks


def _retention(found: ZeroKnobResults) -> tuple[list[Check], set[str]]:
    """The checks of the two parts that speak of every cell, and which of them has a counterexample of three seeds."""
    checks, broken = [], set()
    for part, name, is_bad, is_measured in (
        ("retention", "cells with more than half of the rival's rise", _forgets, lambda one: one.damage is not None),
        ("frontier", "cells not below every scaled rival", _is_behind, lambda one: one.frontier is not None),
    ):
        bad = [one for one in found.cells if is_bad(one)]
        if any(one.seeds >= len(SEEDS) for one in bad):
            broken.add(part)
            sure = sum(one.seeds >= len(SEEDS) for one in bad)
            checks.append(Check.of(f"{name}, three seeds each", sure, ">", 0, part=part, decides=REFUTED))
            checks.append(Check.of(name, len(bad), "<=", 0, part=part, decides=HOLDS))
            continue
        unmeasured = sum(not is_measured(one) for one in found.cells)
        checks += [
            Check.of(name, len(bad) if found.cells else None, "<=", 0, part=part, decides=HOLDS),
            Check.of("cells where that cannot be said", unmeasured, "<=", 0, part=part, decides=EVIDENCE),
        ]
    return checks, broken


def _forgets(one: CellResult) -> bool:
    return one.damage is not None and one.damage > 0.5


def _is_behind(one: CellResult) -> bool:
    return one.frontier is not None and one.frontier >= 0


def _regret(found: ZeroKnobResults) -> list[Check]:
    elsewhere: dict[str, float] = {one.arm: one.other_regret for one in found.radii if one.other_regret is not None}
    ours = elsewhere.pop(found.chosen_radius or "", None)
    more = None if ours is None or not elsewhere else ours - min(elsewhere.values())
    name = f"worst regret elsewhere of R = {_radius_of(found.radii, found.chosen_radius)} over the best other radius's"
    return [Check.of(name, more, "<=", 0, part="regret", decides=HOLDS)]


def _radius_of(radii: tuple[Radius, ...], arm: str | None) -> str:
    return next((one.radius for one in radii if one.arm == arm), "(none chosen)")


def _bound(rows: Mapping[str, Row]) -> list[Check]:
    shares = [
        row.over_budget for row in rows.values() if row.job.arm.method == "frank-wolfe" and row.over_budget is not None
    ]
    name = f"largest ||dW||_2 / R of {len(shares)} runs"
    return [Check.of(name, max(shares, default=None), "<=", 1 + ROUND_OFF, part="bound", decides=HOLDS)]
