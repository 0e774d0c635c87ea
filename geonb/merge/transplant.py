"""A donor's weight change, projected off what the target's inputs use, put into the target matrix by matrix.

W' = W + scale dW P, dW = donor - base, P from the inputs A that the target's map sees on the probes: A (dW P)^T is zero
(hard rule) or small (soft), so that what the target computes on texts like the probes stays. Null-space projection of an
update: Wang et al. 2021 (arXiv 2103.07113); sums of task vectors: Ilharco et al. 2023 (arXiv 2212.04089).
"""

from __future__ import annotations

import math
import re
import shutil
import tempfile
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geonb.errors import InputError
from geonb.geometry.measurement import Measurement
from geonb.merge.folder import check_output, copy_model, left_tensors, put_in_place, store_matrix
from geonb.merge.preflight import preflight, require
from geonb.merge.probes import MAX_TOKENS, InputGram, Texts, capture, gather_texts, gram_bytes, passes, shared_inputs
from geonb.merge.projector import RULES, Projector, check_rule, projector, response_norm, row_space
from geonb.merge.report import RECORD, MatrixMerge, MergeBatch, MergeRun, measure_effect
from geonb.models.checkpoint import Checkpoint
from geonb.models.matrix_ref import MatrixRef
from geonb.models.runtime import TorchRuntime, pick_device

MEMORY = 4 * 2**30  # bytes of Gram matrices held at once (convention)
_METHOD = 1  # part of every record's inputs: raise it when equal inputs give another output
Progress = Callable[[str], None]


def transplant(
    target: str | Path | Checkpoint,
    donor: str | Path | Checkpoint,
    output: str | Path,
    *,
    base: str | Path | Checkpoint | None = None,
    probes: str | Path | None = None,
    held_out: str | Path | None = None,
    donor_text: str | Path | None = None,
    rule: str = "soft",
    scale: float = 1.0,
    accept: Collection[str] = (),
    max_tokens: int = MAX_TOKENS,
    memory: int = MEMORY,
    seed: int = 0,
    overwrite: bool = False,
    device: str = "auto",
    progress: Progress | None = None,
) -> MergeRun:
    """Write target + scale (donor - base) P as a model folder `output`, and measure what that did.

    `base` is the model that the donor was tuned from (default: the target); `rule` is one of `projector.RULES`. Only
    linear maps inside blocks change. Raises `InputError` before any work for models that do not fit each other, an
    output that is there already (unless `overwrite`, which replaces only a merge), too little room, or unusable texts.

    >>> transplant("embedded", "tuned", "merged").effect.smoke  # doctest: +SKIP
    'passed'
    """
    job = _prepare(target, [donor], output, base=base, rule=rule, scale=scale, accept=accept, device=device)
    check_output(Path(output), [*job.checkpoints], overwrite=overwrite)
    texts = gather_texts(
        job.target, probes=probes, held_out=held_out, donor_text=donor_text, max_tokens=max_tokens, seed=seed
    )
    return _merge(job, job.donors[0], Path(output), texts, memory=memory, seed=seed, progress=progress or _silent)


def transplant_batch(
    target: str | Path | Checkpoint,
    donors: Sequence[str | Path | Checkpoint],
    output: str | Path,
    *,
    probes: str | Path | None = None,
    held_out: str | Path | None = None,
    donor_text: str | Path | None = None,
    rule: str = "soft",
    scale: float = 1.0,
    accept: Collection[str] = (),
    max_tokens: int = MAX_TOKENS,
    memory: int = MEMORY,
    seed: int = 0,
    overwrite: bool = False,
    device: str = "auto",
    progress: Progress | None = None,
) -> MergeBatch:
    """Merge several donors, one after another, into one target; `output` gets a folder for each step, the last has all.

    Step k is W_k = W_{k-1} + scale (donor_k - target) P_k, P_k from the inputs of the model of step k-1. The change is
    taken against the target itself: donor_k - W_{k-1} would take out again what the steps before put in. A step whose
    folder is there with the same inputs is skipped, so that a batch goes on where it was stopped.
    """
    if len(donors) < 2:
        raise InputError(f"a batch was given {len(donors)} donors; allowed are two or more: use `merge run` for one.")
    folder = Path(output)
    if (folder.exists() and not folder.is_dir()) or (folder / "config.json").is_file():
        raise InputError(f"{folder} is a file or a model; a batch's output is a folder of folders: choose another.")
    job = _prepare(target, donors, output, base=target, rule=rule, scale=scale, accept=accept, device=device)
    texts = gather_texts(
        job.target, probes=probes, held_out=held_out, donor_text=donor_text, max_tokens=max_tokens, seed=seed
    )
    tell = progress or _silent
    runs: list[MergeRun] = []
    skipped: list[str] = []
    current = job.target
    for number, donor in enumerate(job.donors, 1):
        step = folder / f"{number}-{re.sub(r'[^A-Za-z0-9_.-]+', '-', donor.name)[:60]}"
        one = _Job(
            target=current, donors=(donor,), base=job.target, rule=rule, scale=scale, accept=accept, device=device
        )
        found = _there_already(step, one, donor, texts, seed)
        if found is None:
            check_output(step, [*job.checkpoints, current], overwrite=overwrite)
            told = _prefixed(tell, f"donor {number} of {len(job.donors)}: ")
            found = _merge(one, donor, step, texts, memory=memory, seed=seed, progress=told)
        else:
            skipped.append(str(step))
        runs.append(found)
        current = Checkpoint.open(step)
    tell("all donors together: measuring")
    effect = measure_effect(
        TorchRuntime.load(job.target, device=device), TorchRuntime.load(current, device=device), texts, seed=seed
    )
    return MergeBatch(
        target=job.target.source, output=str(current.folder), runs=tuple(runs), skipped=tuple(skipped), effect=effect
    )


# -- before any work --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    target: Checkpoint
    donors: tuple[Checkpoint, ...]
    base: Checkpoint
    rule: str
    scale: float
    accept: Collection[str]
    device: str

    @property
    def checkpoints(self) -> tuple[Checkpoint, ...]:
        return (self.target, self.base, *self.donors)

    def inputs(self, donor: Checkpoint, texts: Texts, seed: int) -> dict[str, Any]:
        digests = {"target": self.target.digest, "donor": donor.digest, "base": self.base.digest, **texts.digests}
        return {**digests, "rule": self.rule, "scale": float(self.scale), "seed": seed, "method": _METHOD}


def _prepare(target: Any, donors: Sequence[Any], output: Any, *, base: Any, **options: Any) -> _Job:
    check_rule(options["rule"])
    scale = options["scale"]
    if not math.isfinite(scale):
        raise InputError(f"the scale {scale} was given; allowed is a finite number, 1 for the whole change.")
    pick_device(options["device"])
    opened: dict[str, Checkpoint] = {}

    def open_once(source: Any) -> Checkpoint:
        if isinstance(source, Checkpoint):
            return source
        return opened.setdefault(str(source), opened.get(str(source)) or Checkpoint.open(source))

    one = open_once(target)
    job = _Job(
        target=one, donors=tuple(map(open_once, donors)), base=one if base is None else open_once(base), **options
    )
    for other in (*job.donors, job.base):
        require(preflight(one, other, accept=job.accept))
    if not any(ref.targetable for ref in one.refs):
        raise InputError(f"{one.source} has no linear map inside a block that geonb knows: there is nothing to merge.")
    return job


def _there_already(step: Path, job: _Job, donor: Checkpoint, texts: Texts, seed: int) -> MergeRun | None:
    """The record of a step that was made from the same inputs and whose files are as it left them."""
    if not (step / RECORD).is_file():
        return None
    try:
        found = MergeRun.load(step / RECORD)
        same = found.inputs == job.inputs(donor, texts, seed) and Checkpoint.open(step).files == found.files
    except InputError:
        return None
    return found if same else None


def _silent(text: str) -> None:
    del text


def _prefixed(tell: Progress, prefix: str) -> Progress:
    return lambda text: tell(prefix + text)


# -- the merge --------------------------------------------------------------------------------------------------------


def _merge(
    job: _Job, donor: Checkpoint, output: Path, texts: Texts, *, memory: int, seed: int, progress: Progress
) -> MergeRun:
    inputs = job.inputs(donor, texts, seed)
    output.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=output.parent, prefix=f".{output.name}."))
    try:
        run = _write_merge(job, donor, output, folder, texts, inputs, memory=memory, seed=seed, progress=progress)
        run.save(folder / RECORD)
        folder.chmod(0o755)
        put_in_place(folder, output)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return run


def _write_merge(
    job: _Job,
    donor: Checkpoint,
    output: Path,
    folder: Path,
    texts: Texts,
    inputs: dict[str, Any],
    *,
    memory: int,
    seed: int,
    progress: Progress,
) -> MergeRun:
    target = job.target
    progress("copying the target")
    copy_model(target.folder, folder)
    runtime = TorchRuntime.load(target, device=job.device)
    refs = [ref for ref in target.refs if ref.targetable]
    shared = shared_inputs(runtime.model, refs, texts.probes[0], runtime.device)
    groups = passes(refs, shared, memory=memory)
    most = max(gram_bytes(group, shared) for group in groups)
    stated = f"{most:,} bytes of Gram matrices at once, in {len(groups)} pass{'es' if len(groups) > 1 else ''} over the texts"
    progress(stated)
    notes, matrices, unreached = [*texts.notes, stated], [], []
    inner = [0.0, 0.0, 0.0]  # <step, before>, ||step||^2, ||before||^2 against the base
    for group in groups:
        seen = capture(runtime, group, shared, texts.probes, progress)
        held = capture(runtime, group, shared, texts.held_out, progress)
        projectors: dict[str, Projector] = {}
        for ref in group:
            progress(f"merging {ref.name}")
            key = shared[ref.name]
            if key not in seen:
                unreached.append(ref)
                continue
            if key not in projectors:
                projectors = {key: projector(row_space(seen[key].gram, seen[key].tokens), job.rule)}
            merged = _merge_matrix(job, donor, ref, projectors[key], seen[key], held.get(key), folder, inner)
            matrices.append(merged)
    left = left_tensors(target, donor, refs, unreached)
    if unreached:
        notes.append(
            f"{len(unreached)} matrices were reached by no probe token, so nothing is known of them: left alone"
        )
    progress("measuring the merged model")
    written = Checkpoint.open(folder)
    effect = measure_effect(
        runtime,
        TorchRuntime.load(written, device=job.device),
        texts,
        donor=lambda: TorchRuntime.load(donor, device=job.device),
        seed=seed,
    )
    return MergeRun(
        target=target.source,
        donor=donor.source,
        base=job.base.source,
        output=str(output),
        rule=job.rule,
        weights=RULES[job.rule],
        scale=float(job.scale),
        inputs=inputs,
        files=written.files,
        preflight=preflight(target, donor, accept=job.accept),
        texts=texts.sources,
        notes=tuple(notes),
        matrices=tuple(matrices),
        left=left,
        overlap=inner[0] / math.sqrt(inner[1] * inner[2]) if inner[1] * inner[2] > 0 else None,
        effect=effect,
        seed=seed,
    )


def _merge_matrix(
    job: _Job,
    donor: Checkpoint,
    ref: MatrixRef,
    free: Projector,
    seen: InputGram,
    held: InputGram | None,
    folder: Path,
    inner: list[float],
) -> MatrixMerge:
    import torch

    place = seen.gram.device
    stored = job.target.read(ref)
    here = stored.to(place).double()
    start = job.base.read(job.base.ref(ref.name)).to(place).double()
    change = donor.read(donor.ref(ref.name)).to(place).double() - start
    if not bool(torch.isfinite(change).all()):
        raise InputError(
            f"{ref.name} holds NaN or infinity in {donor.source} or {job.base.source}: mend the checkpoint."
        )
    projected = free.apply(change)
    meant = job.scale * projected
    # an entry that does not change keeps its bits: -0 + 0 would be +0
    merged = torch.where(meant == 0, stored.to(place), (here + meant).to(stored.dtype))
    if not bool(torch.isfinite(merged).all()):
        raise InputError(
            f"{ref.name} is not finite in {ref.dtype} after the merge: give a smaller --scale, or a target that is not."
        )
    if bool((meant != 0).any()):
        store_matrix(folder, ref, merged.cpu())
    took = merged.double() - here
    inner[0] += float((meant * (here - start)).sum())
    inner[1] += float((meant**2).sum())
    inner[2] += float(((here - start) ** 2).sum())
    norm, size = float(change.norm()), float(here.norm())

    def felt(inputs: InputGram | None, where: str) -> Measurement | None:
        own = response_norm(here, inputs.gram) if inputs is not None else 0.0
        if inputs is None or own == 0.0:
            return None
        return Measurement(
            value=response_norm(meant, inputs.gram) / own,
            interval=None,
            n=inputs.tokens,
            null=abs(job.scale) * response_norm(change, inputs.gram) / own,
            unit="of the map's own output norm",
            operator=f"||A (scale dW P)^T||_F / ||A W^T||_F over tokens of the {where}, float64; null: without P",
        )

    behaviour = felt(seen, "probes")
    own = response_norm(here, seen.gram)
    space = free.space
    return MatrixMerge(
        name=ref.name,
        role=ref.role,
        layer=ref.layer,
        expert=ref.expert,
        shape=ref.shape,
        tokens=seen.tokens,
        effective_rank=space.spectrum.effective_rank,
        noise_edge=space.noise_edge,
        kept=free.kept,
        norm=norm,
        change=norm / size if size > 0 else math.nan,
        preserved=None
        if norm == 0
        else Measurement(
            value=float(projected.norm()) / norm,
            interval=None,
            n=seen.tokens,
            null=free.null_preserved,
            unit="of ||dW||_F",
            operator=f"||dW P||_F / ||dW||_F, rule {job.rule}, float64; null: the same weights on random directions",
        ),
        behaviour=behaviour,
        behaviour_held_out=felt(held, "held-out texts"),
        written=response_norm(took, seen.gram) / own if own > 0 else None,
        rounding=float((took - meant).norm() / meant.norm()) if bool((meant != 0).any()) else None,
    )
