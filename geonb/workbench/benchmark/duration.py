"""How long runs that are still to be made will take, from the rows that are there."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping

from geonb.workbench.benchmark.job import Job, Row


def expected_seconds(jobs: Iterable[Job], rows: Mapping[str, Row]) -> list[float | None]:
    """Seconds of each of `jobs`, as its model took them on its domain and batch; on any of them where it never had these.

    A run is a number of steps and what is measured around them: each is the median over the rows that are alike. A step
    of a batch that the domain never had is a step of the nearest batch, times their ratio. None for a model without a
    row: another model's time says nothing of it. Rows that diverged ended early and do not count.

    >>> expected_seconds([], {})
    []
    """
    whole = [row for row in rows.values() if row.validation is not None]
    found: dict[tuple[str, str, int], tuple[float, float] | None] = {}

    def cost(model: str, domain: str, batch: int) -> tuple[float, float] | None:
        """Seconds around the steps and of one; `domain` is empty for any."""
        kind = (model, domain, batch)
        if kind not in found:
            alike = [row for row in whole if row.job.model == model and domain in ("", row.job.domain)]
            nearest = min((row.job.batch for row in alike), key=lambda size: abs(math.log(size / batch)), default=0)
            alike = [row for row in alike if row.job.batch == nearest]
            if not alike:
                found[kind] = None
            else:
                around = statistics.median(row.seconds - row.seconds_per_step * row.job.steps for row in alike)
                step = statistics.median(row.seconds_per_step for row in alike) * batch / nearest
                found[kind] = (max(around, 0.0), step)
        return found[kind]

    told = []
    for job in jobs:
        known = cost(job.model, job.domain, job.batch) or cost(job.model, "", job.batch)
        told.append(None if known is None else known[0] + job.steps * known[1])
    return told


def duration(seconds: float) -> str:
    """In words, to what can be planned with.

    >>> duration(42), duration(1500), duration(7300)
    ('1 min', '25 min', '2.0 h')
    """
    minutes = max(1, round(seconds / 60))
    return f"{minutes} min" if minutes < 100 else f"{seconds / 3600:.1f} h"
