"""`geonb adapter`: what a saved adapter does to its base, whoever trained it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from geonb.cli import options
from geonb.cli.output import answer, prints
from geonb.cli.progress import GeometryBar

if TYPE_CHECKING:
    import geonb.adapters.audit

app = typer.Typer(help="Look at a saved adapter: its size, its rank, its place in the base.", no_args_is_help=True)

ADAPTER = typer.Argument(
    ..., metavar="ADAPTER", help="A PEFT LoRA folder: adapter_config.json and adapter_model.safetensors."
)
BASE = typer.Option(
    None,
    "--base",
    metavar="MODEL",
    help="The base: a Hugging Face folder, a hub id, or `embedded`. Without it the config's own base is used where it "
    "is a folder here or `embedded`; nothing is downloaded.",
)


@app.command()
@prints
def audit(
    adapter: str = ADAPTER, base: str | None = BASE, json: bool = options.AS_JSON
) -> geonb.adapters.audit.AdapterAudit:
    """Measure every matrix's change against its base and against a random adapter of the same size.

    Reads any PEFT LoRA adapter: alpha / r or alpha / sqrt(r), ranks and alphas by pattern. The verdict is `inside`
    (every ||dW||_2 <= sigma_max of its matrix), `beyond` (one is larger and overwrites the matrix's strongest
    direction), `unmeasured` (no base), `unmoved` (dW = 0 everywhere) or `broken` (NaN, factors or matrices missing).
    """
    from geonb.adapters.audit import audit_adapter

    return answer(audit_adapter(adapter, base=base, progress=GeometryBar(enabled=not json)), as_json=json)
