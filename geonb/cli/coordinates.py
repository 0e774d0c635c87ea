"""`geonb coordinates`: the language model whose weights are a function of a coordinate."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from geonb.cli import coordinates_continual, coordinates_use, options
from geonb.cli.output import answer, is_quiet, prints
from geonb.errors import InputError

if TYPE_CHECKING:
    import geonb.coordinates.compare_optimisers
    import geonb.coordinates.trained
    import geonb.coordinates.verify

app = typer.Typer(
    help="A language model of ten million parameters whose weights move with a coordinate: W + dW(theta), bounded.\n\n"
    "Start with `geonb coordinates verify`, which builds a preset, prints its exact parameter table and checks what must "
    "hold before training.",
    no_args_is_help=True,
)


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


@app.command("train")
@prints
def train(
    context: typer.Context,
    output: Path = typer.Option(..., "--output", "-o", help="The run's folder: a new one, or with --resume its own."),
    preset: str = typer.Option("B", help="B (the default), C, D or tiny."),
    config: Path | None = typer.Option(
        None, help="A YAML file of model fields instead of a preset; its table `training` holds fields of the run."
    ),
    steps: int = typer.Option(300, help="Steps of all three phases: a fifth, two fifths, two fifths."),
    rows: int = typer.Option(12, help="Texts a step."),
    length: int = typer.Option(96, help="Tokens a text at most."),
    data: str = typer.Option(
        "", "--data", "-d", help="Running text beside the curriculum: a .txt, or JSONL as elsewhere."
    ),
    controller: str = typer.Option(
        "adamw",
        help="What moves the cores: adamw; frank-wolfe, with no rate and the budget certified for every theta; or none.",
    ),
    base_rate: float = typer.Option(3e-4, help="AdamW's rate for embeddings, blocks and output; 3e-3 suits tiny."),
    coordinate_rate: float = typer.Option(1e-3, help="AdamW's rate for directions, factors, cores and predictor."),
    precision: str = typer.Option(
        "float32", help="float32, bfloat16 or float16 in large products; budget, phases, norms and losses stay float32."
    ),
    gradient_checkpointing: bool = typer.Option(
        False, "--gradient-checkpointing", help="Less memory for one forward pass more; the gradients are the same."
    ),
    evaluate_every: int = typer.Option(50, help="Steps between evaluations; each leaves a checkpoint."),
    seed: int = typer.Option(0, help="Seed of the weights, the tokenizer's texts and every batch."),
    resume: bool = typer.Option(
        False, "--resume", help="Go on with an interrupted run, to the bytes it would have had."
    ),
    json: bool = options.AS_JSON,
) -> geonb.coordinates.trained.TrainedModel:
    """Train a coordinate model: minimal pairs, compositions, dialogues; interrupt it at any time, and --resume."""
    from tqdm import tqdm

    from geonb.coordinates import configuration
    from geonb.coordinates.recipe import RECIPE, Recipe, read_recipe
    from geonb.coordinates.trained import trained_model
    from geonb.coordinates.training import train as run
    from geonb.train.events import EvalEvent, NoteEvent, StepEvent

    if config is not None and preset != "B":
        raise InputError("--preset and --config were both given; allowed is one: name the preset inside the file.")
    given = {
        "steps": steps,
        "rows": rows,
        "length": length,
        "prose": data,
        "controller": controller,
        "seed": seed,
        "base_rate": base_rate,
        "coordinate_rate": coordinate_rate,
        "precision": precision,
        "checkpointing": gradient_checkpointing,
        "evaluate_every": evaluate_every,
    }
    said = {name: value for name, value in given.items() if _was_said(context, _OPTIONS.get(name, name))}
    if resume:
        # what is resumed is what was begun: an option that was not repeated is no change of mind, another value is refused
        begun = Recipe.load(output / RECIPE)
        recipe = dataclasses.replace(begun, **said)
        if config is not None:
            recipe = read_recipe(config, begun, **said)
        elif _was_said(context, "preset"):
            recipe = dataclasses.replace(recipe, configuration=configuration.preset(preset))
    elif config is not None:
        recipe = read_recipe(config, **said)
    else:
        recipe = Recipe(configuration=configuration.preset(preset), **given)
    events = run(recipe, output, resume=resume)
    with tqdm(total=recipe.steps, unit="step", file=sys.stderr, disable=is_quiet(), dynamic_ncols=True) as bar:
        for event in events:
            if isinstance(event, StepEvent):
                bar.n = event.step
                bar.set_postfix_str(f"loss {event.loss:.3f}", refresh=False)
                bar.update(0)
            elif isinstance(event, EvalEvent):
                bar.set_description_str(f"held out {event.loss:.3f}")
            elif isinstance(event, NoteEvent):
                bar.write(f"step {event.step}: {event.because}", file=sys.stderr)
    return answer(trained_model(output), as_json=json)


_OPTIONS = {"prose": "data", "checkpointing": "gradient_checkpointing"}


def _was_said(context: typer.Context, option: str) -> bool:
    """Whether the command line names the option, and not its default."""
    source = context.get_parameter_source(option)
    return source is not None and source.name == "COMMANDLINE"


@app.command("compare-optimisers")
@prints
def compare_optimisers(
    output: Path = typer.Option(..., "--output", "-o", help="A folder for the rows; the same one again goes on."),
    preset: str = typer.Option("tiny", help="tiny, or B, C, D where there is time: 12 runs and 3 a seed."),
    seeds: int = typer.Option(3, help="Seeds reported; AdamW's rate is searched on two others."),
    steps: int = typer.Option(240, help="Steps of every run."),
    rows: int = typer.Option(12, help="Texts a step."),
    length: int = typer.Option(96, help="Tokens a text at most."),
    base_rate: float = typer.Option(3e-3, help="AdamW's rate for embeddings, blocks and output, in every run."),
    json: bool = options.AS_JSON,
) -> geonb.coordinates.compare_optimisers.OptimisersCompared:
    """geonb's step for the cores, with no rate, against AdamW at the best rate of a grid, seed by seed."""
    from tqdm import tqdm

    from geonb.coordinates.compare_optimisers import compare_optimisers as compare
    from geonb.coordinates.configuration import preset as preset_of
    from geonb.coordinates.recipe import Recipe

    recipe = Recipe(
        configuration=preset_of(preset), steps=steps, rows=rows, length=length, base_rate=base_rate, evaluate_every=steps
    )  # fmt: skip
    with tqdm(unit="run", file=sys.stderr, disable=is_quiet(), dynamic_ncols=True) as bar:

        def progress(place: int, total: int, what: str) -> None:
            bar.total, bar.n = total, place
            bar.set_description_str(what)

        found = compare(recipe, output, seeds=seeds, progress=progress)
    return answer(found, as_json=json)


app.command("generate")(coordinates_use.generate)
app.command("analyze")(coordinates_use.analyze)
app.command("interpolate")(coordinates_use.interpolate)
app.command("export")(coordinates_use.export)
app.command("import")(coordinates_use.import_)
app.command("forgetting")(coordinates_continual.forgetting)
