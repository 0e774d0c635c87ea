"""A byte-level BPE tokenizer as GGUF's metadata, only where llama.cpp would cut text into the same tokens.

llama.cpp knows pre-tokenizers by name, not by rule, and a file with the wrong name gives other tokens without a word.
So the rules of tokenizer.json are matched with those that have a name, and all others are refused.
"""

from __future__ import annotations

import json
from typing import Any

from geonb.errors import InputError
from geonb.models.checkpoint import Checkpoint

# Llama 3's own split, as its tokenizer.json writes it
_LLAMA_3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED = 1, 3, 4, 5  # llama.cpp's token types
_SPECIAL = {"bos_token_id": "add_bos_token_id", "eos_token_id": "add_eos_token_id", "pad_token_id": "add_pad_token_id"}


def read_tokenizer(checkpoint: Checkpoint) -> dict[str, Any]:
    """tokenizer.json of the base, checked: byte-level BPE with a pre-tokenizer that llama.cpp has by name.

    Returns {"pre", "tokens", "types", "merges"}; raises `InputError` for every other tokenizer.
    """
    path = checkpoint.folder / "tokenizer.json"
    if not path.is_file():
        raise InputError(_refusal(checkpoint, "it has no tokenizer.json"))
    data = json.loads(path.read_text(encoding="utf-8"))
    model = data.get("model") or {}
    if model.get("type") != "BPE" or model.get("byte_fallback"):
        raise InputError(_refusal(checkpoint, f"its model is {model.get('type')!r}, not byte-level BPE"))
    if data.get("normalizer") is not None:
        raise InputError(_refusal(checkpoint, "it normalises text first"))
    pre = _pre_tokenizer(data.get("pre_tokenizer") or {}, bool(model.get("ignore_merges")))
    if pre is None:
        raise InputError(_refusal(checkpoint, "llama.cpp has no name for the way it splits text"))
    size = int(checkpoint.config["vocab_size"])
    tokens = [f"[PAD{index}]" for index in range(size)]
    types = [_UNUSED] * size
    for token, index in model["vocab"].items():
        tokens[index], types[index] = token, _NORMAL
    for added in data.get("added_tokens") or []:
        tokens[added["id"]] = added["content"]
        types[added["id"]] = _CONTROL if added.get("special") else _USER_DEFINED
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    return {"pre": pre, "tokens": tokens, "types": types, "merges": merges}


def write_tokenizer(writer: Any, checkpoint: Checkpoint) -> None:
    """Add the tokenizer, its special ids and its chat template to a `gguf.GGUFWriter`."""
    found = read_tokenizer(checkpoint)
    tokenizer = checkpoint.load_tokenizer()
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(found["pre"])
    writer.add_token_list(found["tokens"])
    writer.add_token_types(found["types"])
    writer.add_token_merges(found["merges"])
    for name, add in _SPECIAL.items():
        if getattr(tokenizer, name) is not None:
            getattr(writer, add)(int(getattr(tokenizer, name)))
    # what the tokenizer really does to a text, not what its config says
    ids = tokenizer("a")["input_ids"]
    writer.add_add_bos_token(bool(ids) and tokenizer.bos_token_id is not None and ids[0] == tokenizer.bos_token_id)
    writer.add_add_eos_token(bool(ids) and tokenizer.eos_token_id is not None and ids[-1] == tokenizer.eos_token_id)
    if isinstance(tokenizer.chat_template, str):
        writer.add_chat_template(tokenizer.chat_template)


def _pre_tokenizer(rule: dict[str, Any], ignores_merges: bool) -> str | None:
    """llama.cpp's name for a pre-tokenizer; None where it has none."""
    rules: list[dict[str, Any]] = (rule.get("pretokenizers") or []) if rule.get("type") == "Sequence" else [rule]
    kinds = [one.get("type") for one in rules]
    if not kinds or kinds[-1] != "ByteLevel" or (last := rules[-1]).get("add_prefix_space"):
        return None
    uses_regex = last.get("use_regex", True)
    if kinds == ["ByteLevel"] and uses_regex and not ignores_merges:
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and rules[0].get("individual_digits") and uses_regex and not ignores_merges:
        return "smollm"
    if kinds == ["Split", "ByteLevel"] and not uses_regex and ignores_merges:
        split = rules[0]
        plain = split.get("behavior") == "Isolated" and not split.get("invert")
        return "llama-bpe" if plain and (split.get("pattern") or {}).get("Regex") == _LLAMA_3 else None
    return None


def _refusal(checkpoint: Checkpoint, because: str) -> str:
    return (
        f"the tokenizer of {checkpoint.source} cannot be written to gguf faithfully ({because}); allowed is byte-level BPE "
        "split as GPT-2, SmolLM or Llama 3 do: export merged_bf16 and use llama.cpp's own converter."
    )
