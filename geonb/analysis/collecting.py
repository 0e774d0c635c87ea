"""Activations by forward hooks on a plain transformers model: estimated first, collected once, streamed to disk if asked."""

from __future__ import annotations

import inspect
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from geonb.analysis.activations import FACTS, POOLS, STATES, Activations, CollectedFacts, file_name, selected
from geonb.analysis.blocks import find_blocks, hidden_of, input_of, parts_of
from geonb.analysis.opened import Opened, open_model
from geonb.errors import InputError

Progress = Callable[[int, int, str], None]
# texts of one length in one forward pass, and their tokens
_TOGETHER, _TOKENS = 16, 4096
# a block's parts must add up to this share of its output before the state between them is believed
_ADDS_UP = 1e-2


def collect(
    model: Any,
    texts: Sequence[str | Sequence[int]],
    *,
    layers: Sequence[int] | None = None,
    pool: str = "mean",
    positions: Sequence[int] | None = None,
    states: Sequence[str] = ("out", "mid"),
    folder: str | Path | None = None,
    overwrite: bool = False,
    limit_memory: int | None = None,
    tokenizer: Any = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> Activations:
    """Run `texts` (or lists of token ids) through `model` once and keep its residual stream after each layer of `layers`.

    `model`: a folder, hub id, "embedded", `Checkpoint`, `TorchRuntime`, `Bench` or transformers model (with `tokenizer`).
    Layers: -1 is what the first block reads, l what block l writes; None is all; the predecessor of each is kept too.
    `pool`: "mean", "last", "mean-no-first" (leaves out the first token, which many models use as an attention sink) or
    "tokens" (one row a token); `positions` restricts to some tokens, negative from the end. `states`: "out", and "mid"
    between a block's mixer and its feed-forward map. Without `folder` all stays in memory. `limit_memory` in bytes is half
    of what is free where not given; the estimate is made before anything runs. Texts are never padded. Raises `InputError`
    for empty texts, unknown layers, what does not fit, an existing folder, and a "mid" that the block's parts do not add up
    to.

    >>> collect("embedded", ["In the beginning", "the earth"], states=("out",))  # doctest: +SKIP
    Activations('embedded', 2 rows x 256, 5 layers, mean, in memory)
    """
    _check_options(pool, states, folder, overwrite)
    opened = open_model(model, tokenizer=tokenizer, device=device)
    _, blocks = find_blocks(opened.model)
    chosen = _chosen_layers(layers, len(blocks))
    if "mid" in states:
        _check_parts(blocks, chosen)
    ids = _encode(texts, opened)
    kept = tuple(positions) if positions is not None else None
    picks = [selected(len(one), kept, pool, text) for text, one in enumerate(ids)]
    config = opened.model.config
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    stored = [("out", layer) for layer in sorted({*chosen, *(layer - 1 for layer in chosen if layer >= 0)})]
    stored += [("mid", layer) for layer in chosen if layer >= 0 and "mid" in states]
    facts = CollectedFacts(
        source=opened.source,
        blocks=len(blocks),
        width=int(config.hidden_size),
        layers=tuple(chosen),
        stored=tuple(stored),
        pool=pool,
        positions=kept,
        lengths=tuple(len(one) for one in ids),
        dtype=str(next(opened.model.parameters()).dtype).removeprefix("torch."),
    )
    counts = [len(one) if pool == "tokens" else 1 for one in picks]
    _check_room(facts, sum(counts), int(config.vocab_size), None if folder is None else Path(folder), limit_memory)
    starts = np.concatenate([[0], np.cumsum(counts)])
    with _sink(facts, int(starts[-1]), None if folder is None else Path(folder), overwrite) as arrays:
        _run(opened, blocks, ids, picks, facts, starts, arrays, progress)
    if folder is not None:
        return Activations.load(folder)
    return Activations(facts=facts, folder=None, arrays=arrays)


def _check_options(pool: str, states: Sequence[str], folder: str | Path | None, overwrite: bool) -> None:
    if pool not in POOLS:
        raise InputError(f"the pooling {pool!r} was given; allowed are {', '.join(POOLS)}.")
    if isinstance(states, str) or "out" not in states or set(states) - set(STATES):
        raise InputError(f"the states {states!r} were given; allowed are ('out',) and ('out', 'mid').")
    if folder is not None:
        path = Path(folder)
        if not path.absolute().parent.is_dir():
            raise InputError(f"the folder {path} would lie in none that is there: make its parent first.")
        # only what `collect` wrote is ever replaced
        if path.exists() and not (overwrite and (path / FACTS).is_file()):
            raise InputError(
                f"{path} exists; allowed is a new folder, or overwrite=True for activations: give another."
            )


def _chosen_layers(layers: Sequence[int] | None, count: int) -> list[int]:
    chosen = sorted(set(range(-1, count) if layers is None else layers))
    wrong = [
        one for one in chosen if isinstance(one, bool) or not isinstance(one, int | np.integer) or not -1 <= one < count
    ]
    if wrong or not chosen:
        raise InputError(
            f"the layers {list(layers or ())} were given; allowed are -1 (what the first block reads) to {count - 1}."
        )
    return [int(one) for one in chosen]


def _check_parts(blocks: list[Any], layers: list[int]) -> None:
    for layer in layers:
        if layer >= 0 and parts_of(blocks[layer]) is None:
            raise InputError(
                f"block {layer}, a {type(blocks[layer]).__name__}, has no mixer and feed-forward map beside each other; "
                "allowed for it is states=('out',)."
            )


def _encode(texts: Sequence[str | Sequence[int]], opened: Opened) -> list[list[int]]:
    from geonb.workbench.generation import encode_prompt

    if isinstance(texts, str) or not len(texts):
        raise InputError("no list of texts was given; allowed is a list of one or more texts or lists of token ids.")
    found = []
    for number, text in enumerate(texts):
        if isinstance(text, str):
            if opened.tokenizer is None:
                raise InputError(
                    "texts were given to a model without a tokenizer: give tokenizer=, or lists of token ids."
                )
            ids = list(encode_prompt(opened.tokenizer, text, chat=False).ids)
        else:
            ids = [int(one) for one in text]
        if not ids:
            raise InputError(f"text {number} has no tokens; allowed is at least one: leave it out.")
        if opened.context is not None and len(ids) > opened.context:
            raise InputError(
                f"text {number} has {len(ids)} tokens and the model reads {opened.context}; allowed are up to that: shorten it."
            )
        found.append(ids)
    return found


def _check_room(facts: CollectedFacts, rows: int, vocabulary: int, folder: Path | None, limit: int | None) -> None:
    """Raise `InputError` where activations, or one forward pass, would not fit."""
    import psutil

    free = int(psutil.virtual_memory().available) // 2 if limit is None else limit
    activations = 4 * rows * facts.width * len(facts.stored)
    # hidden states, their parts and the widest inner state at once; logits where the model cannot leave them out
    forward = 4 * max(one * _batch(one) for one in facts.lengths) * (24 * facts.width + vocabulary)
    needed = forward + (activations if folder is None else 0)
    if needed > free:
        advice = "give folder=, fewer layers or another pool" if folder is None else "give shorter texts"
        raise InputError(
            f"{rows} rows of {facts.width} numbers at {len(facts.stored)} places need {_size(needed)} of memory and "
            f"{_size(free)} are allowed: {advice}."
        )
    if folder is not None and activations > (room := shutil.disk_usage(folder.absolute().parent).free):
        raise InputError(
            f"the activations need {_size(activations)} and the disk has {_size(room)}: give fewer layers."
        )


def _batch(length: int) -> int:
    return max(1, min(_TOGETHER, _TOKENS // length))


def _size(count: int) -> str:
    return f"{count / 1e9:.3g} GB" if count >= 1e9 else f"{count / 1e6:.3g} MB"


@contextmanager
def _sink(
    facts: CollectedFacts, rows: int, folder: Path | None, overwrite: bool
) -> Iterator[dict[tuple[str, int], np.ndarray]]:
    """Arrays to be filled: in memory, or mapped onto safetensors files that appear as a whole at the end."""
    shape = rows, facts.width
    if folder is None:
        yield {place: np.empty(shape, dtype=np.float32) for place in facts.stored}
        return
    building = Path(tempfile.mkdtemp(dir=folder.absolute().parent, prefix=f".{folder.name}."))
    try:
        mapped = {place: _mapped(building / file_name(*place), place[0], shape) for place in facts.stored}
        yield dict(mapped)
        for one in mapped.values():
            one.flush()
        facts.save(building / FACTS)
        building.chmod(0o755)
        if overwrite and folder.exists():
            shutil.rmtree(folder)
        building.rename(folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _mapped(path: Path, name: str, shape: tuple[int, int]) -> np.memmap:
    """A safetensors file of one float32 tensor, mapped for writing: 8 bytes of header length, the header, the numbers."""
    header = json.dumps(
        {name: {"dtype": "F32", "shape": list(shape), "data_offsets": [0, 4 * shape[0] * shape[1]]}}
    ).encode()
    header += b" " * (-len(header) % 8)
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    return np.memmap(path, dtype=np.float32, mode="r+", offset=8 + len(header), shape=shape)


def _run(
    opened: Opened,
    blocks: list[Any],
    ids: list[list[int]],
    picks: list[list[int]],
    facts: CollectedFacts,
    starts: np.ndarray,
    arrays: dict[tuple[str, int], np.ndarray],
    progress: Progress | None,
) -> None:
    import torch

    batches: list[list[int]] = []
    by_length: dict[int, list[int]] = {}
    for text, one in enumerate(ids):
        by_length.setdefault(len(one), []).append(text)
    for length, same in by_length.items():
        batches += [same[start : start + _batch(length)] for start in range(0, len(same), _batch(length))]
    options: dict[str, Any] = {"use_cache": False}
    if "logits_to_keep" in inspect.signature(opened.model.forward).parameters:
        options["logits_to_keep"] = 1
    mids = [layer for state, layer in facts.stored if state == "mid"]
    done = 0
    for number, batch in enumerate(batches):
        seen: dict[tuple[str, int], Any] = {}
        with _hooks(blocks, facts.stored, seen), torch.no_grad():
            given = torch.tensor([ids[text] for text in batch], device=opened.device)
            # without a mask transformers guesses at padding from the ids
            opened.model(input_ids=given, attention_mask=torch.ones_like(given), **options)
        if number == 0:
            for layer in mids:
                _check_sum(seen, layer, blocks[layer])
        for place in facts.stored:
            hidden = seen[place].float()
            for row, text in enumerate(batch):
                piece = hidden[row, picks[text]]
                piece = piece if facts.pool == "tokens" else piece.mean(0, keepdim=True)
                arrays[place][starts[text] : starts[text + 1]] = piece.cpu().numpy()
        done += len(batch)
        if progress is not None:
            progress(done, len(ids), "collecting activations")


@contextmanager
def _hooks(blocks: list[Any], stored: tuple[tuple[str, int], ...], seen: dict[tuple[str, int], Any]) -> Iterator[None]:
    """Inside the block every forward pass leaves its states in `seen`; the hooks go when it ends."""
    with ExitStack() as stack:

        def keep(module: Any, place: tuple[str, int]) -> None:
            handle = module.register_forward_hook(lambda _m, _a, result: seen.__setitem__(place, hidden_of(result)))
            stack.callback(handle.remove)

        def keep_input(module: Any, place: tuple[str, int]) -> None:
            handle = module.register_forward_pre_hook(
                lambda _m, arguments, named: seen.__setitem__(place, input_of(arguments, named)), with_kwargs=True
            )
            stack.callback(handle.remove)

        for state, layer in stored:
            if state == "out" and layer < 0:
                keep_input(blocks[0], (state, layer))
            elif state == "out":
                keep(blocks[layer], (state, layer))
            else:
                mixer, feed_forward = parts_of(blocks[layer]) or (None, None)
                keep_input(blocks[layer], ("in", layer))
                keep(mixer, ("mixer", layer))
                keep(feed_forward, ("feed forward", layer))
                handle = blocks[layer].register_forward_hook(
                    lambda _m, _a, _r, layer=layer: seen.__setitem__(
                        ("mid", layer), seen["in", layer] + seen["mixer", layer].reshape(seen["in", layer].shape)
                    )
                )
                stack.callback(handle.remove)
        yield


def _check_sum(seen: dict[tuple[str, int], Any], layer: int, block: Any) -> None:
    """The input, the mixer's and the feed-forward map's output must add up to what the block writes."""
    import torch

    written, middle = seen["out", layer].float(), seen["mid", layer].float()
    rest = written - middle - seen["feed forward", layer].float().reshape(written.shape)
    # against what the block adds, not against the stream, whose massive entries would hide anything
    added = (written - seen["in", layer].float()).norm()
    # but half-precision sums are rounded at the stream's size
    rounding = 4 * torch.finfo(seen["out", layer].dtype).eps * float(written.norm())
    if not float(rest.norm()) <= _ADDS_UP * float(added) + rounding:
        raise InputError(
            f"the parts of block {layer}, a {type(block).__name__}, do not add up to what it writes (it scales or normalises "
            "between them); allowed for it is states=('out',)."
        )
