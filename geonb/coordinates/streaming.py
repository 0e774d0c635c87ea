"""Text as it is made: what each token adds, with the bytes of a letter kept back until it is whole."""

from __future__ import annotations

from typing import Any

_BROKEN = "�"


class Streaming:
    """The text of tokens given one by one.

    >>> from geonb.coordinates.tokenizer import train_tokenizer
    >>> words = train_tokenizer(["a"], 258)
    >>> stream = Streaming(words)
    >>> [stream.add(token) for token in words.encode("aé").ids]
    ['a', '', 'é']
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._waiting: list[int] = []
        self._pieces: list[str] = []

    def add(self, token: int) -> str:
        """What `token` adds; "" for a mark, and for bytes that are no letter yet."""
        self._waiting.append(token)
        text = self._tokenizer.decode(self._waiting, skip_special_tokens=True)
        # a letter has at most four bytes: more that fit together to none will never be one
        if text.endswith(_BROKEN) and len(self._waiting) < 4:
            return ""
        self._waiting.clear()
        self._pieces.append(text)
        return text

    @property
    def whole(self) -> str:
        """All of it, with a sign for bytes that are no letter."""
        return "".join(self._pieces) + self._tokenizer.decode(self._waiting, skip_special_tokens=True)
