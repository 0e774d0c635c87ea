"""Probe texts, and what the target's linear maps see of them: per map A^T A and a count, never the activations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from geonb.data.example import Example
from geonb.errors import InputError
from geonb.models.checkpoint import Checkpoint
from geonb.models.matrix_ref import MatrixRef

# long enough for what attention does to show, short enough that one sequence fits beside any model (convention)
MAX_TOKENS = 512
HELD_OUT_SHARE = 0.2
# below this a bootstrap over the held-out fifth has fewer than two texts
_LEAST_TO_SPLIT = 10
_LEAST = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """Tokenised texts: `probes` shape the projector, `held_out` and `donor` only measure."""

    probes: tuple[Example, ...]
    held_out: tuple[Example, ...]
    donor: tuple[Example, ...]
    sources: dict[str, str]
    notes: tuple[str, ...]

    @property
    def digests(self) -> dict[str, str | None]:
        """sha256 of the token ids and counted places of each part; None for an empty one."""
        from geonb.train.example_losses import examples_digest

        parts = {"probes": self.probes, "held_out": self.held_out, "donor_text": self.donor}
        return {name: examples_digest(part) if part else None for name, part in parts.items()}


def gather_texts(
    target: Checkpoint,
    *,
    probes: str | Path | None = None,
    held_out: str | Path | None = None,
    donor_text: str | Path | None = None,
    max_tokens: int = MAX_TOKENS,
    seed: int = 0,
) -> Texts:
    """Read and tokenise the JSONL files; without `held_out` a fifth of the probes' contents is set aside by `seed`.

    The default probes of `embedded` are the held-out text that ships with it. A held-out text that is also a probe is
    left out. Raises `InputError` where probes are missing, too few, or the held-out file is the probes' own.
    """
    from geonb.assets import resolve_data

    if max_tokens < 2:
        raise InputError(f"{max_tokens} tokens a text were given; allowed are 2 and more: give more.")
    if probes is None:
        if target.source != "embedded":
            raise InputError(
                f"no probes were given for {target.source}; needed is a JSONL file of texts such as the target is used "
                "for, because what it does on them is what the merge leaves alone: give --probes FILE."
            )
        probes = "embedded:retention"
    tokenizer = target.load_tokenizer()
    notes: list[str] = []

    def read(source: str | Path, role: str) -> list[Example]:
        return _read(resolve_data(source), role, target, tokenizer, max_tokens, notes)

    if held_out is not None and resolve_data(held_out).resolve() == resolve_data(probes).resolve():
        raise InputError(
            f"--held-out was given {held_out}, which is the probes' own file: give another, or leave it out to have a "
            "fifth of the probes set aside."
        )
    seen = read(probes, "probes")
    if held_out is None:
        seen, held = _split(seen, seed)
        held_source = f"a fifth of {probes}, by content digest, seed {seed}"
    else:
        contents = {example.digest for example in seen}
        held = read(held_out, "held-out texts")
        kept = [example for example in held if example.digest not in contents]
        if len(kept) < len(held):
            notes.append(f"{len(held) - len(kept)} of {len(held)} held-out texts are probes too and were left out")
        held, held_source = kept, str(held_out)
    donor = read(donor_text, "donor texts") if donor_text is not None else []
    for part, name, option in ((seen, "probes", "--probes"), (held, "held-out texts", "--held-out")):
        if len(part) < _LEAST:
            raise InputError(f"{len(part)} {name} are left; an interval needs {_LEAST} or more: give more in {option}.")
    if donor_text is not None and len(donor) < _LEAST:
        raise InputError(f"{len(donor)} donor texts were given; an interval needs {_LEAST} or more: give more.")
    return Texts(
        probes=tuple(seen),
        held_out=tuple(held),
        donor=tuple(donor),
        sources={
            "probes": str(probes),
            "held_out": held_source,
            **({"donor_text": str(donor_text)} if donor_text is not None else {}),
        },
        notes=tuple(notes),
    )


def _read(
    path: Path, role: str, target: Checkpoint, tokenizer: Any, max_tokens: int, notes: list[str]
) -> list[Example]:
    from geonb.data.dataset import tokenise
    from geonb.data.records import read_records

    context = target.context_length
    length = max_tokens if context is None else min(context, max_tokens)
    found = tokenise(read_records(path), tokenizer, context_length=context, max_length=length)
    if found.n_cut:
        notes.append(f"{found.n_cut} of the {role} were cut to {length} tokens")
    if found.n_dropped:
        notes.append(f"{found.n_dropped} of the {role} count no token within {length} tokens and were left out")
    return found.examples


def _split(examples: Sequence[Example], seed: int) -> tuple[list[Example], list[Example]]:
    """A fifth of the distinct contents to the second list; equal texts stay on one side."""
    contents = sorted({example.digest for example in examples})
    if len(contents) < _LEAST_TO_SPLIT:
        raise InputError(
            f"{len(contents)} different probes were given; to set a fifth aside it takes {_LEAST_TO_SPLIT}: give more, or "
            "a second file with --held-out."
        )
    order = np.random.default_rng(seed).permutation(len(contents))
    held = {contents[int(place)] for place in order[: int(HELD_OUT_SHARE * len(contents))]}
    kept = [example for example in examples if example.digest not in held]
    return kept, [example for example in examples if example.digest in held]


# -- activations ------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class InputGram:
    """A^T A: (in, in), float64, and the rows of A: the tokens that reached the map."""

    gram: Any
    tokens: int = 0

    def add(self, inputs: Any) -> None:
        """Take in (..., in) more inputs."""
        rows = inputs.detach().flatten(0, -2).to(self.gram.device).double()
        self.gram.addmm_(rows.mT, rows)
        self.tokens += len(rows)


def shared_inputs(model: Any, refs: Sequence[MatrixRef], example: Example, device: Any) -> dict[str, str]:
    """The matrices' names, each with the name of the first that reads the very same input (q, k and v; gate and up)."""
    import torch

    inputs: dict[str, Any] = {}
    modules = dict(model.named_modules())
    with ExitStack() as stack:
        for ref in refs:
            if ref.expert is None and ref.module in modules:

                def keep(module: Any, args: tuple, name: str = ref.name) -> None:
                    # the tensors stay alive until the comparison, so that no identity is used twice
                    inputs.setdefault(name, args[0] if args else None)

                stack.callback(modules[ref.module].register_forward_pre_hook(keep).remove)
        with torch.no_grad():
            model(input_ids=torch.tensor([example.input_ids], device=device), use_cache=False)
    first: dict[int, str] = {}
    return {
        ref.name: ref.name if inputs.get(ref.name) is None else first.setdefault(id(inputs[ref.name]), ref.name)
        for ref in refs
    }


def passes(refs: Sequence[MatrixRef], shared: dict[str, str], *, memory: int, sets: int = 2) -> list[list[MatrixRef]]:
    """The matrices in groups whose Gram matrices, `sets` of 8 in^2 bytes for each distinct input, fit `memory` bytes.

    A matrix that does not fit alone makes a group of its own.
    """
    groups: list[list[MatrixRef]] = []
    members: dict[str, list[MatrixRef]] = {}
    for ref in refs:
        members.setdefault(shared[ref.name], []).append(ref)
    room = 0
    for together in members.values():
        cost = gram_bytes(together, shared, sets=sets)
        if not groups or cost > room:
            groups.append([])
            room = memory
        groups[-1] += together
        room -= cost
    return groups


def gram_bytes(refs: Sequence[MatrixRef], shared: dict[str, str], *, sets: int = 2) -> int:
    """What the Gram matrices of `refs` take at once."""
    sizes = {shared[ref.name]: ref.shape[1] for ref in refs}
    return sum(8 * sets * size * size for size in sizes.values())


def capture(
    runtime: Any,
    refs: Sequence[MatrixRef],
    shared: dict[str, str],
    examples: Sequence[Example],
    progress: Callable[[str], None] | None = None,
) -> dict[str, InputGram]:
    """Run every example through the model and collect the Gram matrix of each distinct input of `refs`, by name.

    One sequence at a time, without padding: what a padded place computes is no input of the model. A matrix that no
    token reached (an expert that was never chosen) has no entry.
    """
    import torch

    device = runtime.device if runtime.device.type != "mps" else torch.device("cpu")
    found: dict[str, InputGram] = {}
    sizes = {shared[ref.name]: ref.shape[1] for ref in refs}

    def take(name: str, inputs: Any) -> None:
        size = sizes[name]
        if inputs.shape[-1] == size and inputs.numel():
            if name not in found:
                found[name] = InputGram(torch.zeros(size, size, dtype=torch.float64, device=device))
            found[name].add(inputs)

    first = {ref.name: ref for ref in refs if shared[ref.name] == ref.name}
    modules = dict(runtime.model.named_modules())
    with ExitStack() as stack, torch.no_grad():
        for name, ref in first.items():
            if ref.expert is None and ref.module in modules:

                def hook(module: Any, args: tuple, name: str = name) -> None:
                    take(name, args[0])

                stack.callback(modules[ref.module].register_forward_pre_hook(hook).remove)
        stack.enter_context(
            _experts_seen(runtime.model, [ref for ref in first.values() if ref.expert is not None], take)
        )
        for index, example in enumerate(examples):
            if progress is not None:
                progress(f"activations: text {index + 1} of {len(examples)}")
            ids = torch.tensor([example.input_ids], dtype=torch.long, device=runtime.device)
            runtime.model(input_ids=ids, use_cache=False)
    return found


@contextmanager
def _experts_seen(model: Any, refs: Sequence[MatrixRef], take: Callable[[str, Any], None]) -> Iterator[None]:
    """Inside the block every product with one expert's slice of a 3-D parameter hands its input to `take`.

    No module holds such a slice, so the product itself is watched, in the implementation that makes one per expert.
    """
    from torch.nn import functional
    from torch.overrides import TorchFunctionMode

    slices: dict[int, str] = {}
    for ref in refs:
        parameter = model.get_submodule(ref.module).get_parameter(ref.name.rpartition(".")[2].partition("[")[0])
        slices[parameter[ref.expert].data_ptr()] = ref.name
    if not slices:
        yield
        return

    class Watch(TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
            if function is functional.linear and len(args) >= 2:
                name = slices.get(args[1].data_ptr())
                if name is not None:
                    take(name, args[0])
            return function(*args, **(kwargs or {}))

    before = model.get_experts_implementation() if hasattr(model, "get_experts_implementation") else None
    if before is not None:
        model.set_experts_implementation("eager")
    try:
        with Watch():
            yield
    finally:
        if before is not None:
            model.set_experts_implementation(before)
