"""What a plan is made from, and a run is fed with: the checkpoint, and the examples on each side of the split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geonb.errors import InputError
from geonb.plan.options import PlanOptions
from geonb.plan.plan import Plan

# windows of the shipped text are shorter than this for any ordinary tokenizer; a cap keeps byte-level ones affordable
_RETENTION_TOKENS = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """Opened and tokenised inputs; the same sources, options and seed give the same examples in the same order."""

    checkpoint: Any  # geonb.models.Checkpoint
    data_path: Path
    data_digest: str
    evaluation_digest: str | None
    dataset: Any  # geonb.data.Dataset of the training file
    split: Any  # geonb.data.Split
    training: Sequence[Any]
    evaluation: Sequence[Any]
    retention: Sequence[Any]
    sequence_length: int  # tokens
    sequence_length_source: str
    seed: int
    seed_source: str


def gather(
    model: Any, data: str | Path, options: PlanOptions, *, seed: int | None = None, with_retention: bool = False
) -> Inputs:
    """Open `model` (a source or a `Checkpoint`) and `data`, tokenise and split. `seed` overrides the derived one.

    Raises `InputError` for a model that is not a causal language model, a length beyond its context, an evaluation
    file that is the training file, and whatever the floors below refuse.
    """
    from geonb.assets import resolve_data
    from geonb.data.dataset import tokenise
    from geonb.data.records import read_records
    from geonb.data.seeds import data_digest, derive_seed
    from geonb.data.split import split

    checkpoint = open_checkpoint(model)
    if not checkpoint.is_causal:
        raise InputError(
            f"{checkpoint.source} is a {checkpoint.architecture}, which does not predict a next token; a plan needs a "
            "causal language model: see it with `geonb model info` and `geonb model capacity`."
        )
    context = checkpoint.context_length
    if options.seq_length is not None and context is not None and options.seq_length > context:
        raise InputError(
            f"--seq-length was given {options.seq_length:,}, but {checkpoint.source} has a context of {context:,} "
            "tokens: give at most that."
        )
    path = resolve_data(data)
    records = read_records(path)
    digest = data_digest(path)
    tokenizer = checkpoint.load_tokenizer()
    dataset = tokenise(records, tokenizer, context_length=context, max_length=options.seq_length)
    length, length_source = dataset.sequence_length, dataset.sequence_length_source
    evaluation, evaluation_digest = None, None
    if options.eval_data is not None:
        other = resolve_data(options.eval_data)
        if other.resolve() == path.resolve():
            raise InputError(
                f"--eval-data was given {options.eval_data}, which is the training file itself: give another file, or "
                "leave it out to have a split derived."
            )
        evaluation_digest = data_digest(other)
        held = tokenise(read_records(other), tokenizer, context_length=context, max_length=options.seq_length)
        evaluation = held.examples
        if held.sequence_length > length:
            length, length_source = held.sequence_length, f"{held.sequence_length_source}, in the evaluation file"
    if seed is not None:
        source = "given by --seed"
    else:
        seed, source = derive_seed(checkpoint.digest, digest), "sha256 of the model's and the data's bytes"
    parts = split(dataset.examples, seed=seed, eval_examples=evaluation)
    held_out = evaluation if evaluation is not None else [dataset.examples[int(row)] for row in parts.eval]
    return Inputs(
        checkpoint=checkpoint,
        data_path=path,
        data_digest=digest,
        evaluation_digest=evaluation_digest,
        dataset=dataset,
        split=parts,
        training=[dataset.examples[int(row)] for row in parts.train],
        evaluation=held_out,
        retention=_retention(tokenizer, context) if with_retention else [],
        sequence_length=length,
        sequence_length_source=length_source,
        seed=int(seed),
        seed_source=source,
    )


def load_inputs(plan: Plan) -> Inputs:
    """The inputs that `plan` was made from, opened again with its seed; whoever trains compares the digests."""
    options = PlanOptions.from_dict(plan.options)
    return gather(plan.model["source"], plan.data["path"], options, seed=plan.seed, with_retention=True)


def open_checkpoint(model: Any) -> Any:
    """`model` itself when it is an open checkpoint, else the checkpoint that the path, hub id or "embedded" names."""
    if hasattr(model, "refs") and hasattr(model, "read"):
        return model
    from geonb.models.checkpoint import Checkpoint

    return Checkpoint.open(model)


def _retention(tokenizer: Any, context: int | None) -> list[Any]:
    """Held-out general text that ships with geonb, the same for every model, cut to the model's context."""
    from geonb.assets import resolve_data
    from geonb.data.dataset import tokenise
    from geonb.data.records import read_records

    length = _RETENTION_TOKENS if context is None else min(context, _RETENTION_TOKENS)
    records = read_records(resolve_data("embedded:retention"))
    return tokenise(records, tokenizer, context_length=context, max_length=length).examples
