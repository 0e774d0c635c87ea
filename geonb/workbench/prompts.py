"""Prompts put to the base and to an adapter: greedy generations side by side, answers checked, loops counted."""

from __future__ import annotations

import hashlib
import html
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geonb.errors import InputError
from geonb.geometry.measurement import Measurement
from geonb.records import Record, is_file, plain, read_bytes
from geonb.workbench.compare_adapters import (
    DEGENERATED,
    DEGRADED,
    ERROR_RATE,
    IMPROVED,
    SAME_WITHIN_NOISE,
    PairedCounts,
    paired_counts,
    paired_difference,
)

SAME, NOT_CHECKABLE = "same", "not checkable"
# a continuation in which more than a third of the 4-grams repeat reads as a loop, as in the verification of a run
LOOP = 1 / 3
# prompts generated at once: equal lengths run as one batch, and a cache of 16 long prompts fits where one does
_BLOCK = 16

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Prompt:
    """One checked prompt: its text as the model reads it, its token ids, and the answer to look for."""

    text: str
    ids: tuple[int, ...]
    answer: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation(Record):
    """A greedy continuation; `repetition` is the share of repeated token 4-grams (0..1), end token excluded."""

    text: str
    tokens: int
    repetition: float
    ended: bool  # the end token came within the limit
    has_answer: bool | None  # None where the prompt names no answer


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptResult(Record):
    """One prompt with both generations; `outcome` is improved, degraded, same, degenerated or not checkable."""

    prompt: str
    answer: str | None
    base: Generation
    adapted: Generation
    differs: bool
    outcome: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptsCompared(Record):
    """Every prompt with both generations, and the paired tests over all of them (first: base, second: adapter)."""

    digest: str  # of token ids, answers and the limit: equal where the same questions were put
    max_tokens: int
    results: tuple[PromptResult, ...]
    answers: PairedCounts | None  # over the prompts with an answer
    loops: PairedCounts
    endings: PairedCounts
    repetition: Measurement  # adapter minus base
    outcome: str
    because: str

    def summary(self) -> str:
        return f"PromptsCompared({len(self.results)} prompts: {self.outcome})"

    def to_text(self) -> str:
        lines = []
        for number, one in enumerate(self.results, 1):
            lines.append(f"prompt {number}: {one.outcome}" + (f" (answer {one.answer!r})" if one.answer else ""))
            # repr keeps control characters of a generation from reaching a terminal
            lines.append(f"  prompt   {one.prompt!r}")
            lines += [
                f"  {name:<8} {made.text!r}  [{_marks(made)}]"
                for name, made in (("base", one.base), ("adapter", one.adapted))
            ]
        lines += ["", *(f"{label:<22} {told}" for label, told in self._totals())]
        return "\n".join(plain(line) for line in lines)

    def to_html(self) -> str:
        cell = 'style="padding:4px 10px;vertical-align:top;text-align:left;white-space:pre-wrap;overflow-wrap:anywhere"'
        head = "".join(f"<th {cell}>{name}</th>" for name in ("prompt", "base model", "adapter", "outcome"))
        rows = "".join(
            "<tr>"
            + "".join(
                f"<td {cell}>{html.escape(text)}</td>"
                for text in (
                    one.prompt + (f"\n[answer: {one.answer}]" if one.answer else ""),
                    f"{one.base.text}\n[{_marks(one.base)}]",
                    f"{one.adapted.text}\n[{_marks(one.adapted)}]",
                    one.outcome,
                )
            )
            + "</tr>"
            for one in self.results
        )
        totals = "".join(
            f"<tr><th {cell}>{html.escape(label)}</th><td {cell}>{html.escape(told)}</td></tr>"
            for label, told in self._totals()
        )
        table = '<table style="border-collapse:collapse;width:100%">'
        return (
            f"{table}<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>{table}<tbody>{totals}</tbody></table>"
        )

    def _totals(self) -> list[tuple[str, str]]:
        told = [("with the answer", _told(self.answers))] if self.answers is not None else []
        return [
            *told,
            ("loops", _told(self.loops)),
            ("ended by itself", _told(self.endings)),
            ("repetition", repr(self.repetition)),
            ("outcome", f"{self.outcome}: {self.because}"),
        ]


# -- reading ----------------------------------------------------------------------------------------------------------


def read_prompts(path: str | Path, tokenizer: Any, *, context: int | None, limit: int | None = None) -> list[Prompt]:
    """The prompts of a JSONL file: {"prompt": TEXT} or {"messages": [...]}, each with an optional "answer".

    Messages are rendered by the chat template up to where the assistant begins; a last turn of the assistant is left
    out, so that data with reference replies serves as well. Raises `InputError` with the line's number.

    >>> read_prompts("prompts.jsonl", tokenizer, context=2048)   # doctest: +SKIP
    [Prompt(text='Two and two make', ids=(512, 7), answer='four')]
    """
    path = Path(path)
    if not is_file(path):
        raise InputError(f'{path} is not a file; prompts are JSONL of {{"prompt": "..."}}: check the path.')
    try:
        # only line feeds end a record: JSON strings may hold other separators of lines
        lines = read_bytes(path).decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text (byte {error.start}); allowed is JSONL in UTF-8.") from None
    found = []
    for number, line in enumerate(lines, 1):
        if line.strip() and (limit is None or len(found) < limit):
            found.append(_prompt(f"{path} line {number}", line, tokenizer, context))
    if not found:
        raise InputError(f'{path} is empty; it needs at least one prompt a line, such as {{"prompt": "..."}}.')
    return found


def _prompt(where: str, line: str, tokenizer: Any, context: int | None) -> Prompt:
    from geonb.data.records import json_of_line
    from geonb.data.template import CannotRender, render

    data = json_of_line(where, line)
    if not isinstance(data, dict) or ("prompt" in data) == ("messages" in data):
        raise InputError(f'{where} needs exactly one of the fields "prompt" and "messages": mend the line.')
    answer = data.get("answer")
    if answer is not None and not (isinstance(answer, str) and answer.strip()):
        raise InputError(f'{where} has an "answer" that is not a non-empty string: mend the line, or leave it out.')
    if "prompt" in data:
        text = data["prompt"]
        if not isinstance(text, str) or not text.strip():
            raise InputError(f'{where} has a "prompt" that is not a non-empty string: mend or remove the line.')
        ids = list(tokenizer(text, verbose=False)["input_ids"])
        # some tokenizers close every text; a continuation starts before the end
        if len(ids) > 1 and ids[-1] == tokenizer.eos_token_id:
            ids.pop()
    else:
        messages = _messages(where, data["messages"])
        try:
            text = render(tokenizer, messages, prompt=True)
        except CannotRender as error:
            raise InputError(
                f"{where}: the chat template refuses these messages ({error.reason}): mend the line."
            ) from None
        ids = list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
    if not ids or (context is not None and len(ids) >= context):
        raise InputError(
            f"{where} has {len(ids)} tokens; allowed are 1 to {(context or 0) - 1}, so that the model's context of {context} "
            "leaves room for a reply: shorten the prompt."
            if ids
            else f"{where} has no token to continue from: mend or remove the line."
        )
    return Prompt(text=text, ids=tuple(ids), answer=answer)


def _messages(where: str, messages: Any) -> list[dict[str, str]]:
    if not isinstance(messages, list) or not all(
        isinstance(one, dict) and isinstance(one.get("role"), str) and isinstance(one.get("content"), str)
        for one in messages
    ):
        raise InputError(f'{where} has "messages" that are not a list of {{"role", "content"}} strings: mend the line.')
    asked = [{"role": one["role"], "content": one["content"]} for one in messages]
    if asked and asked[-1]["role"] == "assistant":
        asked.pop()
    if not asked:
        raise InputError(f"{where} has no turn before the assistant's, so there is nothing to reply to: mend the line.")
    return asked


def prompts_digest(prompts: Sequence[Prompt], max_tokens: int) -> str:
    """sha256 over the limit, token ids and answers in order."""
    told = json.dumps([max_tokens, *([list(one.ids), one.answer] for one in prompts)])
    return hashlib.sha256(told.encode()).hexdigest()


# -- generating and checking ------------------------------------------------------------------------------------------


def generate(
    bench: Any, label: str | None, prompts: Sequence[Prompt], *, max_tokens: int, progress: Progress | None = None
) -> list[Generation]:
    """What the model with the adapter `label` (None: the base) writes after each prompt, greedily.

    A continuation ends at the tokenizer's end token or at any that the model's generation config names, after
    `max_tokens`, or where the model's context is full.
    """
    from geonb.train.probes import repetition_rate

    tokenizer = bench.runtime.tokenizer
    named = getattr(getattr(bench.model, "generation_config", None), "eos_token_id", None)
    ends = {tokenizer.eos_token_id, *(named if isinstance(named, list | tuple) else [named])} - {None}
    found = []
    with bench.using(label):
        for start in range(0, len(prompts), _BLOCK):
            block = prompts[start : start + _BLOCK]
            if progress is not None:
                progress(f"generating with {label or 'the base'}: prompt {start + 1} of {len(prompts)}")
            for one, tokens in zip(
                block, bench.runtime.generate([list(one.ids) for one in block], max_new_tokens=max_tokens), strict=True
            ):
                stop = next((place for place, token in enumerate(tokens) if token in ends), None)
                written = tokens if stop is None else tokens[:stop]
                text = tokenizer.decode(written, skip_special_tokens=True)
                found.append(
                    Generation(
                        text=text,
                        tokens=len(written),
                        repetition=repetition_rate(written),
                        ended=stop is not None,
                        has_answer=None if one.answer is None else contains_answer(text, one.answer),
                    )
                )
    return found


def contains_answer(text: str, answer: str) -> bool:
    """Whether `answer` stands in `text` as a whole word or number.

    Both are case-folded, runs of white space become one space, and commas between groups of three digits are dropped.
    Beside the answer may stand no letter, digit or underscore, and beside a digit of it no decimal point or comma with
    a digit behind it and no minus sign: 12 is not in 112, 12.5, -12 or 1.12, but it is in "= 12." and in "12,".

    >>> contains_answer("That makes 1,200 pieces.", "1200"), contains_answer("That makes 112.", "12")
    (True, False)
    """
    haystack, needle = _normal(text), re.escape(_normal(answer))
    before = r"(?<![\w])" + (r"(?<!-)(?<!\d[.,])" if _normal(answer)[:1].isdigit() else "")
    after = r"(?!\w)" + (r"(?![.,]\d)" if _normal(answer)[-1:].isdigit() else "")
    return re.search(before + needle + after, haystack) is not None


def _normal(text: str) -> str:
    return re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", " ".join(text.casefold().split()))


# -- comparing --------------------------------------------------------------------------------------------------------


def compare_generations(
    prompts: Sequence[Prompt], base: Sequence[Generation], adapted: Sequence[Generation], *, max_tokens: int, seed: int
) -> PromptsCompared:
    """Both generations of every prompt and the outcome over all.

    A prompt is degenerated where only the adapter loops (repetition above 1/3), whatever else it says; improved or
    degraded where only the adapter or only the base has the answer; same where both or neither has it, or where the
    texts are equal; else not checkable. Over all: degenerated where the adapter adds more loops than chance explains
    (McNemar, exact), else by McNemar on the answers where there are any, else improved where it mends loops. With
    answers two tests are made, each at 2.5 %, so that both together err in at most 5 %.
    """
    checked = [(one.has_answer, other.has_answer) for one, other in zip(base, adapted, strict=True)]
    pairs = [(bool(one), bool(other)) for one, other in checked if one is not None]
    answers = paired_counts(*zip(*pairs, strict=True)) if pairs else None
    loops = paired_counts([one.repetition > LOOP for one in base], [one.repetition > LOOP for one in adapted])
    outcome, because = _outcome(answers, loops)
    repetition = paired_difference(
        [one.repetition for one in base], [one.repetition for one in adapted], "share of repeated 4-grams", seed
    )
    return PromptsCompared(
        digest=prompts_digest(prompts, max_tokens),
        max_tokens=max_tokens,
        results=tuple(
            PromptResult(
                prompt=prompt.text,
                answer=prompt.answer,
                base=one,
                adapted=other,
                differs=one.text != other.text,
                outcome=_one(one, other),
            )
            for prompt, one, other in zip(prompts, base, adapted, strict=True)
        ),
        answers=answers,
        loops=loops,
        endings=paired_counts([one.ended for one in base], [one.ended for one in adapted]),
        repetition=repetition,
        outcome=outcome,
        because=because,
    )


def _one(base: Generation, adapted: Generation) -> str:
    if adapted.repetition > LOOP >= base.repetition:
        return DEGENERATED
    if base.has_answer is not None:
        if base.has_answer == adapted.has_answer:
            return SAME
        return IMPROVED if adapted.has_answer else DEGRADED
    return SAME if base.text == adapted.text else NOT_CHECKABLE


def _outcome(answers: PairedCounts | None, loops: PairedCounts) -> tuple[str, str]:
    level = ERROR_RATE / (2 if answers is not None else 1)
    looping = f"{loops.only_second} of {loops.n} prompts loop only with the adapter, {loops.only_first} only without"
    if loops.p < level and loops.only_second > loops.only_first:
        return DEGENERATED, f"{looping} (McNemar p = {loops.p:.3g} < {level:g})"
    if answers is None:
        sign = "<" if loops.p < level else ">="
        outcome = IMPROVED if loops.p < level else SAME_WITHIN_NOISE
        return outcome, f"no prompt names an answer, and {looping} (McNemar p = {loops.p:.3g} {sign} {level:g})"
    because = (
        f"{answers.only_second} of {answers.n} answers come only with the adapter, {answers.only_first} only without "
        f"(McNemar p = {answers.p:.3g} {'<' if answers.p < level else '>='} {level:g})"
    )
    if answers.p >= level:
        return SAME_WITHIN_NOISE, because
    return IMPROVED if answers.only_second > answers.only_first else DEGRADED, because


def _marks(made: Generation) -> str:
    told = [f"repetition {made.repetition:.2f}", "ended" if made.ended else "no end token"]
    if made.has_answer is not None:
        told.append("has the answer" if made.has_answer else "lacks the answer")
    return ", ".join(told)


def _told(counts: PairedCounts) -> str:
    return (
        f"base {counts.first}, adapter {counts.second} of {counts.n} (only base {counts.only_first}, only adapter "
        f"{counts.only_second}, McNemar p = {counts.p:.3g})"
    )
