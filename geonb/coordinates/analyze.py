"""What a text's coordinates are: norms, phases, how far they move, and what they do to the weights."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from geonb.coordinates.model import CoordinateModel
from geonb.coordinates.phases import kernel
from geonb.coordinates.style_spectra import StyleSpectrum, style_spectra
from geonb.coordinates.tokenizer import END
from geonb.coordinates.uncertainty import innovations
from geonb.errors import InputError
from geonb.records import Record, plain


@dataclass(frozen=True, slots=True, kw_only=True)
class CoordinateAnalysis(Record):
    """The coordinates of one text.

    `largest` names the coordinates of the largest |theta_j| of the last token, as the published tool does; they depend on the
    gauge: theta and theta + v act alike for every v that no direction sees, so only phases and the kernel mean something.
    """

    text: str
    tokens: tuple[str, ...]
    norm: float  # the same for every token: sqrt(coordinates)
    participation: float  # (sum theta^2)^2 / sum theta^4 of the last token
    largest: dict[str, float]
    uncertainty: tuple[float, ...]  # innovation of every token
    kernel_to_last: tuple[float, ...]  # k of every token's coordinate with the last one's
    effective_dimensions: int
    spectra: tuple[StyleSpectrum, ...]  # of the last token's coordinate

    def summary(self) -> str:
        return f"CoordinateAnalysis({len(self.tokens)} tokens, {self.effective_dimensions} dimensions that act)"

    def to_text(self) -> str:
        lines = [
            f"norm {self.norm:.4g}, participation {self.participation:.1f} of {self.norm**2:.0f} coordinates, "
            f"{self.effective_dimensions} dimensions act"
        ]
        lines += [
            f"  {token!r:>18}  uncertainty {u:6.3f}  k with the last {k:6.3f}"
            for token, u, k in zip(self.tokens, self.uncertainty, self.kernel_to_last, strict=True)
        ]
        lines += [
            f"  {one.matrix:>8}  ||dW||/||W|| {one.relative:.3f}  budget used {one.budget_used:.0%}  effective rank "
            f"{'-' if one.effective_rank is None else format(one.effective_rank, '.2f')}"
            for one in self.spectra
        ]
        return "\n".join(plain(line) for line in lines)

    def to_html(self) -> str:
        rows = "".join(
            f"<tr><td>{html.escape(token)}</td><td>{u:.3f}</td><td>{k:.3f}</td></tr>"
            for token, u, k in zip(self.tokens, self.uncertainty, self.kernel_to_last, strict=True)
        )
        return f"<table><tr><th>token</th><th>uncertainty</th><th>k with the last</th></tr>{rows}</table>"


@torch.no_grad()
def analyze(model: CoordinateModel, tokenizer: Any, text: str) -> CoordinateAnalysis:
    """Read `text` in mode token and tell its coordinates; raises `InputError` for an empty text."""
    ids = encoded(tokenizer, text)
    theta = model(torch.tensor([ids])).theta
    assert theta is not None
    phases = torch.cat([layer.directions.phases(theta[0]) for layer in model.uses], dim=-1)
    last = theta[0, -1]
    order = last.abs().argsort(descending=True)[:10].tolist()
    return CoordinateAnalysis(
        text=text,
        tokens=tuple(tokenizer.decode([one], skip_special_tokens=False) for one in ids),
        norm=float(last.norm()),
        participation=float(last.square().sum() ** 2 / last.pow(4).sum()),
        largest={str(place): float(last[place]) for place in order},
        uncertainty=tuple(map(float, innovations(theta)[0])),
        kernel_to_last=tuple(map(float, kernel(phases, phases[-1:]))),
        effective_dimensions=model.effective_dimensions(),
        spectra=style_spectra(model, last),
    )


def encoded(tokenizer: Any, text: str) -> list[int]:
    """The tokens of a text behind the mark of its beginning; raises `InputError` for an empty one."""
    if not text.strip():
        raise InputError("an empty text was given; allowed is a word or more.")
    return [tokenizer.token_to_id(END), *tokenizer.encode(text).ids]


@torch.no_grad()
def style_of(model: CoordinateModel, tokenizer: Any, text: str) -> Tensor:
    """The coordinate (coordinates,) that a whole text predicts: a style named by an example."""
    ids = torch.tensor([encoded(tokenizer, text)])
    return model.predict(model.embedding(ids), "sequence")[0, 0]
