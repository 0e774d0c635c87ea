"""The tokenizer of a coordinate model: byte-level BPE of its exact vocabulary, trained on its own texts, the same every time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from geonb.errors import InputError

END, PAD = "<|end|>", "<|pad|>"
_FEWEST = 256 + 2


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> Any:
    """A `tokenizers.Tokenizer` of at most `vocabulary` entries: 256 bytes, two marks, and merges.

    Any text can be written in it. Raises `InputError` for a vocabulary below 258.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    if vocabulary < _FEWEST:
        raise InputError(f"a vocabulary of {vocabulary} was given; a byte-level one needs at least {_FEWEST}.")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer
