"""Rebuild what geonb ships: `python -m geonb.assets.build corpus|tokenizer|train|export|data|all`."""

from __future__ import annotations

from pathlib import Path

import typer

from geonb.assets import embedded_model_folder

FOLDER = typer.Option(Path(".geonb-build"), help="Where the corpus, checkpoints and logs are kept.")
COUNT = typer.Option(
    None, "--steps", min=1, help="Steps of pretraining; default: those of 40 core minutes. An interrupted run goes on."
)


def main(step: str = typer.Argument("all"), folder: Path = FOLDER, count: int | None = COUNT) -> None:
    """Run one step, or all of them in order."""
    from geonb.assets.build.corpus import build_corpus
    from geonb.assets.build.datasets import build_datasets
    from geonb.assets.build.export import export, write_facts
    from geonb.assets.build.pretrain import STEPS, pretrain
    from geonb.assets.build.tokenizer import build_tokenizer

    embedded = embedded_model_folder()
    steps = {
        "corpus": lambda: build_corpus(folder),
        "tokenizer": lambda: build_tokenizer(folder / "train.txt", embedded),
        "train": lambda: pretrain(folder, embedded, steps=count or STEPS),
        "export": lambda: (export(folder, embedded), write_facts(folder, embedded))[1],
        "data": lambda: build_datasets(folder, embedded, embedded.parent / "data"),
    }
    if step not in {"all", *steps}:
        raise typer.BadParameter(f"the step {step!r} is not known; allowed are all, {', '.join(steps)}")
    for name in steps if step == "all" else [step]:
        typer.echo(f"{name}: {steps[name]()}")


if __name__ == "__main__":
    typer.run(main)
