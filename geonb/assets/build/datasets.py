"""The shipped data sets: the King James text, checkable arithmetic and logic, and held-out base text."""

from __future__ import annotations

import json
import random
import re
import subprocess
from pathlib import Path

from geonb.assets.build.export import held_out_windows
from geonb.errors import InputError
from geonb.records import atomic_write

SEED = 20260721
N_KJV, N_KJV_EVAL = 3000, 256
N_CHAT, N_CHAT_EVAL = 2000, 256
# about 64 tokens of this tokenizer
_KJV_CHARACTERS = 170


def build_datasets(folder: Path, embedded: Path, data: Path) -> dict[str, int]:
    """Write every data set into `data`; returns the number of records in each file."""
    data.mkdir(parents=True, exist_ok=True)
    verses = kjv_passages()
    random.Random(SEED).shuffle(verses)
    texts = [{"text": text} for text in verses[: N_KJV + N_KJV_EVAL]]
    seen: set[str] = set()
    conversations = chat_records(random.Random(SEED + 1), N_CHAT + N_CHAT_EVAL, seen)
    files = {
        "kjv.jsonl": texts[:N_KJV],
        "kjv_eval.jsonl": texts[N_KJV:],
        "chat.jsonl": conversations[:N_CHAT],
        "chat_eval.jsonl": conversations[N_CHAT:],
        "retention.jsonl": [{"text": text} for text in held_out_windows(folder, embedded, 192)],
    }
    for name, records in files.items():
        atomic_write(data / name, "".join(json.dumps(record) + "\n" for record in records))
    return {name: len(records) for name, records in files.items()}


def kjv_passages() -> list[str]:
    """Passages of a few verses from Debian's bible-kjv-text, in the order of the books."""
    try:
        # -f: one verse a line after its reference
        output = subprocess.run(
            ["bible", "-f", "gen1:1-rev22:21"], capture_output=True, text=True, check=True, timeout=120
        ).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise InputError(f"the King James text could not be read ({error}); install Debian's bible-kjv.") from None
    passages: list[str] = []
    current = ""
    for line in output.splitlines():
        match = re.match(r"^\w+?\d*:\d+\s+(.*)$", line.strip())
        verse = (match.group(1) if match else line.strip()).strip()
        if not verse:
            continue
        current = f"{current} {verse}".strip()
        if len(current) >= _KJV_CHARACTERS:
            passages.append(current[: _KJV_CHARACTERS + 60].rsplit(" ", 1)[0])
            current = ""
    return passages


_NAMES = ("Ada", "Ben", "Clara", "David", "Emma", "Felix", "Grace", "Hugo", "Ida", "Jonas", "Karl", "Lena")
_THINGS = ("apples", "books", "coins", "stones", "pens", "cards", "shells", "cups", "nails", "maps")
_ORDERED = ("taller", "older", "faster", "stronger")


def chat_records(generator: random.Random, count: int, seen: set[str]) -> list[dict]:
    """Conversations with one right answer each; `answer` and `group` stand beside the messages; no question twice."""
    makers = (_sum, _difference, _product, _comparison, _order)
    records = []
    while len(records) < count:
        group, question, reasoning, answer = makers[len(records) % len(makers)](generator)
        if question in seen:
            continue
        seen.add(question)
        records.append(
            {
                "messages": [
                    {"role": "user", "content": question},
                    {"role": "assistant", "content": f"{reasoning} Answer: {answer}"},
                ],
                "group": group,
                "answer": answer,
                "id": f"{group}-{len(records):04d}",
            }
        )
    return records


def _sum(generator: random.Random):
    name, thing = generator.choice(_NAMES), generator.choice(_THINGS)
    a, b = generator.randint(2, 60), generator.randint(2, 39)
    question = f"{name} has {a} {thing} and gets {b} more. How many {thing} does {name} have?"
    return "addition", question, f"{a} + {b} = {a + b}.", str(a + b)


def _difference(generator: random.Random):
    name, thing = generator.choice(_NAMES), generator.choice(_THINGS)
    a = generator.randint(12, 99)
    b = generator.randint(1, a - 1)
    question = f"{name} has {a} {thing} and gives {b} away. How many {thing} are left?"
    return "subtraction", question, f"{a} - {b} = {a - b}.", str(a - b)


def _product(generator: random.Random):
    name, thing = generator.choice(_NAMES), generator.choice(_THINGS)
    a, b = generator.randint(2, 12), generator.randint(2, 12)
    question = f"{name} fills {a} boxes with {b} {thing} each. How many {thing} is that?"
    return "multiplication", question, f"{a} * {b} = {a * b}.", str(a * b)


def _comparison(generator: random.Random):
    first, second = generator.sample(_NAMES, 2)
    a, b = generator.sample(range(10, 100), 2)
    thing = generator.choice(_THINGS)
    answer = first if a > b else second
    question = f"{first} has {a} {thing}, {second} has {b} {thing}. Who has more?"
    return "comparison", question, f"{max(a, b)} > {min(a, b)}.", answer


def _order(generator: random.Random):
    first, second, third = generator.sample(_NAMES, 3)
    word = generator.choice(_ORDERED)
    question = f"{first} is {word} than {second}. {second} is {word} than {third}. Who is {word}, {first} or {third}?"
    return "order", question, f"{first} > {second} > {third}.", first
