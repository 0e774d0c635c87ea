"""`geonb coordinates generate | analyze | interpolate | export | import`: what a trained coordinate model is used for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from geonb.cli import options
from geonb.cli.output import answer, is_quiet, prints
from geonb.errors import InputError

if TYPE_CHECKING:
    import geonb.coordinates.analyze
    import geonb.coordinates.continuation
    import geonb.coordinates.exported
    import geonb.coordinates.imports
    import geonb.coordinates.text_clusters

MODEL = typer.Argument(..., metavar="MODEL", help="The folder of a `geonb coordinates train` run.")
STYLE = typer.Option(None, help="Read all of it under the coordinate of this example text instead of one a token.")


@prints
def generate(
    model: Path = MODEL,
    prompt: str | None = typer.Option(
        None, "--prompt", "-p", help="What to go on from; with --chat, the first thing that is said."
    ),
    chat: bool = typer.Option(
        False, "--chat", help="A conversation: each line of yours is answered; an empty line or Ctrl-D ends it."
    ),
    style: str | None = STYLE,
    coordinate: str | None = typer.Option(
        None, help="Read all of it under a named coordinate, one of those that `geonb coordinates import` wrote."
    ),
    tokens: int = typer.Option(64, help="Tokens at most, of each answer."),
    decoding: str = typer.Option(
        "coordinates",
        help="When a token is drawn rather than the likeliest: where the `coordinates` are uncertain, where the `entropy` is "
        "large (the control), always (`nucleus`), never (`greedy`).",
    ),
    share: float = typer.Option(
        0.25,
        help="The share of held-out tokens at which a switch is calibrated to draw; found once, kept with the model.",
    ),
    calibrate_on: Path | None = typer.Option(
        None, help="Calibrate on these texts, JSONL of {text}, instead of held-out ones of the training grammar."
    ),
    threshold: float | None = typer.Option(None, help="Draw above this u (or entropy in nats) instead of calibrating."),
    mass: float = typer.Option(0.92, help="Mass of the nucleus that is drawn from."),
    refine: int = typer.Option(
        0, min=0, help="Refine the coordinate of the prompt by so many accepted steps, and read it under that."
    ),
    weights: str = typer.Option("float32", help="float32 or int8: half the bytes; what it costs is measured and told."),
    phases: str = typer.Option("float32", help="float32 or int8: coordinates of a byte a pair; the cost is told."),
    reuse: float = typer.Option(
        0.0,
        help="Reuse a layer's coordinate while no weight is certified to be further off than this share of the budget; 0 never. "
        "It tells how much the coordinate matters, and saves no time on a CPU.",
    ),
    marks: bool = typer.Option(False, "--marks", help="Put drawn tokens between [ and ]; a terminal colours them."),
    seed: int = typer.Option(0, help="Seed of the draws."),
    json: bool = options.AS_JSON,
) -> geonb.coordinates.continuation.Continuation:
    """Go on from a prompt token by token, or talk with --chat; drawn tokens are coloured, and a line of figures ends it.

    `geonb coordinates generate RUN -p "The baker" --decoding entropy --marks`
    """
    from geonb.cli import coordinates_talk
    from geonb.coordinates.run import load_model, load_tokenizer

    if prompt is None and not chat:
        raise InputError("neither --prompt nor --chat was given; give a prompt to go on from, or --chat to talk.")
    if chat and (json or is_quiet()):
        raise InputError("--chat was given where nobody can talk (--json, or a notebook); give --prompt.")
    if chat and refine:
        raise InputError("--chat and --refine were both given; a refinement needs the whole text: give --prompt.")
    if sum((style is not None, coordinate is not None, refine > 0)) > 1:
        raise InputError(
            "two of --style, --coordinate and --refine were given; allowed is one: each is a coordinate of its own."
        )
    asked = coordinates_talk.Asked(
        decoding=decoding,
        share=share,
        threshold=threshold,
        mass=mass,
        tokens=tokens,
        seed=seed,
        style=style,
        coordinate=coordinate,
        refine=refine,
        weights=weights,
        phases=phases,
        reuse=reuse,
        calibrate_on=calibrate_on,
        marks=marks,
        quiet=json or is_quiet(),
    )
    speaker = coordinates_talk.Speaker(asked, model, load_model(model), load_tokenizer(model))
    if chat:
        return speaker.talk(prompt)
    assert prompt is not None
    found = speaker.go_on(prompt)
    return answer(found, as_json=True) if json else found


@prints
def analyze(
    model: Path = MODEL,
    text: str | None = typer.Option(None, "--text", "-t", help="The text whose coordinates are told."),
    clusters: str | None = typer.Option(
        None,
        help="Instead: do texts of one `domain`, `topic` or `style` lie together, more than permuted labels, the counts of "
        "their tokens and the untrained model say?",
    ),
    labelled: Path | None = typer.Option(None, help="Instead: the same of your texts, JSONL of {text, group}."),
    count: int = typer.Option(24, min=2, help="Texts of each label, with --clusters."),
    seed: int = typer.Option(0, help="Seed of the texts and of the permutations."),
    json: bool = options.AS_JSON,
) -> geonb.coordinates.analyze.CoordinateAnalysis | geonb.coordinates.text_clusters.TextClusters:
    """The coordinates of a text: how far each token moves them, which phases they share, what they do to every matrix.

    With --clusters or --labelled, whether the coordinates of many texts are clusters; a notebook shows them as CoordinateMap.
    """
    from geonb.coordinates.analyze import analyze as find_out
    from geonb.coordinates.run import load_model, load_tokenizer
    from geonb.coordinates.text_clusters import labelled_texts, read_labelled, text_clusters, untrained_model

    if sum(one is not None for one in (text, clusters, labelled)) != 1:
        raise InputError("give one of --text, --clusters and --labelled: what is to be told of.")
    if text is not None:
        return answer(find_out(load_model(model), load_tokenizer(model), text), as_json=json)
    if labelled is not None:
        texts, labels = read_labelled(labelled)
    else:
        assert clusters is not None
        texts, labels = labelled_texts(clusters, count, seed=seed)
    found = text_clusters(
        load_model(model), load_tokenizer(model), texts, labels, kind=clusters or str(labelled),
        untrained=untrained_model(model), seed=seed,
    )  # fmt: skip
    return answer(found, as_json=json)


@prints
def interpolate(
    model: Path = MODEL,
    first: str = typer.Option(..., help="An example text of the first style."),
    second: str = typer.Option(..., help="An example text of the second style."),
    prompt: str = typer.Option(..., "--prompt", "-p", help="What is continued under every style on the way."),
    steps: int = typer.Option(5, min=2, max=101, help="How many styles, both ends among them."),
    along: str = typer.Option(
        "sphere", help="The way: `sphere` (slerp in theta) or `phases` (the shorter arc of each phase)."
    ),
    tokens: int = typer.Option(24, help="Tokens at most."),
    json: bool = options.AS_JSON,
) -> geonb.coordinates.continuation.StylePath:
    """One prompt under the styles between two example texts, the likeliest token each time."""
    from geonb.coordinates.run import load_model, load_tokenizer
    from geonb.coordinates.style_path import style_path

    found = style_path(
        load_model(model), load_tokenizer(model), first, second, prompt, steps=steps, along=along, tokens=tokens
    )
    return answer(found, as_json=json)


@prints
def export(
    model: Path = MODEL,
    output: Path = typer.Option(
        ..., "--output", "-o", help="A new folder: `base` in it is a Llama, `styles/NAME` adapters."
    ),
    style: list[str] = typer.Option(None, help="NAME=EXAMPLE TEXT; one LoRA each. May be given more than once."),
    json: bool = options.AS_JSON,
) -> geonb.coordinates.exported.ExportedModel:
    """The base as a Hugging Face Llama, and each style as a PEFT LoRA on it."""
    from geonb.coordinates.exported import export_model

    return answer(export_model(model, output, _named(style)), as_json=json)


@prints
def import_(
    model: Path = MODEL,
    adapter: list[Path] = typer.Option(..., "--adapter", "-a", help="A PEFT LoRA on the exported base; once for each."),
    output: Path = typer.Option(..., "--output", "-o", help="A new folder for the model that holds them."),
    json: bool = options.AS_JSON,
) -> geonb.coordinates.imports.ImportedStyles:
    """LoRAs as coordinates: at most 2m of them, exactly where their spaces fit the rank; coordinates.safetensors holds theirs."""
    from geonb.coordinates.exported import import_model

    return answer(import_model(model, adapter, output), as_json=json)


def _named(styles: list[str] | None) -> dict[str, str]:
    found: dict[str, str] = {}
    for one in styles or []:
        name, equals, text = one.partition("=")
        if not equals or not name.isidentifier() or not text.strip():
            raise InputError(
                f"--style was given {one!r}; allowed is NAME=EXAMPLE TEXT, the name of letters, digits and _."
            )
        if name in found:
            raise InputError(f"--style was given {name} twice; allowed is each name once.")
        found[name] = text
    return found
