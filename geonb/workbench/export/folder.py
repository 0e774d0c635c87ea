"""The files of a Hugging Face folder that are no weights: config, tokenizer, generation config, licence."""

from __future__ import annotations

import json
import logging
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from geonb.models.checkpoint import Checkpoint

# by name, so that nothing else of a stranger's folder (code, pickles, notes about the base alone) comes along
_TOKENIZER = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "merges.txt", "vocab.txt", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "chat_template.jinja",
    "chat_template.json",
)  # fmt: skip
_OTHERS = ("generation_config.json", "LICENSE*", "LICENCE*", "NOTICE*", "USE_POLICY*")


def copy_companions(checkpoint: Checkpoint, folder: Path, *, only_tokenizer: bool = False) -> None:
    """Copy tokenizer, generation config and licence of the base into `folder`, byte for byte."""
    for pattern in _TOKENIZER if only_tokenizer else (*_TOKENIZER, *_OTHERS):
        for path in checkpoint.folder.glob(pattern):
            if path.is_file() and not (folder / path.name).exists():
                shutil.copyfile(path, folder / path.name)


def write_config(checkpoint: Checkpoint, folder: Path, *, dtype: str | None, untied: bool) -> None:
    """The base's config.json with the weights' dtype (None: as it is), and with its head untied where it now is."""
    config: dict[str, Any] = json.loads(json.dumps(checkpoint.config))
    if dtype is not None:
        for part in (config, config.get("text_config")):
            if isinstance(part, dict):
                part.pop("torch_dtype", None)
                part["dtype"] = dtype
    if untied:
        config["tie_word_embeddings"] = False
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


@contextmanager
def quiet() -> Iterator[None]:
    """Loaders talk: inside the block transformers shows no bars, and no library logs or warns below an error."""
    from transformers.utils import logging as hub_logging

    verbosity, bars = hub_logging.get_verbosity(), hub_logging.is_progress_bar_enabled()
    disabled = logging.root.manager.disable
    hub_logging.set_verbosity_error()
    hub_logging.disable_progress_bar()
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        hub_logging.set_verbosity(verbosity)
        if bars:
            hub_logging.enable_progress_bar()
