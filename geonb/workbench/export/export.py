"""Export an adapter into the form that something else loads, read it back there, and keep it only if it is the same."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Callable
from pathlib import Path

from geonb._version import __version__
from geonb.adapters.peft_files import WEIGHTS
from geonb.errors import BackendError, InputError
from geonb.geometry.measurement import Measurement
from geonb.models.cache import file_digest
from geonb.models.checkpoint import Checkpoint
from geonb.workbench.bench import adapter_folder
from geonb.workbench.export import gguf, merged, mlx, peft, quantised
from geonb.workbench.export.changes import refuse_unmergeable
from geonb.workbench.export.gap import GAP, KL_MEAN, TYPICAL, measure_gap
from geonb.workbench.export.record import FAILED, PASSED, Export
from geonb.workbench.export.source import Source
from geonb.workbench.export.staging import RECORD, check_output, size_of, staged
from geonb.workbench.export.target import SERVED, STORED, Target

TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        peft.TARGET,
        mlx.TARGET,
        *(merged.merged_target(f"merged_{short}", dtype)
          for short, dtype in (("fp16", "float16"), ("bf16", "bfloat16"), ("fp32", "float32"))),
        quantised.TARGET,
        gguf.TARGET,
    )
}  # fmt: skip

# largest logit gap over the logits' spread, and mean KL in nats per token, by what the weights are stored as: two to five
# times the gap and at least three times the KL that were measured on the embedded model, whose largest gaps on 4 million
# logits were 2.9e-5 (float32), 6.6e-3 (float16), 0.13 (bfloat16), 0.35 (int8) and 1.2 (int4)
TOLERANCES: dict[str, tuple[float, float]] = {
    "adapter": (1e-6, 1e-9),
    "float64": (1e-4, 1e-8),
    "float32": (1e-4, 1e-8),
    "float16": (0.03, 1e-5),
    "bfloat16": (0.25, 5e-4),
    "int8": (1.0, 5e-3),
    "int4": (4.0, 0.15),
}


_EXACT = ("adapter", "float32", "float64")
_JUMPS = 1e-2  # nats per token


class _Beyond(Exception):
    """The export is not what was exported: ends the staging, so that nothing is kept."""


def export_adapter(
    model: str | Path | Checkpoint,
    adapter: str | Path,
    output: str | Path,
    *,
    target: str = "adapter",
    bits: int | None = None,
    probes: str | Path | None = None,
    tolerance: float | None = None,
    overwrite: bool = False,
    device: str = "cpu",
    progress: Callable[[str], None] | None = None,
) -> Export:
    """Write `adapter` on `model` as `target` into the folder `output`, load it there, and compare it.

    The export is read back by its own loader and held against base + adapter (PEFT, float32) on `probes` (a JSONL file
    or `embedded:NAME`; by default the run's held-out examples, else the shipped retention text). Where the largest logit
    gap (in standard deviations of the logits) is beyond `tolerance`, or the mean KL beyond that of the dtype, the
    verdict is "failed" and nothing is left behind. `bits`: 8 or 4 for deployment_quantized, 16, 8, 4 or 32 for gguf.
    Raises `InputError` before anything is written where the input does not fit.

    >>> export_adapter("embedded", "run/adapter", "out", target="merged_bf16").verdict  # doctest: +SKIP
    'passed'
    """
    kind = find_target(target)
    return _export(
        model, adapter, output, kind, bits, probes=probes, tolerance=tolerance, overwrite=overwrite, device=device,
        progress=progress,
    )  # fmt: skip


def merge_adapter(
    model: str | Path | Checkpoint,
    adapter: str | Path,
    output: str | Path,
    *,
    dtype: str | None = None,
    probes: str | Path | None = None,
    tolerance: float | None = None,
    overwrite: bool = False,
    device: str = "cpu",
    progress: Callable[[str], None] | None = None,
) -> Export:
    """Add an adapter to its base's weights: a complete model folder in the base's own dtype, or in `dtype`.

    W' = W + scale B A in float64, rounded once; checked and kept as `export_adapter` does. `dtype` is float32, float16
    or bfloat16; without it every tensor keeps the dtype that it has in the base.

    >>> merge_adapter("embedded", "run/adapter", "merged").precision  # doctest: +SKIP
    'bfloat16'
    """
    if dtype is not None and dtype not in merged.DTYPES:
        raise InputError(
            f"the dtype {dtype!r} is not known; allowed are {', '.join(merged.DTYPES)}, or none for the base's."
        )
    kind = merged.merged_target("merged", dtype)
    return _export(
        model, adapter, output, kind, None, probes=probes, tolerance=tolerance, overwrite=overwrite, device=device,
        progress=progress,
    )  # fmt: skip


def find_target(name: str) -> Target:
    """The target of that name, or the `InputError` that lists them."""
    if name not in TARGETS:
        raise InputError(f"the target {name!r} is not known; allowed are {', '.join(TARGETS)}.")
    return TARGETS[name]


def _export(
    model: str | Path | Checkpoint,
    adapter: str | Path,
    output: str | Path,
    target: Target,
    bits: int | None,
    *,
    probes: str | Path | None,
    tolerance: float | None,
    overwrite: bool,
    device: str,
    progress: Callable[[str], None] | None,
) -> Export:
    progress = progress or _silent
    folder = adapter_folder(adapter)
    checkpoint = model if isinstance(model, Checkpoint) else Checkpoint.open(model)
    bits = check_target(target, checkpoint, folder, bits)
    place = check_output(output, checkpoint.folder, folder, overwrite=overwrite)
    progress("load base and adapter")
    source = Source.open(checkpoint, folder, probes=probes, device=device, with_changes=target.needs_changes)
    return run_target(source, target, place, bits, tolerance=tolerance, progress=progress)


def check_target(target: Target, checkpoint: Checkpoint, adapter: Path, bits: int | None) -> int | None:
    """Everything that can be refused without loading a weight; returns the bits to use."""
    if bits is not None and bits not in target.bits:
        allowed = f"allowed are {', '.join(map(str, target.bits))}" if target.bits else "it has no choice of bits"
        raise InputError(f"--bits {bits} was given for {target.name}; {allowed}: leave it out for the default.")
    bits = bits if bits is not None else next(iter(target.bits), None)
    target.check(checkpoint, bits)
    if target.needs_changes:
        refuse_unmergeable(adapter)
    return bits


def run_target(
    source: Source,
    target: Target,
    output: Path,
    bits: int | None,
    *,
    tolerance: float | None = None,
    progress: Callable[[str], None] | None = None,
) -> Export:
    """Write, read back, judge, and put the export in its place if it passed."""
    progress = progress or _silent
    try:
        with staged(output) as folder:
            notes = target.write(source, folder, bits, progress)
            progress(f"read back through {target.loader}")
            gaps = _read_back(source, target, folder)
            record = _judge(source, target, folder, output, bits, gaps, notes, tolerance)
            if record.verdict != PASSED:
                reason = target.explain(source) if target.explain is not None else ""
                if reason:
                    record = dataclasses.replace(record, because=f"{record.because}; {reason}")
                raise _Beyond
            record.save(folder / RECORD)
    except _Beyond:
        pass
    return record


def _read_back(source: Source, target: Target, folder: Path) -> dict[str, Measurement]:
    found: dict[str, dict[str, Measurement]] = {}
    try:
        for arithmetic, logits in target.reload(source, folder):
            found[arithmetic] = measure_gap(source.reference, logits, arithmetic=arithmetic)
    except (ValueError, RuntimeError, KeyError, TypeError, AttributeError, ImportError) as error:
        raise BackendError(
            f"{target.loader} {loader_version(target.loader)} does not read the export back "
            f"({' '.join(str(error).split())[:200]}); nothing was kept: choose another target, or another version of it."
        ) from error
    served = {f"{name} {SERVED}": one for name, one in found.get(SERVED, {}).items()}
    return found[STORED] | served


def allowed_gaps(checkpoint: Checkpoint, precision: str, tolerance: float | None = None) -> dict[str, float]:
    """The largest gap and the mean KL that a form of `precision` may show; `tolerance` takes the gap's place.

    Where a rounded router chooses another expert, a token's logits jump by more than any rounding: of a mixture nine
    tokens of ten are judged, and the mean KL by the same room for jumps whatever the dtype.
    """
    gap, divergence = TOLERANCES[precision]
    mixture = precision not in _EXACT and any(ref.role == "router" for ref in checkpoint.refs)
    name, divergence = (TYPICAL, max(divergence, _JUMPS)) if mixture else (GAP, divergence)
    return {name: gap if tolerance is None else tolerance, KL_MEAN: divergence}


def judged(gaps: dict[str, Measurement], allowed: dict[str, float], precision: str) -> tuple[str, str]:
    """The verdict on `gaps` against what is `allowed`, and its reason."""
    # nan compares false with everything: it must count as beyond
    beyond = not all(gaps[name].value <= most for name, most in allowed.items())
    told = ", ".join(f"{name} {gaps[name].value:.3g} (allowed {most:.3g})" for name, most in allowed.items())
    return FAILED if beyond else PASSED, f"{'beyond' if beyond else 'within'} the tolerance of {precision}: {told}"


def _judge(
    source: Source,
    target: Target,
    folder: Path,
    output: Path,
    bits: int | None,
    gaps: dict[str, Measurement],
    notes: tuple[str, ...],
    tolerance: float | None,
) -> Export:
    checkpoint = source.checkpoint
    precision = target.precision(checkpoint, bits)
    allowed = allowed_gaps(checkpoint, precision, tolerance)
    verdict, because = judged(gaps, allowed, precision)
    files = size_of(folder)
    return Export(
        target=target.name,
        model=checkpoint.source,
        adapter=str(source.adapter),
        output=str(output) if verdict == PASSED else None,
        verdict=verdict,
        because=because,
        bits=bits,
        precision=precision,
        loader=f"{target.loader} {loader_version(target.loader)}",
        gaps=gaps,
        tolerance=allowed,
        probes=source.reference.probes,
        bytes=sum(files.values()),
        base_bytes=checkpoint.weight_bytes,
        files=files,
        notes=(*notes, *_lost(gaps)),
        adapter_sha256=file_digest(source.adapter / WEIGHTS),
        base_sha256=checkpoint.digest,
        geonb_version=__version__,
    )


def _lost(gaps: dict[str, Measurement]) -> tuple[str, ...]:
    """A warning where the export is at least half as far from base + adapter as the bare base is."""
    for name in (KL_MEAN, f"{KL_MEAN} {SERVED}"):
        one = gaps.get(name)
        if one is not None and one.null and one.value >= one.null / 2:
            return (
                f"{name} is {one.value:.3g}, and {one.null:.3g} without the adapter: much of its effect is lost here",
            )
    return ()


def loader_version(package: str) -> str:
    """The installed version of a loader's package, or "?" where it says none."""
    try:
        return importlib.metadata.version(package.replace("_", "-"))
    except importlib.metadata.PackageNotFoundError:
        return "?"


def _silent(stage: str) -> None:
    """Nobody watches."""
