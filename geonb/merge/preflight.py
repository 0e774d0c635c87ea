"""Whether two models can be merged at all: found before any weight is read, and refused with the first reason."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from geonb.errors import InputError
from geonb.models.checkpoint import Checkpoint
from geonb.record_tables import table_html
from geonb.records import Record, plain

SAME, NOTED, REFUSED = "same", "noted", "refused"
SPECIAL_TOKENS = "special tokens"
# what makes the shapes, or what a matrix of equal shape is for; any other difference is noted
_SIZES = (
    "model_type",
    "hidden_size",
    "n_embd",
    "num_hidden_layers",
    "n_layer",
    "num_attention_heads",
    "n_head",
    "num_key_value_heads",
    "head_dim",
    "intermediate_size",
    "n_inner",
    "vocab_size",
    "hidden_act",
    "activation_function",
    "num_local_experts",
    "num_experts",
    "num_experts_per_tok",
    "layer_types",
)
_SPECIAL = ("bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token", "mask_token")
# how a file was written, not what the model computes
_IRRELEVANT = {"transformers_version", "torch_dtype", "dtype", "_name_or_path", "architectures", "use_cache"}
_IRRELEVANT |= {"tie_word_embeddings", "output_attentions", "output_hidden_states", "return_dict", "_from_model_config"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Check(Record):
    """One comparison of the two models: "same", "noted" (a difference to know of) or "refused", and why."""

    name: str
    verdict: str
    because: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Preflight(Record):
    """All comparisons of a target and a donor, in the order in which they are made."""

    target: str
    donor: str
    checks: tuple[Check, ...]

    @property
    def verdict(self) -> str:
        """ "failed" when a check refuses, else "passed"."""
        return "failed" if self.refusal is not None else "passed"

    @property
    def refusal(self) -> Check | None:
        """The first check that refuses, or None."""
        return next((check for check in self.checks if check.verdict == REFUSED), None)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was noted, as sentences without a point."""
        return tuple(check.because for check in self.checks if check.verdict == NOTED)

    def summary(self) -> str:
        return f"Preflight({self.donor!r} into {self.target!r}: {self.verdict})"

    def to_text(self) -> str:
        lines = [f"{self.donor} into {self.target}: {self.verdict}"]
        lines += [f"  {check.verdict:8} {check.name:16} {check.because}" for check in self.checks]
        return "\n".join(plain(line) for line in lines)

    def to_html(self) -> str:
        rows = [(check.name, check.verdict, check.because) for check in self.checks]
        return table_html(("check", "verdict", "because"), rows, caption=f"{self.donor} into {self.target}")


def preflight(target: Checkpoint, donor: Checkpoint, *, accept: Collection[str] = ()) -> Preflight:
    """Compare architecture, sizes, every matrix's shape, tied embeddings, vocabularies, special tokens and templates.

    `accept` may hold "special tokens": different ones are then noted instead of refused. Nothing of the weights is read.

    >>> preflight(Checkpoint.open("embedded"), Checkpoint.open("embedded")).verdict
    'passed'
    """
    unknown = sorted(set(accept) - {SPECIAL_TOKENS})
    if unknown:
        raise InputError(f"{unknown[0]!r} was to be accepted; allowed is {SPECIAL_TOKENS!r}: give that or nothing.")
    checks = [*_structure(target, donor)]
    # matrices of models that differ in kind have nothing to be compared by
    if not any(check.verdict == REFUSED for check in checks):
        checks += [_shapes(target, donor), *_tokenizers(target, donor, accept), _dtypes(target, donor)]
    return Preflight(target=target.source, donor=donor.source, checks=tuple(checks))


def require(found: Preflight) -> None:
    """Raise the `InputError` of the first check that refuses."""
    refusal = found.refusal
    if refusal is not None:
        raise InputError(plain(f"{found.donor} cannot be merged into {found.target}: {refusal.because}."))


def _check(name: str, problem: str, same: str, verdict: str = REFUSED) -> Check:
    return Check(name=name, verdict=verdict if problem else SAME, because=problem or same)


def _structure(target: Checkpoint, donor: Checkpoint) -> Iterator[Check]:
    one, other = target.architecture, donor.architecture
    problem = "" if one == other else f"the target is a {one} and the donor a {other}; allowed is the same architecture"
    if not problem and not target.is_causal:
        problem = f"both are {one}, which does not predict a next token; allowed is a causal language model"
    yield _check("architecture", problem, one)
    if problem:
        return
    mine, theirs = _config(target), _config(donor)
    sizes = [key for key in _SIZES if mine.get(key) != theirs.get(key)]
    problem = ""
    if sizes:
        key = sizes[0]
        problem = f"{key} is {mine.get(key)} in the target and {theirs.get(key)} in the donor; allowed are equal sizes"
    yield _check("sizes", problem, f"{len([key for key in _SIZES if key in mine])} sizes of the configs are equal")
    tied, other_tied = (bool(config.get("tie_word_embeddings")) for config in (mine, theirs))
    said = {True: "ties its output head to its embedding", False: "keeps its output head apart from its embedding"}
    problem = "" if tied == other_tied else f"the target {said[tied]} and the donor {said[other_tied]}"
    yield _check("tied embeddings", problem, f"each {said[tied]}")
    odd = [
        key
        for key in sorted({*mine, *theirs} - _IRRELEVANT - set(_SIZES))
        if mine.get(key) != theirs.get(key) and not key.endswith("_token_id")
    ]
    shown = ", ".join(f"{key} ({mine.get(key)} and {theirs.get(key)})" for key in odd[:3])
    more = f" and {len(odd) - 3} more" if len(odd) > 3 else ""
    problem = f"the configs differ in {shown}{more}; the target's stay" if odd else ""
    yield _check("config", problem, "nothing else differs", NOTED)


def _config(checkpoint: Checkpoint) -> dict[str, Any]:
    """The config with every default filled in, so that a key that one file leaves out is no difference."""
    from transformers import AutoConfig

    try:
        found = AutoConfig.from_pretrained(checkpoint.folder, trust_remote_code=False, local_files_only=True)
    except (ValueError, KeyError, OSError, ImportError, AttributeError, TypeError):
        return dict(checkpoint.config)
    return found.to_dict()


def _shapes(target: Checkpoint, donor: Checkpoint) -> Check:
    theirs = {ref.name: ref.shape for ref in donor.refs}
    problem = ""
    for ref in target.refs:
        if ref.name not in theirs:
            problem = f"the donor has no matrix {ref.name}"
        elif theirs[ref.name] != ref.shape:
            shape, other = (f"{one[0]} x {one[1]}" for one in (ref.shape, theirs[ref.name]))
            problem = f"{ref.name} is {shape} in the target and {other} in the donor; allowed are equal shapes"
        if problem:
            break
    extra = sorted(set(theirs) - {ref.name for ref in target.refs})
    if not problem and extra:
        problem = f"the donor has the matrix {extra[0]}, which the target does not have"
    return _check("shapes", problem, f"all {len(theirs)} matrices have the same shape in both")


def _tokenizers(target: Checkpoint, donor: Checkpoint, accept: Collection[str]) -> Iterator[Check]:
    mine, theirs = target.load_tokenizer(), donor.load_tokenizer()
    yield _vocabulary(mine.get_vocab(), theirs.get_vocab())
    odd = [name for name in _SPECIAL if _special(mine, name) != _special(theirs, name)]
    problem = ""
    if odd:
        name = odd[0]
        problem = f"{name} is {_special(mine, name)} in the target and {_special(theirs, name)} in the donor"
        if SPECIAL_TOKENS not in accept:
            problem += "; mend the donor's tokenizer, or accept it (--accept-special-tokens): the target's are kept"
    verdict = NOTED if SPECIAL_TOKENS in accept else REFUSED
    yield _check(SPECIAL_TOKENS, problem, ", ".join(f"{name} {_special(mine, name)}" for name in _SPECIAL[:3]), verdict)
    same = mine.chat_template == theirs.chat_template
    yield _check(
        "chat template",
        "" if same else "the chat templates differ; the target's stays, and the donor was tuned on its own",
        "the same" if mine.chat_template else "neither has one",
        NOTED,
    )


def _special(tokenizer: Any, name: str) -> str:
    token = getattr(tokenizer, name, None)
    return "none" if token is None else f"{str(token)!r} (id {tokenizer.convert_tokens_to_ids(str(token))})"


def _vocabulary(mine: dict[str, int], theirs: dict[str, int]) -> Check:
    if mine == theirs:
        return _check("vocabulary", "", f"{len(mine):,} tokens, id by id the same")
    here, there = ({index: token for token, index in vocabulary.items()} for vocabulary in (mine, theirs))
    shared = sum(there.get(index) == token for index, token in here.items())
    first = min(index for index in {*here, *there} if here.get(index) != there.get(index))
    one, other = (repr(found[first]) if first in found else "no token" for found in (here, there))
    return _check(
        "vocabulary",
        f"the vocabularies share {shared:,} of {len({*here, *there}):,} ids; the first difference is id {first}: {one} in "
        f"the target, {other} in the donor; allowed is the same vocabulary id by id",
        "",
    )


def _dtypes(target: Checkpoint, donor: Checkpoint) -> Check:
    mine, theirs = ({ref.dtype for ref in one.refs if ref.targetable} for one in (target, donor))
    problem = ""
    if mine != theirs:
        problem = (
            f"the target stores {' and '.join(sorted(mine))}, the donor {' and '.join(sorted(theirs))}: their difference "
            "holds the rounding of the coarser one, and the output is stored as the target is"
        )
    return _check("dtype", problem, " and ".join(sorted(mine)), NOTED)
