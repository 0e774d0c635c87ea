"""`geonb data`: data of any kind to the JSONL that training reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from geonb.cli import options
from geonb.cli.output import answer, prints
from geonb.cli.progress import StageLine

if TYPE_CHECKING:
    import geonb.data.prepare

app = typer.Typer(help="Make training data: JSONL of {text} or {messages}, checked and counted.", no_args_is_help=True)

SOURCE = typer.Argument(
    ...,
    metavar="SOURCE",
    help="A file (jsonl, json, csv, tsv, parquet, txt), a folder of such files, embedded:NAME, or a hub data set owner/name.",
)
OUTPUT = typer.Option(
    None, "--output", "-o", help="The JSONL to write; default: NAME.prepared.jsonl beside the source."
)
MODEL = typer.Option(
    None, "--model", "-m", help="Count tokens as this model's training will: a folder, a hub id, or `embedded`."
)
TEXT = typer.Option(None, "--text-column", help="The column that holds the text.")
PROMPT = typer.Option(None, "--prompt-column", help="The column that holds the prompt (with --answer-column).")
ANSWER = typer.Option(None, "--answer-column", help="The column that holds its answer.")


@app.command()
@prints
def prepare(
    source: str = SOURCE,
    output: str | None = OUTPUT,
    model: str | None = MODEL,
    text_column: str | None = TEXT,
    prompt_column: str | None = PROMPT,
    answer_column: str | None = ANSWER,
    split: str = typer.Option(
        "train", "--split", help="Which files of a folder or data set, by the words of their names."
    ),
    by_line: bool = typer.Option(
        False, "--by-line", help="Plain text: a record on every line, not between blank lines."
    ),
    show_dropped: bool = typer.Option(False, "--show-dropped", help="List what was left out, with line and reason."),
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace an output that exists."),
    json: bool = options.AS_JSON,
) -> geonb.data.prepare.Prepared:
    """Write SOURCE as JSONL that `geonb plan` and `geonb train run` read, and say what was taken and what was not.

    Read as, first that fits: a conversation (messages, conversations, ...), a prompt with its answer (prompt and
    completion, instruction and output, question and answer, ...), a text (text, content, ...). Empty records, exact
    duplicates, conversations without an answer and bytes that are not UTF-8 are left out and counted.
    """
    from geonb.data.prepare import prepare as prepared

    checkpoint = tokenizer = None
    if model is not None:
        from geonb.models.checkpoint import Checkpoint

        checkpoint = Checkpoint.open(model)
        tokenizer = checkpoint.load_tokenizer()
    with StageLine(enabled=not json) as line:
        record = prepared(
            source,
            output,
            tokenizer=tokenizer,
            context_length=checkpoint.context_length if checkpoint is not None else None,
            model=model or "embedded",
            text_column=text_column,
            prompt_column=prompt_column,
            answer_column=answer_column,
            split=split,
            by_line=by_line,
            show_dropped=show_dropped,
            overwrite=overwrite,
            progress=line,
        )
    return answer(record, as_json=json)
