"""How long runs that are still to be made will take, from the rows that are there."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping

from geonb.workbench.benchmark.job import Job, Row


def expected_seconds(jobs: Iterable[Job], rows: Mapping[str, Row]) -> list[float | None]:
    """Seconds of each of `jobs`, as its model took them on its domain and batch; on any of them where it never had these.

    A run is a number of steps and what is measured around them: each is the median over the rows that are alike. None
    for a model without a row: another model's time says nothing of it. Rows that diverged ended early and do not count.

    >>> expected_seconds([], {})
    []
    """
    whole = [row for row in rows.values() if row.validation is not None]
    found: dict[tuple[str, ...], tuple[float, float] | None] = {}

    def cost(*kind: str) -> tuple[float, float] | None:
        if kind not in found:
            alike = [row for row in whole if _kind(row.job)[: len(kind)] == kind]
            around = statistics.median(row.seconds - _stepping(row) for row in alike) if alike else 0.0
            step = statistics.median(row.seconds_per_step for row in alike) if alike else 0.0
            found[kind] = (max(around, 0.0), step) if alike else None
        return found[kind]

    told = []
    for job in jobs:
        model, domain, batch = _kind(job)
        known = cost(model, domain, batch) or cost(model, domain) or cost(model)
        told.append(None if known is None else known[0] + job.steps * known[1])
    return told


def duration(seconds: float) -> str:
    """In words, to what can be planned with.

    >>> duration(42), duration(1500), duration(7300)
    ('1 min', '25 min', '2.0 h')
    """
    minutes = max(1, round(seconds / 60))
    return f"{minutes} min" if minutes < 100 else f"{seconds / 3600:.1f} h"


def _kind(job: Job) -> tuple[str, str, str]:
    return job.model, job.domain, str(job.batch)


def _stepping(row: Row) -> float:
    return row.seconds_per_step * row.job.steps
