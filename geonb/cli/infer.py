"""`geonb infer`: what a base and an adapter write, side by side, and how far the adapter drifts from its base."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from geonb.cli import options
from geonb.cli.output import answer, is_quiet, prints
from geonb.errors import InputError

if TYPE_CHECKING:
    import geonb.workbench.inference

app = typer.Typer(
    help="Let a model write: greedily, base and adapter with one load, one prompt or a file of them.\n\n"
    "There is no temperature: generation is greedy, so that the same prompt gives the same text and every difference "
    "between base and adapter is the adapter's, never the die's.",
    no_args_is_help=True,
)

ADAPTER = typer.Option(None, "--adapter", "-a", help="A PEFT LoRA folder or a run, to write beside the base.")
CHAT = typer.Option(
    None,
    "--chat/--raw",
    help="The prompt as one user turn of the chat template, or as it stands; default: chat where there is a template.",
)
MAX_TOKENS = typer.Option(256, "--max-tokens", help="The most new tokens; a text may end before, by itself.")
SCAN = typer.Option(
    False,
    "--scan",
    help="Measure the drift: entropies, KL(adapter || base), the base's approval, token by token along the adapter's own "
    "text, beside a random adapter of equal rank and norm. A measurement, not a verdict.",
)


@app.command()
@prints
def run(
    model: str = options.MODEL,
    adapter: str | None = ADAPTER,
    prompt: str | None = typer.Option(None, "--prompt", help="The prompt itself."),
    prompt_file: str | None = typer.Option(None, "--prompt-file", help="A UTF-8 file whose whole text is the prompt."),
    prompt_stdin: bool = typer.Option(False, "--prompt-stdin", help="Read the prompt from stdin to its end."),
    chat: bool | None = CHAT,
    max_tokens: int = MAX_TOKENS,
    scan: bool = SCAN,
    device: str = options.DEVICE,
    json: bool = options.AS_JSON,
) -> geonb.workbench.inference.Inference:
    """Continue one prompt, token by token as it comes: first the base, then the adapter.

    Greedy: every token is the likeliest one. A temperature is not offered, because a text drawn by lot says nothing of
    the difference between two models. Afterwards: how many tokens, why it stopped (end token, limit, context), the share
    of repeated 4-grams, tokens per second.
    """
    from geonb.workbench.inference import infer

    text = _prompt(prompt, prompt_file, prompt_stdin)
    streams = not json and not is_quiet()
    result = infer(
        model,
        text,
        adapter=adapter,
        chat=chat,
        max_tokens=max_tokens,
        scan=scan,
        device=device,
        on_text=_Stream() if streams else None,
    )
    return answer(result, as_json=json, text=f"\n---\n{result.facts()}" if streams else None)


@app.command()
@prints
def suite(
    file: str = typer.Argument(
        ...,
        metavar="FILE",
        help='Prompts: .txt (one a line), .json (a list) or .jsonl of {"prompt", "answer"}; the answer may be left out.',
    ),
    model: str = options.MODEL,
    adapter: str | None = ADAPTER,
    output: str | None = typer.Option(None, "--output", "-o", help="A JSONL file: one line a prompt, as it is done."),
    resume: bool = typer.Option(False, "--resume", help="Go on behind the lines that --output holds."),
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace the file in --output."),
    chat: bool | None = CHAT,
    max_tokens: int = MAX_TOKENS,
    scan: bool = SCAN,
    device: str = options.DEVICE,
    json: bool = options.AS_JSON,
) -> geonb.workbench.inference.Suite:
    """Continue every prompt of FILE with the base and the adapter, and count what can be told from noise.

    Rates with Wilson's interval: texts that ended by themselves, that loop (more than a third of the 4-grams repeat), that
    contain the answer; and McNemar's exact test of the answers, base against adapter. Breaking off loses nothing:
    `--resume` goes on behind the last whole line.
    """
    from geonb.workbench.inference import infer_suite

    with _Bar(enabled=not json) as bar:
        result = infer_suite(
            model,
            file,
            adapter=adapter,
            output=output,
            resume=resume,
            overwrite=overwrite,
            chat=chat,
            max_tokens=max_tokens,
            scan=scan,
            device=device,
            progress=bar,
        )
    return answer(result, as_json=json)


def _prompt(text: str | None, file: str | None, stdin: bool) -> str:
    if (text is not None) + (file is not None) + stdin != 1:
        raise InputError(
            f"{(text is not None) + (file is not None) + stdin} prompts were given; allowed is exactly one of --prompt, "
            "--prompt-file and --prompt-stdin."
        )
    if text is not None:
        return text
    if file is not None and not Path(file).is_file():
        raise InputError(f"--prompt-file was given {file}, which is not a file: check the path.")
    content = Path(file).read_bytes() if file is not None else sys.stdin.buffer.read()
    try:
        return content.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError as error:
        source = file if file is not None else "stdin"
        raise InputError(
            f"the prompt from {source} is not UTF-8 text (byte {error.start}): give it as UTF-8."
        ) from None


class _Stream:
    """Prints pieces of text as they come, under a heading for each model."""

    def __init__(self) -> None:
        self._label = ""

    def __call__(self, label: str, piece: str) -> None:
        from geonb.workbench.generation import printable

        if label != self._label:
            sys.stdout.write(f"{chr(10) if self._label else ''}--- {label}\n")
            self._label = label
        sys.stdout.write(printable(piece))
        sys.stdout.flush()


class _Bar:
    """Progress over prompts on stderr."""

    def __init__(self, *, enabled: bool) -> None:
        self._enabled, self._bar = enabled, None

    def __call__(self, done: int, total: int, text: str) -> None:
        from tqdm import tqdm

        if self._bar is None:
            # what an earlier call did must not count into the speed of this one
            self._bar: Any = tqdm(
                total=total, initial=done, desc="prompts", unit="prompt", file=sys.stderr, disable=not self._enabled
            )
        self._bar.update(done - self._bar.n)

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.close()
