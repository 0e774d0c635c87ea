"""A model with int8 or int4 weights: written, read back by its own loader, timed, and held against the model itself.

Beside what rounding does to the logits stands what it does to each matrix. With E = W_q - W, Weyl's inequality
|s_i(W_q) - s_i(W)| <= ||E||_2 says which singular values of W stand above the rounding. Measured on the embedded model
(6.56 MB, 16 shipped retention texts):

    torchao int8, a scale a row    4.00 MB   mean KL 8.7e-5 nats   ||E||_2 at most 0.04 sigma_k, 0.06 noise edges
    torchao int4, groups of 32     4.21 MB   mean KL 8.4e-3 nats                   0.38          0.68
    gguf Q8_0, blocks of 32        3.55 MB   mean KL 1.1e-4 nats                   0.02          0.04
    gguf Q4_0, blocks of 32        1.91 MB   mean KL 2.5e-2 nats                   0.80          1.19

The last is the embedding, which torchao leaves alone: its Q4_0 rounding is 6.3 times as large in norm as independent
entries of that size would be, and 235 of its 256 singular values are not above it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from geonb._version import __version__
from geonb.errors import BackendError, InputError
from geonb.geometry.measurement import Measurement
from geonb.models.checkpoint import Checkpoint
from geonb.models.geometry import MatrixGeometry, stream_geometry
from geonb.workbench.export import gguf, quantised
from geonb.workbench.export.export import allowed_gaps, judged, loader_version
from geonb.workbench.export.folder import quiet
from geonb.workbench.export.gap import GAP, KL_MAX, KL_MEAN, SAME_TOKEN, TYPICAL, Logits, measure_gap, read_reference
from geonb.workbench.export.merged import own_dtype
from geonb.workbench.export.probes import choose_probes
from geonb.workbench.export.record import PASSED
from geonb.workbench.export.source import Source
from geonb.workbench.export.staging import RECORD, check_output, size_of, staged
from geonb.workbench.export.target import SERVED, STORED, Target
from geonb.workbench.quantised import MatrixRounding, Quantised

FORMS = {"torchao": quantised.TARGET, "gguf": gguf.TARGET}
BITS = (8, 4)
PAIRS, SECONDS = (9, 41), 3.0  # of forwards: at least and at most, and how long the latter may take


class _Beyond(Exception):
    """The quantised model is not the model: ends the staging, so that nothing is kept."""


def quantize_model(
    model: str | Path | Checkpoint,
    output: str | Path,
    *,
    bits: int = 8,
    form: str = "torchao",
    probes: str | Path | None = None,
    tolerance: float | None = None,
    overwrite: bool = False,
    geometry: bool = True,
    device: str = "cpu",
    progress: Callable[[str], None] | None = None,
) -> Quantised:
    """Write `model` with weights of 8 or 4 bits into the folder `output`, load it there, and compare, time and measure it.

    `form` is "torchao" (a folder that transformers loads) or "gguf" (one file: Q8_0 or Q4_0). It is held against the model
    in float32 on `probes` (JSONL or `embedded:NAME`; default: the shipped retention text). Beyond `tolerance` (largest
    logit gap, in standard deviations of the logits) or the KL of its bits the verdict is "failed" and nothing stays.
    `geometry` also measures each matrix's rounding, which costs a spectrum of W (cached) and one of E. Raises `InputError`
    before anything is written where the input does not fit.

    >>> quantize_model("embedded", "small", bits=8).verdict  # doctest: +SKIP
    'passed'
    """
    progress = progress or _silent
    if form not in FORMS:
        raise InputError(f"the form {form!r} is not known; allowed are {', '.join(FORMS)}.")
    if bits not in BITS:
        raise InputError(f"{bits} bits were given; allowed are {' and '.join(map(str, BITS))}.")
    target = FORMS[form]
    checkpoint = model if isinstance(model, Checkpoint) else Checkpoint.open(model)
    target.check(checkpoint, bits)
    place = check_output(output, checkpoint.folder, overwrite=overwrite)
    progress("load the model")
    source, before, ids = _open(checkpoint, probes, device)
    try:
        with staged(place) as folder:
            notes = target.write(source, folder, bits, progress)
            progress(f"read back through {target.loader}")
            gaps, times = _read_back(source, target, folder, before, ids)
            matrices = tuple(_roundings(checkpoint, form, folder, progress)) if geometry else ()
            allowed = allowed_gaps(checkpoint, f"int{bits}", tolerance)
            verdict, because = judged(gaps, allowed, f"int{bits}")
            files = size_of(folder)
            record = Quantised(
                model=checkpoint.source,
                output=str(place) if verdict == PASSED else None,
                form=form,
                bits=bits,
                verdict=verdict,
                because=because,
                loader=f"{target.loader} {loader_version(target.loader)}",
                gaps=gaps,
                tolerance=allowed,
                probes=source.reference.probes,
                bytes=sum(files.values()),
                base_bytes=checkpoint.weight_bytes,
                files=files,
                seconds_before=times[0] if times else None,
                seconds_after=times[1] if times else None,
                slowdown=times[2] if times else None,
                matrices=matrices,
                notes=(*notes, *(() if times else ("not timed: transformers multiplies a GGUF out as it loads it",))),
                base_sha256=checkpoint.digest,
                geonb_version=__version__,
            )
            if verdict != PASSED:
                raise _Beyond
            record.save(folder / RECORD)
    except _Beyond:
        pass
    return record


def _open(checkpoint: Checkpoint, probes: str | Path | None, device: str) -> tuple[Source, Logits, Sequence[int]]:
    """The source without an adapter, the model as it is served before, and the longest probe to time forwards on."""
    from geonb.models.runtime import TorchRuntime, pick_device

    place = str(pick_device(device))
    # a path of its own says that there is no run around it whose held-out part could be read
    ids, words = choose_probes(
        checkpoint,
        checkpoint.load_tokenizer(),
        checkpoint.folder,
        probes if probes is not None else "embedded:retention",
    )
    exact = TorchRuntime.load(checkpoint, device=place, dtype="float32")
    stored = own_dtype(checkpoint)
    served = exact if stored in ("float32", "float64") else TorchRuntime.load(checkpoint, device=place, dtype=stored)
    reference = read_reference(ids, words, exact.logits, served.logits)
    source = Source(checkpoint, checkpoint.folder, (), reference, place)
    return source, served.logits, max(ids, key=len)


def _read_back(
    source: Source, target: Target, folder: Path, before: Logits, ids: Sequence[int]
) -> tuple[dict[str, Measurement], tuple[Measurement, Measurement, Measurement] | None]:
    found: dict[str, Measurement] = {}
    times = None
    said = f"against the model in float32, {source.reference.probes}; null: the model as it is served, not quantised"
    try:
        for arithmetic, logits in target.reload(source, folder):
            suffix = "" if arithmetic == STORED else f" {arithmetic}"
            for name, one in measure_gap(source.reference, logits, arithmetic=arithmetic).items():
                found[f"{name}{suffix}"] = dataclasses.replace(one, operator=f"{arithmetic}, {said}")
            if arithmetic == SERVED:
                times = _time_in_pairs(before, logits, ids, own_dtype(source.checkpoint), source.device)
    except (ValueError, RuntimeError, KeyError, TypeError, AttributeError, ImportError) as error:
        raise BackendError(
            f"{target.loader} {loader_version(target.loader)} does not read the quantised model back "
            f"({' '.join(str(error).split())[:200]}); nothing was kept: choose another form, or another version of it."
        ) from error
    order = [f"{name}{suffix}" for suffix in ("", f" {SERVED}") for name in (GAP, TYPICAL, KL_MEAN, KL_MAX, SAME_TOKEN)]
    return {name: found[name] for name in order if name in found}, times


def _time_in_pairs(
    before: Logits, after: Logits, ids: Sequence[int], dtype: str, device: str
) -> tuple[Measurement, Measurement, Measurement]:
    """Seconds of a forward of both, one after the other in an order that alternates, and the paired ratio."""
    import torch

    seconds: dict[int, list[float]] = {0: [], 1: []}
    for run in (before, after):
        run(ids)  # the first call of each pays for threads, workspaces and compilation
    until = time.perf_counter() + SECONDS
    for repeat in range(PAIRS[1]):
        if repeat >= PAIRS[0] and time.perf_counter() > until:
            break
        for which in (0, 1) if repeat % 2 else (1, 0):
            start = time.perf_counter()
            (before, after)[which](ids)  # returns logits on the CPU, so that the device has finished
            seconds[which].append(time.perf_counter() - start)
    said = f"{len(ids)} tokens, batch 1, {device}, {torch.get_num_threads()} threads; before in {dtype}"
    ratios = [late / early for early, late in zip(seconds[0], seconds[1], strict=True)]
    return (
        _median(seconds[0], "s", said),
        _median(seconds[1], "s", said),
        _median(ratios, "after / before", said),
    )


def _median(values: Sequence[float], unit: str, said: str) -> Measurement:
    return Measurement(
        value=float(np.median(values)),
        interval=(min(values), max(values)),
        n=len(values),
        null=None,
        unit=unit,
        operator=f"median of paired runs, with least and most; {said}",
    )


def _roundings(
    checkpoint: Checkpoint, form: str, folder: Path, progress: Callable[[str], None]
) -> Iterator[MatrixRounding]:
    """The rounding of every quantised matrix, in the checkpoint's order."""
    modules = dict(_loaded(form, folder).named_modules())
    weights = {ref.name: getattr(modules.get(ref.module), "weight", None) for ref in checkpoint.refs}
    # experts and Conv1D, which torchao leaves alone, have no such weight, or another shape; GGUF takes every matrix
    weights = {
        ref.name: weights[ref.name]
        for ref in checkpoint.refs
        if tuple(getattr(weights[ref.name], "shape", ())) == ref.shape
        and (form == "gguf" or hasattr(weights[ref.name], "qdata"))
    }
    refs = tuple(ref for ref in checkpoint.refs if ref.name in weights)
    for found in stream_geometry(checkpoint, refs=refs):
        progress(f"rounding of {found.ref.name}")
        yield rounding(found, checkpoint.read(found.ref).double(), _multiplied_out(weights[found.ref.name]))


def _loaded(form: str, folder: Path) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    own = {"gguf_file": gguf.FILE, "dtype": torch.float32} if form == "gguf" else {"dtype": "auto"}
    with quiet(), contextlib.redirect_stderr(io.StringIO()):  # the bar of GGUF asks nobody whether it may be shown
        return AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False, local_files_only=True, **own)


def _multiplied_out(weight: Any) -> Any:
    """Integers times scales, in float32; torchao's own `dequantize` rounds the product to the model's dtype."""
    import torch

    if not hasattr(weight, "qdata"):
        return weight.detach().double().cpu()
    from torchao.quantization.quant_primitives import dequantize_affine

    block, zero = tuple(weight.block_size), getattr(weight, "zero_point", None)
    values = dequantize_affine(weight.qdata, block, weight.scale.float(), zero, torch.int8, output_dtype=torch.float32)
    return values.double().cpu()


def rounding(found: MatrixGeometry, weight: Any, quantised_weight: Any) -> MatrixRounding:
    """What E = W_q - W, both (out, in) and float64, is beside the spectrum of W in `found`."""
    from geonb.geometry.singular_values import spectrum

    error = quantised_weight - weight
    ref, own = found.ref, found.spectrum
    error_norm = spectrum(error, name=f"the rounding of {ref.name}").sigma_max
    size, whole = float(error.norm()), float(weight.norm())
    return MatrixRounding(
        name=ref.name,
        role=ref.role,
        shape=ref.shape,
        error_norm=error_norm,
        noise_norm=size * sum(side**-0.5 for side in ref.shape),
        relative_error=size / whole if whole else 0.0,
        sigma_max=own.sigma_max,
        sigma_k=own.sigma_k,
        noise_edge=own.noise_edge,
        tail_dims=own.tail_dims,
        buried=int((own.values <= error_norm).sum()) if error_norm else 0,
    )


def _silent(stage: str) -> None:
    """Nobody watches."""
