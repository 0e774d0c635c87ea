"""One row for each export target: what it costs in bytes and what it keeps of base + adapter."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from geonb.errors import GeonbError, InputError
from geonb.models.checkpoint import Checkpoint
from geonb.workbench.bench import adapter_folder
from geonb.workbench.export.export import check_target, find_target, run_target
from geonb.workbench.export.record import GapTable, row_of, unavailable_row
from geonb.workbench.export.source import Source

ALL = (
    "adapter", "mlx", "merged_fp32", "merged_fp16", "merged_bf16", "deployment_quantized:8", "deployment_quantized:4",
    "gguf:16", "gguf:8", "gguf:4",
)  # fmt: skip


def gap_table(
    model: str | Path | Checkpoint,
    adapter: str | Path,
    targets: Sequence[str] = ALL,
    *,
    probes: str | Path | None = None,
    device: str = "cpu",
    progress: Callable[[str], None] | None = None,
) -> GapTable:
    """Make every export in `targets` in a temporary folder, measure it, and keep only the numbers.

    A target is its name, or "name:bits" ("gguf:8"). Base and adapter are loaded once for all rows. A target that this
    base or adapter does not allow, or whose package is not installed, gets a row that says why. Raises `InputError` for
    an unknown target, or where base, adapter or probes cannot be used.

    >>> gap_table("embedded", "run/adapter", ["merged_bf16", "gguf:8"]).rows[0].verdict  # doctest: +SKIP
    'passed'
    """
    asked = [(name, find_target(name.partition(":")[0]), _bits(name)) for name in targets]
    folder = adapter_folder(adapter)
    checkpoint = model if isinstance(model, Checkpoint) else Checkpoint.open(model)
    usable, refused = {}, {}
    for name, target, bits in asked:
        try:
            usable[name] = target, check_target(target, checkpoint, folder, bits)
        except InputError as error:
            refused[name] = str(error)
    needs_changes = any(target.needs_changes for target, _ in usable.values())
    source = Source.open(checkpoint, folder, probes=probes, device=device, with_changes=needs_changes)
    rows = []
    for name, _, _ in asked:
        if name in refused:
            rows.append(unavailable_row(name, refused[name]))
            continue
        target, bits = usable[name]
        with tempfile.TemporaryDirectory() as temporary:
            try:
                rows.append(
                    row_of(run_target(source, target, Path(temporary) / "export", bits, progress=progress), name)
                )
            except GeonbError as error:
                rows.append(unavailable_row(name, str(error)))
    return GapTable(
        model=checkpoint.source,
        adapter=str(folder),
        probes=source.reference.probes,
        base_bytes=checkpoint.weight_bytes,
        rows=tuple(rows),
    )


def _bits(name: str) -> int | None:
    _, colon, bits = name.partition(":")
    if not colon:
        return None
    if not bits.isdigit():
        raise InputError(f"the target {name!r} has no number of bits after its colon; write it as in gguf:8.")
    return int(bits)
