"""The ledger: every claim with its published figure, ours, the register's verdict and that of the run."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from geonb.claims.batch import runs_of
from geonb.claims.checks import MACHINERY, Check
from geonb.claims.parameters import notebook_hash
from geonb.claims.recorded import ClaimRecord, claim_records, load_results
from geonb.claims.reference import PublishedFigure, load_references, told_figure
from geonb.claims.register import VERDICTS, Claim, Register, load_claims, papers_folder
from geonb.claims.run import rule_hash
from geonb.errors import InputError
from geonb.records import Record, atomic_write, plain

NOT_RUN, NO_VERDICT = "not run", "no verdict"
# in the order in which they are counted and drawn
DECISIONS = (*VERDICTS, NO_VERDICT, NOT_RUN)


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerRow(Record):
    """One claim: what was published, what we measured, and what came of it."""

    paper: str  # the name of its folder
    claim: str
    statement: str
    published: str  # the tag that its authors gave it
    figures: tuple[PublishedFigure, ...]
    registered: str  # our verdict in the register
    decision: str  # of the run: one of DECISIONS
    because: str
    passed: bool | None  # None where it was not run
    problem: str
    checks: tuple[Check, ...]
    profile: str
    model: str
    seconds: float | None  # of its notebook
    finished: str
    is_current: bool  # whether notebook and rule are still those of the run
    link: str  # to the notebook

    def compared(self) -> tuple[tuple[PublishedFigure | None, Check | None], ...]:
        """Each published figure with the check that measures the same; without figures, the check that decided."""
        by_name = {check.name: check for check in self.checks}
        pairs = tuple((figure, by_name.get(figure.check)) for figure in self.figures)
        if any(check is not None for _, check in pairs):
            return pairs
        measured = [check for check in self.checks if check.measured is not None]
        deciding = [check for check in measured if check.decides != MACHINERY] or measured
        return (*pairs, (None, deciding[0])) if deciding else pairs

    def told(self) -> Iterator[tuple[str, str]]:
        """What was published and what was measured, as pairs of texts."""
        for figure, check in self.compared():
            on = f", {figure.on}" if figure is not None and figure.on else ""
            yield "" if figure is None else f"{figure.told()}{on}", "" if check is None else _ours(check)

    def summary(self) -> str:
        return f"LedgerRow({self.claim}: published {self.published}, register {self.registered}, run {self.decision})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger(Record):
    """Claims in the order of their papers; links are relative to the folder that `source` names."""

    source: str  # the batch's folder, or the papers'
    rows: tuple[LedgerRow, ...]

    def counts(self) -> dict[str, int]:
        """How many claims came to each decision, those that none came to left out."""
        found = Counter(row.decision for row in self.rows)
        return {decision: found[decision] for decision in DECISIONS if found[decision]}

    def papers(self) -> dict[str, tuple[LedgerRow, ...]]:
        """The rows of each paper."""
        return {
            name: tuple(row for row in self.rows if row.paper == name)
            for name in dict.fromkeys(r.paper for r in self.rows)
        }

    def failed(self) -> tuple[LedgerRow, ...]:
        """The rows whose run did not pass."""
        return tuple(row for row in self.rows if row.passed is False)

    def summary(self) -> str:
        told = ", ".join(f"{count} {decision}" for decision, count in self.counts().items())
        failed = f"; {len(self.failed())} failed" if self.failed() else ""
        return f"Ledger({len(self.rows)} claims: {told}{failed})"

    def to_text(self) -> str:
        lines = [self.summary().removeprefix("Ledger(").removesuffix(")")]
        width = max((len(row.claim) for row in self.rows), default=0)
        for paper, rows in self.papers().items():
            lines += ["", paper]
            for row in rows:
                sign = {True: "✓", False: "✗", None: "–"}[row.passed]
                head = f"  {sign} {row.claim:{width}}  {row.decision} (register: {row.registered}; published: {row.published})"
                lines.append(head + run_told(row, before="  "))
                for published, ours in row.told():
                    lines.append(f"      {'; '.join(filter(None, (published and f'published {published}', ours)))}")
                if row.problem:
                    lines.append(f"      {row.problem}")
        return "\n".join(plain(line) for line in lines)

    def to_html(self) -> str:
        from geonb.claims.ledger_pages import ledger_table

        return ledger_table(self)

    def to_markdown(self) -> str:
        """The ledger as GitHub-flavoured Markdown, everything from files escaped."""
        from geonb.claims.ledger_markdown import ledger_markdown

        return ledger_markdown(self)

    def linked_from(self, folder: Path, base: Path) -> Ledger:
        """This ledger for a file in `folder`, where its links are relative to `base`."""
        prefix = os.path.relpath(base.resolve(), folder.resolve())

        def moved(link: str) -> str:
            return Path(os.path.normpath(f"{prefix}/{link}")).as_posix() if link else ""

        rows = (replace(row, link=moved(row.link)) for row in self.rows)
        return replace(self, rows=tuple(rows))


def ledger_of(folder: str | Path | None = None, *, papers: str | Path | None = None) -> Ledger:
    """The ledger of a batch's folder, with the claims that it ran; without one, of every claim from papers/*/results.json.

    Of several records of one claim the full profile's counts before the smoke profile's, and the later before the earlier.
    Raises `InputError` for a folder that is no batch's, and for a damaged register, reference or result.

    >>> ledger_of().summary()    # doctest: +SKIP
    'Ledger(64 claims: 12 holds, 20 fails, ...)'
    """
    home = Path(papers) if papers is not None else papers_folder()
    register = load_claims(home / "claims.toml")
    root = home.resolve().parent
    links: dict[str, str] = {}
    records: dict[str, ClaimRecord] = {}
    if folder is not None:
        # a notebook that was renamed has left an older run of the same claims
        for run in sorted(runs_of(folder), key=lambda run: run.finished):
            for one in claim_records(run, register.claims):
                records[one.claim] = one
                links[one.claim] = run.executed
        claims = [claim for claim in register.claims if claim.id in records]
    else:
        claims = list(register.claims)
        records = _recorded(root, register)
        links = {claim.id: claim.notebook for claim in claims}
    figures = [one for reference in load_references(home, register=register) for one in reference.figures]
    hashes = {notebook: _hash(root / notebook) for notebook in dict.fromkeys(claim.notebook for claim in claims)}
    rows = [_row(claim, records.get(claim.id), figures, hashes[claim.notebook], links[claim.id]) for claim in claims]
    papers_in_order = list(dict.fromkeys(row.paper for row in rows))
    rows.sort(key=lambda row: papers_in_order.index(row.paper))
    return Ledger(source=str(folder) if folder is not None else "papers", rows=tuple(rows))


def write_ledger(
    ledger: Ledger, *, base: str | Path, html: str | Path | None = None, markdown: str | Path | None = None
) -> tuple[Path, ...]:
    """Write the ledger's page, its Markdown, or both, with the links of a ledger that is relative to `base`.

    The Markdown has its picture in a file of the same name that ends in .svg. Raises `InputError` for a file in a folder
    that is not there.
    """
    from geonb.claims.ledger_markdown import ledger_markdown
    from geonb.claims.ledger_pages import ledger_page
    from geonb.claims.ledger_pictures import verdict_bars

    written: list[tuple[Path, str]] = []
    for given in (html, markdown):
        if given is not None and (not Path(given).parent.is_dir() or Path(given).is_dir()):
            raise InputError(f"{plain(given)} cannot be written; allowed is a file in a folder that is there.")
    if html is not None:
        page = Path(html)
        written.append((page, ledger_page(ledger.linked_from(page.parent, Path(base)))))
    if markdown is not None:
        text = Path(markdown)
        picture = text.with_suffix(".svg")
        written.append((text, ledger_markdown(ledger.linked_from(text.parent, Path(base)), picture.name)))
        written.append((picture, verdict_bars(ledger, standalone=True) + "\n"))
    return tuple(atomic_write(path, content) for path, content in written)


def run_told(row: LedgerRow, *, before: str = "") -> str:
    """How a row was run: profile, model, time, and whether that is still what stands there; "" where it was not."""
    if row.passed is None:
        return ""
    parts = [row.profile, row.model, "" if row.seconds is None else f"{row.seconds:.0f} s"]
    if not row.is_current:
        parts.append("of an earlier notebook or rule")
    return before + ", ".join(filter(None, parts))


def _ours(check: Check) -> str:
    """Our figure, by the check's name, and what it is held against."""
    figure = told_figure(check.measured, check.interval, check.n, check.unit)
    use = "machinery" if check.decides == MACHINERY else "rule"
    return f"{check.name}: {figure} ({use}: {check.comparison} {check.threshold:.4g})"


def _row(
    claim: Claim, record: ClaimRecord | None, figures: Iterable[PublishedFigure], now: str, link: str
) -> LedgerRow:
    return LedgerRow(
        paper=Path(claim.paper).name,
        claim=claim.id,
        statement=claim.statement,
        published=claim.published,
        figures=tuple(figure for figure in figures if figure.claim == claim.id),
        registered=claim.verdict,
        decision=NOT_RUN if record is None else record.decision or NO_VERDICT,
        because="" if record is None else record.because,
        passed=None if record is None else record.passed,
        problem="" if record is None else record.problem,
        checks=() if record is None else record.checks,
        profile="" if record is None else record.profile,
        model="" if record is None else record.model,
        seconds=None if record is None else record.seconds,
        finished="" if record is None else record.finished,
        is_current=record is None or (record.rule_hash, record.notebook_hash) == (rule_hash(claim), now),
        link=link,
    )


def _recorded(root: Path, register: Register) -> dict[str, ClaimRecord]:
    found: dict[str, ClaimRecord] = {}
    for paper in dict.fromkeys(claim.paper for claim in register.claims):
        results = load_results(root / paper)
        for one in sorted(results.results if results else (), key=lambda one: (one.profile == "full", one.finished)):
            found[one.claim] = one
    return found


def _hash(notebook: Path) -> str:
    try:
        return notebook_hash(notebook)
    except InputError:
        return ""
