"""The base corpus: every page of the sources, split by page into training and held-out text."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from geonb.assets.build.sources import SOURCES, pages
from geonb.records import atomic_write

# one page in forty is held out: about 2 % of the text, by the hash of its name so that the split never moves
_HELD_OUT_IN = 40


def is_held_out(name: str) -> bool:
    """Whether the page `name` is kept from training."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") % _HELD_OUT_IN == 0


def build_corpus(folder: Path) -> dict[str, int]:
    """Write `train.txt` and `held_out.jsonl` into `folder`; returns bytes per package and split."""
    folder.mkdir(parents=True, exist_ok=True)
    training, held_out, sizes, seen = [], [], {}, set()
    for source in SOURCES:
        for name, text in pages(source):
            digest = hashlib.sha256(text.encode()).digest()
            if digest in seen:
                continue
            seen.add(digest)
            if is_held_out(name):
                held_out.append(json.dumps({"page": name, "text": text}))
            else:
                training.append(text)
            key = f"{source.package} {'held out' if is_held_out(name) else 'training'}"
            sizes[key] = sizes.get(key, 0) + len(text)
    atomic_write(folder / "train.txt", "\n\n".join(training))
    atomic_write(folder / "held_out.jsonl", "\n".join(held_out) + "\n")
    return sizes
