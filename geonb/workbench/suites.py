"""Task suites by lm-eval: base and adapter through one loaded model, paired example by example."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import json
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from geonb.errors import InputError
from geonb.geometry.measurement import Measurement
from geonb.geometry.statistics import wilson
from geonb.record_tables import table_html
from geonb.records import Record, plain
from geonb.workbench.compare_adapters import (
    DEGRADED,
    ERROR_RATE,
    IMPROVED,
    MIXED,
    NOT_TESTED,
    SAME_WITHIN_NOISE,
    PairedCounts,
    is_yes_or_no,
    paired_test,
)

SUITES: dict[str, tuple[str, ...]] = {
    "quick": ("gsm8k", "arc_easy", "boolq"),
    "reasoning": ("gsm8k", "arc_challenge", "hellaswag"),
    "factual": ("mmlu", "arc_easy", "boolq"),
}
SUITES["comprehensive"] = tuple(dict.fromkeys(name for names in SUITES.values() for name in names))


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskScore(Record):
    """One metric of one task, base and adapter on the same examples.

    A metric whose every value is 0 or 1 is a proportion: Wilson intervals, and McNemar's exact test. Another one with a
    value an example has a paired bootstrap; one without (a perplexity over the whole task) is told and not tested.
    `primary` marks the first metric with the first filter of the task's own list, which alone enters the outcome.
    """

    task: str
    metric: str
    filter: str
    primary: bool
    higher_is_better: bool
    n: int
    base: Measurement
    adapted: Measurement
    difference: Measurement | None  # adapter minus base
    counts: PairedCounts | None  # first: base right, second: adapter right
    digest: str  # of the prompts put: equal where the same questions were asked
    base_values: tuple[float, ...]
    adapted_values: tuple[float, ...]
    outcome: str
    because: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteCompared(Record):
    """Every task's scores, and the outcome over the primary ones.

    Over m primary scores each is tested at 5 % / m (Bonferroni), so that all together err in at most 5 %. The outcome is
    mixed where one task improved and another degraded.
    """

    suite: str
    harness: str
    scores: tuple[TaskScore, ...]
    outcome: str
    because: str

    def summary(self) -> str:
        return f"SuiteCompared({self.suite}, {len(self.scores)} scores: {self.outcome})"

    def to_text(self) -> str:
        rows = [_COLUMNS, *(_row(one) for one in self.scores)]
        widths = [max(len(row[place]) for row in rows) for place in range(len(_COLUMNS))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
        lines.append(f"{self.outcome}: {self.because} ({self.harness}; * counts for the outcome)")
        return "\n".join(plain(line.rstrip()) for line in lines)

    def to_html(self) -> str:
        caption = f"{self.suite}: {self.outcome} ({self.because}; {self.harness})"
        return table_html((*_COLUMNS, "because"), [(*_row(one), one.because) for one in self.scores], caption=caption)


_COLUMNS = ("task", "metric", "n", "base", "adapter", "p or interval", "outcome")


def _row(one: TaskScore) -> tuple[str, ...]:
    tested = ""
    if one.counts is not None:
        tested = f"p = {one.counts.p:.3g}"
    elif one.difference is not None and one.difference.interval is not None:
        tested = f"[{one.difference.interval[0]:+.4g}, {one.difference.interval[1]:+.4g}]"
    name = one.metric if one.filter == "none" else f"{one.metric}, {one.filter}"
    return (
        one.task,
        f"{name}{' *' if one.primary else ''}",
        str(one.n),
        _score(one.base),
        _score(one.adapted),
        tested,
        one.outcome,
    )


def _score(measured: Measurement) -> str:
    interval = f" [{measured.interval[0]:.3f}, {measured.interval[1]:.3f}]" if measured.interval else ""
    return f"{measured.value:.4f}{interval}"


# -- running ----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Suite:
    """Loaded tasks; `asked` maps each name that was asked for to its leaf tasks (several for a group)."""

    name: str
    tasks: dict[str, Any]
    asked: dict[str, tuple[str, ...]]


@dataclass(slots=True)
class Values:
    """One metric of one name: the score over all examples, and one value an example where there is one."""

    score: float
    n: int
    values: tuple[float, ...]
    higher_is_better: bool
    primary: bool
    digest: str


def prepare_suite(benchmark: str) -> Suite:
    """Load the tasks of a named suite, or of a local lm-eval task (a YAML file or a folder of them).

    A named suite needs its data sets from the Hugging Face hub or from its cache. A local task is a program: its
    templates, and the functions that it names, run with the person's rights, so it must come from a trusted place.
    Raises `InputError` without the `eval` extra, for an unknown name, and for tasks that cannot be loaded.
    """
    path = Path(benchmark).expanduser()
    if benchmark not in SUITES and not path.exists():
        raise InputError(
            f"--benchmark was given {benchmark}; allowed are {', '.join(SUITES)}, or the path of an lm-eval task file or "
            "of a folder of them."
        )
    if importlib.util.find_spec("lm_eval") is None:
        raise InputError("--benchmark needs lm-eval, which is not installed: pip install 'geonb[eval]'.")
    if benchmark in SUITES:
        return _named(benchmark)
    files = sorted(path.rglob("*.yaml")) if path.is_dir() else [path]
    if not files or any(one.suffix != ".yaml" for one in files):
        raise InputError(
            f"--benchmark was given {benchmark}, which holds no lm-eval task: give a .yaml file or a folder."
        )
    with _quietly():
        from lm_eval.tasks import TaskManager

        try:
            manager = TaskManager(include_path=path if path.is_dir() else path.parent, include_defaults=False)
            index = {name: manager.task_index[name] for name in manager.all_subtasks}
            wanted = {one.resolve() for one in files}
            names = [name for name, one in index.items() if one.yaml_path and one.yaml_path.resolve() in wanted]
            if not names:
                raise ValueError("no file in it names a task")
            tasks = {name: manager.load([name])["tasks"][name] for name in names}
        except Exception as error:  # a task file is a program, and may raise anything
            raise InputError(
                f"--benchmark was given {benchmark}, which cannot be loaded ({_reason(error)}): mend the task."
            ) from None
    return Suite(name=benchmark, tasks=tasks, asked={name: (name,) for name in tasks})


def _named(suite: str) -> Suite:
    with _quietly():
        from lm_eval.tasks import TaskManager

        manager = TaskManager()
        tasks: dict[str, Any] = {}
        asked = {}
        for name in SUITES[suite]:
            try:
                loaded = manager.load([name])["tasks"]
            except Exception as error:  # offline, refused or withdrawn: each library says it by another exception
                raise InputError(
                    f"the suite {suite} needs the data of {name}, which neither the network nor the local cache gave "
                    f"({_reason(error)}): connect, or give a local task."
                ) from None
            tasks |= loaded
            asked[name] = tuple(loaded)
    return Suite(name=suite, tasks=tasks, asked=asked)


def run_suite(
    bench: Any, label: str | None, suite: Suite, *, limit: int | None, seed: int, quiet: bool = True
) -> dict[tuple[str, str, str], Values]:
    """Score the base (None) or one adapter; keys are (name, metric, filter). No chat template is applied."""
    with _quietly(bars=not quiet), bench.using(label) as model:
        from jinja2 import TemplateError
        from lm_eval import evaluator
        from lm_eval.models import huggingface

        # the harness hides its signatures behind decorators
        run: Any = evaluator.evaluate
        wrap: Any = huggingface.HFLM
        for task in suite.tasks.values():
            if task.get_config("num_fewshot") is None:
                task.set_config(key="num_fewshot", value=0)
            # seeded anew for each run, so that base and adapter see the same examples before each question
            task.set_fewshot_seed(seed=seed)
        harness = wrap(pretrained=model, tokenizer=bench.runtime.tokenizer, batch_size=8, backend="causal")
        try:
            results = run(
                lm=harness,
                task_dict={"tasks": suite.tasks, "groups": {}, "group_map": {}},
                limit=limit,
                bootstrap_iters=0,
            )
        except (ValueError, KeyError, TypeError, AttributeError, TemplateError) as error:
            raise InputError(f"lm-eval cannot run {suite.name} ({_reason(error)}): mend the task.") from None
    assert results is not None
    found = {}
    for name, leaves in suite.asked.items():
        found |= _collected(name, leaves, suite.tasks, results)
    return found


def _collected(name: str, leaves: tuple[str, ...], tasks: dict[str, Any], results: Any) -> dict:
    """The metrics of one name; a group pools the examples of its tasks, as lm-eval does when it weighs by size."""
    found: dict[tuple[str, str, str], Values] = {}
    lists = [_metrics(results["samples"][leaf], tasks[leaf]) for leaf in leaves]
    first = leaves[0]
    higher = tasks[first].higher_is_better()
    asked = [
        [leaf, row["filter"], row["doc_id"], row["doc_hash"], row["prompt_hash"]]
        for leaf in leaves
        for row in results["samples"][leaf]
    ]
    digest = hashlib.sha256(json.dumps(asked).encode()).hexdigest()
    shared = [key for key in lists[0] if all(key in one for one in lists)]
    for place, (metric, kind) in enumerate(shared):
        rows = [one[metric, kind] for one in lists]
        scalar = all(isinstance(value, int | float | np.number) for row in rows for value in row)
        values = tuple(float(value) for row in rows for value in row) if scalar else ()
        whole = results["results"][first].get(f"{metric},{kind}")
        if len(leaves) > 1 or not isinstance(whole, int | float):
            if not values:
                continue
            whole = float(np.mean(values))
        found[name, metric, kind] = Values(
            score=float(whole),
            n=sum(len(row) for row in rows),
            # a task may aggregate otherwise than by the mean; then its examples do not explain its score
            values=values if values and np.isclose(np.mean(values), float(whole)) else (),
            higher_is_better=bool(higher.get(metric, True)),
            primary=place == 0,
            digest=digest,
        )
    return found


def _metrics(samples: list[dict], task: Any) -> dict[tuple[str, str], list]:
    """(metric, filter) -> a value for each example, in the order of the task's own list."""
    kinds = list(dict.fromkeys(row["filter"] for row in samples))
    told = [metric for metric in task.aggregation() if any(metric in row["metrics"] for row in samples)]
    return {
        (metric, kind): [row[metric] for row in sorted(samples, key=lambda row: row["doc_id"]) if row["filter"] == kind]
        for metric in told
        for kind in kinds
    }


# -- comparing --------------------------------------------------------------------------------------------------------


def compare_scores(suite: Suite, base: dict, adapted: dict, *, seed: int) -> SuiteCompared:
    """Hold the scores of base and adapter against each other (see `TaskScore` and `SuiteCompared`)."""
    from importlib.metadata import version

    tests = max(1, sum(one.primary and bool(one.values) for one in base.values()))
    scores = tuple(_compared(key, base[key], adapted[key], seed, tests) for key in base if key in adapted)
    outcomes = {one.task: one.outcome for one in scores if one.primary}
    better = [task for task, outcome in outcomes.items() if outcome == IMPROVED]
    worse = [task for task, outcome in outcomes.items() if outcome == DEGRADED]
    if better and worse:
        outcome, because = MIXED, f"better on {', '.join(better)}, worse on {', '.join(worse)}"
    elif better or worse:
        outcome, because = (IMPROVED if better else DEGRADED), f"on {', '.join(better or worse)}"
    elif set(outcomes.values()) <= {NOT_TESTED}:
        outcome, because = NOT_TESTED, "no metric has a value for each example"
    else:
        outcome, because = SAME_WITHIN_NOISE, "no task's paired test tells base and adapter apart"
    if len(outcomes) > 1:
        because += f"; each of {tests} tests at {ERROR_RATE / tests:.3g} (Bonferroni)"
    return SuiteCompared(
        suite=suite.name, harness=f"lm-eval {version('lm_eval')}", scores=scores, outcome=outcome, because=because
    )


def _compared(key: tuple[str, str, str], base: Values, adapted: Values, seed: int, tests: int) -> TaskScore:
    task, metric, kind = key
    paired = bool(base.values) and bool(adapted.values) and base.digest == adapted.digest
    proportion = paired and is_yes_or_no(base.values, adapted.values)
    difference = counts = None
    outcome, because = NOT_TESTED, "there is no value for each example"
    if paired:
        test = paired_test(
            base.values, adapted.values, higher_is_better=base.higher_is_better, unit=metric, seed=seed, tests=tests
        )
        difference, counts, outcome, because = test.difference, test.counts, test.outcome, test.because
    return TaskScore(
        task=task,
        metric=metric,
        filter=kind,
        primary=base.primary,
        higher_is_better=base.higher_is_better,
        n=base.n,
        base=_measured(base, metric, proportion),
        adapted=_measured(adapted, metric, proportion),
        difference=difference,
        counts=counts,
        digest=base.digest,
        base_values=base.values,
        adapted_values=adapted.values,
        outcome=outcome,
        because=because,
    )


def _measured(one: Values, metric: str, proportion: bool) -> Measurement:
    interval = wilson(round(sum(one.values)), one.n) if proportion else None
    return Measurement(
        value=one.score,
        interval=interval,
        n=one.n,
        null=None,
        unit=metric,
        operator="share of examples, Wilson 95 %" if proportion else "as the task aggregates it",
    )


@contextlib.contextmanager
def _quietly(*, bars: bool = False) -> Iterator[None]:
    """Without the harness's log lines and warnings, and without its bars unless they are asked for."""
    loggers = [logging.getLogger(name) for name in ("lm_eval", "datasets", "huggingface_hub", "httpx")]
    before = [one.level for one in loggers]
    hidden = contextlib.nullcontext() if bars else contextlib.redirect_stderr(io.StringIO())
    try:
        for one in loggers:
            one.setLevel(logging.ERROR)
        with warnings.catch_warnings(), hidden, contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for one, level in zip(loggers, before, strict=True):
            one.setLevel(level)


def _reason(error: BaseException) -> str:
    return plain(" ".join(str(error).split())[:200] or type(error).__name__)
