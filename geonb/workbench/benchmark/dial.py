"""Whether a form of geonb's step is another place on the dial of the radius, or a better dial: the fifth and sixth rounds.

A larger radius fits better and forgets more, so a form that forgets less is worth something only where the product at a
smaller radius would not fit as well. The rules stand in papers/zero-knob/ablations.md and were written before these runs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from geonb.records import Record
from geonb.workbench.benchmark.arm import DEFAULT, OPEN, STRICT, Arm
from geonb.workbench.benchmark.cells import mean_interval, rise, scaled_points
from geonb.workbench.benchmark.job import Job, Row

# the product at four radii, and what they are called
DIAL = (STRICT, replace(DEFAULT, budget=2.0), DEFAULT, OPEN)
RADII = ("sigma_k", "2 sigma_k", "3 sigma_k", "sigma_max")
FORMS = {
    "two sides, R = 3 sigma_k": replace(DEFAULT, sides="two"),
    "two sides, R = sigma_max": replace(OPEN, sides="two"),
    "tail to tail, R = 3 sigma_k": replace(DEFAULT, outputs="tail"),
    "tail to tail, R = sigma_max": replace(OPEN, outputs="tail"),
    # the sixth round
    "a third of Polyak, R = 3 sigma_k": replace(DEFAULT, polyak=0.333),
    "a third of Polyak, R = sigma_max": replace(OPEN, polyak=0.333),
    "a tenth of Polyak, R = 3 sigma_k": replace(DEFAULT, polyak=0.1),
    "a tenth of Polyak, R = sigma_max": replace(OPEN, polyak=0.1),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DialResult(Record):
    """One form beside the product at the radius where that forgets as much, over pairs of one cell and one seed.

    `loss` is the mean of ln(loss of the form / loss of the product at equal rise on base text), `half_width` half of
    Student's 95 % interval; None where fewer than two pairs are there. `beyond` counts pairs whose rise no radius has:
    they have no loss to compare. `verdict` is that of the rule.
    """

    form: str
    pairs: int
    beyond: int
    asked: int
    loss: float | None
    half_width: float | None
    verdict: str  # "a better dial", "a worse dial", "the same dial"; "diverged", "waiting"

    def summary(self) -> str:
        return f"DialResult({self.form}: {self.verdict} over {self.pairs} pairs)"


def at_equal_rise(form: Row, points: Iterable[tuple[float, float]]) -> float | None:
    """ln of the loss of `form` over that of `points`, pairs of (rise on base text, loss), at the same rise.

    Between two points the logarithm of the loss is linear in that of the rise; None where no two points have the rise of
    `form` between them.
    """
    known = sorted((math.log(risen), math.log(loss)) for risen, loss in points if risen > 0)
    if form.validation is None or rise(form) <= 0 or len(known) < 2:
        return None
    own = math.log(rise(form))
    if not known[0][0] <= own <= known[-1][0]:
        return None
    rises, losses = zip(*known, strict=True)
    return math.log(form.validation) - float(np.interp(own, rises, losses))


def beside_scaled(row: Row, larger: Row) -> float | None:
    """ln of the loss of `larger`, scaled after training until it forgets as much as `row`, over that of `row`."""
    untouched = larger.base["retention"]
    found = at_equal_rise(row, ((kept - untouched, loss) for kept, loss in scaled_points(larger)))
    return None if found is None else -found


def dial_results(rows: Mapping[str, Row], cells: Iterable[Job], seeds: Iterable[int]) -> tuple[DialResult, ...]:
    """Every form over `cells` (any job of each) and `seeds`, and a verdict by the rule once all runs are there."""
    places = [replace(job, seed=seed) for job, seed in product(cells, seeds)]
    found = []
    for form, arm in FORMS.items():
        losses: list[float] = []
        beyond = diverged = 0
        for place in places:
            dial = [rows.get(replace(place, arm=one).key) for one in DIAL]
            ours = rows.get(replace(place, arm=arm).key)
            if ours is None or None in dial:
                continue
            loss = at_equal_rise(ours, ((rise(row), row.validation) for row in dial if row and row.validation))
            diverged += ours.validation is None
            beyond += ours.validation is not None and loss is None
            losses += [] if loss is None else [loss]
        mean, wide = mean_interval(losses)
        found.append(
            DialResult(
                form=form,
                pairs=len(losses),
                beyond=beyond,
                asked=len(places),
                loss=mean,
                half_width=wide,
                verdict=_verdict(len(losses) + beyond + diverged < len(places), diverged, mean, wide),
            )
        )
    return tuple(found)


def _verdict(lacks: bool, diverged: int, mean: float | None, wide: float | None) -> str:
    if diverged:
        return "diverged"
    if lacks or mean is None or wide is None:
        return "waiting"
    if mean + wide < 0:
        return "a better dial"
    return "a worse dial" if mean - wide > 0 else "the same dial"


def arms_of_the_dial() -> tuple[Arm, ...]:
    """All arms of the round, those of the dial first."""
    return (*DIAL, *FORMS.values())
