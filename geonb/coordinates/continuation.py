"""A finished continuation as a record: the text, and where it was sampled and why."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from geonb.coordinates.decoding import GeneratedToken
from geonb.records import Record, plain


@dataclass(frozen=True, slots=True, kw_only=True)
class Continuation(Record):
    """What followed a prompt."""

    prompt: str
    text: str
    tokens: int
    sampled: int  # how many were drawn rather than the likeliest
    uncertainty: tuple[float, ...]
    entropy: tuple[float, ...]

    @classmethod
    def of(cls, prompt: str, made: Sequence[GeneratedToken], tokenizer: Any) -> Continuation:
        """From the tokens as they were made."""
        return cls(
            prompt=prompt,
            text=tokenizer.decode([one.token for one in made], skip_special_tokens=True),
            tokens=len(made),
            sampled=sum(one.sampled for one in made),
            uncertainty=tuple(one.uncertainty for one in made),
            entropy=tuple(one.entropy for one in made),
        )

    def summary(self) -> str:
        return f"Continuation({self.tokens} tokens, {self.sampled} sampled)"

    def to_text(self) -> str:
        return plain(self.prompt + self.text, keep="\n\t")

    def to_html(self) -> str:
        prompt, text = html.escape(self.prompt), html.escape(self.text)
        return f'<p style="white-space:pre-wrap"><span style="opacity:.6">{prompt}</span>{text}</p>'


@dataclass(frozen=True, slots=True, kw_only=True)
class StylePath(Record):
    """One prompt continued under styles on the way from one example to another."""

    first: str
    second: str
    shares: tuple[float, ...]
    kernel_to_first: tuple[float, ...]
    continuations: tuple[Continuation, ...]

    def summary(self) -> str:
        return f"StylePath({len(self.shares)} styles)"

    def to_text(self) -> str:
        rows = zip(self.shares, self.kernel_to_first, self.continuations, strict=True)
        return "\n".join(plain(f"{share:4.0%}  k {k:6.3f}  {one.prompt}{one.text}") for share, k, one in rows)

    def to_html(self) -> str:
        rows = zip(self.shares, self.kernel_to_first, self.continuations, strict=True)
        cells = "".join(
            f"<tr><td>{s:.0%}</td><td>{k:.3f}</td><td>{html.escape(one.prompt + one.text)}</td></tr>"
            for s, k, one in rows
        )
        return f"<table><tr><th>share</th><th>k with the first</th><th>text</th></tr>{cells}</table>"
