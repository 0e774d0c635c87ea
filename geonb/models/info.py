"""`model info`: what a checkpoint is, from its headers alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from geonb.models.checkpoint import Checkpoint
from geonb.models.matrix_ref import MatrixRef
from geonb.record_tables import table_html
from geonb.records import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo(Record):
    """Architecture, size and matrices of a checkpoint."""

    source: str
    architecture: str
    model_type: str
    is_causal: bool
    parameters: int  # stored numbers, tied ones once
    layers: int
    context_length: int | None
    digest: str
    dtypes: dict[str, int]  # matrices by stored dtype
    roles: dict[str, int]  # matrices by role
    matrices: tuple[MatrixRef, ...]

    def summary(self) -> str:
        return f"ModelInfo({self.source!r}, {self.architecture}, {self.parameters:,} parameters)"

    def to_text(self) -> str:
        targetable = sum(ref.targetable for ref in self.matrices)
        lines = [
            f"{self.source}: {self.architecture or 'unknown architecture'}"
            f"{'' if self.is_causal else ' (not a causal language model)'}",
            f"  parameters  {self.parameters:,} in {self.layers} layers, {', '.join(sorted(self.dtypes))}",
            f"  context     {self.context_length or 'not stated'} tokens",
            f"  matrices    {len(self.matrices)}, {targetable} of them linear maps inside blocks",
            f"  digest      {self.digest[:16]}",
            "",
            f"  {'role':8} {'count':>6}  shapes (out x in)",
        ]
        for role, count in self.roles.items():
            shapes = Counter(ref.shape for ref in self.matrices if ref.role == role)
            shown = ", ".join(f"{shape[0]} x {shape[1]}" for shape, _ in shapes.most_common(3))
            lines.append(f"  {role:8} {count:>6}  {shown}{', ...' if len(shapes) > 3 else ''}")
        return "\n".join(lines)

    def to_html(self) -> str:
        rows = [
            (ref.name, ref.role, ref.layer, ref.expert, f"{ref.shape[0]} x {ref.shape[1]}", ref.dtype, ref.because)
            for ref in self.matrices[:400]
        ]
        more = f" (the first 400 of {len(self.matrices)})" if len(self.matrices) > 400 else ""
        return table_html(
            ("matrix", "role", "layer", "expert", "out x in", "dtype", "why"),
            rows,
            caption=f"{self.source}: {self.architecture}, {self.parameters:,} parameters{more}",
        )


def model_info(source: str | Path) -> ModelInfo:
    """Describe the checkpoint `source` (a folder, a hub id, or "embedded") without loading a weight.

    >>> model_info("embedded").architecture
    'LlamaForCausalLM'
    """
    checkpoint = Checkpoint.open(source)
    roles = Counter(ref.role for ref in checkpoint.refs)
    return ModelInfo(
        source=checkpoint.source,
        architecture=checkpoint.architecture,
        model_type=checkpoint.model_type,
        is_causal=checkpoint.is_causal,
        parameters=checkpoint.parameters,
        layers=checkpoint.layers,
        context_length=checkpoint.context_length,
        digest=checkpoint.digest,
        dtypes=dict(Counter(ref.dtype for ref in checkpoint.refs)),
        roles=dict(roles),
        matrices=checkpoint.refs,
    )
