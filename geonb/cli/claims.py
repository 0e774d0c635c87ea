"""`geonb claims`: the register of published claims, its notebooks run in a batch, and the ledger of what they said."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from geonb.cli import options
from geonb.cli.output import answer, note, prints
from geonb.errors import InputError
from geonb.records import plain

if TYPE_CHECKING:
    import geonb.claims.batch
    import geonb.claims.ledger
    import geonb.claims.register

app = typer.Typer(
    help="Published claims: see them, run the notebooks that judge them, read the ledger.\n\n"
    "Start with `geonb claims list`, then `geonb claims run`, which takes minutes in the smoke profile and writes "
    "claims-run/smoke/ledger.html. A claim that is registered as failing passes when its refutation reproduces.",
    no_args_is_help=True,
)
IDS = typer.Argument(None, metavar="[ID...]", help="Claims as `geonb claims list` names them; default: all.")


@app.command("list")
@prints
def list_claims(
    ids: list[str] = IDS,
    verdict: str | None = typer.Option(None, help="Only claims with this verdict of ours, such as holds or fails."),
    paper: str | None = typer.Option(None, help="Only claims of this paper: the name of its folder in papers/."),
    json: bool = options.AS_JSON,
) -> geonb.claims.register.Register:
    """The register: what is claimed, the tag it was published with, and our verdict.

    The rules and controls, which were written before the runs, stand in papers/claims.toml and in `--json`.
    """
    from geonb.claims.register import VERDICTS, Register, load_claims

    register = load_claims()
    if ids:
        wanted = {claim.id for name in ids for claim in register.of(name).claims}
        register = Register(claims=tuple(claim for claim in register.claims if claim.id in wanted))
    if verdict is not None and verdict not in VERDICTS:
        raise InputError(f"--verdict was given {plain(verdict)}; allowed are {', '.join(VERDICTS)}.")
    papers = {Path(claim.paper).name for claim in load_claims().claims}
    if paper is not None and Path(paper).name not in papers:
        raise InputError(f"--paper was given {plain(paper)}; the register has {', '.join(sorted(papers))}.")
    chosen = tuple(
        claim
        for claim in register.claims
        if verdict in (None, claim.verdict) and (paper is None or Path(claim.paper).name == Path(paper).name)
    )
    found = Register(claims=chosen)
    rows = [("claim", "our verdict", "published", "paper", "statement")]
    rows += [(one.id, one.verdict, one.published, Path(one.paper).name, one.statement) for one in chosen]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[4]]) for row in rows
    ]
    return answer(found, as_json=json, text="\n".join(plain(line) for line in lines))


@app.command("run")
@prints
def run(
    ids: list[str] = IDS,
    profile: str = typer.Option(
        "smoke",
        help="smoke takes minutes on the embedded model and proves the machinery, full decides; both as registered.",
    ),
    model: str | None = typer.Option(
        None, "--model", "-m", help="A folder, a hub id or `embedded` for every notebook with a parameter `model`."
    ),
    jobs: int = typer.Option(1, "--jobs", "-j", help="How many notebooks run at a time, each with one thread."),
    output: Path | None = typer.Option(
        None,
        "--output",
        "-o",
        help="The batch's folder; default claims-run/PROFILE or claims-run/PROFILE-MODEL, which git leaves out.",
    ),
    again: bool = typer.Option(
        False,
        "--again",
        help="Run what has finished too; needed after a change of geonb's own code, which its version does not tell.",
    ),
    timeout: float | None = typer.Option(
        None, help="Seconds after which a notebook is ended, and the next begins; default: none."
    ),
    record: bool = typer.Option(
        False,
        "--record",
        help="Also write the results into papers/*/results.json; without it nothing outside the batch's folder changes.",
    ),
    json: bool = options.AS_JSON,
) -> geonb.claims.batch.Batch:
    """Run the notebooks of claims, each in a process of its own, and write the ledger of what they said.

    Everything is checked before the first one starts. One that fails stops no other; Ctrl-C keeps what has finished, and
    the same command goes on. What finished before with the same notebook, parameters, register, model and version is not
    run again. The folder gets executed notebooks, ledger.html and ledger.md. Exit 0: all passed, 1: one did not, 2: wrong
    input.
    """
    from geonb.claims.batch import batch_folder, run_claims
    from geonb.claims.ledger import ledger_of, write_ledger
    from geonb.claims.recorded import record_runs
    from geonb.claims.register import load_claims, papers_folder

    papers, folder = papers_folder(), batch_folder(output, profile, model)
    bar = NotebookBar()
    try:
        found = run_claims(
            ids or (),
            profile=profile,
            model=model,
            jobs=jobs,
            output=folder,
            again=again,
            timeout=timeout,
            papers=papers,
            progress=bar,
        )
    finally:
        bar.close()
        # an interrupted batch has a ledger too, of what it finished
        if bar.has_begun:
            write_ledger(
                ledger_of(folder, papers=papers),
                base=folder,
                html=folder / "ledger.html",
                markdown=folder / "ledger.md",
            )
            note(f"ledger: {folder / 'ledger.html'}")
    if record:
        for path in record_runs(found.runs, papers=papers, register=load_claims(papers / "claims.toml")):
            note(f"recorded: {path}")
    return answer(found, as_json=json)


@app.command("ledger")
@prints
def ledger(
    folder: Path | None = typer.Argument(
        None, metavar="[FOLDER]", help="A batch's folder; default: all claims, from papers/*/results.json."
    ),
    html: Path | None = typer.Option(None, "--html", help="Write the page with its pictures there."),
    markdown: Path | None = typer.Option(None, "--markdown", help="Write it as Markdown there."),
    json: bool = options.AS_JSON,
) -> geonb.claims.ledger.Ledger:
    """Every claim with its published figure, ours with interval and n, the register's verdict and that of the run.

    The page needs no script and no network; its links lead to the executed notebooks, from wherever it is written.
    """
    from geonb.claims.ledger import ledger_of, write_ledger
    from geonb.claims.register import papers_folder

    papers = papers_folder()
    found = ledger_of(folder, papers=papers)
    base = folder if folder is not None else papers.resolve().parent
    for path in write_ledger(found, base=base, html=html, markdown=markdown):
        note(f"written: {path}")
    return answer(found, as_json=json)


class NotebookBar:
    """What a batch is at: one bar on stderr, with the names of the notebooks that run and a line for each that did not pass."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._running: list[str] = []

    @property
    def has_begun(self) -> bool:
        """Whether the batch was in order and its folder is there."""
        return self._bar is not None

    def __call__(self, event: geonb.claims.batch.BatchEvent) -> None:
        if self._bar is None:
            from tqdm import tqdm

            self._bar = tqdm(total=event.total, desc="claims", unit="notebook", file=sys.stderr, dynamic_ncols=True)
            for told in event.notes:
                self._bar.write(told, file=sys.stderr)
        if event.kind == "started":
            self._running.append(event.name)
        elif event.name in self._running:
            self._running.remove(event.name)
        if event.run is not None and event.run.problem:
            self._bar.write(plain(f"{event.name} {event.run.state}: {event.run.problem}"), file=sys.stderr)
        self._bar.n = event.done
        self._bar.set_postfix_str(", ".join(self._running), refresh=False)
        self._bar.refresh()

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self._bar is not None:
            self._bar.close()
