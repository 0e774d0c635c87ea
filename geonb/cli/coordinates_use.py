"""`geonb coordinates generate | analyze | interpolate | export | import`: what a trained coordinate model is used for."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from geonb.cli import options
from geonb.cli.output import answer, is_quiet, prints
from geonb.errors import InputError

if TYPE_CHECKING:
    import geonb.coordinates.analyze
    import geonb.coordinates.continuation
    import geonb.coordinates.exported
    import geonb.coordinates.imports

MODEL = typer.Argument(..., metavar="MODEL", help="The folder of a `geonb coordinates train` run.")
STYLE = typer.Option(None, help="Read all of it under the coordinate of this example text instead of one a token.")
TOKENS = typer.Option(64, help="Tokens at most.")
SWITCH = typer.Option(
    "uncertainty", help="What decides between drawing and the likeliest: uncertainty, entropy, always, never."
)
THRESHOLD = typer.Option(0.5, help="Draw where the switch is above it; the published 0.5 says little of another model.")
SEED = typer.Option(0, help="Seed of the draws.")


@prints
def generate(
    model: Path = MODEL,
    prompt: str | None = typer.Option(
        None, "--prompt", "-p", help="What to go on from; without one, a conversation is read."
    ),
    style: str | None = STYLE,
    tokens: int = TOKENS,
    switch: str = SWITCH,
    threshold: float = THRESHOLD,
    mass: float = typer.Option(0.92, help="Mass of the nucleus."),
    refine: int = typer.Option(
        0, help="Refine the coordinate of the prompt by so many accepted steps, and read it under that."
    ),
    int8: bool = typer.Option(False, "--int8", help="Weights in int8."),
    seed: int = SEED,
    json: bool = options.AS_JSON,
) -> geonb.coordinates.continuation.Continuation:
    """Go on from a prompt token by token; without --prompt, talk: each line of yours is answered, an empty one ends it."""
    from geonb.coordinates.quantise import quantise_weights
    from geonb.coordinates.run import load_model, load_tokenizer

    made, words = load_model(model), load_tokenizer(model)
    if int8:
        quantise_weights(made)
    given = {"max_tokens": tokens, "switch": switch, "threshold": threshold, "mass": mass, "seed": seed}
    if prompt is not None:
        found = _go_on(made, words, prompt, style, refine, given, show=not json)
        return answer(found, as_json=True) if json else found
    if json:
        raise InputError("--json was given without --prompt; a conversation has no one document: give a prompt.")
    if is_quiet():
        raise InputError("a notebook has no line to read a conversation from; give --prompt.")
    return _talk(made, words, style, refine, given)


def _go_on(
    model: Any, words: Any, prompt: str, style: str | None, refine: int, given: dict[str, Any], *, show: bool
) -> Any:
    import torch

    from geonb.coordinates.analyze import encoded, style_of
    from geonb.coordinates.continuation import Continuation
    from geonb.coordinates.decoding import generate as stream
    from geonb.coordinates.refinement import refine as refined
    from geonb.coordinates.tokenizer import END
    from geonb.records import plain

    if style is not None and refine:
        raise InputError("--style and --refine were both given; allowed is one: a style is a coordinate of its own.")
    ids = encoded(words, prompt)
    theta = style_of(model, words, style) if style is not None else None
    if refine:
        theta = refined(model, torch.tensor([ids]), steps=refine).theta[0, 0]
    end = words.token_to_id(END)
    made, shown = [], ""
    show = show and not is_quiet()
    if show:
        sys.stdout.write(plain(prompt, keep="\n\t"))
    for one in stream(model, ids, theta=theta, stop=frozenset({end}), **given):
        made.append(one)
        # bytes of one letter may come in several tokens: what is whole is shown
        text = words.decode([each.token for each in made], skip_special_tokens=True)
        if show and text.startswith(shown) and not text.endswith("�"):
            sys.stdout.write(plain(text[len(shown) :], keep="\n\t"))
            sys.stdout.flush()
            shown = text
    if show:
        sys.stdout.write("\n")
    return Continuation.of(prompt, made, words)


def _talk(model: Any, words: Any, style: str | None, refine: int, given: dict[str, Any]) -> Any:
    said, found = "", None
    while True:
        try:
            line = input("you: ").strip()
        except EOFError:
            line = ""
        if not line:
            if found is None:
                raise InputError("nothing was said; give a line, or --prompt.")
            return found
        said += f"User: {line}\nAssistant:"
        while len(words.encode(said).ids) + given["max_tokens"] >= model.sizes.context and "\nUser: " in said[1:]:
            said = said[said.index("\nUser: ") + 1 :]  # what no longer fits is forgotten, oldest first
        found = _go_on(model, words, said, style, refine, given, show=False)
        reply = found.text.split("\nUser:")[0].strip()
        sys.stdout.write(f"model: {reply}\n")
        said += f" {reply}\n"


@prints
def analyze(
    model: Path = MODEL,
    text: str = typer.Option(..., "--text", "-t", help="The text whose coordinates are told."),
    json: bool = options.AS_JSON,
) -> geonb.coordinates.analyze.CoordinateAnalysis:
    """The coordinates of a text: how far each token moves them, which phases they share, what they do to every matrix."""
    from geonb.coordinates.analyze import analyze as find_out
    from geonb.coordinates.run import load_model, load_tokenizer

    return answer(find_out(load_model(model), load_tokenizer(model), text), as_json=json)


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
