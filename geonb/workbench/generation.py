"""Greedy generation over a bench, token by token: what is written so far, whole characters only, and why it stopped.

Greedy on purpose: two models are held against each other, and with a temperature a difference could be the die's.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geonb.data.template import CannotRender, render
from geonb.errors import InputError
from geonb.records import Record, has_half_character, is_file, plain, read_bytes
from geonb.train.probes import repetition_rate
from geonb.workbench.bench import Bench

END, LIMIT, CONTEXT = "end token", "limit", "context"
# what a tokenizer writes for bytes that are no whole character yet
_BROKEN = "\ufffd"


@dataclass(frozen=True, slots=True)
class Prompt:
    """A checked prompt: its text, its token ids, and whether the chat template stands around it."""

    text: str
    ids: tuple[int, ...]
    chat: bool


@dataclass(frozen=True, slots=True)
class SuitePrompt:
    """One prompt of a suite's file, with the answer that a right text contains, where the file gives one."""

    text: str
    answer: str | None


@dataclass(frozen=True, slots=True)
class GeneratedToken:
    """One token: its id, the text it completed ("" inside a character), and on the last one why it is the last."""

    id: int
    text: str
    stop: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Continuation(Record):
    """What one model wrote after a prompt, greedily; the end token is counted and not shown."""

    label: str  # "base", or the adapter's
    tokens: tuple[int, ...]
    text: str
    n_tokens: int
    stop: str  # "end token", "limit" (the tokens asked for) or "context" (no room left)
    seconds: float  # prompt included
    tokens_per_second: float
    repetition: float  # share of repeated 4-grams of tokens

    @property
    def ended(self) -> bool:
        """Whether the model ended by itself."""
        return self.stop == END

    def summary(self) -> str:
        speed = f"{self.tokens_per_second:.3g} tokens/s"
        return (
            f"{self.label}: {self.n_tokens} tokens, stopped by {self.stop}, repetition {self.repetition:.2g}, {speed}"
        )


class TextStream:
    """Decodes tokens one by one; the pieces joined are the tokenizer's own decoding, and none splits a character.

    >>> from geonb.models.checkpoint import Checkpoint
    >>> tokenizer = Checkpoint.open("embedded").load_tokenizer()
    >>> stream = TextStream(tokenizer)
    >>> "".join(stream.add(one) for one in tokenizer("a 漢")["input_ids"]) + stream.rest()
    'a 漢'
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._shown = 0  # tokens whose text is out
        self._context = 0  # where the window starts: one piece back, because neighbours change a token's text
        self._text = ""

    def add(self, token: int) -> str:
        """The text that is certain with `token`, "" while a character is incomplete."""
        self._ids.append(token)
        before = self._decode(self._ids[self._context : self._shown])
        now = self._decode(self._ids[self._context :])
        if now.endswith(_BROKEN) or not now.startswith(before):
            return ""
        return self._emit(now[len(before) :])

    def rest(self) -> str:
        """What was held back when no more tokens come: broken bytes as U+FFFD."""
        whole = self._decode(self._ids)
        # `startswith` fails only for a decoder that rewrites text it gave before; what is out cannot be taken back
        return self._emit(whole[len(self._text) :] if whole.startswith(self._text) else "")

    def _emit(self, piece: str) -> str:
        self._context, self._shown = self._shown, len(self._ids)
        self._text += piece
        return piece

    def _decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def encode_prompt(tokenizer: Any, text: str, *, chat: bool | None = None, context: int | None = None) -> Prompt:
    """The ids of `text`: one user turn where the tokenizer has a chat template, else the text itself.

    `chat` decides where it is not None (without a template of the tokenizer's own: plain role headings). `context` is the
    model's longest sequence. Raises `InputError` for an empty or unencodable text, and where no token fits behind it.
    """
    if not text.strip():
        raise InputError("the prompt is empty; allowed is any text: give at least one word.")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"the prompt holds half a character (a lone surrogate at place {error.start}); allowed is Unicode text: "
            "mend its source."
        ) from None
    chat = bool(tokenizer.chat_template) if chat is None else chat
    if chat:
        try:
            written = render(tokenizer, [{"role": "user", "content": text}], prompt=True)
        except CannotRender as error:
            raise InputError(f"the chat template refuses a user turn alone ({error.reason}): give --raw.") from None
        ids = list(tokenizer(written, add_special_tokens=False, verbose=False)["input_ids"])
    else:
        ids = list(tokenizer(text, verbose=False)["input_ids"])
        # some tokenizers close every text; a prompt stays open
        while len(ids) > 1 and ids[-1] == tokenizer.eos_token_id:
            ids.pop()
    if not ids:
        raise InputError("the prompt has no token after the tokenizer's clean-up: give text that it keeps.")
    if context is not None and len(ids) >= context:
        raise InputError(
            f"the prompt {text[:40]!r} has {len(ids)} tokens and the model's context is {context}; allowed are up to "
            f"{context - 1}, so that one can follow: shorten it."
        )
    return Prompt(text=text, ids=tuple(ids), chat=chat)


def read_suite_prompts(source: str | Path) -> tuple[SuitePrompt, ...]:
    """The prompts of a file: .txt (one a line), .json (a list of texts or objects) or .jsonl ({"prompt", "answer"?}).

    Raises `InputError` with file and place for anything else.
    """
    path = Path(source)
    if path.suffix not in {".txt", ".json", ".jsonl"} or not is_file(path):
        what = "does not exist" if not is_file(path) else f"ends in {path.suffix!r}"
        raise InputError(f"{path} {what}; allowed is a .txt, .json or .jsonl file of prompts: check the path.")
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text (byte {error.start}): save it as UTF-8.") from None
    # split at line feeds only: other separators may stand inside a prompt
    rows: list[tuple[str, Any]] = [
        (f"{path} line {i}", row) for i, row in enumerate(text.split("\n"), 1) if row.strip()
    ]
    if path.suffix == ".txt":
        rows = [(where, row.rstrip("\r")) for where, row in rows]
    elif path.suffix == ".jsonl":
        rows = [(where, _parse(where, row)) for where, row in rows]
    else:
        listed = _parse(str(path), text)
        if not isinstance(listed, list):
            raise InputError(
                f"{path} holds a JSON {type(listed).__name__}; allowed is a list of prompts: wrap it in []."
            )
        rows = [(f"{path} entry {number}", one) for number, one in enumerate(listed, 1)]
    if not rows:
        raise InputError(f"{path} holds no prompt; allowed are one or more: write one a line.")
    return tuple(_suite_prompt(where, row) for where, row in rows)


def _parse(where: str, text: str) -> Any:
    try:
        value = json.loads(text)
        if not has_half_character(value, text):
            return value
    except (ValueError, RecursionError):
        raise InputError(f'{where} is not JSON; allowed is such as {{"prompt": "..."}}: mend it.') from None
    raise InputError(f"{where} holds half a character (a lone surrogate), which is no Unicode text: mend it.")


def _suite_prompt(where: str, row: Any) -> SuitePrompt:
    given = {"prompt": row} if isinstance(row, str) else row
    prompt = given.get("prompt") if isinstance(given, dict) else None
    if not isinstance(prompt, str) or not prompt.strip():
        raise InputError(f'{where} has no "prompt" that is a non-empty text: mend or remove it.')
    answer = given.get("answer")
    # a bare number is how people write an answer; true and false are not numbers
    answer = str(answer) if isinstance(answer, int | float) and not isinstance(answer, bool) else answer
    if answer is not None and (not isinstance(answer, str) or not answer.strip()):
        raise InputError(f'{where} has an "answer" that is no non-empty text or number: mend it or leave it out.')
    return SuitePrompt(prompt, answer)


def end_tokens(bench: Bench) -> frozenset[int]:
    """The ids that end a text: the tokenizer's, and those of the model's generation config (some models have several)."""
    found = {bench.runtime.tokenizer.eos_token_id}
    generation = getattr(bench.model, "generation_config", None)
    named = getattr(generation, "eos_token_id", None)
    found |= set(named) if isinstance(named, list | tuple) else {named}
    return frozenset(one for one in found if one is not None)


def stream(
    bench: Bench, prompt: Prompt, *, label: str | None = None, max_tokens: int = 256
) -> Iterator[GeneratedToken]:
    """Yield the greedy continuation of `prompt` as it comes, with adapter `label` on (None: the base).

    The adapter is on only while a token is computed, so streams of several labels may be drawn from in turn. Raises
    `InputError` for fewer than one token.
    """
    check_max_tokens(max_tokens)
    return _stream(bench, prompt, label, max_tokens)


def check_max_tokens(max_tokens: int) -> None:
    """Raise `InputError` for a limit below one token."""
    if max_tokens < 1:
        raise InputError(f"{max_tokens} new tokens were asked for; allowed are 1 and more: give a larger limit.")


def _stream(bench: Bench, prompt: Prompt, label: str | None, max_tokens: int) -> Iterator[GeneratedToken]:
    import torch

    ends, context, device = end_tokens(bench), bench.runtime.checkpoint.context_length, bench.runtime.device
    text = TextStream(bench.runtime.tokenizer)
    current, past, stop, count = torch.tensor([list(prompt.ids)], device=device), None, None, 0
    while stop is None:
        with bench.using(label) as model, torch.no_grad():
            output = model(input_ids=current, past_key_values=past, use_cache=True)
            past = output.past_key_values
            current = output.logits[:, -1].argmax(-1, keepdim=True)
        token, count = int(current), count + 1
        if token in ends:
            stop = END
        elif count == max_tokens:
            stop = LIMIT
        elif context is not None and len(prompt.ids) + count >= context:
            stop = CONTEXT
        piece = text.add(token)
        yield GeneratedToken(token, piece + text.rest() if stop else piece, stop)


def generate(
    bench: Bench,
    prompt: Prompt,
    *,
    label: str | None = None,
    max_tokens: int = 256,
    on_text: Callable[[str], None] | None = None,
) -> Continuation:
    """The whole of `stream` as a record; `on_text` is called with each new piece of text."""
    start = time.perf_counter()
    tokens, pieces, stop = [], [], LIMIT
    for one in stream(bench, prompt, label=label, max_tokens=max_tokens):
        tokens.append(one.id)
        pieces.append(one.text)
        stop = one.stop or stop
        if on_text is not None and one.text:
            on_text(one.text)
    seconds = time.perf_counter() - start
    return Continuation(
        label=label or "base",
        tokens=tuple(tokens),
        text="".join(pieces),
        n_tokens=len(tokens),
        stop=stop,
        seconds=seconds,
        tokens_per_second=len(tokens) / seconds,
        repetition=repetition_rate(tokens[:-1] if stop == END else tokens),
    )


def printable(text: str) -> str:
    """`text` for a terminal: line breaks and tabs stay, every other control character is escaped.

    >>> printable("a\\x1b[2Jb\\n")
    'a\\\\x1b[2Jb\\n'
    """
    return plain(text, keep="\n\t")
