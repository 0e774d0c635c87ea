"""Which runs the benchmark needs, as a function of the rows that are there: a full grid would take a machine months.

For each cell (model, domain, horizon, batch) the learning rate of a tuned arm is bracketed on a fixed grid: three rates
first, then one more beyond whichever edge is best, until the best rate has a worse neighbour on both sides. AdamW is
bracketed at rank tail, 32 and 8 over all targets; in the main cells every other rival too. Only what decides a
comparison (geonb's arms, and the best AdamW of a cell) is run with three seeds. Cells beyond the main model's start from
the rate that was best there. The stages are in the order of what they tell.

Some cells decide the rule of papers/zero-knob, and their stages come first; they were taken by what a run costs. The others
are asked after them, and a verdict does not wait for them.

What loses is halved: on the main model AdamW at rank 8 is asked only in domains where, on the small one, its best came
within 5 % of the best AdamW of any rank. And the conditions that were made to break the method are asked on the small
model alone, of geonb's arms and of AdamW at the rank that was best without the condition, bracketed anew from its rate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from geonb.workbench.benchmark.arm import DEFAULT, OPEN, RANKS, STRICT, THREE, Arm, adamw
from geonb.workbench.benchmark.conditions import parted
from geonb.workbench.benchmark.dial import arms_of_the_dial
from geonb.workbench.benchmark.domains import BASE, DOMAINS
from geonb.workbench.benchmark.forms import forms_at, growing_radius
from geonb.workbench.benchmark.job import Job, Row
from geonb.workbench.benchmark.rivals import FIXED, TUNED

RATES = (3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1)
ZERO_KNOB_ARMS = (OPEN, STRICT, THREE)
# of the small model two were trained: the first cannot be made again (`models.CLOSED`), and what its rows lack is asked of
# the second. No cell mixes the two
MAIN, SMALL, SMALL_AGAIN = "embedded", "llama-1m", "llama-1m-3k"
OTHERS = ("gpt2-4m-2k", "lfm2-5m-2k", "llama-9m-2k")
SEEDS = (0, 1, 2)
# the best of rank 8 on the small model, over the best of any rank: where it is more, it is not asked on the main one
_CLOSE = 1.05

Done = Mapping[str, Row]


@dataclass(frozen=True, slots=True)
class Cell:
    """What is compared with one another."""

    model: str
    domain: str
    horizon: int = 200
    batch: int = 16
    planned: int | None = None
    loss_scale: float = 1.0

    def job(self, arm: Arm, seed: int = 0) -> Job:
        """The run of `arm` here."""
        return Job(
            model=self.model, domain=self.domain, horizon=self.horizon, batch=self.batch, seed=seed, arm=arm,
            planned=self.planned, loss_scale=self.loss_scale,
        )  # fmt: skip

    @property
    def is_plain(self) -> bool:
        """Whether it has no condition that was made to break a method."""
        return self.job(OPEN).is_plain

    @property
    def without_condition(self) -> Cell:
        """The cell at T = 200 whose best AdamW a condition starts from; text of the base's own kind starts from `kjv`."""
        domain = self.domain.partition("+")[0]
        return Cell(parted(self.model)[0], "kjv" if domain == BASE.name else domain, batch=self.batch)


@dataclass(frozen=True, slots=True)
class Bracket:
    """What a search for the best rate needs next, and what it found."""

    jobs: tuple[Job, ...]
    best: Arm | None = None
    interior: bool = False  # a worse rate was seen on both sides


def bracket(
    cell: Cell, make: Callable[[float], Arm], done: Done, *, start: tuple[float, ...] = (1e-3, 3e-3, 1e-2)
) -> Bracket:
    """The runs that bracket the best rate of `make` in `cell`: those of `start`, then beyond the edge that is best.

    A run that diverged counts as infinitely bad, so a bracket ends below it.
    """
    tried = sorted(start)
    while True:
        jobs = [cell.job(make(rate)) for rate in tried]
        missing = tuple(job for job in jobs if job.key not in done)
        if missing:
            return Bracket(jobs=missing)
        losses = [_loss(done[job.key]) for job in jobs]
        best = losses.index(min(losses))
        if 0 < best < len(tried) - 1:
            return Bracket(jobs=(), best=make(tried[best]), interior=True)
        edge = RATES.index(tried[best]) + (-1 if best == 0 else 1)
        if not 0 <= edge < len(RATES):
            return Bracket(jobs=(), best=make(tried[best]))
        tried = sorted([*tried, RATES[edge]])


def _loss(row: Row) -> float:
    return float("inf") if row.validation is None else row.validation


def best_adamw(cell: Cell, done: Done) -> Arm | None:
    """The AdamW-LoRA arm over all targets of the lowest validation loss at seed 0 among all that were run in `cell`."""
    prefix = cell.job(OPEN).cell + "/s0/"
    rows = [row for key, row in done.items() if key.startswith(prefix) and row.validation is not None]
    # the other forms and targets are rivals of their own, at rates of their own
    rows = [row for row in rows if row.job.arm == adamw(row.job.arm.rate or 1.0, row.job.arm.rank)]
    return min(rows, key=_loss).job.arm if rows else None


def around(arm: Arm) -> tuple[float, ...]:
    """The rate that was best elsewhere, with its neighbours on the grid."""
    assert arm.rate is not None
    place = min(max(RATES.index(arm.rate), 1), len(RATES) - 2)
    return RATES[place - 1 : place + 2]


# -- what each kind of stage asks of a cell -----------------------------------------------------------------------------


def zero_knob(cell: Cell, done: Done) -> list[Job]:
    """geonb's arms at the first seed."""
    return [cell.job(arm) for arm in ZERO_KNOB_ARMS]


def _tuned(rank: str) -> Callable[[Cell, Done], list[Job]]:
    def jobs(cell: Cell, done: Done) -> list[Job]:
        return list(bracket(cell, lambda rate: adamw(rate, rank), done).jobs)

    return jobs


def _rank_8(cell: Cell, done: Done) -> list[Job]:
    """AdamW at rank 8; on the main model only where it came close on the small one, once every rank is bracketed there."""
    small = (replace(cell, model=name) for name in (SMALL, SMALL_AGAIN))
    if cell.model == MAIN and not any(comes_close("8", one, done) for one in small):
        return []
    return _tuned("8")(cell, done)


def comes_close(rank: str, cell: Cell, done: Done) -> bool:
    """Whether the best AdamW at `rank` is within 5 % of the best at any rank in `cell`; no while some rank is missing."""
    found = {one: bracket(cell, lambda rate, one=one: adamw(rate, one), done) for one in RANKS}
    if any(one.jobs for one in found.values()):
        return False
    losses = {name: _loss(done[cell.job(one.best).key]) for name, one in found.items() if one.best is not None}
    return losses[rank] <= _CLOSE * min(losses.values())


def near_main(cell: Cell, done: Done) -> list[Job]:
    """geonb's arms, and AdamW around the rate and at the rank that were best at T = 200 on the main model.

    In the domains that do not decide there, the small model's stand in.
    """
    main = Cell(MAIN, cell.domain)
    small = best_adamw(Cell(SMALL, cell.domain), done) or best_adamw(Cell(SMALL_AGAIN, cell.domain), done)
    reference = best_adamw(main, done) if main in _HOME else small
    if reference is None:
        return []
    found = bracket(cell, lambda rate: adamw(rate, reference.rank), done, start=around(reference))
    return [*zero_knob(cell, done), *found.jobs]


def headline(cell: Cell, done: Done) -> list[Job]:
    """The other seeds of what decides: geonb's default and the best AdamW."""
    rival = best_adamw(cell, done)
    return [] if rival is None else [cell.job(arm, seed) for seed in SEEDS[1:] for arm in (DEFAULT, rival)]


def seeds(cell: Cell, done: Done) -> list[Job]:
    """The other seeds of what decides, and of geonb's other budgets."""
    decisive = headline(cell, done)
    others = [arm for arm in ZERO_KNOB_ARMS if decisive and arm != DEFAULT]
    return [*decisive, *(cell.job(arm, seed) for seed in SEEDS[1:] for arm in others)]


def rivals(cell: Cell, done: Done) -> list[Job]:
    """Every other rival, each tuned where it is tuned."""
    if best_adamw(cell, done) is None:
        return []
    jobs = [cell.job(one.arm) for one in FIXED]
    for one in TUNED:
        jobs += bracket(cell, one.at, done, start=one.start).jobs
    return jobs


def rival_seeds(cell: Cell, done: Done) -> list[Job]:
    """The other seeds of every rival, at the rate that was best at the first, and of geonb's default."""
    if best_adamw(cell, done) is None:
        return []
    found = (bracket(cell, one.at, done, start=one.start).best for one in TUNED)
    arms = [DEFAULT, *(one.arm for one in FIXED), *(arm for arm in found if arm is not None)]
    return [cell.job(arm, seed) for seed in SEEDS[1:] for arm in arms]


def ablations(cell: Cell, done: Done) -> list[Job]:
    """One thing changed at a time: basis, sides, budget, the unit of the step, the momentum, the rank."""
    arms = [replace(DEFAULT, basis=basis) for basis in ("random", "top", "full", "gradient")]
    arms += [replace(DEFAULT, sides="two"), *(replace(DEFAULT, budget=budget) for budget in (2.0, 4.0))]
    arms += [replace(DEFAULT, unit=unit) for unit in (0.333, 3.0)]
    arms += [replace(DEFAULT, momentum=exponent) for exponent in (0.333, 0.667)]
    arms += [replace(DEFAULT, memory="noise"), *(replace(DEFAULT, rank=rank) for rank in ("8", "32"))]
    return [cell.job(arm) for arm in arms]


def forms(cell: Cell, done: Done) -> list[Job]:
    """The forms of the fourth round of papers/zero-knob/ablations.md beside the default, every seed."""
    return [cell.job(arm, seed) for seed in SEEDS for arm in (DEFAULT, *forms_at(cell.horizon).values())]


def dial(cell: Cell, done: Done) -> list[Job]:
    """The radii and the forms of the fifth and sixth rounds of papers/zero-knob/ablations.md, every seed."""
    return [cell.job(arm, seed) for seed in SEEDS for arm in arms_of_the_dial()]


def growing(cell: Cell, done: Done) -> list[Job]:
    """The radius that grows with T beside the default, every seed: the seventh round."""
    return [cell.job(arm, seed) for seed in SEEDS for arm in (DEFAULT, growing_radius(cell.horizon))]


def first_look(cell: Cell, done: Done) -> list[Job]:
    """The product's default beside the AdamW that was best without the condition: what a user would have used."""
    reference = best_adamw(cell.without_condition, done)
    return [] if reference is None else [cell.job(DEFAULT), cell.job(reference)]


def broken(cell: Cell, done: Done) -> list[Job]:
    """geonb's arms, and AdamW bracketed from the rate and at the rank that were best without the condition."""
    reference = best_adamw(cell.without_condition, done)
    if reference is None:
        return []
    found = bracket(cell, lambda rate: adamw(rate, reference.rank), done, start=around(reference))
    return [*zero_knob(cell, done), *found.jobs]


# -- the stages ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Stage:
    """A question, the cells in which it is asked, and what it asks of each."""

    name: str
    cells: tuple[Cell, ...]
    asks: tuple[Callable[[Cell, Done], list[Job]], ...]
    decides: bool = False  # whether the rule of papers/zero-knob speaks of its cells

    def missing(self, done: Done) -> list[Job]:
        """The runs that are known to be needed and not there yet; more may follow from their results."""
        jobs = {job.key: job for cell in self.cells for ask in self.asks for job in ask(cell, done)}
        return [job for key, job in jobs.items() if key not in done]


def _cells(
    models: Iterable[str], horizon: int = 200, batch: int = 16, names: Iterable[str] = DOMAINS
) -> tuple[Cell, ...]:
    return tuple(Cell(model, name, horizon, batch) for model in models for name in names)


_BOTH = ("kjv", "chat")


def _broken(small: str) -> tuple[tuple[Cell, ...], tuple[Cell, ...], tuple[Cell, ...]]:
    """The conditions of `small`: few and wrong examples, a wrong horizon or a scaled loss, changed weights."""
    # the cheap first: four steps, then eighty, then two hundred
    few_and_wrong = (
        *(Cell(small, f"{name}+64", 4) for name in _BOTH),
        *(Cell(small, f"{name}+64", 80) for name in _BOTH),
        *(Cell(small, f"chat+swapped-{share}") for share in (50, 10)),
        Cell(small, BASE.name),
    )
    wrong_horizon = (
        *(Cell(small, name, planned=50) for name in _BOTH),
        *(Cell(small, name, planned=800) for name in _BOTH),
        *(Cell(small, name, loss_scale=1000.0) for name in _BOTH),
    )
    changed_weights = (
        *(Cell(f"{small}+{change}", name) for change in ("random", "dead") for name in _BOTH),
        Cell(f"{small}+after-chat", "kjv"),
        *(Cell(f"{small}+{change}", name) for change in ("gains-up", "gains-down", "bf16") for name in _BOTH),
    )
    return few_and_wrong, wrong_horizon, changed_weights


BROKEN = tuple(cell for cells in _broken(SMALL) for cell in cells)
BROKEN_AGAIN = _broken(SMALL_AGAIN)


def _cost(cell: Cell) -> tuple[bool, int]:
    """What sorts cells by what a look at them costs: examples of chat are short, and steps are counted."""
    is_second = cell.domain.partition("+")[0] == "kjv" and replace(cell, domain=f"chat{cell.domain[3:]}") in BROKEN
    return is_second, cell.job(OPEN).steps


def stages_of(model: str) -> tuple[Stage, ...]:
    """What is asked of a model of one's own, a folder or a hub id: the comparison at T = 200, its rivals bracketed anew."""
    cells = _cells([model])
    return (
        Stage("geonb and AdamW at the tail's rank", cells, (zero_knob, _tuned("tail"))),
        Stage("AdamW at rank 32 and 8", cells, (_tuned("32"), _tuned("8"))),
        Stage("three seeds of what decides", cells, (headline,)),
    )


LOOKED_AT = tuple(name for name, domain in DOMAINS.items() if domain.looked_at)
# a run takes 20 to 170 s on the small model at T = 200, 90 to 370 s here, and 600 s in the two domains left out
_HOME = (*_cells([MAIN], names=LOOKED_AT), *_cells([SMALL]))
# of the main model rank 32 turned out best in these two: where the first small model was not asked it, the second is
_ASKED_AGAIN = ("arithmetic", "chat")
_AWAY = (
    (*_cells([SMALL], 60, names=("kjv", "code", "modules", "names")), *_cells([SMALL_AGAIN], 60, names=_ASKED_AGAIN)),
    _cells(["gpt2-4m-2k"], names=LOOKED_AT),
    _cells([SMALL_AGAIN], 800, names=("arithmetic", "chat", "names")),
    (
        *_cells([SMALL], batch=4, names=("names",)),
        *_cells([SMALL_AGAIN], batch=4, names=_ASKED_AGAIN),
        *_cells([SMALL_AGAIN], batch=64, names=_ASKED_AGAIN),
    ),
    _cells([SMALL_AGAIN], 2000, names=("arithmetic",)),
)
DECIDING = (*_HOME, *(cell for cells in _AWAY for cell in cells))


def _beyond(*cells: Cell) -> tuple[Cell, ...]:
    return tuple(cell for cell in cells if cell not in DECIDING)


_DEAR, _AGAIN = _beyond(*_cells([MAIN])), _cells([SMALL_AGAIN])
# a rival takes 4 to 6 runs in each cell: asked first where a run takes 10 to 15 s, of cells whose AdamW is bracketed
QUICK = tuple(cell for cells in (_AWAY[0], _AWAY[3]) for cell in cells if cell.model == SMALL_AGAIN and cell.batch < 64)
# where a larger radius is worth most (prose), and where less is needed
DIALLED = _cells([SMALL_AGAIN], names=("arithmetic", "chat", "kjv"))
# a radius that is another one than the default's below and above T = 200
SHORT = _cells([SMALL_AGAIN], 60, names=LOOKED_AT)
LONG = (
    *_cells([SMALL_AGAIN], 800, names=("arithmetic", "chat", "kjv")),
    *_cells([SMALL_AGAIN], 2000, names=("arithmetic",)),
)
STAGES = (
    Stage("geonb and AdamW at the tail's rank", _HOME, (zero_knob, _tuned("tail")), decides=True),
    Stage("AdamW at rank 32 and 8", _HOME, (_tuned("32"), _rank_8), decides=True),
    Stage("three seeds of what decides", _HOME, (headline,), decides=True),
    Stage("T = 60", _AWAY[0], (near_main,), decides=True),
    Stage("T = 800", _AWAY[2], (near_main,), decides=True),
    Stage("batch 4 and 64", _AWAY[3], (near_main,), decides=True),
    Stage("T = 2000", _AWAY[4], (near_main,), decides=True),
    Stage("another family", _AWAY[1], (near_main,), decides=True),
    Stage(
        "three seeds of what decides elsewhere",
        tuple(cell for cells in _AWAY for cell in cells),
        (headline,),
        decides=True,
    ),
    Stage("every rival, where a run takes seconds", QUICK, (rivals, rival_seeds)),
    Stage("forms, where a run takes seconds", QUICK, (forms,)),
    Stage("a better dial", DIALLED, (dial,)),
    Stage("a radius that grows", (*SHORT, *LONG), (growing,)),
    Stage("break it: a first look", tuple(sorted(BROKEN, key=_cost)), (first_look,)),
    Stage("the small model again", _AGAIN, (zero_knob, _tuned("tail"), _tuned("32"), _tuned("8"), headline)),
    Stage("every rival", _AGAIN, (rivals,)),
    Stage("break it: few and wrong examples", BROKEN_AGAIN[0], (broken,)),
    Stage("break it: a wrong horizon, a scaled loss", BROKEN_AGAIN[1], (broken,)),
    Stage("break it: changed weights", BROKEN_AGAIN[2], (broken,)),
    Stage("one thing at a time", _cells([SMALL_AGAIN, MAIN], names=("kjv", "chat")), (ablations,)),
    Stage("beyond: the dear cells", _DEAR, (zero_knob, _tuned("tail"), _tuned("32"), _rank_8, headline)),
    Stage("beyond: other families and sizes", _beyond(*_cells(OTHERS)), (near_main, headline)),
    Stage(
        "beyond: other horizons",
        _beyond(*_cells([SMALL_AGAIN, MAIN], 60), *_cells([SMALL_AGAIN, MAIN], 800), *_cells([SMALL_AGAIN], 2000)),
        (near_main,),
    ),
    Stage(
        "beyond: other batches",
        _beyond(*_cells([SMALL_AGAIN], batch=4), *_cells([SMALL_AGAIN], batch=64)),
        (near_main,),
    ),
    Stage("beyond: three seeds of the other budgets", _cells([MAIN, SMALL_AGAIN]), (seeds,)),
    Stage("beyond: every rival on the main model", _cells([MAIN], names=("kjv", "arithmetic", "modules")), (rivals,)),
)
