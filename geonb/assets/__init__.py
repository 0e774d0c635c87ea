"""What geonb ships: the embedded model, its tokenizer, and three data sets, each with source and licence."""

from __future__ import annotations

from pathlib import Path

from geonb.errors import InputError

# name -> (training file, evaluation file or None, what it is)
DATASETS = {
    "kjv": ("kjv.jsonl", "kjv_eval.jsonl", "the King James Bible: prose of another age"),
    "chat": ("chat.jsonl", "chat_eval.jsonl", "arithmetic and logic with checkable answers, as conversations"),
    "retention": ("retention.jsonl", None, "technical documentation that the embedded model never saw"),
}


def embedded_model_folder() -> Path:
    """The folder of the embedded model."""
    return Path(__file__).parent / "embedded"


def dataset_path(name: str, *, evaluation: bool = False) -> Path:
    """The JSONL file of a shipped data set ("kjv", "chat", "retention"), or of its evaluation part."""
    if name not in DATASETS:
        raise InputError(f"the embedded data set {name!r} is not known; allowed are {', '.join(sorted(DATASETS))}.")
    training, held_out, _ = DATASETS[name]
    chosen = held_out if evaluation else training
    if chosen is None:
        raise InputError(f"the embedded data set {name!r} has no evaluation part: use it without.")
    return Path(__file__).parent / "data" / chosen


def resolve_data(source: str | Path) -> Path:
    """The file of a data source: a path, or `embedded:NAME` (with `embedded:NAME/eval` for its evaluation part)."""
    text = str(source)
    if not text.startswith("embedded:"):
        return Path(text).expanduser()
    name, _, part = text.removeprefix("embedded:").partition("/")
    if part not in ("", "eval"):
        raise InputError(f"{text} is not known; allowed are embedded:NAME and embedded:NAME/eval.")
    return dataset_path(name, evaluation=part == "eval")
