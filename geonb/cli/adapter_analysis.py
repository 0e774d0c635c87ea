"""`geonb adapter analyze` and `calibrate-baseline`: where a change lies in its base, and what a random one would do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from geonb.cli import options
from geonb.cli.adapter import ADAPTER, BASE
from geonb.cli.output import answer, note, prints
from geonb.cli.progress import GeometryBar

if TYPE_CHECKING:
    import geonb.adapters.baseline
    import geonb.adapters.lora_geometry

TOP_K = typer.Option(64, "--top-k", help="How many of W's strongest input directions the amplification looks at.")
SEED = typer.Option(0, "--seed", help="Of the random adapters.")


@prints
def analyze(
    adapter: str = ADAPTER,
    base: str | None = BASE,
    top_k: int = TOP_K,
    subspace_rank: int | None = typer.Option(
        None,
        "--subspace-rank",
        help="r of the overlap ||U_r^T dW||_F / ||dW||_F; default: each matrix's structural rank.",
    ),
    baseline: str | None = typer.Option(
        None, "--baseline", metavar="FILE", help="Random adapters of `calibrate-baseline`, instead of new draws."
    ),
    draws: int = typer.Option(3, "--draws", help="Random adapters drawn in each matrix where no baseline serves."),
    seed: int = SEED,
    sort_by: str = typer.Option(
        "layer",
        "--sort-by",
        help="layer, name, role (rising); rank, norm, frobenius, relative_change, weyl_utilisation, amplification_cv, "
        "amplification_peak, amplification_energy, amplification_argmax, projection_depth, subspace_overlap, "
        "subspace_rank, stable_rank (falling).",
    ),
    json: bool = options.AS_JSON,
) -> geonb.adapters.lora_geometry.AdapterGeometry:
    """Where each matrix's change dW lies in the singular basis of its W, beside a random dW of equal rank and size.

    Weyl: the largest shift of a singular value over ||dW||_2; small means dW acts beside W's structure. Amplification:
    how unevenly dW answers W's strongest input directions (CV, peak), and how much of dW hears them (energy). Depth: how
    many of W's output directions hold half of dW. Overlap: how much of dW writes into the top r of them. There is no
    verdict: a number says something only by its distance from the random one in brackets.
    """
    from geonb.adapters.lora_geometry import analyze_adapter
    from geonb.workbench.bench import adapter_folder

    result = analyze_adapter(
        adapter_folder(adapter),
        base,
        top_k=top_k,
        subspace_rank=subspace_rank,
        baseline=baseline,
        draws=draws,
        seed=seed,
        sort_by=sort_by.replace("-", "_"),
        progress=GeometryBar(enabled=not json),
    )
    return answer(result, as_json=json)


@prints
def calibrate_baseline(
    model: str = options.MODEL,
    rank: int = typer.Option(..., "--rank", help="The rank of the adapters that shall be held against the baseline."),
    output: str | None = typer.Option(
        None, "--output", "-o", metavar="FILE", help="The JSON file to write, for `adapter analyze --baseline FILE`."
    ),
    draws: int = typer.Option(5, "--draws", help="Random adapters in each matrix; two or more."),
    top_k: int = TOP_K,
    seed: int = SEED,
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace the file in --output."),
    json: bool = options.AS_JSON,
) -> geonb.adapters.baseline.Baseline:
    """Draw random adapters of one rank in every matrix of MODEL and keep what they do, so that it is drawn only once.

    Measured are amplification CV and peak, projection depth, and Weyl utilisation at several sizes ||dW||_F / ||W||_F, since
    it alone depends on the size. The file answers for these weights only: `analyze` checks the digest.
    """
    from geonb.adapters.baseline import calibrate_baseline as calibrate

    bar = GeometryBar(enabled=not json)
    result = calibrate(
        model, rank, output=output, overwrite=overwrite, draws=draws, top_k=top_k, seed=seed, progress=bar
    )
    record = answer(result, as_json=json)
    if output is not None:
        note(f"baseline: {output}")
    return record
