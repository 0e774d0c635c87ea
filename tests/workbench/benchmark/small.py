"""Runs of the benchmark that take a second: small sets, tiny models, and rows as a run would have left them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from geonb.record_lines import append_line
from geonb.workbench.benchmark import domains
from geonb.workbench.benchmark import run_job as runs
from geonb.workbench.benchmark.arm import DEFAULT, adamw
from geonb.workbench.benchmark.job import Job, Row

N_RETENTION = 6


def small_sets(patch: Any) -> None:
    """Domains of 80 training and 24 evaluation records, and 6 of base text; the plan's caches know a folder, not a size."""
    patch.setattr(domains, "_POOL", 80)
    patch.setattr(domains, "N_EVALUATION", 24)
    patch.setattr(runs, "_N_RETENTION", N_RETENTION)


def row_of(job: Job, validation: float | None, **changes: Any) -> Row:
    """The row of `job` with that loss, the rest as plain as can be."""
    facts: dict[str, Any] = {
        "key": job.key,
        "cell": job.cell,
        "job": job,
        "model_digest": "m",
        "data_digest": f"d{job.seed}",
        "evaluation_digest": f"e{job.seed}",
        "base": {"validation": 5.0, "bits_per_byte": 3.0, "exact": 0.0, "retention": 3.0},
        "validation": validation,
        "bits_per_byte": None,
        "exact": None,
        "retention": None if validation is None else 3.5,
        "area": None,
        "curve": [],
        "frontier": [],
        "over_sigma_k": None,
        "over_budget": None,
        "checks": 0,
        "trained": 1,
        "state_bytes": 0,
        "rank": 1.0,
        "seconds_per_step": 0.0,
        "seconds": 0.0,
        "environment": {},
    }
    return Row(**{**facts, **changes})


def but_for_times(row: Row) -> Row:
    """`row` without what the clock and the machine's other work decide."""
    return dataclasses.replace(row, seconds=0.0, seconds_per_step=0.0, environment={**row.environment, "load": ""})


def write_rows(path: Path) -> Path:
    """A results file of one cell: the product's default and two rates of AdamW."""
    for arm, loss in ((DEFAULT, 3.0), (adamw(1e-3), 3.5), (adamw(3e-3), 3.2)):
        append_line(path, row_of(Job(model="m", domain="kjv", horizon=60, batch=4, seed=0, arm=arm), loss))
    return path
