"""Records to examples: tokens, loss masks, the sequence length that covers them, and what was cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from geonb.data.example import Example
from geonb.data.records import DataRecord
from geonb.data.template import assistant_spans, template_source
from geonb.errors import InputError

_MULTIPLE = 8  # tensor cores and vector units work in eights


@dataclass(frozen=True, slots=True)
class Dataset:
    """Tokenised examples, with the sequence length and how it came about."""

    examples: list[Example]
    sequence_length: int
    sequence_length_source: str
    n_cut: int
    n_dropped: int
    n_tokens: int
    n_counted: int
    template_source: str


def tokenise(
    records: Sequence[DataRecord], tokenizer: Any, *, context_length: int | None, max_length: int | None = None
) -> Dataset:
    """Tokenise `records`, count the loss where MATH.md section 6 says, and cut what is longer than the sequence length.

    Text records count every token (the end token included, the first token excepted: nothing predicts it); chat
    records count what the assistant writes. The length is the smallest multiple of 8 that covers every example,
    capped by the model's context, unless `max_length` says otherwise. An example whose counted tokens are all cut away
    is dropped. Raises `InputError` when nothing is left.
    """
    _check_lengths(context_length, max_length)
    encoded = [_encode(record, tokenizer) for record in records]
    longest = max(len(ids) for ids, _, _, _ in encoded)
    covering = -(-longest // _MULTIPLE) * _MULTIPLE
    if max_length is not None:
        length, source = max_length, "given"
    elif context_length is not None and covering > context_length:
        length, source = context_length, f"the model's context; the longest example has {longest} tokens"
    else:
        length, source = (
            covering,
            f"smallest multiple of {_MULTIPLE} that covers the longest example ({longest} tokens)",
        )
    examples, n_cut, n_dropped = [], 0, 0
    for record, (ids, mask, text, prompt) in zip(records, encoded, strict=True):
        n_cut += len(ids) > length
        if not any(mask[:length]):
            n_dropped += 1
            continue
        examples.append(
            Example(
                input_ids=tuple(ids[:length]),
                loss_mask=tuple(mask[:length]),
                text=text,
                digest=record.digest,
                group=record.group,
                prompt_ids=tuple(ids[: min(prompt, length)]),
            )
        )
    if not examples or (n_cut == len(records) and max_length is None):
        raise InputError(
            f"every one of the {len(records)} examples is longer than the model's context of {length} tokens "
            f"(the shortest has {min(len(ids) for ids, *_ in encoded)}): cut them into shorter records."
            if examples or n_cut
            else "no example has a token to learn from: check the records' text."
        )
    uses_chat = any(record.kind == "messages" for record in records)
    return Dataset(
        examples=examples,
        sequence_length=length,
        sequence_length_source=source,
        n_cut=n_cut,
        n_dropped=n_dropped,
        n_tokens=sum(len(example.input_ids) for example in examples),
        n_counted=sum(sum(example.loss_mask) for example in examples),
        template_source=template_source(tokenizer) if uses_chat else "none (text records)",
    )


def _check_lengths(context_length: int | None, max_length: int | None) -> None:
    if max_length is None:
        return
    top = context_length or max_length
    if not 2 <= max_length <= top:
        raise InputError(f"the sequence length {max_length} was given; allowed are 2 to {top}, the model's context.")


def _encode(record: DataRecord, tokenizer: Any) -> tuple[list[int], list[bool], str, int]:
    """Token ids, loss mask, text, and how many leading tokens make a prompt."""
    if record.kind == "text":
        ids = list(tokenizer(record.text, verbose=False)["input_ids"])
        if tokenizer.eos_token_id is not None and (not ids or ids[-1] != tokenizer.eos_token_id):
            ids.append(tokenizer.eos_token_id)
        return ids, [False, *[True] * (len(ids) - 1)], record.text, max(1, len(ids) // 4)
    text, spans = assistant_spans(tokenizer, record.messages)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    ids, offsets = list(encoded["input_ids"]), encoded["offset_mapping"]
    # a token belongs to the assistant when it ends inside one of its spans
    mask = [any(start < end_of <= end for start, end in spans) for _, end_of in offsets]
    mask[0] = False
    last = spans[-1][0]
    prompt = sum(end_of <= last for _, end_of in offsets)
    if not any(mask):
        raise InputError(
            f"line {record.line}: the assistant's turn is empty, so there is nothing to learn: mend the line."
        )
    return ids, mask, text, max(1, prompt)
