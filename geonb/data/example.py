"""One tokenised training example."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Example:
    """Token ids with the mask of the tokens that the loss counts.

    `loss_mask[i]` is True where token i is predicted (from the tokens before it) and counted; token 0 never is.
    `prompt_ids` is what a generation probe may start from: everything before the last assistant turn, or the first
    quarter of a text.
    """

    input_ids: tuple[int, ...]
    loss_mask: tuple[bool, ...]
    text: str
    digest: str
    group: str | None
    prompt_ids: tuple[int, ...]
