"""`geonb model`: what a checkpoint is, and how much room its matrices have."""

from __future__ import annotations

from typing import Any

import typer

from geonb.cli.output import answer
from geonb.cli.progress import GeometryBar

app = typer.Typer(help="Look at a checkpoint: its matrices, roles and capacity.", no_args_is_help=True)

MODEL = typer.Argument(..., metavar="MODEL", help="A Hugging Face folder, a hub id, or `embedded`.")
AS_JSON = typer.Option(False, "--json", help="Print one JSON document on stdout.")


@app.command()
def info(model: str = MODEL, json: bool = AS_JSON) -> Any:
    """Architecture, matrices by role, shapes, dtypes and ties, read from the headers alone."""
    from geonb.models.info import model_info

    return answer(model_info(model), as_json=json)


@app.command()
def capacity(
    model: str = MODEL,
    sort_by: str = typer.Option(
        "layer", "--sort-by", help="recommended-rank, sigma-k, budget, parameters, name or layer."
    ),
    json: bool = AS_JSON,
) -> Any:
    """Every matrix with its spectrum's scalars and the rank that its tail recommends."""
    from geonb.models.capacity import model_capacity

    return answer(model_capacity(model, sort_by=sort_by, progress=GeometryBar(enabled=not json)), as_json=json)
