"""`geonb train export` and `geonb train merge`: an adapter into what other programs load."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from geonb.cli import options
from geonb.cli.output import answer, prints
from geonb.cli.progress import StageLine

if TYPE_CHECKING:
    import geonb.workbench.export.record

MODEL = typer.Option(..., "--model", "-m", help="The base: a Hugging Face folder, a hub id, or `embedded`.")
ADAPTER = typer.Option(..., "--adapter", "-a", help="A PEFT LoRA folder, or the folder of a run.")
OUTPUT = typer.Option(..., "--output", "-o", help="The folder to write; new or empty. It appears whole or not at all.")
TARGET = typer.Option(
    "adapter",
    "--target",
    help="`adapter` (PEFT, everything explicit), `mlx` (mlx-lm's layout), `merged_fp16`, `merged_bf16`, `merged_fp32` "
    "(a whole model folder), `deployment_quantized` (torchao, weights int8 or int4) or `gguf` (llama.cpp).",
)
BITS = typer.Option(
    None,
    "--bits",
    help="deployment_quantized: 8 (default) or 4. gguf: 16 (default, F16), 8 (Q8_0), 4 (Q4_0) or 32 (F32).",
)
PROBES = typer.Option(
    None,
    "--probes",
    metavar="FILE",
    help="JSONL (or `embedded:NAME`) of held-out text to compare on. Without it: the run's held-out examples, else the "
    "shipped retention text.",
)
TOLERANCE = typer.Option(
    None,
    "--tolerance",
    min=0.0,
    help="Largest logit gap that passes, in standard deviations of the logits. Without it: by the stored dtype.",
)
DTYPE = typer.Option(
    None,
    "--dtype",
    help="float32, float16 or bfloat16. Without it every tensor keeps the dtype that it has in the base.",
)
OVERWRITE = typer.Option(False, "--overwrite", help="Replace an earlier export in --output (nothing else is replaced).")


@prints
def export(
    model: str = MODEL,
    adapter: str = ADAPTER,
    output: str = OUTPUT,
    target: str = TARGET,
    bits: int | None = BITS,
    probes: str | None = PROBES,
    tolerance: float | None = TOLERANCE,
    overwrite: bool = OVERWRITE,
    json: bool = options.AS_JSON,
) -> geonb.workbench.export.record.Export:
    """Write an adapter as TARGET, read it back in the target's own loader, and compare it with base + adapter.

    Reports the largest logit gap, KL(base + adapter || export) and the size. An export beyond its tolerance is not
    kept, and the exit code is 1.
    """
    from geonb.workbench.export import export_adapter

    with StageLine(enabled=not json) as progress:
        record = export_adapter(
            model,
            adapter,
            output,
            target=target,
            bits=bits,
            probes=probes,
            tolerance=tolerance,
            overwrite=overwrite,
            progress=progress,
        )
    return answer(record, as_json=json)


@prints
def merge(
    model: str = MODEL,
    adapter: str = ADAPTER,
    output: str = OUTPUT,
    dtype: str | None = DTYPE,
    probes: str | None = PROBES,
    tolerance: float | None = TOLERANCE,
    overwrite: bool = OVERWRITE,
    json: bool = options.AS_JSON,
) -> geonb.workbench.export.record.Export:
    """Add an adapter to its base's weights: W + scale B A in float64, rounded once to the base's dtype.

    The folder is a complete model (config, tokenizer, generation config, weights), loaded again and compared with base
    + adapter before it is kept.
    """
    from geonb.workbench.export import merge_adapter

    with StageLine(enabled=not json) as progress:
        record = merge_adapter(
            model,
            adapter,
            output,
            dtype=dtype,
            probes=probes,
            tolerance=tolerance,
            overwrite=overwrite,
            progress=progress,
        )
    return answer(record, as_json=json)
