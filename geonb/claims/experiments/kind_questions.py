"""A tiny task with answers that can be checked: which kind of sum is meant? Short enough for a second of training."""

from __future__ import annotations

import json
import random
import tempfile
from pathlib import Path
from typing import Any

from geonb.data.example import Example
from geonb.errors import InputError

# how a question is put, and the word that answers it; the numbers say nothing
WORDINGS = {
    "addition": ("Add {a} and {b}.", "{a} together with {b}.", "{a} and {b} more."),
    "subtraction": ("Take {b} from {a}.", "{a} less {b}.", "{a} and {b} fewer."),
    "product": ("{a} times {b}.", "{b} rows of {a}.", "{a} and {b} times that."),
    "ratio": ("Share {a} among {b}.", "How many {b} in {a}?", "{a} and {b} parts of it."),
}

# the working that leads to each answer, in a few words
WORKINGS = {
    "addition": "Both are put together, so it grows.",
    "subtraction": "One is taken away, so it shrinks.",
    "product": "The same again and again, so it grows fast.",
    "ratio": "One is cut into equal parts.",
}
FORMS = ("word", "direct", "worked")


def kind_questions(
    tokenizer: Any, count: int, *, seed: int, form: str = "word"
) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """`count` questions to train on and as many held out, none in both; the kinds in equal parts.

    `group` is the kind. The answer is the kind's one word; in the form "direct" it stands behind "Answer:", in the form
    "worked" behind the working as well. One seed asks the same in every form. Raises `InputError` for a count that is not in
    8..4000 and another form.
    """
    if form not in FORMS:
        raise InputError(f"the form {form!r} was given; allowed are {', '.join(FORMS)}.")
    if not 8 <= count <= 4000:
        raise InputError(f"{count} questions were asked for; allowed are 8 to 4000.")
    rng, seen, records = random.Random(seed), set(), []
    kinds = list(WORDINGS)
    while len(records) < 2 * count:
        kind = kinds[len(records) % len(kinds)]
        text = rng.choice(WORDINGS[kind]).format(a=rng.randint(10, 99), b=rng.randint(2, 99))
        if text in seen:
            continue
        seen.add(text)
        messages = [{"role": "user", "content": text}, {"role": "assistant", "content": _answer(kind, form)}]
        records.append({"messages": messages, "group": kind})
    return _tokenised(tokenizer, records[:count]), _tokenised(tokenizer, records[count:])


def _answer(kind: str, form: str) -> str:
    return kind if form == "word" else f"{WORKINGS[kind]} Answer: {kind}" if form == "worked" else f"Answer: {kind}"


def read_answer(text: str) -> str:
    """What stands behind the last "Answer:" of a text, whatever stands before it; "" where the word does not occur.

    >>> read_answer("One is taken away. Answer: ratio")
    'ratio'
    """
    return text.rpartition("Answer:")[2].strip() if "Answer:" in text else ""


def _tokenised(tokenizer: Any, records: list[dict[str, Any]]) -> tuple[Example, ...]:
    from geonb.data.dataset import tokenise
    from geonb.data.records import read_records

    with tempfile.TemporaryDirectory(prefix="geonb-") as folder:
        path = Path(folder) / "questions.jsonl"
        path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
        return tuple(tokenise(read_records(path), tokenizer, context_length=None, max_length=None).examples)
