"""What a merge did: matrix by matrix, and to the model as a whole on text that shaped nothing."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from geonb.data.example import Example
from geonb.geometry.measurement import Measurement
from geonb.geometry.statistics import bootstrap_interval, paired_bootstrap
from geonb.merge.preflight import Preflight
from geonb.record_tables import table_html
from geonb.records import Record, plain

RECORD = "merge.json"
# so many tokens' log-probabilities of two models are held at once: 256 x 150,000 float64 are 0.3 GB each
_ROWS = 256
_SHOWN = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixMerge(Record):
    """One matrix: dW = donor - base, what of it the projector preserves, and how the target's inputs feel it.

    `behaviour` is ||A (scale dW P)^T||_F / ||A W^T||_F, its null the same without P; `written` is that of the change that
    the stored dtype really took.
    """

    name: str
    role: str
    layer: int | None
    expert: int | None
    shape: tuple[int, int]  # (out, in)
    tokens: int  # probe tokens that reached it
    effective_rank: float  # of the probes' inputs, on energies
    noise_edge: float  # of their spectrum
    kept: float  # sum of the projector's weights: input directions left free, of `shape[1]`
    norm: float  # ||dW||_F
    change: float  # ||dW||_F / ||W||_F
    preserved: Measurement | None  # None where dW is zero
    behaviour: Measurement | None  # None where ||A W^T||_F is zero
    behaviour_held_out: Measurement | None
    written: float | None
    rounding: float | None  # ||written - meant||_F / ||meant||_F; None where nothing was meant

    def summary(self) -> str:
        preserved = "dW = 0" if self.preserved is None else f"preserved {self.preserved.value:.3f}"
        return f"MatrixMerge({self.name!r}, {preserved})"


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftTensor(Record):
    """A tensor that stays the target's, why, and how far the donor's differs: ||donor - target||_F / ||target||_F."""

    name: str
    because: str
    donor_change: float | None  # None where the donor stores no tensor of that name and shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect(Record):
    """What changed on held-out text, merged minus before; and on the donor's text where there was any.

    `smoke` is "failed" when the merged model predicts held-out text no better than the frequencies of the probes' tokens
    (add-one) while the model before did; "unmeasured" when that one did not either.
    """

    kl: Measurement  # KL(before || merged), nats per token
    held_out: Measurement  # change of the loss, nats per token
    perplexity: tuple[float, float]  # before and merged, held-out
    unigram_perplexity: float
    smoke: str
    because: str
    donor_text: Measurement | None  # change of the loss on the donor's text
    donor_perplexity: tuple[float, float, float] | None  # before, merged, the donor itself

    @property
    def gained(self) -> float | None:
        """The share of the donor's own advantage on its text that the merged model has; None where it has none."""
        if self.donor_perplexity is None:
            return None
        before, merged, donor = (math.log(value) for value in self.donor_perplexity)
        return (before - merged) / (before - donor) if before > donor else None

    def lines(self) -> list[str]:
        """The findings, one a line."""
        before, merged = self.perplexity
        found = [
            f"KL(before || merged)   {self.kl!r}",
            f"loss on held-out text  {_signed(self.held_out)}; perplexity {before:.4g} -> {merged:.4g}",
        ]
        if self.donor_text is not None and self.donor_perplexity is not None:
            first, second, donor = self.donor_perplexity
            share = "" if self.gained is None else f"; {self.gained:.1%} of the donor's advantage"
            found.append(
                f"loss on donor's text   {_signed(self.donor_text)}; perplexity {first:.4g} -> {second:.4g}, donor "
                f"{donor:.4g}{share}"
            )
        return [*found, f"smoke test             {self.smoke}: {self.because}"]

    def to_text(self) -> str:
        return "\n".join(self.lines())

    def summary(self) -> str:
        return f"Effect(smoke {self.smoke}, KL {self.kl.value:.4g} nats, loss {self.held_out.value:+.4g} nats)"


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeRun(Record):
    """A finished merge; it lies as merge.json in the folder of the merged model."""

    target: str
    donor: str
    base: str  # dW = donor - base
    output: str
    rule: str
    weights: str  # the rule's formula
    scale: float
    inputs: dict[str, Any]  # digests and options: equal inputs, equal output
    files: dict[str, str]  # sha256 of the merged model's config and weight files
    preflight: Preflight
    texts: dict[str, str]
    notes: tuple[str, ...]
    matrices: tuple[MatrixMerge, ...]
    left: tuple[LeftTensor, ...]
    overlap: float | None  # cosine of what was added with what the target already had over the base
    effect: Effect
    seed: int

    @property
    def verdict(self) -> str | None:
        """ "failed" or "passed" by the smoke test, None where it says nothing."""
        return None if self.effect.smoke == "unmeasured" else self.effect.smoke

    @property
    def preserved(self) -> float | None:
        """Over all matrices: the root of the preserved share of ||dW||_F^2; None where every dW is zero."""
        return self._pooled(lambda measured: measured.value)

    @property
    def null_preserved(self) -> float | None:
        """What the same projectors in random orientations would preserve."""
        return self._pooled(lambda measured: measured.null or 0.0)

    def _pooled(self, pick: Callable[[Measurement], float]) -> float | None:
        moved = [(one.norm**2, pick(one.preserved)) for one in self.matrices if one.preserved is not None]
        total = sum(square for square, _ in moved)
        return math.sqrt(sum(square * share**2 for square, share in moved) / total) if total else None

    def summary(self) -> str:
        return (
            f"MergeRun({self.donor!r} into {self.target!r}, {self.rule}, scale {self.scale:g}, {len(self.matrices)} matrices, "
            f"KL {self.effect.kl.value:.3g} nats, smoke {self.effect.smoke})"
        )

    def to_text(self) -> str:
        lines = [f"{self.donor} into {self.target} -> {self.output}"]
        lines.append(f"  rule {self.rule} ({self.weights}), scale {self.scale:g}, dW = donor - {self.base}")
        lines += [f"  {name:9} {source}" for name, source in self.texts.items()]
        lines += ["", f"By role ({len(self.matrices)} matrices; medians)"]
        lines += _table(_ROLE_COLUMNS, self._roles())
        if self.preserved is not None:
            lines.append(f"  all: preserved {self.preserved:.3f}, in random orientation {self.null_preserved:.3f}")
        lines += ["", "The model", *(f"  {line}" for line in self.effect.lines())]
        if self.overlap is not None:
            lines.append(f"  overlap with earlier   cosine {self.overlap:+.3f}")
        kinds = Counter(one.because for one in self.left)
        lines += ["", "Stays the target's"]
        for because, count in kinds.items():
            changes = [one.donor_change for one in self.left if one.because == because and one.donor_change]
            differ = f"; the donor's differ in {len(changes)}, by up to {max(changes):.2g}" if changes else ""
            lines.append(f"  {count:4} {because}{differ}")
        lines += [f"  note: {note}" for note in (*self.preflight.notes, *self.notes)]
        return "\n".join(plain(line) for line in lines)

    def _roles(self) -> list[tuple[str, ...]]:
        rows = []
        for role in dict.fromkeys(one.role for one in self.matrices):
            mine = [one for one in self.matrices if one.role == role]
            rows.append((role, str(len(mine)), *(_median(values) for values in zip(*map(_numbers, mine), strict=True))))
        return rows

    def to_html(self) -> str:
        rows = [(one.name, f"{one.shape[0]} x {one.shape[1]}", *_numbers(one)) for one in self.matrices[:_SHOWN]]
        more = f" (the first {_SHOWN} of {len(self.matrices)})" if len(self.matrices) > _SHOWN else ""
        told = table_html(
            ("finding",), [(line,) for line in self.effect.lines()], caption="On text that shaped nothing"
        )
        left = table_html(
            ("stays the target's", "because", "donor differs by"),
            [(one.name, one.because, one.donor_change) for one in self.left[:_SHOWN]],
        )
        columns = ("matrix", "out x in", *_ROLE_COLUMNS[2:])
        return told + table_html(columns, rows, caption=f"{self.donor} into {self.target}{more}") + left


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeBatch(Record):
    """Several donors, one after another into the same target: step k adds P_k (donor_k - target) to the model of step k-1."""

    target: str
    output: str  # the last step's folder: the model that holds all donors
    runs: tuple[MergeRun, ...]
    skipped: tuple[str, ...]  # steps that were there already with the same inputs
    effect: Effect  # of all donors together, against the target itself

    @property
    def verdict(self) -> str | None:
        """ "failed" or "passed" by the smoke test of the last model, None where it says nothing."""
        return None if self.effect.smoke == "unmeasured" else self.effect.smoke

    def summary(self) -> str:
        return f"MergeBatch({len(self.runs)} donors into {self.target!r}, smoke {self.effect.smoke})"

    def to_text(self) -> str:
        rows = []
        for run in self.runs:
            done = "there already" if run.output in self.skipped else "merged"
            overlap = "" if run.overlap is None else f"{run.overlap:+.3f}"
            preserved = "" if run.preserved is None else f"{run.preserved:.3f}"
            rows.append((run.donor, done, preserved, f"{run.effect.kl.value:.4g}", overlap, run.effect.smoke))
        lines = [f"{len(self.runs)} donors, one after another, into {self.target}; all together: {self.output}"]
        lines += _table(("donor", "", "preserved", "KL of the step", "overlap", "smoke"), rows)
        lines += ["", f"All together against {self.target}", *(f"  {line}" for line in self.effect.lines())]
        return "\n".join(plain(line) for line in lines)


_ROLE_COLUMNS = (
    "role",
    "count",
    "tokens",
    "effective rank",
    "left free",
    "||dW||/||W||",
    "preserved",
    "random",
    "on probes",
    "held out",
    "unprojected",
    "as written",
)


def _numbers(one: MatrixMerge) -> tuple[float | None, ...]:
    def value(measured: Measurement | None, field: str = "value") -> float | None:
        return None if measured is None else getattr(measured, field)

    return (
        float(one.tokens),
        one.effective_rank,
        one.kept,
        one.change,
        value(one.preserved),
        value(one.preserved, "null"),
        value(one.behaviour),
        value(one.behaviour_held_out),
        value(one.behaviour_held_out, "null"),
        one.written,
    )


def _median(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{float(np.median(known)):.3g}" if known else "-"


def _signed(measured: Measurement) -> str:
    low, high = measured.interval or (math.nan, math.nan)
    return f"{measured.value:+.4f} {measured.unit} [{low:+.4f}, {high:+.4f}] (n = {measured.n})"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [tuple(plain(cell) for cell in row) for row in (columns, *rows)]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    ]


# -- measuring --------------------------------------------------------------------------------------------------------


def measure_effect(
    before: Any, merged: Any, texts: Any, *, donor: Callable[[], Any] | None = None, seed: int = 0
) -> Effect:
    """Compare two `TorchRuntime`s of one tokenizer on the held-out and donor's texts; `donor` loads the third model.

    Intervals are 95 % bootstraps over texts, paired where two models read the same text; losses and KL are means over
    texts of means over counted tokens, perplexities are over tokens.
    """
    from geonb.train.objective import evaluate

    def losses(runtime: Any, examples: Sequence[Example]) -> Any:
        end = runtime.tokenizer.pad_token_id
        # one text at a time: no architecture then sees a padded place
        return evaluate(runtime.model, examples, pad=end if end is not None else 0, device=runtime.device, batch_size=1)

    divergence = np.array([_divergence(before, merged, example) for example in texts.held_out])
    first, second = losses(before, texts.held_out), losses(merged, texts.held_out)
    on_donor, perplexities = None, None
    if texts.donor:
        start, end = losses(before, texts.donor), losses(merged, texts.donor)
        on_donor = _change(end.per_example, start.per_example, seed)
        own = losses(donor(), texts.donor).loss if donor is not None else math.nan
        perplexities = (_exp(start.loss), _exp(end.loss), _exp(own))
    unigram = _unigram_loss(texts.probes, texts.held_out, int(before.model.config.get_text_config().vocab_size))
    smoke, because = _smoke(first.loss, second.loss, unigram)
    finite = bool(np.isfinite(divergence).all())
    return Effect(
        kl=Measurement(
            value=float(divergence.mean()),
            interval=bootstrap_interval(divergence, rng=np.random.default_rng(seed)) if finite else None,
            n=len(divergence),
            null=0.0,
            unit="nats per token",
            operator=f"mean over texts of the mean over counted tokens, float64, bootstrap over texts, 95 %, seed {seed}",
        ),
        held_out=_change(second.per_example, first.per_example, seed),
        perplexity=(_exp(first.loss), _exp(second.loss)),
        unigram_perplexity=_exp(unigram),
        smoke=smoke,
        because=because,
        donor_text=on_donor,
        donor_perplexity=perplexities,
    )


def _divergence(before: Any, merged: Any, example: Example) -> float:
    """KL(before || merged) in nats, the mean over the counted tokens of one text."""
    import torch

    counted = torch.tensor(example.loss_mask, dtype=torch.bool)[1:]
    one, other = (runtime.logits(example.input_ids)[:-1][counted] for runtime in (before, merged))
    total = 0.0
    for rows in zip(one.split(_ROWS), other.split(_ROWS), strict=True):
        here, there = (torch.log_softmax(part.double(), dim=-1) for part in rows)
        total += float((here.exp() * (here - there)).sum())
    return max(0.0, total / len(one)) if math.isfinite(total) else total


def _change(now: np.ndarray, before: np.ndarray, seed: int) -> Measurement:
    difference = now - before
    finite = bool(np.isfinite(difference).all())
    return Measurement(
        value=float(difference.mean()),
        interval=paired_bootstrap(now, before, rng=np.random.default_rng(seed)) if finite else None,
        n=len(difference),
        null=0.0,
        unit="nats per token",
        operator=f"mean over texts, paired bootstrap over texts, 95 %, seed {seed}",
    )


def _unigram_loss(probes: Sequence[Example], held_out: Sequence[Example], vocabulary: int) -> float:
    """Cross-entropy of the held-out counted tokens under the probes' token frequencies, one added to each."""
    counts = np.ones(vocabulary)
    for example in probes:
        np.add.at(counts, np.asarray(example.input_ids), 1.0)
    logarithm = np.log(counts / counts.sum())
    counted = [np.asarray(one.input_ids)[np.asarray(one.loss_mask, dtype=bool)] for one in held_out]
    return float(-logarithm[np.concatenate(counted)].mean())


def _smoke(before: float, merged: float, unigram: float) -> tuple[str, str]:
    yardstick = f"token frequencies give {_exp(unigram):.4g}"
    if not before < unigram:
        return "unmeasured", f"the model before has perplexity {_exp(before):.4g} itself, and {yardstick}"
    if not merged < unigram:
        return (
            "failed",
            f"the merged model's perplexity is {_exp(merged):.4g}, and {yardstick}: it no longer uses context",
        )
    return "passed", f"the merged model's perplexity is {_exp(merged):.4g}, before {_exp(before):.4g}, and {yardstick}"


def _exp(loss: float) -> float:
    return math.exp(loss) if loss < 700 else math.inf if loss == loss else math.nan
