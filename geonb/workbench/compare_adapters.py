"""Which is better: the paired tests that decide it, and two adapters of one base held against each other by them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from geonb.errors import InputError
from geonb.geometry.measurement import Measurement
from geonb.geometry.statistics import mcnemar, paired_bootstrap
from geonb.record_tables import table_html
from geonb.records import Record, plain

IMPROVED, DEGRADED, SAME_WITHIN_NOISE = "improved", "degraded", "no significant difference"
DEGENERATED, MIXED, NO_EFFECT, NOT_TESTED = "degenerated", "mixed", "no effect", "not tested"
NOT_COMPARABLE = "not comparable"
A_BETTER, B_BETTER = "a is better", "b is better"
ERROR_RATE = 0.05
_RESAMPLES = 2000
# below this many examples percentile intervals of a mean are visibly too narrow (convention)
_FEW = 20


# -- the tests --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedCounts(Record):
    """Two yes-or-no outcomes of the same items, and McNemar's exact two-sided p-value of their difference."""

    n: int
    first: int  # how many yeses
    second: int
    only_first: int
    only_second: int
    p: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedTest(Record):
    """Two rows of values of the same items; `outcome` says whether the second is better (improved) or worse."""

    difference: Measurement  # second minus first
    counts: PairedCounts | None  # where every value is 0 or 1
    outcome: str
    because: str


def paired_counts(first: Sequence[bool], second: Sequence[bool]) -> PairedCounts:
    """The counts that McNemar's test needs, with its p-value.

    >>> paired_counts([True, False, False], [True, True, False]).only_second
    1
    """
    pairs = list(zip(first, second, strict=True))
    only_first, only_second = sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)
    return PairedCounts(
        n=len(pairs),
        first=sum(a for a, _ in pairs),
        second=sum(b for _, b in pairs),
        only_first=only_first,
        only_second=only_second,
        p=mcnemar(only_first, only_second),
    )


def paired_difference(
    first: Sequence[float] | np.ndarray,
    second: Sequence[float] | np.ndarray,
    unit: str,
    seed: int,
    *,
    confidence: float = 1 - ERROR_RATE,
) -> Measurement:
    """Mean of second - first over items with its paired bootstrap interval; none below two items or without numbers."""
    before, after = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    interval, operator = None, "mean over items; no interval"
    if len(after) > 1 and np.isfinite(after - before).all():
        # a wider interval needs as many resamples in its tails as one of 95 %
        resamples = round(_RESAMPLES * ERROR_RATE / (1 - confidence))
        interval = paired_bootstrap(
            after, before, rng=np.random.default_rng(seed), confidence=confidence, resamples=resamples
        )
        operator = f"mean over items, paired bootstrap, {100 * confidence:.6g} %, {resamples} resamples, seed {seed}"
    return Measurement(
        value=float(np.mean(after - before)), interval=interval, n=len(after), null=0.0, unit=unit, operator=operator
    )


def is_yes_or_no(first: Sequence[float] | np.ndarray, second: Sequence[float] | np.ndarray) -> bool:
    """Whether every value of both rows is 0 or 1."""
    return {float(value) for value in first} | {float(value) for value in second} <= {0.0, 1.0}


def paired_test(
    first: Sequence[float] | np.ndarray,
    second: Sequence[float] | np.ndarray,
    *,
    higher_is_better: bool,
    unit: str,
    seed: int,
    tests: int = 1,
) -> PairedTest:
    """Whether the second row is better than the first, item by item, at an error rate of 5 % / `tests` (Bonferroni).

    Rows of 0 and 1 are tested by McNemar (exact), others by whether the paired bootstrap interval leaves 0. Numbers
    that are not finite in one row only make that row the worse one.
    """
    level = ERROR_RATE / tests
    difference = paired_difference(first, second, unit, seed, confidence=1 - level)
    counts, n, high = None, difference.n, False
    if not math.isfinite(difference.value):
        broken = [not np.isfinite(np.asarray(row, dtype=np.float64)).all() for row in (first, second)]
        outcome = NOT_TESTED if all(broken) else DEGRADED if broken[1] else IMPROVED
        return PairedTest(difference=difference, counts=None, outcome=outcome, because="some values are not finite")
    if is_yes_or_no(first, second):
        counts = paired_counts([value == 1 for value in first], [value == 1 for value in second])
        significant, high = counts.p < level, counts.only_second > counts.only_first
        because = (
            f"{counts.only_second} of {n} only in the second and {counts.only_first} only in the first "
            f"(McNemar p = {counts.p:.3g} {'<' if significant else '>='} {level:.3g})"
        )
    elif difference.interval is None:
        because = f"an interval needs two examples, and {n} was scored"
        return PairedTest(difference=difference, counts=None, outcome=NOT_TESTED, because=because)
    else:
        low_end, high_end = difference.interval
        significant, high = low_end > 0 or high_end < 0, low_end > 0
        where = "contains 0" if not significant else "lies above 0" if high else "lies below 0"
        because = f"the paired {100 * (1 - level):.6g} % interval over {n} examples {where}"
        if n < _FEW:
            because += "; with so few examples such an interval tends to be too narrow"
    outcome = SAME_WITHIN_NOISE if not significant else IMPROVED if high == higher_is_better else DEGRADED
    return PairedTest(difference=difference, counts=counts, outcome=outcome, because=because)


# -- two adapters -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest(Record):
    """One quantity of two contestants ("a", "b" or "base") on the same items; `better` is one of them or None."""

    quantity: str
    first: str
    second: str
    difference: Measurement  # second minus first
    counts: PairedCounts | None
    better: str | None
    because: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptersCompared(Record):
    """Two adapters on the same inputs, each also against its base.

    `outcome` is "a is better", "b is better", "no significant difference", "mixed" (each is better at something), "not
    tested" or "not comparable" (with the reason); `winner` is "a", "b" or None. With m contests of a against b each is
    tested at 5 % / m, so that naming a winner where there is none happens in at most 5 % of comparisons.
    """

    mode: str
    model: str
    a: str
    b: str
    winner: str | None
    outcome: str
    because: str
    contests: tuple[Contest, ...]
    notes: tuple[str, ...]

    def summary(self) -> str:
        return f"AdaptersCompared({self.mode}: {self.outcome})"

    def to_text(self) -> str:
        lines = [f"{label:<10} {value}" for label, value in self._head()]
        for one in self.contests:
            better = f"{one.better} is better" if one.better else SAME_WITHIN_NOISE
            lines += ["", f"{one.quantity}, {one.second} minus {one.first}: {better}"]
            lines.append(f"  {one.difference!r}; {one.because}")
        return "\n".join(plain(line) for line in lines)

    def to_html(self) -> str:
        return table_html(("", "comparison"), self._head(), caption=f"Adapters compared: {self.outcome}") + table_html(
            ("quantity", "first", "second", "second minus first", "better", "because"),
            [
                (one.quantity, one.first, one.second, repr(one.difference), one.better or "neither", one.because)
                for one in self.contests
            ],
        )

    def _head(self) -> list[tuple[str, str]]:
        told = [("model", self.model), ("a", self.a), ("b", self.b), ("outcome", f"{self.outcome}: {self.because}")]
        return [*told, *(("note", one) for one in self.notes)]


def compare_adapters(
    model: Any,
    adapter_a: str | Path,
    adapter_b: str | Path,
    data: str | Path | None = None,
    *,
    prompts: str | Path | None = None,
    benchmark: str | Path | None = None,
    max_tokens: int | None = None,
    limit: int | None = None,
    seed: int = 0,
    device: str = "auto",
    progress: Callable[[str], None] | None = None,
) -> AdaptersCompared:
    """Load `model` once and hold two adapters against each other and the base, on the same inputs.

    The sources and options are those of `evaluate`, exactly one source; losses are paired by bootstrap, answers, loops
    and yes-or-no scores by McNemar. Raises `InputError` as `evaluate` does.

    >>> compare_adapters("embedded", "runs/a", "runs/b", "embedded:kjv/eval").winner   # doctest: +SKIP
    'b'
    """
    from geonb.workbench import evaluate as evaluation
    from geonb.workbench.bench import Bench, adapter_folder

    folders = {"a": adapter_folder(adapter_a), "b": adapter_folder(adapter_b)}
    given = {"prompts": prompts, "data": data, "benchmark": benchmark}
    task = evaluation.prepare(model, given, max_tokens=max_tokens, limit=limit, seed=seed)
    evaluation.tell(progress, "loading the model")
    bench = Bench.open(task.checkpoint, folders, device=device)
    base = task.measure(bench, None, progress)
    a, b = (evaluation.against_base(task, bench, label, base, progress) for label in folders)
    return _compared(a, b, seed)


def compare_results(path_a: str | Path, path_b: str | Path, *, seed: int = 0) -> AdaptersCompared:
    """Compare two saved evaluations; they are paired only where both measured the very same inputs.

    Otherwise the outcome is "not comparable", with the reason. Raises `InputError` for a file that holds no saved
    `AdapterEvaluation`.
    """
    from geonb.workbench.evaluate import AdapterEvaluation

    found = []
    for path in (path_a, path_b):
        try:
            found.append(AdapterEvaluation.load(path))
        except (InputError, TypeError, ValueError, AttributeError, KeyError, OSError) as error:
            raise InputError(
                f"{path} holds no saved evaluation ({' '.join(str(error).split())[:160]}): give what `geonb train "
                "evaluate -o` wrote."
            ) from None
    return _compared(found[0], found[1], seed)


def _compared(a: Any, b: Any, seed: int) -> AdaptersCompared:
    notes = [f"{label}: {note}" for label, one in (("a", a), ("b", b)) for note in one.notes]
    notes += [f"{label}: {one.because}" for label, one in (("a", a), ("b", b)) if one.outcome == NO_EFFECT]
    if a.model_digest != b.model_digest:
        notes.append("the two were measured on different base models")
    against_base = [
        _contest(name, "base", label, base, own, higher, seed, len(rows))
        for label, rows in (("a", _rows(a)), ("b", _rows(b)))
        for (name, higher, _), (base, own) in rows.items()
    ]
    rows_a, rows_b = _rows(a), _rows(b)
    shared = [key for key in rows_a if key in rows_b]
    contests = [_contest(key[0], "a", "b", rows_a[key][1], rows_b[key][1], key[1], seed, len(shared)) for key in shared]
    winner = None
    if not contests:
        outcome, because = NOT_COMPARABLE, _hindrance(a, b)
    else:
        ahead = {one.better for one in contests} - {None}
        deciding = [one for one in contests if one.better] or contests
        because = "; ".join(f"{one.quantity}: {one.because}" for one in deciding)
        if len(ahead) == 2:
            outcome = MIXED
        elif ahead:
            winner = ahead.pop()
            outcome = A_BETTER if winner == "a" else B_BETTER
        else:
            tested = any(one.difference.interval or one.counts for one in contests)
            outcome = SAME_WITHIN_NOISE if tested else NOT_TESTED
    return AdaptersCompared(
        mode=a.mode if a.mode == b.mode else f"{a.mode} and {b.mode}",
        model=a.model if a.model == b.model else f"{a.model} and {b.model}",
        a=a.adapter,
        b=b.adapter,
        winner=winner,
        outcome=outcome,
        because=because,
        contests=(*contests, *against_base),
        notes=tuple(notes),
    )


def _rows(one: Any) -> dict[tuple[str, bool, str], tuple[Sequence[float], Sequence[float]]]:
    """(quantity, higher is better, digest of the items) -> values of base and adapter, for each quantity that decides."""
    if one.loss is not None:
        return {("loss", False, one.loss.digest): (one.loss.base_losses, one.loss.adapted_losses)}
    if one.prompts is not None:
        from geonb.workbench.prompts import LOOP

        pairs = [(result.base, result.adapted) for result in one.prompts.results]
        rows = {
            ("loops", False): [[float(made.repetition > LOOP) for made in pair] for pair in pairs],
            ("answers", True): [
                [float(bool(made.has_answer)) for made in pair] for pair in pairs if pair[0].has_answer is not None
            ],
        }
        return {
            (*key, one.prompts.digest): ([pair[0] for pair in values], [pair[1] for pair in values])
            for key, values in rows.items()
            if values
        }
    scores = one.benchmark.scores if one.benchmark is not None else ()
    return {
        (" ".join((score.task, score.metric, score.filter)), score.higher_is_better, score.digest): (
            score.base_values,
            score.adapted_values,
        )
        for score in scores
        if score.primary and score.base_values
    }


def _contest(
    name: str, first: str, second: str, before: Sequence, after: Sequence, higher: bool, seed: int, tests: int
) -> Contest:
    unit = "nats per token" if name == "loss" else "of all"
    test = paired_test(before, after, higher_is_better=higher, unit=unit, seed=seed, tests=tests)
    better = {IMPROVED: second, DEGRADED: first}.get(test.outcome)
    because = test.because.replace("the second", second).replace("the first", first)
    return Contest(
        quantity=name,
        first=first,
        second=second,
        difference=test.difference,
        counts=test.counts,
        better=better,
        because=because,
    )


def _hindrance(a: Any, b: Any) -> str:
    if a.mode != b.mode:
        return f"a was evaluated on {a.mode} and b on {b.mode}: evaluate both on the same"
    empty = [label for label, one in (("a", a), ("b", b)) if not _rows(one)]
    if empty:
        return f"{' and '.join(empty)} holds no value for each item"
    return (
        f"a was evaluated on {a.source} and b on {b.source}, and the items differ in text, tokens, order, number or limit, "
        "so nothing pairs them: evaluate both on the same file with the same options and tokenizer"
    )
