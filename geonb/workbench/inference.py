"""Prompts through a base and an adapter, greedily and with one load: one prompt, or a file of them that can be resumed."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geonb.adapters.peft_files import CONFIG, WEIGHTS
from geonb.errors import InputError
from geonb.geometry.measurement import Measurement
from geonb.geometry.statistics import mcnemar, wilson
from geonb.models.cache import file_digest
from geonb.models.checkpoint import Checkpoint
from geonb.record_tables import table_html
from geonb.records import Record
from geonb.workbench.bench import Bench, adapter_folder
from geonb.workbench.drift import DriftScan, PromptDrift, check_draws, scan_prompt, summarise
from geonb.workbench.generation import (
    Continuation,
    Prompt,
    SuitePrompt,
    check_max_tokens,
    encode_prompt,
    generate,
    printable,
    read_suite_prompts,
)
from geonb.workbench.prompts import LOOP, contains_answer

BASE, ADAPTER = "base", "adapter"
OnText = Callable[[str, str], None]
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inference(Record):
    """One prompt and what the base, and the adapter where one is given, write after it."""

    model: str
    adapter: str | None
    prompt: str
    chat: bool  # whether the chat template stood around the prompt
    prompt_tokens: int
    continuations: tuple[Continuation, ...]  # the base's, then the adapter's
    drift: DriftScan | None

    @property
    def same(self) -> bool | None:
        """Whether base and adapter wrote the same tokens; None without an adapter."""
        return None if len(self.continuations) < 2 else self.continuations[0].tokens == self.continuations[1].tokens

    def facts(self) -> str:
        """Everything but the texts: what is printed behind a stream of them."""
        lines = [repr(one) for one in self.continuations]
        if self.same is not None:
            lines.append("base and adapter wrote the same tokens" if self.same else "base and adapter differ")
        return "\n".join([*lines, *([self.drift.to_text()] if self.drift is not None else [])])

    def to_text(self) -> str:
        asked = f"prompt ({self.prompt_tokens} tokens, {'chat' if self.chat else 'raw'}): {printable(self.prompt)}"
        texts = [f"--- {one.label}\n{printable(one.text)}" for one in self.continuations]
        return "\n".join([asked, *texts, "---", self.facts()])

    def to_html(self) -> str:
        columns = ("", *(one.label for one in self.continuations))
        rows = [
            ("text", *(printable(one.text) for one in self.continuations)),
            ("tokens", *(one.n_tokens for one in self.continuations)),
            ("stopped by", *(one.stop for one in self.continuations)),
            ("repetition", *(one.repetition for one in self.continuations)),
            ("tokens per second", *(one.tokens_per_second for one in self.continuations)),
        ]
        # texts may wrap; the table keeps every other cell on one line
        table = table_html(columns, rows, caption=printable(self.prompt)).replace("nowrap", "pre-wrap")
        return table + (self.drift.to_html() if self.drift is not None else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteLine(Record):
    """One prompt of a suite, as one line of its output; `setting` names model, adapter and options by digest."""

    index: int
    setting: str
    prompt: str
    answer: str | None
    continuations: tuple[Continuation, ...]
    drift: PromptDrift | None

    def found(self, position: int) -> bool:
        """Whether the text of continuation `position` contains the answer."""
        return self.answer is not None and contains_answer(self.continuations[position].text, self.answer)


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite(Record):
    """The rates of a suite of prompts by name, base and adapter, and the paired test of the answers."""

    model: str
    adapter: str | None
    source: str
    output: str | None
    n_prompts: int
    n_resumed: int  # prompts that the output already held
    measured: dict[str, Measurement]
    only_base: int | None  # answers that only the base's text contains; None without answers or adapter
    only_adapter: int | None
    p_value: float | None  # of that difference: McNemar's exact test, two-sided
    drift: DriftScan | None
    lines: tuple[SuiteLine, ...]  # prompt by prompt; empty where they went into `output`

    def summary(self) -> str:
        return f"Suite({self.n_prompts} prompts of {self.source!r}, {self.n_resumed} resumed)"

    def to_text(self) -> str:
        beside = f" and {self.adapter}" if self.adapter else ""
        lines = [f"{self.n_prompts} prompts of {self.source} on {self.model}{beside}, {self.n_resumed} resumed"]
        lines += [f"  {name:26}{measured!r}" for name, measured in self.measured.items()]
        if self.p_value is not None:
            lines.append(f"  {self._paired()}")
        if self.drift is not None:
            lines += [f"  drift: {name:26}{measured!r}" for name, measured in self.drift.measured.items()]
        lines.append(f"  prompt by prompt: {self.output}" if self.output else "  nothing was written; -o FILE keeps it")
        return "\n".join(printable(line) for line in lines)

    def to_html(self) -> str:
        rows = [(name, repr(measured), measured.operator) for name, measured in self.measured.items()]
        if self.p_value is not None:
            rows.append(("answers, paired", self._paired(), "exact McNemar test"))
        table = table_html(("quantity", "measured", "how"), rows, caption=f"{self.n_prompts} prompts of {self.source}")
        return table + (self.drift.to_html() if self.drift is not None else "")

    def _paired(self) -> str:
        return f"only the base right {self.only_base}, only the adapter {self.only_adapter}, p = {self.p_value:.3g}"


def infer(
    model: str | Path | Checkpoint,
    prompt: str,
    *,
    adapter: str | Path | None = None,
    chat: bool | None = None,
    max_tokens: int = 256,
    scan: bool = False,
    null_draws: int = 1,
    seed: int = 0,
    device: str = "auto",
    on_text: OnText | None = None,
) -> Inference:
    """Continue one prompt greedily with the base, and with `adapter` beside it; `on_text(label, piece)` hears the stream.

    `chat` None renders the prompt as a user turn where the tokenizer has a template. `scan` adds the drift scan, for which
    `seed` draws `null_draws` random adapters. Raises `InputError` for what cannot be used, before weights are loaded.

    >>> infer("embedded", "Once", chat=False, max_tokens=3).continuations[0].n_tokens
    3
    """
    _check(max_tokens, scan, adapter, null_draws)
    checkpoint, folder, (checked,) = _open(model, adapter, [prompt], chat)
    bench = Bench.open(checkpoint, {ADAPTER: folder} if folder else {}, device=device)
    drawn = {"null_draws": null_draws, "seed": seed} if scan else None
    written, drift = _continue(bench, checked, max_tokens, drawn, on_text)
    return Inference(
        model=checkpoint.source,
        adapter=None if adapter is None else str(adapter),
        prompt=prompt,
        chat=checked.chat,
        prompt_tokens=len(checked.ids),
        continuations=written,
        drift=None if drift is None else summarise([drift], seed=seed),
    )


def infer_suite(
    model: str | Path | Checkpoint,
    source: str | Path,
    *,
    adapter: str | Path | None = None,
    output: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    chat: bool | None = None,
    max_tokens: int = 256,
    scan: bool = False,
    null_draws: int = 1,
    seed: int = 0,
    device: str = "auto",
    progress: Progress | None = None,
) -> Suite:
    """`infer` over every prompt of a file (`read_suite_prompts`): one JSON line a prompt into `output`, the rates of all.

    `resume` goes on behind the whole lines that `output` holds (a half line at its end is dropped); they must be of the
    same model, adapter, prompts and options. Raises `InputError` for what cannot be used, before weights are loaded.
    """
    _check(max_tokens, scan, adapter, null_draws)
    prompts = read_suite_prompts(source)
    checkpoint, folder, checked = _open(model, adapter, [one.text for one in prompts], chat)
    drawn = {"null_draws": null_draws, "seed": seed} if scan else None
    setting = _setting(checkpoint, folder, [max_tokens, checked[0].chat, drawn])
    lines = _prepare(output, prompts, setting, resume=resume, overwrite=overwrite)
    resumed = len(lines)
    if progress is not None:
        progress(resumed, len(prompts), "")
    bench = None
    for index in range(resumed, len(prompts)):
        if bench is None:
            bench = Bench.open(checkpoint, {ADAPTER: folder} if folder else {}, device=device)
            if output is not None and not lines:
                Path(output).write_bytes(b"")  # an older file goes only when the models are there
        written, drift = _continue(bench, checked[index], max_tokens, drawn)
        line = SuiteLine(
            index=index,
            setting=setting,
            prompt=prompts[index].text,
            answer=prompts[index].answer,
            continuations=written,
            drift=drift,
        )
        if output is not None:
            _append(Path(output), line)
        lines.append(line)
        if progress is not None:
            progress(index + 1, len(prompts), prompts[index].text)
    paired = _paired(lines) if folder else None
    return Suite(
        model=checkpoint.source,
        adapter=None if adapter is None else str(adapter),
        source=str(source),
        output=None if output is None else str(output),
        n_prompts=len(lines),
        n_resumed=resumed,
        measured=_rates(lines),
        only_base=paired[0] if paired else None,
        only_adapter=paired[1] if paired else None,
        p_value=mcnemar(*paired) if paired else None,
        drift=summarise([line.drift for line in lines if line.drift is not None], seed=seed) if scan else None,
        lines=() if output is not None else tuple(lines),
    )


def _check(max_tokens: int, scan: bool, adapter: Any, null_draws: int) -> None:
    check_max_tokens(max_tokens)
    check_draws(null_draws)
    if scan and adapter is None:
        raise InputError("the drift scan holds an adapter against its base, and none was given: give one with -a.")


def _open(
    model: Any, adapter: str | Path | None, texts: Sequence[str], chat: bool | None
) -> tuple[Checkpoint, Path | None, list[Prompt]]:
    """Checkpoint, adapter's folder and encoded prompts: all that can be refused without loading weights."""
    folder = None if adapter is None else adapter_folder(adapter)
    checkpoint = model if isinstance(model, Checkpoint) else Checkpoint.open(model)
    tokenizer = checkpoint.load_tokenizer()
    return (
        checkpoint,
        folder,
        [encode_prompt(tokenizer, one, chat=chat, context=checkpoint.context_length) for one in texts],
    )


def _continue(
    bench: Bench, prompt: Prompt, max_tokens: int, drawn: dict[str, int] | None, on_text: OnText | None = None
) -> tuple[tuple[Continuation, ...], PromptDrift | None]:
    """What every model of the bench writes, the base first; and the drift where `drawn` says how to draw its null."""
    written = []
    for label in (None, *bench.labels):
        tell = None if on_text is None else functools.partial(on_text, label or BASE)
        if tell is not None:
            tell("")  # a heading, even where nothing is written under it
        written.append(generate(bench, prompt, label=label, max_tokens=max_tokens, on_text=tell))
    if drawn is None:
        return tuple(written), None
    scanned = scan_prompt(bench, prompt, label=ADAPTER, max_tokens=max_tokens, continuation=written[1], **drawn)
    return tuple(written), scanned


def _setting(checkpoint: Checkpoint, folder: Path | None, options: list[Any]) -> str:
    adapter = [file_digest(folder / name) for name in (WEIGHTS, CONFIG)] if folder else None
    told = json.dumps([checkpoint.digest, adapter, options], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()


def _prepare(
    output: str | Path | None, prompts: Sequence[SuitePrompt], setting: str, *, resume: bool, overwrite: bool
) -> list[SuiteLine]:
    """Make `output` ready to be appended to, and return the lines that it keeps."""
    if resume and (output is None or overwrite):
        raise InputError(
            "--resume goes on with an output file, and none was given: name it with -o."
            if output is None
            else "--resume and --overwrite exclude each other; give one of them."
        )
    if output is None:
        return []
    path = Path(output)
    if not path.absolute().parent.is_dir() or path.is_dir():
        raise InputError(f"the output {path} is a folder or lies in none; allowed is a file in one that is there.")
    if path.exists() and not resume and not overwrite:
        raise InputError(f"{path} exists; allowed is a new file: give --resume to go on, or --overwrite.")
    if not path.exists() or overwrite:
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    lines = [_read_line(path, i, row, prompts, setting) for i, row in enumerate(whole.split(b"\n")[:-1])]
    if len(whole) < len(content):
        os.truncate(path, len(whole))  # a kill in mid-write left half a line
    return lines


def _read_line(path: Path, index: int, row: bytes, prompts: Sequence[SuitePrompt], setting: str) -> SuiteLine:
    try:
        line = SuiteLine.from_json(row)
    except (InputError, UnicodeDecodeError, AttributeError, TypeError, ValueError):
        raise InputError(
            f"{path} line {index + 1} is no line of a suite: give another output, or --overwrite."
        ) from None
    given = (prompts[index].text, prompts[index].answer) if index < len(prompts) else None
    if (line.index, line.setting) != (index, setting) or (line.prompt, line.answer) != given:
        raise InputError(
            f"{path} line {index + 1} is of another model, adapter, prompt or option; --resume goes on with the same "
            "ones: give another output, or --overwrite."
        )
    return line


def _append(path: Path, line: SuiteLine) -> None:
    with path.open("ab") as stream:
        stream.write(line.to_json().encode() + b"\n")
        stream.flush()
        os.fsync(stream.fileno())


def _rates(lines: Sequence[SuiteLine]) -> dict[str, Measurement]:
    answered = [line for line in lines if line.answer is not None]
    measured: dict[str, Measurement] = {}
    for position, label in enumerate(one.label for one in lines[0].continuations):
        written = [line.continuations[position] for line in lines]
        kinds = [
            ("ended by itself", [one.ended for one in written], "stopped by an end token"),
            ("loops", [one.repetition > LOOP for one in written], "more than 1/3 of the 4-grams repeat"),
            (
                "answer found",
                [line.found(position) for line in answered],
                "the text contains the answer as a whole word",
            ),
        ]
        for name, holds, said in kinds:
            if holds:
                measured[f"{label}: {name}"] = _rate(holds, said, measured.get(f"{BASE}: {name}"))
    if len(lines[0].continuations) > 1:
        differ = [line.continuations[0].tokens != line.continuations[1].tokens for line in lines]
        measured["adapter differs from base"] = _rate(differ, "the tokens are not the same", None)
    return measured


def _rate(holds: Sequence[bool], said: str, base: Measurement | None) -> Measurement:
    count = sum(holds)
    return Measurement(
        value=count / len(holds),
        interval=wilson(count, len(holds)),
        n=len(holds),
        null=None if base is None else base.value,
        unit="of prompts",
        operator=f"greedy; {said}; Wilson interval, 95 %{'' if base is None else '; null: the base'}",
    )


def _paired(lines: Sequence[SuiteLine]) -> tuple[int, int] | None:
    """How many answers only the base, and only the adapter, found."""
    found = [(line.found(0), line.found(1)) for line in lines if line.answer is not None]
    return (found.count((True, False)), found.count((False, True))) if found else None
