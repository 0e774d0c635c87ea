"""What base and adapter write after the same held-out openings: to be read, not to be judged by."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any

from geonb.records import Record

# few enough to read, and to generate in a second on a small model
N_SAMPLES = 4
_NEW_TOKENS = 48


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample(Record):
    """One opening of the evaluation examples and the greedy continuation of each model."""

    prompt: str
    base: str
    adapted: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples(Record):
    """The openings of a run with both continuations; the text is whatever the models wrote."""

    samples: tuple[Sample, ...]

    def summary(self) -> str:
        return f"Samples({len(self.samples)} prompts)"

    def to_text(self) -> str:
        lines = []
        for sample in self.samples:
            lines += [f"prompt   {sample.prompt!r}", f"base     {sample.base!r}", f"adapter  {sample.adapted!r}", ""]
        # repr keeps control characters of a generation from reaching a terminal
        return "\n".join(lines).rstrip()

    def to_html(self) -> str:
        cell = 'style="padding:4px 10px;vertical-align:top;text-align:left;white-space:pre-wrap;overflow-wrap:anywhere"'
        head = "".join(f"<th {cell}>{name}</th>" for name in ("opening", "base model", "adapter"))
        rows = "".join(
            "<tr>"
            + "".join(f"<td {cell}>{html.escape(text)}</td>" for text in (one.prompt, one.base, one.adapted))
            + "</tr>"
            for one in self.samples
        )
        return f'<table style="border-collapse:collapse;width:100%"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'


def openings(equipment: Any) -> list[tuple[int, ...]]:
    """The token ids of the first openings of the evaluation examples."""
    return [example.prompt_ids for example in equipment.evaluation[:N_SAMPLES] if example.prompt_ids]


def continuations(equipment: Any) -> list[str]:
    """What the model as it stands writes after each opening, greedily."""
    tokens = equipment.runtime.generate(openings(equipment), max_new_tokens=_NEW_TOKENS)
    return [equipment.runtime.tokenizer.decode(one, skip_special_tokens=True) for one in tokens]


def samples(equipment: Any, base: list[str], adapted: list[str]) -> Samples:
    """The record of both models' continuations."""
    decode = equipment.runtime.tokenizer.decode
    prompts = [decode(one, skip_special_tokens=True) for one in openings(equipment)]
    return Samples(
        samples=tuple(
            Sample(prompt=prompt, base=first, adapted=second)
            for prompt, first, second in zip(prompts, base, adapted, strict=True)
        )
    )
