"""A finished continuation as a record: the text, and where it was sampled and why."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from geonb.coordinates.decoding import GeneratedToken
from geonb.coordinates.streaming import Streaming
from geonb.records import Record, plain


@dataclass(frozen=True, slots=True, kw_only=True)
class Continuation(Record):
    """What followed a prompt, token by token."""

    prompt: str
    text: str
    tokens: int
    sampled: int  # how many were drawn rather than the likeliest
    uncertainty: tuple[float, ...]
    entropy: tuple[float, ...]
    pieces: tuple[str, ...]  # what each token added to the text; "" where a letter is not whole yet
    drawn: tuple[bool, ...]
    angles: tuple[float, ...]  # radians that the coordinate moved by, before each token
    decoding: str
    threshold: float | None  # of u or in nats; None for a decoding that does not switch

    @classmethod
    def of(
        cls,
        prompt: str,
        made: Sequence[GeneratedToken],
        tokenizer: Any,
        *,
        decoding: str = "greedy",
        threshold: float | None = None,
    ) -> Continuation:
        """From the tokens as they were made."""
        stream = Streaming(tokenizer)
        pieces = [stream.add(one.token) for one in made]
        return cls(
            prompt=prompt,
            text=stream.whole,
            tokens=len(made),
            sampled=sum(one.sampled for one in made),
            uncertainty=tuple(one.uncertainty for one in made),
            entropy=tuple(one.entropy for one in made),
            pieces=tuple(pieces),
            drawn=tuple(one.sampled for one in made),
            angles=tuple(one.angle for one in made),
            decoding=decoding,
            threshold=threshold if decoding in ("coordinates", "entropy") else None,
        )

    @property
    def share(self) -> float:
        """The share of the tokens that was drawn."""
        return self.sampled / self.tokens if self.tokens else 0.0

    @property
    def travel(self) -> float:
        """How far the coordinate went from the end of the prompt on, in radians along its sphere."""
        return sum(self.angles[1:])  # the first angle is the prompt's own last step

    def summary(self) -> str:
        return f"Continuation({self.tokens} tokens, {self.sampled} sampled)"

    def statistics(self) -> str:
        """One line: what was drawn and why, and what the coordinate did."""
        if not self.tokens:
            return "nothing was said"
        unit = "an entropy of" if self.decoding == "entropy" else "an uncertainty of"
        rule = f" (above {unit} {self.threshold:.3g})" if self.threshold is not None else ""
        mean = sum(self.uncertainty) / self.tokens
        return (
            f"{self.decoding}: {self.sampled} of {self.tokens} tokens drawn, {self.share:.0%}{rule}; uncertainty {mean:.3f} on "
            f"average, {max(self.uncertainty):.3f} at most; theta travelled {self.travel:.2f} rad; "
            f"entropy {sum(self.entropy) / self.tokens:.2f} nats on average"
        )

    def marked(self, before: str, after: str) -> str:
        """The text with every drawn token between two marks."""
        pairs = zip(self.pieces, self.drawn, strict=True)
        return "".join(f"{before}{piece}{after}" if drawn and piece else piece for piece, drawn in pairs)

    def to_text(self) -> str:
        return plain(self.prompt + self.text, keep="\n\t")

    def to_html(self) -> str:
        pairs = zip(self.pieces, self.drawn, strict=True)
        text = "".join(
            f'<mark style="background:#E69F0055;color:inherit" title="drawn">{html.escape(piece)}</mark>'
            if drawn and piece
            else html.escape(piece)
            for piece, drawn in pairs
        )
        return (
            f'<p style="white-space:pre-wrap"><span style="opacity:.6">{html.escape(self.prompt)}</span>{text}</p>'
            f'<p style="opacity:.7">{html.escape(self.statistics())}; drawn tokens are marked</p>'
        )


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
