"""`geonb coordinates`: the language model whose weights are a function of a coordinate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from geonb.cli import options
from geonb.cli.output import answer, prints
from geonb.errors import InputError

if TYPE_CHECKING:
    import geonb.coordinates.verify

app = typer.Typer(
    help="A language model of ten million parameters whose weights move with a coordinate: W + dW(theta), bounded.\n\n"
    "Start with `geonb coordinates verify`, which builds a preset, prints its exact parameter table and checks what must "
    "hold before training.",
    no_args_is_help=True,
)


@app.callback()
def _group() -> None:
    """Keeps a group of one command a group."""


@app.command("verify")
@prints
def verify(
    preset: str = typer.Option("B", help="B (the default), C (natural head width, shared blocks), D (tied) or tiny."),
    config: Path | None = typer.Option(
        None, help="A YAML file of fields instead; `preset: B` in it names what the others are. Every key is read."
    ),
    seed: int = typer.Option(0, help="Seed of the weights and of the probe text."),
    json: bool = options.AS_JSON,
) -> geonb.coordinates.verify.VerifiedModel:
    """Build a model and check its size, causality, cache, budget and gradients; exit 1 where one fails."""
    from geonb.coordinates import configuration
    from geonb.coordinates.verify import verify as find_out

    if config is not None and preset != "B":
        raise InputError("--preset and --config were both given; allowed is one: name the preset inside the file.")
    sizes = configuration.preset(preset) if config is None else configuration.read_configuration(config)
    found: Any = answer(find_out(sizes, seed=seed), as_json=json)
    if not found.passed:
        raise typer.Exit(1)
    return found
