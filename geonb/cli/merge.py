"""`geonb merge`: put what one model learnt into another of the same shape, past what that one already does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from geonb.cli import options
from geonb.cli.output import answer, prints
from geonb.cli.progress import StageLine

if TYPE_CHECKING:
    import geonb.merge.report

app = typer.Typer(
    help="Put a donor's weight change into a target of the same shape, off the directions that the target uses.",
    no_args_is_help=True,
)

TARGET = typer.Option(
    ...,
    "--target",
    "-t",
    metavar="MODEL",
    help="The model that keeps its behaviour: a folder, a hub id, or `embedded`.",
)
DONOR = typer.Option(
    ..., "--source", "-s", metavar="MODEL", help="The donor: same architecture, shapes and vocabulary."
)
DONORS = typer.Option(..., "--source", "-s", metavar="MODEL", help="A donor; give -s again for each.")
OUTPUT = typer.Option(
    ..., "--output", "-o", metavar="FOLDER", help="The merged model's new folder; merge.json lies in it."
)
OUTPUTS = typer.Option(
    ..., "--output", "-o", metavar="FOLDER", help="Gets one model folder per step; the last step's holds all donors."
)
BASE = typer.Option(
    None, "--base", metavar="MODEL", help="What the donor was tuned from, dW = donor - base; default: the target."
)
PROBES = typer.Option(
    None, "--probes", help="JSONL of texts that the target must go on doing well; `embedded` brings its own."
)
HELD_OUT = typer.Option(
    None, "--held-out", help="JSONL to measure on; default: a fifth of the probes, set aside first."
)
DONOR_TEXT = typer.Option(
    None, "--donor-text", help="JSONL of what the donor is good at: is it better there afterwards?"
)
RULE = typer.Option(
    "soft",
    "--rule",
    help="soft: weights l / (s^2 + l), l at the Marchenko-Pastur edge; hard: only directions that no probe uses; edge: "
    "all below that edge; none: no projection (for comparison).",
)
SCALE = typer.Option(1.0, "--scale", help="How much of the projected change is added; 0 writes the target.")
ACCEPT = typer.Option(
    False, "--accept-special-tokens", help="Merge although bos, eos, pad or unk differ; the target's are kept."
)
MEMORY = typer.Option(
    "4GiB", "--memory-budget", help="What the Gram matrices of inputs may take at once; less: more passes."
)
SEED = typer.Option(0, "--seed", help="Of the held-out fifth and of the bootstrap.")
OVERWRITE = typer.Option(False, "--overwrite", help="Replace a merge that is there (and nothing but a merge).")


@app.command()
@prints
def run(
    target: str = TARGET,
    source: str = DONOR,
    output: str = OUTPUT,
    base: str | None = BASE,
    probes: str | None = PROBES,
    held_out: str | None = HELD_OUT,
    donor_text: str | None = DONOR_TEXT,
    rule: str = RULE,
    scale: float = SCALE,
    accept_special_tokens: bool = ACCEPT,
    memory_budget: str = MEMORY,
    seed: int = SEED,
    overwrite: bool = OVERWRITE,
    device: str = options.DEVICE,
    json: bool = options.AS_JSON,
) -> geonb.merge.report.MergeRun:
    """Write TARGET + scale (DONOR - base) P, P off the inputs that TARGET's maps see on the probes, and measure it.

    Only linear maps inside blocks change; embeddings, norms and head stay the target's. Told are: what share of the change
    survives P (and what would in random directions), how much the maps' outputs move, KL and loss on held-out text, and
    whether the merged model still writes language. Exit 1 when that last test fails. The fair comparison is the plain sum,
    `--rule none`, with the --scale at which it costs the same KL: a smaller change also disturbs less.
    """
    from geonb.merge.transplant import transplant

    with StageLine(enabled=not json) as progress:
        found = transplant(
            target,
            source,
            output,
            base=base,
            **_common(
                probes,
                held_out,
                donor_text,
                rule,
                scale,
                accept_special_tokens,
                memory_budget,
                seed,
                overwrite,
                device,
                progress,
            ),
        )
    return answer(found, as_json=json)


@app.command()
@prints
def batch(
    target: str = TARGET,
    source: list[str] = DONORS,
    output: str = OUTPUTS,
    probes: str | None = PROBES,
    held_out: str | None = HELD_OUT,
    donor_text: str | None = DONOR_TEXT,
    rule: str = RULE,
    scale: float = SCALE,
    accept_special_tokens: bool = ACCEPT,
    memory_budget: str = MEMORY,
    seed: int = SEED,
    overwrite: bool = OVERWRITE,
    device: str = options.DEVICE,
    json: bool = options.AS_JSON,
) -> geonb.merge.report.MergeBatch:
    """Merge several donors one after another: step k adds scale (donor_k - TARGET) P_k to the model of step k-1.

    P_k is off the inputs of the model as merged so far; the change is taken against TARGET itself, since donor_k less the
    merged model would take the earlier donors out again. A step that is there with the same inputs is skipped.
    """
    from geonb.merge.transplant import transplant_batch

    with StageLine(enabled=not json) as progress:
        found = transplant_batch(
            target,
            source,
            output,
            **_common(
                probes,
                held_out,
                donor_text,
                rule,
                scale,
                accept_special_tokens,
                memory_budget,
                seed,
                overwrite,
                device,
                progress,
            ),
        )
    return answer(found, as_json=json)


def _common(
    probes: str | None,
    held_out: str | None,
    donor_text: str | None,
    rule: str,
    scale: float,
    accept: bool,
    memory: str,
    seed: int,
    overwrite: bool,
    device: str,
    progress: Any,
) -> dict[str, Any]:
    from geonb.merge.preflight import SPECIAL_TOKENS
    from geonb.plan.options import bytes_of

    return {
        "probes": probes,
        "held_out": held_out,
        "donor_text": donor_text,
        "rule": rule,
        "scale": scale,
        "accept": (SPECIAL_TOKENS,) if accept else (),
        "memory": bytes_of(memory),
        "seed": seed,
        "overwrite": overwrite,
        "device": device,
        "progress": progress,
    }
