"""`geonb model`: what a checkpoint is, and how much room its matrices have."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from geonb.cli import options
from geonb.cli.output import answer, prints
from geonb.cli.progress import GeometryBar

if TYPE_CHECKING:
    import geonb.models.capacity
    import geonb.models.info

app = typer.Typer(help="Look at a checkpoint: its matrices, roles and capacity.", no_args_is_help=True)


@app.command()
@prints
def info(model: str = options.MODEL_ARGUMENT, json: bool = options.AS_JSON) -> geonb.models.info.ModelInfo:
    """Architecture, matrices by role, shapes, dtypes and ties, read from the headers alone."""
    from geonb.models.info import model_info

    return answer(model_info(model), as_json=json)


@app.command()
@prints
def capacity(
    model: str = options.MODEL_ARGUMENT,
    sort_by: str = typer.Option(
        "layer", "--sort-by", help="recommended-rank, sigma-k, budget, parameters, name or layer."
    ),
    json: bool = options.AS_JSON,
) -> geonb.models.capacity.ModelCapacity:
    """Every matrix with its spectrum's scalars and the rank that its tail recommends."""
    from geonb.models.capacity import model_capacity

    return answer(model_capacity(model, sort_by=sort_by, progress=GeometryBar(enabled=not json)), as_json=json)
