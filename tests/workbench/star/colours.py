"""A problem that can be learnt from one's own solutions, and a model that at first answers it by guessing.

The question names a colour and the answer is that colour. The model was taught the form of an answer with colours drawn
at random, so that a third of its samples is right: what STaR needs to begin, and a known truth for what it should reach.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

from tests.families import write_tiny

COLOURS = ("red", "blue", "green")
_FORMS = ("Box {n} is {c}. Which colour?", "Take {n}: it is {c}. Colour?", "The {c} cup has number {n}. Its colour?")


def problems(count: int, *, first: int = 0) -> list[dict]:
    """`count` different questions with their answers, in groups by form."""
    made = []
    for number in range(first, first + count):
        colour, form = COLOURS[number % 3], number // 3 % 3
        made.append(
            {"prompt": _FORMS[form].format(n=number, c=colour), "answer": colour.title(), "group": f"form {form}"}
        )
    return made


def write(path: Path, rows: list[dict]) -> Path:
    """`rows` as JSONL."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def guessing_model(folder: Path, *, steps: int = 120) -> Path:
    """A two-layer llama that answers "Answer: COLOUR" with a colour of its own choice, and ends its text."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    write_tiny("llama", folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rng = random.Random(5)
    rows = problems(300, first=5000)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(steps):
        texts = [
            tokenizer.apply_chat_template(
                [
                    {"role": "user", "content": row["prompt"]},
                    {"role": "assistant", "content": f"Answer: {rng.choice(COLOURS)}"},
                ],
                tokenize=False,
            )
            for row in rng.choices(rows, k=24)
        ]
        batch = tokenizer(
            texts, padding=True, return_tensors="pt", add_special_tokens=False, return_token_type_ids=False
        )
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        loss = model(**batch, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.save_pretrained(folder)
    return folder
