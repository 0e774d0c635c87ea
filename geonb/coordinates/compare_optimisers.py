"""geonb's step for the cores against AdamW at a searched rate: the same model, batches and number of steps, seed by seed.

The rule, fixed before the first run: AdamW's rate is the best of a grid by the mean held-out loss of two seeds that are reported
nowhere else, and must lie inside the grid. On the seeds reported, D = held-out loss with the ball's step less that with AdamW, in
nats a token, with Student's interval over seeds. The ball's step is as good where the upper limit of D is below 0.05; it is worse
where the lower limit is above 0.05; else it is undecided. Control: cores that stay zero (the base alone). Where their loss is not
above that of AdamW, the cores do nothing and the comparison says nothing.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from geonb.coordinates.recipe import RECIPE, Recipe
from geonb.coordinates.training import train
from geonb.errors import InputError
from geonb.geometry.inference import over_seeds
from geonb.geometry.measurement import Measurement
from geonb.record_lines import append_line, read_lines
from geonb.records import Record, atomic_write, is_file
from geonb.train.events import EvalEvent

GRID = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
SEARCHED = (100, 101)  # seeds of the search alone
MARGIN = 0.05  # nats a token
ROWS = "rows.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row(Record):
    """One run."""

    arm: str  # "adamw", "frank-wolfe" or "none"
    rate: float  # AdamW's for directions and predictor, and for factors and cores where AdamW moves them
    seed: int
    loss: float  # held out, at the end

    @property
    def key(self) -> tuple[str, float, int]:
        return self.arm, self.rate, self.seed


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimisersCompared(Record):
    """What the runs say: losses over seeds, the paired difference, and the verdict by the rule."""

    recipe: Recipe
    grid: tuple[tuple[float, float], ...]  # AdamW's rate and the mean loss over the searched seeds
    rate: float
    interior: bool
    losses: dict[str, Measurement]
    difference: Measurement  # ball's step less AdamW
    cores: Measurement  # no cores less AdamW: what the cores are worth
    verdict: str

    def summary(self) -> str:
        return f"OptimisersCompared({self.verdict}: D {self.difference})"

    def to_text(self) -> str:
        lines = [f"{self.recipe.summary()}, held out in nats a token, {self.difference.n} seeds"]
        lines += [f"  AdamW at {rate:g}: {loss:.4f} (search)" for rate, loss in self.grid]
        lines.append(f"  chosen {self.rate:g}, {'inside' if self.interior else 'at the edge of'} the grid")
        lines += [f"  {arm:12}{_told(found)}" for arm, found in self.losses.items()]
        lines.append(f"  the ball's step less AdamW {_told(self.difference)}")
        lines.append(f"  no cores less AdamW        {_told(self.cores)}")
        return "\n".join([*lines, self.verdict])


def compare_optimisers(
    recipe: Recipe,
    folder: str | Path,
    *,
    seeds: int = 3,
    grid: Sequence[float] = GRID,
    progress: Callable[[int, int, str], None] | None = None,
) -> OptimisersCompared:
    """Run what is not in `folder` yet, a row a run, and compare; a killed comparison goes on where it was.

    The ball's step runs at the recipe's own rate for what AdamW moves beside it, without a search. Raises `InputError` for fewer
    than two seeds, a grid of fewer than three rates, and a folder of another recipe's comparison.
    """
    if seeds < 2 or len(grid) < 3 or min(grid) <= 0:
        raise InputError(
            f"{seeds} seeds and {len(grid)} rates were given; allowed are 2 seeds and 3 rates above 0, or more."
        )
    home = Path(folder)
    known = _known(home, recipe)
    home.mkdir(parents=True, exist_ok=True)
    atomic_write(home / RECIPE, recipe.to_json(indent=1) + "\n")
    rates = sorted(set(grid))
    searched = [("adamw", rate, seed) for rate in rates for seed in SEARCHED]
    total = len(searched) + 3 * seeds
    for place, key in enumerate(searched):
        _run(recipe, home, known, key, place, total, progress)
    means = tuple((rate, sum(known["adamw", rate, seed].loss for seed in SEARCHED) / len(SEARCHED)) for rate in rates)
    best = min(means, key=lambda one: one[1])[0]
    arms = {"adamw": best, "frank-wolfe": recipe.coordinate_rate, "none": best}
    wanted = [(arm, rate, seed) for seed in range(seeds) for arm, rate in arms.items()]
    for place, key in enumerate(wanted, len(searched)):
        _run(recipe, home, known, key, place, total, progress)
    losses = {arm: [known[arm, rate, seed].loss for seed in range(seeds)] for arm, rate in arms.items()}
    difference = _paired(losses["frank-wolfe"], losses["adamw"], "ball's step less AdamW")
    cores = _paired(losses["none"], losses["adamw"], "no cores less AdamW")
    interior = rates[0] < best < rates[-1]
    return OptimisersCompared(
        recipe=recipe,
        grid=means,
        rate=best,
        interior=interior,
        losses={
            arm: over_seeds(found, unit="nats a token", operator=f"held out, {arm}") for arm, found in losses.items()
        },
        difference=difference,
        cores=cores,
        verdict=_verdict(difference, cores, interior),
    )


def _verdict(difference: Measurement, cores: Measurement, interior: bool) -> str:
    if not interior:
        return "nothing is said: AdamW's best rate lies at the edge of the grid; give a wider one"
    if _limits(cores)[0] <= 0:
        return "nothing is said: the cores are worth nothing here, so nothing is seen of what moves them"
    if _limits(difference)[1] < MARGIN:
        return f"the ball's step is as good as AdamW with its rate searched, to {MARGIN} nats"
    if _limits(difference)[0] > MARGIN:
        return f"the ball's step is worse than AdamW with its rate searched, by more than {MARGIN} nats"
    return f"undecided: the interval of the difference holds {MARGIN} nats"


def _paired(first: list[float], second: list[float], operator: str) -> Measurement:
    return over_seeds(
        [a - b for a, b in zip(first, second, strict=True)], unit="nats a token", operator=operator, null=0.0
    )


def _known(home: Path, recipe: Recipe) -> dict[tuple[str, float, int], Row]:
    if is_file(home / RECIPE):
        Recipe.load(home / RECIPE).check_same(recipe)
    elif home.exists() and any(home.iterdir()):
        raise InputError(f"{home} is there and holds no comparison; allowed is a new folder, or one of this command's.")
    return {row.key: row for row in read_lines(home / ROWS, Row, "row of this comparison")}


def _run(
    recipe: Recipe, home: Path, known: dict, key: tuple[str, float, int], place: int, total: int, progress
) -> None:
    arm, rate, seed = key
    if progress is not None:
        progress(place, total, f"{arm} at {rate:g}, seed {seed}")
    if key in known:
        return
    folder = home / "run"
    # the steps of a run that was cut short are few: it begins again
    shutil.rmtree(folder, ignore_errors=True)
    made = replace(recipe, controller=arm, coordinate_rate=rate, seed=seed)
    losses = [event.loss for event in train(made, folder) if isinstance(event, EvalEvent)]
    shutil.rmtree(folder)
    known[key] = Row(arm=arm, rate=rate, seed=seed, loss=losses[-1])
    append_line(home / ROWS, known[key])


def _limits(found: Measurement) -> tuple[float, float]:
    assert found.interval is not None
    return found.interval


def _told(found: Measurement) -> str:
    low, high = _limits(found)
    return f"{found.value:+.4f} [{low:+.4f}, {high:+.4f}]"
