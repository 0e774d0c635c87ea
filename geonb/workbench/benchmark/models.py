"""The benchmark's base models: three sizes and three families, trained here on the embedded model's corpus.

A recipe is an architecture and a number of steps. The trained models are not shipped (4 to 35 MB each): they are made by
`geonb benchmark models` into the cache folder, the same to the bit wherever corpus, library and processor are the same; each
row of results carries the digest of its model. A name such as `llama-1m-3k+bf16` is a base model under a condition of
`derived`, made from it on demand. The models of `CLOSED` were trained for a time instead of steps, so nobody can make them
again: their rows stay, and no more are asked of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geonb.errors import InputError

# what all share with the embedded model: its tokenizer and its context
_SHARED: dict[str, Any] = {"vocab_size": 2048, "pad_token_id": 0, "eos_token_id": 1, "tie_word_embeddings": True}


@dataclass(frozen=True, slots=True)
class Recipe:
    """One base model: how it is built, and for how many steps it learns; `minutes` is about what they take on one core."""

    name: str
    family: str
    steps: int
    minutes: float
    make: Callable[[], Any]


def _llama(hidden: int, inner: int, layers: int, heads: int, kv_heads: int, seed: int) -> Callable[[], Any]:
    def make() -> Any:
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM

        torch.manual_seed(seed)
        return LlamaForCausalLM(
            LlamaConfig(
                hidden_size=hidden,
                intermediate_size=inner,
                num_hidden_layers=layers,
                num_attention_heads=heads,
                num_key_value_heads=kv_heads,
                max_position_embeddings=256,
                bos_token_id=None,
                **_SHARED,
            )
        )

    return make


def _gpt2() -> Any:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(11)
    # no dropout: the embedded model and its sisters have none, and a benchmark's losses should not draw twice
    return GPT2LMHeadModel(
        GPT2Config(
            n_embd=256, n_layer=4, n_head=4, n_positions=256, bos_token_id=1,
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, **_SHARED,
        )
    )  # fmt: skip


def _lfm2() -> Any:
    import torch
    from transformers import Lfm2Config, Lfm2ForCausalLM

    torch.manual_seed(12)
    return Lfm2ForCausalLM(
        Lfm2Config(
            hidden_size=256,
            intermediate_size=640,
            num_hidden_layers=6,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=256,
            layer_types=["conv", "conv", "full_attention", "conv", "conv", "full_attention"],
            block_auto_adjust_ff_dim=False,
            bos_token_id=None,
            **_SHARED,
        )
    )


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("llama-1m-3k", "llama", 3000, 10, _llama(128, 320, 4, 4, 2, seed=13)),
        Recipe("gpt2-4m-2k", "gpt2", 2000, 22, _gpt2),
        Recipe("lfm2-5m-2k", "lfm2", 2000, 32, _lfm2),
        Recipe("llama-9m-2k", "llama", 2000, 48, _llama(384, 1024, 5, 6, 2, seed=14)),
    )
}
CLOSED = ("llama-1m", "gpt2-4m")
NAMES = ("embedded", *RECIPES, *CLOSED)


def models_folder() -> Path:
    """Where trained benchmark models are kept."""
    from geonb.models.cache import cache_folder

    return cache_folder() / "benchmark-models"


def can_be_made(name: str) -> bool:
    """Whether the benchmark model `name`, under a condition or not, is more than the rows that there are of it."""
    return name.partition("+")[0] not in CLOSED


def model_source(name: str, *, make: bool = True) -> str:
    """What to give a loader for the benchmark model `name`; any folder or hub id is handed on as it is.

    Raises `InputError` for a recipe that was not trained here yet, for a model that cannot be made again, for an unknown
    condition of a benchmark model, and for a model under a condition that is not there yet where it may not be made.
    """
    from geonb.workbench.benchmark.conditions import WEIGHTS, parted
    from geonb.workbench.benchmark.derived import derived_source

    base, condition = parted(name)
    if condition:
        return derived_source(model_source(base), condition, models_folder() / "derived", make=make)
    if (said := name.partition("+"))[0] in NAMES and said[1]:
        raise InputError(f"the condition {said[2]!r} of a model was given; the benchmark has {', '.join(WEIGHTS)}.")
    if not can_be_made(name):
        raise InputError(
            f"the benchmark model {name} was given; it was trained for a time and cannot be made again, so its rows are all "
            f"there will be: take {', '.join(RECIPES)}."
        )
    if name == "embedded" or name not in RECIPES:
        return name
    folder = models_folder() / name
    if not (folder / "config.json").is_file():
        raise InputError(
            f"the benchmark model {name} is not trained on this machine yet: run `geonb benchmark models {name}` first "
            f"(about {RECIPES[name].minutes:.0f} core minutes)."
        )
    return str(folder)


def train_model(name: str, folder: Path, *, progress: Callable[[int, int, float], None] | None = None) -> Path:
    """Train the recipe `name` with corpus and checkpoints in `folder` (resumable), and write it as a Hugging Face folder.

    `progress(step, steps, loss)` is called after every step of a model that is not there yet.
    """
    import json
    import shutil

    import torch

    from geonb.assets import embedded_model_folder
    from geonb.assets.build.corpus import build_corpus
    from geonb.assets.build.pretrain import pretrain
    from geonb.records import atomic_write
    from geonb.workbench.benchmark.environment import environment

    if name not in RECIPES:
        raise InputError(f"the model {name!r} was given; the benchmark trains {', '.join(RECIPES)}.")
    target = models_folder() / name
    if (target / "config.json").is_file():
        return target
    if not (folder / "train.txt").is_file():
        build_corpus(folder)
    recipe, tokenizer = RECIPES[name], embedded_model_folder()
    saved = pretrain(
        folder, tokenizer, steps=recipe.steps, make=recipe.make, name=f"pretrain-{name}", progress=progress
    )
    model = recipe.make()
    model.load_state_dict(torch.load(saved, weights_only=True)["model"])
    part = target.with_name(name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    model.save_pretrained(part)
    for each in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(tokenizer / each, part / each)
    # where two trainings of one recipe differ, this says in what
    made = {"recipe": name, "steps": recipe.steps, "corpus": _digest(folder / "train.txt"), **environment()}
    atomic_write(part / "training.json", json.dumps(made, indent=1) + "\n")
    part.rename(target)
    return target


def _digest(path: Path) -> str:
    import hashlib

    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
