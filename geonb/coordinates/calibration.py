"""Where adaptive decoding switches: the quantile of held-out tokens that lies above it, for the coordinate and its control alike.

The published threshold 0.5 says nothing of another model. Both switches get the same share, so that they are compared at the same
number of draws. What they then draw at on texts that were not used is told beside it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from geonb.coordinates import grammar
from geonb.coordinates.analyze import encoded
from geonb.coordinates.model import CoordinateModel
from geonb.coordinates.tokenizer import PAD
from geonb.coordinates.uncertainty import calibrated, innovations
from geonb.errors import InputError
from geonb.records import Record, atomic_write

SHARE = 0.25
FOLDER = "calibration"
_TEXTS, _LONGEST, _ROWS = 96, 96, 16
_FEWEST = 40  # tokens, for a quantile that means something


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration(Record):
    """The thresholds that a `share` of tokens lies above, and which share of other texts' tokens does."""

    fingerprint: str  # of weights, tokenizer, share and texts
    share: float
    tokens: int  # counted for the thresholds
    uncertainty: float  # of u
    entropy: float  # nats
    uncertainty_reached: float  # the share of the other half's tokens above
    entropy_reached: float

    def threshold(self, decoding: str) -> float:
        """That of a decoding: u for `coordinates`, nats for `entropy`, 0 for those that do not switch."""
        return {"coordinates": self.uncertainty, "entropy": self.entropy}.get(decoding, 0.0)

    def summary(self) -> str:
        return (
            f"Calibration({self.share:.0%} of {self.tokens} tokens: u > {self.uncertainty:.3g} or entropy > "
            f"{self.entropy:.3g} nats; other texts {self.uncertainty_reached:.0%} and {self.entropy_reached:.0%})"
        )


def held_out_texts(count: int, *, seed: int = 0) -> list[str]:
    """`count` texts with contents that no training saw: a sentence and a dialogue of two turns in turns."""
    return grammar.held_out_texts(count, np.random.default_rng([seed, 41]))


@torch.no_grad()
def calibrate(
    model: CoordinateModel, tokenizer: Any, *, share: float = SHARE, texts: Sequence[str] | None = None
) -> Calibration:
    """Find the thresholds on every other pair of texts and look at the rest; by default held-out texts of the training grammar.

    A text's first token has no past, so its u of 0 is left out. Raises `InputError` for a share outside (0, 1) and for texts
    that have less than 40 tokens in either half.
    """
    if not 0 < share < 1:
        raise InputError(f"a share of {share} was given; allowed is a number above 0 and below 1.")
    given = list(texts) if texts is not None else held_out_texts(_TEXTS)
    values = [
        _switches(model, tokenizer, [one for place, one in enumerate(given) if place // 2 % 2 == half])
        for half in (0, 1)
    ]
    fewest = min(len(u) for u, _ in values)
    if fewest < _FEWEST:
        raise InputError(
            f"{len(given)} texts were given with {fewest} tokens in a half of them; needed are {_FEWEST}: give more."
        )
    (u, entropy), (other_u, other_entropy) = values
    found = calibrated(u, share=share), calibrated(entropy, share=share)
    return Calibration(
        fingerprint=fingerprint(model, tokenizer, share, given),
        share=share,
        tokens=len(u),
        uncertainty=found[0],
        entropy=found[1],
        uncertainty_reached=float((other_u > found[0]).float().mean()),
        entropy_reached=float((other_entropy > found[1]).float().mean()),
    )


def calibration_of(
    folder: str | Path,
    model: CoordinateModel,
    tokenizer: Any,
    *,
    share: float = SHARE,
    texts: Sequence[str] | None = None,
) -> Calibration:
    """The same, kept in `folder` and found again only for the same weights, tokenizer, share and texts."""
    if not 0 < share < 1:
        raise InputError(f"a share of {share} was given; allowed is a number above 0 and below 1.")
    given = list(texts) if texts is not None else held_out_texts(_TEXTS)
    name = fingerprint(model, tokenizer, share, given)
    path = Path(folder) / FOLDER / f"{name[:16]}.json"
    if path.is_file():
        try:
            known = Calibration.load(path)
        except InputError:
            known = None  # damaged: found anew, and written again
        if known is not None and known.fingerprint == name:
            return known
    found = calibrate(model, tokenizer, share=share, texts=given)
    if os.access(folder, os.W_OK):  # a model that only can be read is calibrated each time
        path.parent.mkdir(exist_ok=True)
        atomic_write(path, found.to_json(indent=1) + "\n")
    return found


def fingerprint(model: CoordinateModel, tokenizer: Any, share: float, texts: Sequence[str]) -> str:
    """SHA-256 of all that a calibration depends on."""
    found = hashlib.sha256(repr((model.sizes, share, list(texts))).encode())
    found.update(tokenizer.to_str().encode())
    for name, one in (*model.named_parameters(), *model.named_buffers()):
        found.update(name.encode())
        found.update(one.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _switches(model: CoordinateModel, tokenizer: Any, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """u and entropy (nats) of every token that has a past, in texts cut at 96 tokens."""
    pad = tokenizer.token_to_id(PAD)
    longest = min(_LONGEST, model.sizes.context)
    # like lengths together, so that little is read for nothing; later tokens change no earlier one
    rows = sorted((encoded(tokenizer, text)[:longest] for text in texts), key=len)
    surprise, entropies = [torch.zeros(0)], [torch.zeros(0)]
    for start in range(0, len(rows), _ROWS):
        part = rows[start : start + _ROWS]
        ids = torch.full((len(part), len(part[-1])), pad)
        for row, one in enumerate(part):
            ids[row, : len(one)] = torch.tensor(one)
        reading = model(ids)
        assert reading.theta is not None
        counts = torch.tensor([len(one) for one in part])
        kept = torch.arange(ids.shape[1])[None] < counts[:, None]
        kept[:, 0] = False
        surprise.append(innovations(reading.theta)[kept].float())
        entropies.append(torch.special.entr(reading.logits[kept].double().softmax(dim=-1)).sum(dim=-1).float())
    return torch.cat(surprise), torch.cat(entropies)
