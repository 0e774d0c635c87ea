"""A conversation in the form of the training dialogues: each turn is a line, and the cache of earlier turns is kept."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from geonb.coordinates.decoding import GeneratedToken, generate
from geonb.coordinates.reader import Reader
from geonb.coordinates.streaming import Streaming
from geonb.coordinates.tokenizer import END
from geonb.errors import InputError


class Conversation:
    """Who said what, as tokens; `reader` makes a fresh reader, and `options` are those of `generate`.

    Keys and values of earlier turns stay valid, because a token keeps its coordinate. When the context is full the oldest
    turns are forgotten and the rest is read again, `forgotten` counts them.
    """

    def __init__(self, tokenizer: Any, reader: Callable[[], Reader], **options: Any) -> None:
        self.tokenizer, self._fresh, self.options = tokenizer, reader, options
        self._reader = reader()
        self._turns: list[list[int]] = []
        self.made: list[GeneratedToken] = []
        self.forgotten = 0
        self._end = tokenizer.token_to_id(END)

    def reply(self, line: str) -> Generator[tuple[str, bool], None, None]:
        """The answer to a line, piece by piece, each with whether it was drawn; it ends with the model's own line.

        Raises `InputError` for an empty line, and for one that does not fit into the context by itself.
        """
        if not line.strip():
            raise InputError("an empty line was given; say something.")
        said = self.tokenizer.encode(f"User: {' '.join(line.split())}\nAssistant:").ids
        room = self._reader.model.sizes.context - self.options["max_tokens"] - 1
        if len(said) > room:
            raise InputError(
                f"the line has {len(said)} tokens; beside an answer of {self.options['max_tokens']} there is room for {room}."
            )
        self._turns.append(said)
        forgot = False
        while sum(map(len, self._turns)) > room:
            self._turns.pop(0)
            self.forgotten, forgot = self.forgotten + 1, True
        if forgot:
            self._reader = self._fresh()
        # what the reader has not seen: its first mark, the end of the last answer, and the new line
        unread = [self._end, *(token for turn in self._turns for token in turn)][self._reader.tokens :]
        yield from self._answer(unread)

    def _answer(self, unread: list[int]) -> Generator[tuple[str, bool], None, None]:
        turn, stream, spoken = self._turns[-1], Streaming(self.tokenizer), ""
        options = {**self.options, "seed": self.options.get("seed", 0) + len(self.made)}
        tokens = generate(self._reader.model, unread, stop=frozenset({self._end}), reader=self._reader, **options)
        ended = False
        for one in tokens:
            self.made.append(one)
            if one.token == self._end:
                break
            turn.append(one.token)
            piece = stream.add(one.token)
            before, newline, _ = piece.partition("\n")
            ended = bool(newline) and bool((spoken + before).strip())
            spoken += before
            if before:
                yield before, one.sampled
            if ended:
                break
        if not ended:
            turn += self.tokenizer.encode("\n").ids
