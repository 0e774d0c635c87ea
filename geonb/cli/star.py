"""`geonb train star`: self-taught reasoning in rounds, with the test that says whether it helped."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from geonb.cli import options
from geonb.cli.output import answer, note, prints

if TYPE_CHECKING:
    import geonb.workbench.star.record


@prints
def star(
    model: str = options.MODEL,
    output: str = typer.Option(..., "--output", "-o", help="Folder of the rounds; each holds an ordinary run in run/."),
    data: str = typer.Option(
        "embedded:chat",
        "--data",
        "-d",
        help='JSONL of {"prompt", "answer"} or {"messages", "answer"}; default: the shipped arithmetic and logic.',
    ),
    eval_data: str | None = typer.Option(
        None, "--eval-data", help="Held-out problems, never trained on; default: a fifth of the data, at most 256."
    ),
    initial_adapter: str | None = typer.Option(
        None, "--initial-adapter", help="An adapter, or its run, for the first round's solutions."
    ),
    rounds: int = typer.Option(3, "--rounds", help="At most so many; they end at the first that is no better."),
    problems_per_round: int = typer.Option(
        500, "--problems-per-round", help="500 is the documented floor; fewer run too, with wider intervals."
    ),
    samples: int = typer.Option(4, "--samples", help="Solutions drawn of each problem."),
    temperature: float = typer.Option(1.0, "--temperature", help="1 draws from the model's own distribution."),
    strategy: str = typer.Option(
        "fresh_base",
        "--strategy",
        help="fresh_base: a new adapter on the base from all kept solutions; cumulative: one on the base with the "
        "earlier adapters merged into it, from this round's.",
    ),
    few_shot: int = typer.Option(0, "--few-shot", help="Worked examples (0 to 3) before each question, until trained."),
    max_generation_tokens: int | None = typer.Option(
        None, "--max-generation-tokens", help="Default: twice the longest worked solution of the data, else 256."
    ),
    rationalise: bool = typer.Option(
        False, "--rationalise", help="Try unsolved problems again with the answer as a hint; train without the hint."
    ),
    control: bool = typer.Option(
        False, "--control", help="Beside round 1, train on as many wrong solutions: does checking matter?"
    ),
    all_rounds: bool = typer.Option(False, "--all-rounds", help="Go on also after a round that was no better."),
    max_steps: int | None = options.MAX_STEPS,
    seed: int | None = options.SEED,
    resume: bool = typer.Option(False, "--resume", help="Go on with the killed run in --output, to the same bytes."),
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace the STaR run in --output."),
    device: str = options.DEVICE,
    json: bool = options.AS_JSON,
) -> geonb.workbench.star.record.StarRun:
    """Let a model learn from its own solutions whose final answers are right, round by round.

    A round samples solutions, keeps those whose line "Answer: X" says the record's answer (numbers as numbers), trains
    the derived plan on them, and answers the held-out problems greedily. It is held against the round before by McNemar's
    exact test at 5 %; the rounds end where that sees no improvement, nothing was kept, or all is solved. A model that
    solves next to nothing has nothing to keep: give it --initial-adapter or --few-shot.
    """
    from geonb.workbench.star.rounds import run_star

    with _StageBar(enabled=not json) as progress:
        made = run_star(
            model,
            data,
            output,
            eval_data=eval_data,
            initial_adapter=initial_adapter,
            rounds=rounds,
            problems_per_round=problems_per_round,
            samples=samples,
            temperature=temperature,
            strategy=strategy,
            few_shot=few_shot,
            max_generation_tokens=max_generation_tokens,
            rationalise=rationalise,
            control=control,
            all_rounds=all_rounds,
            max_steps=max_steps,
            seed=seed,
            resume=resume,
            overwrite=overwrite,
            device=device,
            progress=progress,
        )
    if made.adapter is not None:
        note(f"adapter of round {made.final}: {Path(output) / made.adapter}")
    return answer(made, as_json=json)


class _StageBar:
    """One bar on stderr for the stage that is running: solutions drawn, or steps trained."""

    def __init__(self, *, enabled: bool) -> None:
        self._enabled, self._stage, self._bar = enabled, "", None

    def __call__(self, stage: str, done: int, total: int) -> None:
        from tqdm import tqdm

        if stage != self._stage:
            self.close()
            self._stage = stage
            self._bar = tqdm(total=total, desc=stage, file=sys.stderr, disable=not self._enabled, dynamic_ncols=True)
        assert self._bar is not None
        self._bar.n = done
        self._bar.update(0)
        self._bar.refresh()

    def close(self) -> None:
        """End the bar, where one is shown."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def __enter__(self) -> _StageBar:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
