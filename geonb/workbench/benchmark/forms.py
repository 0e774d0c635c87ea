"""Forms of geonb's step beside the product's own, in fit and in what is forgotten: the fourth round of the ablations.

The rule stands in papers/zero-knob/ablations.md and was written before these runs.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from geonb.records import Record
from geonb.workbench.benchmark.arm import DEFAULT, OPEN, Arm
from geonb.workbench.benchmark.cells import mean_interval, rise
from geonb.workbench.benchmark.job import Job, Row

# at this horizon the radius that grows with T is the product's
_SAME_RADIUS_AT = 200
# what a better form may lose: a hundredth of the loss, a twentieth of the rise
_LOSS_ROOM, _RISE_ROOM = 0.01, 0.05


GROWING = "R = 3 sigma_k sqrt(T/200)"


def growing_radius(horizon: int) -> Arm:
    """R = 3 sigma_k sqrt(T/200).

    >>> growing_radius(800).budget
    6.0
    """
    return replace(DEFAULT, budget=round(3.0 * math.sqrt(horizon / _SAME_RADIUS_AT), 3))


def forms_at(horizon: int) -> dict[str, Arm]:
    """The forms that are asked at `horizon`, by what they are called."""
    found = {
        "measured memory": replace(DEFAULT, memory="noise"),
        "measured memory, R = 5 sigma_k": replace(DEFAULT, memory="noise", budget=5.0),
        "measured memory, R = sigma_max": replace(OPEN, memory="noise"),
    }
    if horizon != _SAME_RADIUS_AT:
        found[GROWING] = growing_radius(horizon)
    for basis in ("top", "full", "gradient", "random"):
        found[f"basis {basis}"] = replace(DEFAULT, basis=basis)
    return {**found, "two sides": replace(DEFAULT, sides="two")}


@dataclass(frozen=True, slots=True, kw_only=True)
class FormResult(Record):
    """One form beside the default, over pairs of one cell and one seed.

    `loss` is the mean of ln(loss of the form / loss of the default), `rise` that of the rises on base text, each with half
    of Student's 95 % interval; None where fewer than two pairs are there. `verdict` is that of the rule.
    """

    form: str
    pairs: int
    loss: float | None
    loss_half_width: float | None
    rise: float | None
    rise_half_width: float | None
    asked: int  # how many pairs the rule asks for: with fewer there is no verdict
    verdict: str  # "better", "worse", "another point of the dial", "no effect seen"; "diverged", "waiting"

    def summary(self) -> str:
        return f"FormResult({self.form}: {self.verdict} over {self.pairs} pairs)"


def form_results(
    rows: Mapping[str, Row],
    cells: Iterable[Job],
    seeds: Iterable[int],
    forms: Callable[[int], Mapping[str, Arm]] = forms_at,
) -> tuple[FormResult, ...]:
    """Every form over `cells` (any job of each) and `seeds`: pairs that have both runs, and a verdict by the rule.

    `forms` gives those of a horizon by what they are called.
    """
    pairs: dict[str, list[tuple[Row, Row]]] = {}
    asked: Counter[str] = Counter()
    diverged: set[str] = set()
    seeds = list(seeds)
    for job in cells:
        for form, arm in forms(job.horizon).items():
            kept = pairs.setdefault(form, [])
            asked[form] += len(seeds)
            for seed in seeds:
                ours, plain = (rows.get(replace(job, arm=one, seed=seed).key) for one in (arm, DEFAULT))
                if ours is None or plain is None or plain.validation is None:
                    continue
                if ours.validation is None:
                    diverged.add(form)
                else:
                    kept.append((ours, plain))
    return tuple(_judged(form, found, asked[form], form in diverged) for form, found in pairs.items())


def _judged(form: str, pairs: list[tuple[Row, Row]], asked: int, diverged: bool) -> FormResult:
    losses = [math.log((ours.validation or 0.0) / (plain.validation or 0.0)) for ours, plain in pairs]
    rises = [math.log(rise(ours) / rise(plain)) for ours, plain in pairs if min(rise(ours), rise(plain)) > 0]
    loss, wide = mean_interval(losses)
    kept, broad = mean_interval(rises)
    if diverged:
        verdict = "diverged"
    elif len(pairs) < asked or loss is None or wide is None or kept is None or broad is None:
        verdict = "waiting"
    else:
        verdict = _verdict((loss - wide, loss + wide), (kept - broad, kept + broad))
    return FormResult(
        form=form,
        pairs=len(pairs),
        loss=loss,
        loss_half_width=wide,
        rise=kept,
        rise_half_width=broad,
        asked=asked,
        verdict=verdict,
    )


def _verdict(loss: tuple[float, float], rise: tuple[float, float]) -> str:
    def beats(loss: tuple[float, float], rise: tuple[float, float]) -> bool:
        forgets_less = rise[1] < 0 and loss[1] < _LOSS_ROOM
        fits_better = loss[1] < 0 and rise[1] < _RISE_ROOM
        return forgets_less or fits_better

    if beats(loss, rise):
        return "better"
    if beats((-loss[1], -loss[0]), (-rise[1], -rise[0])):
        return "worse"
    if (loss[1] < 0 < rise[0]) or (rise[1] < 0 < loss[0]):
        return "another point of the dial"
    return "no effect seen"
