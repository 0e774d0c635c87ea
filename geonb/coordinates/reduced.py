"""What fewer bits or fewer computations do to what a model says, measured on held-out texts: bytes, logits, loss."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from geonb.coordinates.analyze import encoded
from geonb.coordinates.calibration import held_out_texts
from geonb.coordinates.lipschitz import ChangeBounds
from geonb.coordinates.model import CoordinateModel
from geonb.coordinates.quantise import quantise_phases, quantise_weights, restore_phases, stored_bytes
from geonb.coordinates.reader import Reader
from geonb.coordinates.reuse import Reuse
from geonb.records import Record, plain

_TEXTS, _LONGEST = 12, 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Reduced(Record):
    """A reduced way to read beside the full one, over all tokens of some held-out texts."""

    name: str
    bytes_before: int | None  # None where none are saved
    bytes_after: int | None
    of_what: str  # what takes the bytes
    logit_change: float  # ||after - before|| / ||before|| of all logits together
    largest_change: float  # of a logit
    agreement: float  # share of the tokens after which the likeliest is the same
    loss_before: float  # nats a token
    loss_after: float
    tokens: int
    certified: float | None  # the largest bound of ||dW - dW'||_2 over matrices, in budgets; None where none is proved

    def summary(self) -> str:
        told = (
            f"{plain(self.name)}: {self._sizes()}logits off by {self.logit_change:.2%} (largest {self.largest_change:.3g}), "
            f"likeliest token the same {self.agreement:.1%}, held out {self.loss_before:.4f} -> {self.loss_after:.4f} nats"
        )
        return (
            told if self.certified is None else f"{told}; weights within {self.certified:.3g} of the budget, certified"
        )

    def _sizes(self) -> str:
        if self.bytes_before is None or self.bytes_after is None:
            return ""
        return f"{_told(self.bytes_before)} -> {_told(self.bytes_after)} {plain(self.of_what)}; "

    def to_text(self) -> str:
        return self.summary()

    def to_html(self) -> str:
        return f"<p>{html.escape(self.summary())}</p>"


def reduced_weights(model: CoordinateModel, tokenizer: Any, *, texts: Sequence[str] | None = None) -> Reduced:
    """Round the weights of `model` to int8 in place, and measure what that did."""
    rows = _rows(model, tokenizer, texts)
    before, size = _read(model, rows), stored_bytes(model)
    quantise_weights(model)
    return _compare("int8 weights", rows, before, _read(model, rows), (size, stored_bytes(model)), "of weights", None)


def reduced_phases(model: CoordinateModel, tokenizer: Any, *, texts: Sequence[str] | None = None) -> Reduced:
    """Read with every phase rounded to 8 bits, and measure it; a coordinate then is a byte a pair and layer."""
    rows = _rows(model, tokenizer, texts)
    codes = sum(layer.directions.directions.shape[0] for layer in model.uses)
    return _compare(
        "8-bit phases",
        rows,
        _read(model, rows),
        _read(model, rows, phases="int8"),
        (4 * model.sizes.coordinates, codes),
        "a coordinate",
        max(_rounded(ChangeBounds(model), model, row) for row in rows),
    )


def reduced_cores(
    model: CoordinateModel, tokenizer: Any, tolerance: float, *, texts: Sequence[str] | None = None
) -> tuple[Reduced, Reuse]:
    """Read token by token with cores reused within `tolerance` of the budget, and measure it; the policy says how often."""
    rows, policy = _rows(model, tokenizer, texts), Reuse.of(model, tolerance)
    after = _read(model, rows, reuse=policy)
    name = f"cores within {tolerance:g} of the budget, {policy.share:.0%} reused"
    return _compare(name, rows, _read(model, rows), after, None, "", policy.largest), policy


def _rows(model: CoordinateModel, tokenizer: Any, texts: Sequence[str] | None) -> list[list[int]]:
    given = held_out_texts(_TEXTS, seed=1) if texts is None else texts
    return [encoded(tokenizer, text)[: min(_LONGEST, model.sizes.context)] for text in given]


@torch.no_grad()
def _read(
    model: CoordinateModel, rows: list[list[int]], *, phases: str = "float32", reuse: Reuse | None = None
) -> list[Tensor]:
    found = []
    for row in rows:
        reader = Reader(model, phases=phases, reuse=reuse)
        if reuse is None and phases == "float32":
            found.append(model(torch.tensor([row])).logits[0])
        else:
            found.append(torch.stack([reader.read([token]) for token in row]))
    return found


@torch.no_grad()
def _rounded(bounds: ChangeBounds, model: CoordinateModel, row: list[int]) -> float:
    """The certified error of 8-bit phases at the coordinates of a text, the worst of its tokens and of the matrices."""
    theta = model.predict(model.embedding(torch.tensor([row])), "token")
    phases = [layer.directions.phases(theta) for layer in model.uses]
    return float(bounds.between(phases, [restore_phases(quantise_phases(one)) for one in phases]).max())


def _compare(
    name: str,
    rows: list[list[int]],
    before: list[Tensor],
    after: list[Tensor],
    sizes: tuple[int, int] | None,
    of_what: str,
    certified: float | None,
) -> Reduced:
    full, less = torch.cat(before).double(), torch.cat(after).double()
    losses = []
    for side in (before, after):
        every = [
            functional.cross_entropy(one[:-1], torch.tensor(row[1:]), reduction="none")
            for one, row in zip(side, rows, strict=True)
        ]
        losses.append(float(torch.cat(every).mean()))
    return Reduced(
        name=name,
        bytes_before=sizes[0] if sizes else None,
        bytes_after=sizes[1] if sizes else None,
        of_what=of_what,
        logit_change=float((less - full).norm() / full.norm()),
        largest_change=float((less - full).abs().max()),
        agreement=float((full.argmax(-1) == less.argmax(-1)).double().mean()),
        loss_before=losses[0],
        loss_after=losses[1],
        tokens=len(full),
        certified=certified,
    )


def _told(count: int) -> str:
    return f"{count / 1e6:.2f} MB" if count >= 100_000 else f"{count:,} bytes"
