"""`geonb train evaluate` and the adapters' part of `geonb train compare`: what an adapter changes, with intervals."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from geonb.cli import options
from geonb.cli.output import answer, note, prints
from geonb.cli.progress import StageLine
from geonb.errors import InputError

if TYPE_CHECKING:
    import geonb.train.compare
    import geonb.workbench.compare_adapters
    import geonb.workbench.evaluate

ADAPTER = typer.Option(..., "--adapter", "-a", help="A PEFT LoRA folder, or a run of `train run`.")
PROMPTS = typer.Option(
    None,
    "--prompts",
    help='JSONL of {"prompt"} or {"messages"}, each with an optional "answer" to look for: greedy generations of base and '
    "adapter side by side, loops and endings counted.",
)
DATA = typer.Option(
    None, "--data", "-d", help="JSONL of {text} or {messages}, or `embedded:kjv/eval`: losses on the same examples."
)
BENCHMARK = typer.Option(
    None,
    "--benchmark",
    help="quick (gsm8k, arc_easy, boolq), reasoning (gsm8k, arc_challenge, hellaswag), factual (mmlu, arc_easy, boolq), "
    "comprehensive (all of them), or the path of an lm-eval task file or folder, which runs as code: only from a source "
    "you trust. Needs the `eval` extra; the named suites fetch their data.",
)
MAX_TOKENS = typer.Option(None, "--max-tokens", help="New tokens a prompt, at most; default 256. Only with --prompts.")
LIMIT = typer.Option(None, "--limit", help="Only the first N examples or prompts, or N of each task.")
SEED = typer.Option(0, "--seed", help="Of the bootstrap, and of the examples shown before a task's questions.")
OUTPUT = typer.Option(None, "--output", "-o", metavar="FILE.json", help="Keep the result, every item included.")
OVERWRITE = typer.Option(False, "--overwrite", help="Replace the file in --output.")


@prints
def evaluate(
    model: str = options.MODEL,
    adapter: str = ADAPTER,
    prompts: str | None = PROMPTS,
    data: str | None = DATA,
    benchmark: str | None = BENCHMARK,
    max_tokens: int | None = MAX_TOKENS,
    limit: int | None = LIMIT,
    seed: int = SEED,
    output: str | None = OUTPUT,
    overwrite: bool = OVERWRITE,
    device: str = options.DEVICE,
    json: bool = options.AS_JSON,
) -> geonb.workbench.evaluate.AdapterEvaluation:
    """Hold an adapter against its base on exactly one of --prompts, --data and --benchmark.

    The base is loaded once and the adapter switched on and off; everything is paired example by example. The outcome is
    `improved`, `degraded`, `no significant difference`, `degenerated` (more loops than chance explains), `mixed`, `not
    tested`, or `no effect` for an adapter that changes no logit.
    """
    from geonb.workbench.evaluate import evaluate as measure

    _check_output(output, overwrite)
    with StageLine(enabled=not json) as progress:
        found = measure(
            model,
            adapter,
            prompts=prompts,
            data=data,
            benchmark=benchmark,
            max_tokens=max_tokens,
            limit=limit,
            seed=seed,
            device=device,
            progress=None if json else progress,
        )
    return _kept(found, output, json)


@prints
def compare(
    runs: list[str] | None = typer.Argument(None, metavar="[RUN RUN...]", help="Two or more folders of runs."),
    model: str | None = typer.Option(None, "--model", "-m", help="The base: a folder, a hub id, or `embedded`."),
    adapter_a: str | None = typer.Option(None, "--adapter-a", help="The first adapter, or its run."),
    adapter_b: str | None = typer.Option(None, "--adapter-b", help="The second adapter, or its run."),
    data: str | None = DATA,
    prompts: str | None = PROMPTS,
    benchmark: str | None = BENCHMARK,
    result_a: str | None = typer.Option(None, "--result-a", help="What `train evaluate -o` wrote for the first."),
    result_b: str | None = typer.Option(None, "--result-b", help="What `train evaluate -o` wrote for the second."),
    max_tokens: int | None = MAX_TOKENS,
    limit: int | None = LIMIT,
    seed: int = SEED,
    output: str | None = OUTPUT,
    overwrite: bool = OVERWRITE,
    device: str = options.DEVICE,
    json: bool = options.AS_JSON,
) -> geonb.train.compare.RunsCompared | geonb.workbench.compare_adapters.AdaptersCompared:
    """Hold runs, adapters or saved evaluations against each other, with paired intervals where the examples are the same.

    Runs: their folders, one after another. Adapters of one base, loaded once: -m, --adapter-a, --adapter-b and a source
    such as -d. Saved evaluations: --result-a and --result-b, paired only where both measured the same items. The outcome
    of two adapters is `a is better`, `b is better`, `no significant difference`, `mixed`, `not tested` or `not comparable`.
    """
    from geonb.workbench.compare_adapters import compare_adapters as measure
    from geonb.workbench.compare_adapters import compare_results

    if runs:
        given = {"-m": model, "--adapter-a": adapter_a, "--adapter-b": adapter_b, "-d": data, "--prompts": prompts,
                 "--benchmark": benchmark, "--result-a": result_a, "--result-b": result_b, "--limit": limit,
                 "--max-tokens": max_tokens}  # fmt: skip
        return _of_runs(runs, [name for name, value in given.items() if value is not None], output, overwrite, json)
    live = {"-m": model, "--adapter-a": adapter_a, "--adapter-b": adapter_b}
    sources = {"-d": data, "--prompts": prompts, "--benchmark": benchmark}
    rest = {"--max-tokens": max_tokens, "--limit": limit}
    saved = {"--result-a": result_a, "--result-b": result_b}
    if any(value is not None for value in saved.values()):
        _refuse_missing(saved)
        excess = [name for name, value in {**live, **sources, **rest}.items() if value is not None]
        if excess:
            raise InputError(
                f"{excess[0]} was given with --result-a and --result-b, which are measured already: leave one out."
            )
        _check_output(output, overwrite)
        return _kept(compare_results(str(result_a), str(result_b), seed=seed), output, json)
    _refuse_missing(live)
    _check_output(output, overwrite)
    with StageLine(enabled=not json) as progress:
        found = measure(
            model,
            str(adapter_a),
            str(adapter_b),
            data,
            prompts=prompts,
            benchmark=benchmark,
            max_tokens=max_tokens,
            limit=limit,
            seed=seed,
            device=device,
            progress=None if json else progress,
        )
    return _kept(found, output, json)


def _of_runs(runs: list[str], excess: list[str], output: str | None, overwrite: bool, json: bool) -> Any:
    from geonb.train.compare import compare_runs

    if excess:
        raise InputError(
            f"{excess[0]} was given beside runs, which are compared by what they measured: leave it out, or give no runs."
        )
    _check_output(output, overwrite)
    return _kept(compare_runs(runs), output, json)


def _refuse_missing(given: dict[str, str | None]) -> None:
    missing = [name for name, value in given.items() if value is None]
    if missing:
        raise InputError(
            f"{missing[0]} is missing; `train compare` takes two or more runs, or -m, --adapter-a, --adapter-b and a source "
            "such as -d, or --result-a and --result-b."
        )


def _check_output(output: str | None, overwrite: bool) -> None:
    """Refuse a file that cannot be written before the long work begins."""
    if output is None:
        return
    path = Path(output)
    if not path.absolute().parent.is_dir():
        raise InputError(f"--output was given {output}, whose folder does not exist: make it first, or give another.")
    if path.is_dir() or (path.exists() and not overwrite):
        raise InputError(f"--output was given {output}, which exists: give another file, or add --overwrite.")


def _kept(found: Any, output: str | None, json: bool) -> Any:
    if output is not None:
        note(f"result: {found.save(output)}")
    return answer(found, as_json=json)
