"""`geonb model quantize`: a model in 8 or 4 bits, held against itself, and what rounding does to each matrix."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from geonb.cli import options
from geonb.cli.export import OUTPUT, OVERWRITE
from geonb.cli.output import answer, prints
from geonb.cli.progress import StageLine

if TYPE_CHECKING:
    import geonb.workbench.quantised


@prints
def quantize(
    model: str = options.MODEL_ARGUMENT,
    output: str = OUTPUT,
    bits: int = typer.Option(8, "--bits", help="8 or 4 a weight. With torchao 4 may be no smaller than 8 on a CPU."),
    form: str = typer.Option(
        "torchao",
        "--form",
        help="`torchao` (a folder that transformers loads) or `gguf` (one file for llama.cpp: Q8_0 or Q4_0).",
    ),
    probes: str | None = typer.Option(
        None,
        "--probes",
        metavar="FILE",
        help="JSONL (or `embedded:NAME`) of text to compare on; default: the shipped retention text.",
    ),
    tolerance: float | None = typer.Option(
        None,
        "--tolerance",
        min=0.0,
        help="Largest logit gap that passes, in standard deviations of the logits; default: 1 with 8 bits, 4 with 4.",
    ),
    geometry: bool = typer.Option(
        True, "--geometry/--no-geometry", help="Measure each matrix's rounding; costs two spectra a matrix."
    ),
    overwrite: bool = OVERWRITE,
    device: str = options.DEVICE,
    json: bool = options.AS_JSON,
) -> geonb.workbench.quantised.Quantised:
    """Write MODEL with weights of 8 or 4 bits, read it back in its own loader, and compare it with the model itself.

    Told are the largest logit gap, KL(model || quantised), the share of tokens with the same argmax, the size, the seconds
    of a forward in pairs, and the geometry of the rounding E = W_q - W: ||E||_2 beside sigma_k and the noise edge, and how
    many singular values of W it does not leave above it (Weyl). Beyond the tolerance nothing is kept and the exit code is
    1. geonb opens no quantised model again: its spectrum is no longer the model's.
    """
    from geonb.workbench.quantize import quantize_model

    with StageLine(enabled=not json) as progress:
        record = quantize_model(
            model,
            output,
            bits=bits,
            form=form,
            probes=probes,
            tolerance=tolerance,
            overwrite=overwrite,
            geometry=geometry,
            device=device,
            progress=progress,
        )
    return answer(record, as_json=json)
