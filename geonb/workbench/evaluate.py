"""An adapter against its base on prompts, on data or on a task suite: one load, paired statistics, an outcome."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from geonb.assets import resolve_data
from geonb.data.dataset import tokenise
from geonb.data.records import read_records
from geonb.data.seeds import data_digest
from geonb.errors import InputError
from geonb.geometry.measurement import Measurement
from geonb.plan.inputs import open_checkpoint
from geonb.record_tables import table_html
from geonb.records import Record, plain
from geonb.train.example_losses import examples_digest, six_digits
from geonb.workbench.compare_adapters import NO_EFFECT, NOT_TESTED, paired_test
from geonb.workbench.prompts import Progress, PromptsCompared, compare_generations, generate, read_prompts
from geonb.workbench.suites import SuiteCompared, compare_scores, prepare_suite, run_suite

PROMPTS, DATA, BENCHMARK = "prompts", "data", "benchmark"
_MAX_TOKENS = 256
# inputs on which the logits of base and adapter are held against each other
_PROBES = 8
_PROBE_TOKENS = 256
# float32 numbers that the logits of one batch may be: 1 GiB
_LOGITS = 2**28


@dataclass(frozen=True, slots=True, kw_only=True)
class LossesCompared(Record):
    """Losses of base and adapter on the same examples (nats per counted token; what is counted says `geonb.data`).

    `base` and `adapted` are means over tokens, sum of -ln p over all counted tokens / their number, as in a run's
    verification; `difference`, adapter minus base, is the mean over examples of each one's own mean, which is what can
    be resampled. Bits per byte are sum of -ln p / (ln 2 x bytes), where bytes are the UTF-8 bytes of the text that the
    counted tokens stand for (`counted_bytes`): special tokens (end of text, role marks) cost nats and have no bytes.
    """

    digest: str  # of token ids and counted masks: equal where the same tokens were scored
    n: int
    tokens: int  # counted
    bytes: int
    base: float
    adapted: float
    base_bits_per_byte: float
    adapted_bits_per_byte: float
    difference: Measurement
    base_losses: tuple[float, ...]  # nats per counted token of each example
    adapted_losses: tuple[float, ...]
    outcome: str
    because: str

    def summary(self) -> str:
        return f"LossesCompared({self.base:.4f} -> {self.adapted:.4f} nats per token: {self.outcome})"

    def rows(self) -> list[tuple[str, str]]:
        """Label and value of each line to show."""
        bits = f"base {self.base_bits_per_byte:.4f}, adapter {self.adapted_bits_per_byte:.4f}"
        return [
            ("examples", f"{self.n:,} ({self.tokens:,} counted tokens, {self.bytes:,} bytes)"),
            ("nats per token", f"base {self.base:.4f}, adapter {self.adapted:.4f}"),
            ("bits per byte", bits),
            ("difference", repr(self.difference)),
            ("outcome", f"{self.outcome}: {self.because}"),
        ]

    def to_text(self) -> str:
        return "\n".join(f"{label:<22} {plain(value)}" for label, value in self.rows())

    def to_html(self) -> str:
        return table_html(("", "base and adapter"), self.rows(), caption="Loss on the same examples")


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterEvaluation(Record):
    """What an adapter changes on one set of inputs; exactly one of `loss`, `prompts` and `benchmark` is there.

    `outcome` is improved, degraded, no significant difference, degenerated, mixed, not tested, or no effect: then the
    adapter left every logit as it was. A benchmark is not run for an adapter without effect, so all three are None.
    """

    mode: str
    model: str
    model_digest: str
    adapter: str
    source: str
    limit: int | None
    seed: int
    largest_logit_change: float
    outcome: str
    because: str
    notes: tuple[str, ...]
    loss: LossesCompared | None = None
    prompts: PromptsCompared | None = None
    benchmark: SuiteCompared | None = None

    @property
    def measured(self) -> LossesCompared | PromptsCompared | SuiteCompared | None:
        """The part that this mode fills."""
        return self.loss or self.prompts or self.benchmark

    def summary(self) -> str:
        return f"AdapterEvaluation({self.mode}: {self.outcome})"

    def to_text(self) -> str:
        head = [f"{label:<22} {plain(value)}" for label, value in self._head()]
        body = self.measured.to_text() if self.measured is not None else ""
        return "\n".join([*head, "", body]).rstrip()

    def to_html(self) -> str:
        head = table_html(("", "evaluation"), self._head(), caption=f"Evaluation: {self.outcome}")
        return head + (self.measured.to_html() if self.measured is not None else "")

    def _head(self) -> list[tuple[str, str]]:
        return [
            ("model", self.model),
            ("adapter", self.adapter),
            (self.mode, self.source + (f" (the first {self.limit})" if self.limit is not None else "")),
            ("largest logit change", f"{self.largest_logit_change:.4g}"),
            ("outcome", f"{self.outcome}: {self.because}"),
            *(("note", one) for one in self.notes),
        ]


def evaluate(
    model: Any,
    adapter: str | Path,
    *,
    prompts: str | Path | None = None,
    data: str | Path | None = None,
    benchmark: str | Path | None = None,
    max_tokens: int | None = None,
    limit: int | None = None,
    seed: int = 0,
    device: str = "auto",
    progress: Progress | None = None,
) -> AdapterEvaluation:
    """Hold `adapter` against its base in one loaded model, on exactly one of `prompts`, `data` and `benchmark`.

    `max_tokens` (256) limits the generations of prompts, `limit` takes the first inputs only (of each task in a
    benchmark), `seed` is that of the bootstrap and of few-shot examples. Raises `InputError` for another number of
    sources, for what the sources' readers refuse, and for an adapter that does not fit; before the model is loaded
    wherever that can be known.

    >>> evaluate("embedded", "runs/kjv", data="embedded:kjv/eval").outcome   # doctest: +SKIP
    'improved'
    """
    from geonb.workbench.bench import Bench, adapter_folder

    adapter = adapter_folder(adapter)
    given = {PROMPTS: prompts, DATA: data, BENCHMARK: benchmark}
    task = prepare(model, given, max_tokens=max_tokens, limit=limit, seed=seed)
    tell(progress, "loading the model")
    bench = Bench.open(task.checkpoint, {"the adapter": adapter}, device=device)
    base = None if task.mode == BENCHMARK else task.measure(bench, None, progress)
    return against_base(task, bench, "the adapter", base, progress)


# -- what compare_adapters shares -------------------------------------------------------------------------------------


@dataclass(slots=True)
class Task:
    """Opened and checked inputs of one mode, measured with one adapter at a time."""

    mode: str
    checkpoint: Any
    source: str
    inputs: Any  # examples, prompts, or the tasks of a suite
    probes: list[list[int]]
    max_tokens: int
    limit: int | None
    seed: int
    bytes: int = 0
    data_digest: str | None = None
    notes: tuple[str, ...] = ()

    def measure(self, bench: Any, label: str | None, progress: Progress | None) -> Any:
        """The raw result of the base (None) or of one adapter: losses, generations, or scores."""
        if self.mode == DATA:
            return _losses(self, bench, label, progress)
        if self.mode == PROMPTS:
            return generate(bench, label, self.inputs, max_tokens=self.max_tokens, progress=progress)
        tell(progress, f"running {self.source} with {label or 'the base'}")
        return run_suite(bench, label, self.inputs, limit=self.limit, seed=self.seed, quiet=progress is None)


def prepare(model: Any, given: dict[str, Any], *, max_tokens: int | None, limit: int | None, seed: int) -> Task:
    """Open everything but the weights: the checkpoint, and the prompts, data or benchmark `given` by name."""
    named = [f"--{name}" for name, value in given.items() if value is not None]
    if len(named) != 1:
        raise InputError(
            f"evaluate was given {' and '.join(named) or 'nothing to evaluate on'}; allowed is exactly one of --prompts, "
            "--data and --benchmark: choose one."
        )
    if max_tokens is not None and (named != [f"--{PROMPTS}"] or max_tokens < 1):
        raise InputError(
            f"--max-tokens was given {max_tokens}; it is a number from 1 up and only limits the generations of --prompts."
        )
    if limit is not None and limit < 1:
        raise InputError(f"--limit was given {limit}; allowed are numbers from 1 up: leave it out for all.")
    source = str(next(value for value in given.values() if value is not None))
    checkpoint = open_checkpoint(model)
    tokenizer = checkpoint.load_tokenizer()
    rest: dict[str, Any] = dict(max_tokens=max_tokens or _MAX_TOKENS, limit=limit, seed=seed, checkpoint=checkpoint)
    if given[PROMPTS] is not None:
        found = read_prompts(resolve_data(source), tokenizer, context=checkpoint.context_length, limit=limit)
        return Task(mode=PROMPTS, source=source, inputs=found, probes=[list(one.ids) for one in found], **rest)
    if given[DATA] is not None:
        return _data_task(source, tokenizer, rest)
    texts = [one.text for one in read_records(resolve_data("embedded:retention"))[:_PROBES]]
    probes = [list(tokenizer(text, verbose=False)["input_ids"])[:_PROBE_TOKENS] for text in texts]
    return Task(mode=BENCHMARK, source=source, inputs=prepare_suite(source), probes=probes, **rest)


def against_base(task: Task, bench: Any, label: str, base: Any, progress: Progress | None) -> AdapterEvaluation:
    """The evaluation of one loaded adapter; `base` is what the base was measured at (None: measure it when needed)."""
    tell(progress, f"checking that {label} acts")
    change = logit_change(bench, label, task.probes)
    notes = list(task.notes)
    measured: Any = None
    part: dict[str, Any] = {}
    if task.mode != BENCHMARK or change != 0:
        adapted = task.measure(bench, label, progress)
        base = task.measure(bench, None, progress) if base is None else base
        if task.mode == DATA:
            measured = _compare_losses(task, base, adapted)
            part = {"loss": measured}
            acts = not np.array_equal(base, adapted)
        elif task.mode == PROMPTS:
            measured = compare_generations(task.inputs, base, adapted, max_tokens=task.max_tokens, seed=task.seed)
            part = {"prompts": measured}
            acts = any(one.differs for one in measured.results)
        else:
            measured = compare_scores(task.inputs, base, adapted, seed=task.seed)
            part = {"benchmark": measured}
            acts = True
        # the probes are a few inputs only, and an expert may be reached by others
        change = math.nan if change == 0 and acts else change
    if change == 0:
        outcome = NO_EFFECT
        because = (
            "the adapter changes no logit at all, so what runs is the base: its factors are zero, or they do not reach "
            "the modules that they were made for"
        )
    else:
        outcome, because = measured.outcome, measured.because
    if task.data_digest is not None and task.data_digest == _trained_on(bench.adapters[label]):
        notes.append("these are the very data that the adapter was trained on, so this says nothing of new text")
    return AdapterEvaluation(
        mode=task.mode,
        model=task.checkpoint.source,
        model_digest=task.checkpoint.digest,
        adapter=str(bench.adapters[label]),
        source=task.source,
        limit=task.limit,
        seed=task.seed,
        largest_logit_change=change,
        outcome=outcome,
        because=because,
        notes=tuple(notes),
        **part,
    )


def logit_change(bench: Any, label: str, sequences: Sequence[Sequence[int]]) -> float:
    """The largest |logit with the adapter - logit of the base| over the positions of the first sequences."""
    largest = 0.0
    for ids in sequences[:_PROBES]:
        ids = list(ids)[:_PROBE_TOKENS]
        with bench.using(None):
            base = bench.runtime.logits(ids)
        with bench.using(label):
            # a NaN is a change, and max() would drop it
            gap = float((bench.runtime.logits(ids) - base).abs().max())
        largest = gap if math.isnan(gap) else max(largest, gap)
    return largest


def tell(progress: Progress | None, text: str) -> None:
    """Say what goes on, where someone listens."""
    if progress is not None:
        progress(text)


# -- losses -----------------------------------------------------------------------------------------------------------


def _data_task(data: str | Path, tokenizer: Any, rest: dict[str, Any]) -> Task:
    path = resolve_data(data)
    records = read_records(path)[: rest["limit"]]
    dataset = tokenise(records, tokenizer, context_length=rest["checkpoint"].context_length)
    notes = []
    if dataset.n_cut:
        notes.append(f"{dataset.n_cut} of {len(records)} examples were cut at the model's context")
    if dataset.n_dropped:
        notes.append(f"{dataset.n_dropped} of {len(records)} examples had nothing left to count and were dropped")
    return Task(
        mode=DATA,
        source=str(data),
        inputs=dataset.examples,
        probes=[list(one.input_ids) for one in dataset.examples[:_PROBES]],
        bytes=sum(counted_bytes(one, tokenizer) for one in dataset.examples),
        data_digest=data_digest(path),
        notes=tuple(notes),
        **rest,
    )


def counted_bytes(example: Any, tokenizer: Any) -> int:
    """UTF-8 bytes of the text that the counted tokens of `example` stand for.

    A run of counted tokens stands for what decoding up to its end says beyond decoding up to its start, special tokens
    skipped: tokens are decoded in their context because some tokenizers drop the space of a first word.
    """
    mask = (False, *example.loss_mask, False)
    # the mask changes at the start and at the end of every run
    edges = [place for place in range(len(mask) - 1) if mask[place] != mask[place + 1]]
    sizes = [
        len(
            tokenizer.decode(
                example.input_ids[:edge], skip_special_tokens=True, clean_up_tokenization_spaces=False
            ).encode()
        )
        for edge in edges
    ]
    return sum(sizes[1::2]) - sum(sizes[::2])


def _losses(task: Task, bench: Any, label: str | None, progress: Progress | None) -> np.ndarray:
    """Nats per counted token of each example, in blocks whose logits fit."""
    from geonb.train.objective import evaluate as losses_of

    examples, runtime = task.inputs, bench.runtime
    longest = max(len(one.input_ids) for one in examples)
    vocabulary = int(getattr(bench.model.config.get_text_config(), "vocab_size", 0)) or len(runtime.tokenizer)
    size = max(1, min(16, _LOGITS // (longest * vocabulary)))
    pad = runtime.tokenizer.pad_token_id
    pad = runtime.tokenizer.eos_token_id if pad is None else pad
    found = []
    with bench.using(label) as model:
        for start in range(0, len(examples), 4 * size):
            tell(progress, f"losses of {label or 'the base'}: example {start + 1} of {len(examples)}")
            block = examples[start : start + 4 * size]
            found.append(losses_of(model, block, pad=0 if pad is None else pad, device=runtime.device, batch_size=size))
    return np.concatenate([one.per_example for one in found])


def _compare_losses(task: Task, base: np.ndarray, adapted: np.ndarray) -> LossesCompared:
    counts = np.array([sum(one.loss_mask) for one in task.inputs], dtype=np.float64)
    sums = [float((one * counts).sum()) for one in (base, adapted)]
    means = [one / counts.sum() for one in sums]
    bits = [one / (math.log(2) * task.bytes) if task.bytes else math.nan for one in sums]
    test = paired_test(base, adapted, higher_is_better=False, unit="nats per token", seed=task.seed)
    because = test.because
    if test.outcome != NOT_TESTED and test.difference.value * (means[1] - means[0]) < 0:
        because += "; the means over tokens, where long examples weigh more, point the other way"
    return LossesCompared(
        digest=examples_digest(task.inputs),
        n=len(base),
        tokens=int(counts.sum()),
        bytes=task.bytes,
        base=means[0],
        adapted=means[1],
        base_bits_per_byte=bits[0],
        adapted_bits_per_byte=bits[1],
        difference=test.difference,
        base_losses=six_digits(base),
        adapted_losses=six_digits(adapted),
        outcome=test.outcome,
        because=because,
    )


def _trained_on(adapter: Path) -> str | None:
    """The digest of the data that a run's adapter was trained on, where the run lies around it."""
    try:
        return json.loads((adapter.parent / "plan.json").read_text(encoding="utf-8"))["data"]["digest"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
