"""The held-out tokens on which an export is held against base + adapter."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from geonb.assets import dataset_path, resolve_data
from geonb.data.dataset import tokenise
from geonb.data.records import read_records
from geonb.errors import GeonbError
from geonb.models.checkpoint import Checkpoint

N_PROBES = 16  # texts
_TOKENS = 128  # of one text at most
_LOGIT_BYTES = 256_000_000  # all reference logits are kept in memory, float32
_DATA_LIMIT = 64_000_000  # bytes of training data that are read again to find a run's held-out part


def choose_probes(
    checkpoint: Checkpoint, tokenizer: Any, adapter: Path, probes: str | Path | None
) -> tuple[tuple[tuple[int, ...], ...], str]:
    """Token ids of up to 16 texts, and what they are in words.

    `probes` is a JSONL file or `embedded:NAME`; without it, the held-out examples of the run that the adapter belongs
    to, and where there is none the shipped retention text. A text is cut to 128 tokens, or fewer where the vocabulary
    is so large that the logits would fill more than 256 MB.
    """
    if probes is not None:
        examples = _read(resolve_data(probes), checkpoint, tokenizer)
        source = f"{probes}"
    else:
        examples = _held_out(checkpoint, adapter)
        source = "the run's held-out examples"
        if not examples:
            examples = _read(dataset_path("retention"), checkpoint, tokenizer)
            source = "embedded:retention"
    context = checkpoint.context_length or _TOKENS
    vocabulary = int(checkpoint.config.get("vocab_size") or len(tokenizer))
    length = max(8, min(_TOKENS, context, _LOGIT_BYTES // (4 * vocabulary * N_PROBES)))
    # every text has a part, so that the probes do not all come from the file's beginning
    step = max(1, len(examples) // N_PROBES)
    ids = tuple(tuple(one.input_ids[:length]) for one in examples[::step][:N_PROBES])
    return ids, f"{len(ids)} texts, {sum(map(len, ids))} tokens of {source}"


def _read(path: Path, checkpoint: Checkpoint, tokenizer: Any) -> Sequence[Any]:
    context = checkpoint.context_length or 2048
    return tokenise(read_records(path), tokenizer, context_length=context, max_length=min(context, 512)).examples


def _held_out(checkpoint: Checkpoint, adapter: Path) -> Sequence[Any]:
    """The evaluation examples of the run around `adapter`; none where it is no run or its data is gone or has changed."""
    from geonb.plan.inputs import gather
    from geonb.plan.options import PlanOptions
    from geonb.plan.plan import Plan

    path = adapter.parent / "plan.json"
    if not path.is_file():
        return ()
    try:
        plan = Plan.load(path)
        if resolve_data(plan.data["path"]).stat().st_size > _DATA_LIMIT:
            return ()
        options = PlanOptions.from_dict(plan.options)
        inputs = gather(checkpoint, plan.data["path"], options, seed=plan.seed)
        return inputs.evaluation if inputs.data_digest == plan.data["digest"] else ()
    except (GeonbError, OSError, KeyError, TypeError, ValueError):
        return ()
