"""Where the residual stream of a transformers model can be read: its blocks, and the two parts of each."""

from __future__ import annotations

import re
from typing import Any

from geonb.errors import InputError

_MIXER = re.compile(r"attn|attention|conv|mixer|mamba|ssm", re.I)
_FEED_FORWARD = re.compile(r"mlp|feed_?forward|ffn|moe|expert", re.I)
_NEITHER = re.compile(r"norm|dropout|identity|rotary", re.I)


def find_blocks(model: Any) -> tuple[str, list[Any]]:
    """The path and the blocks of `model`: its outermost list of as many modules as the config counts layers.

    Raises `InputError` where there is no such list.
    """
    from torch import nn

    config: Any = getattr(model, "config", None)
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    count = getattr(config, "num_hidden_layers", None)
    for path, module in model.named_modules():
        inside = any(part.isdigit() for part in path.split("."))
        if isinstance(module, nn.ModuleList) and len(module) == count and not inside:
            return path, list(module)
    raise InputError(
        f"{type(model).__name__} has no list of {count} blocks, as its config counts layers; allowed is a transformers "
        "language model: give one whose blocks stand in one list."
    )


def parts_of(block: Any) -> tuple[Any, Any] | None:
    """The mixer (attention, convolution, ...) and the feed-forward map of a block; None where they are not found."""
    mixer = feed_forward = None
    for name, child in block.named_children():
        kind = type(child).__name__
        if _NEITHER.search(kind):
            continue
        # the name says what a part is in its block; the class helps where a name says nothing
        for label in (name, kind):
            if _FEED_FORWARD.search(label):
                feed_forward = child if feed_forward is None else feed_forward
                break
            if _MIXER.search(label):
                mixer = child if mixer is None else mixer
                break
    return None if mixer is None or feed_forward is None else (mixer, feed_forward)


def hidden_of(value: Any) -> Any:
    """The hidden states in what a module returned: itself, or the first of a tuple."""
    return value[0] if isinstance(value, tuple | list) else value


def input_of(arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """The hidden states that a block was called with."""
    return arguments[0] if arguments else named["hidden_states"]
