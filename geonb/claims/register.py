"""The register of claims, `papers/claims.toml`: what is claimed, by whom, our verdict, and the rule it is judged by."""

from __future__ import annotations

import html
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from geonb.errors import InputError
from geonb.records import Record, is_file, plain, read_bytes

VERDICTS = ("holds", "holds by construction", "partly", "fails", "machinery only", "inconclusive")
# the labels of the papers' own ledger; "untagged" where the authors gave none
TAGS = (
    "proven", "validated", "empirical", "exploratory", "conjectural",
    "measurement invalid", "mechanism underspecified", "disproven", "untagged",
)  # fmt: skip
_NAME = re.compile(r"[a-z0-9][a-z0-9-]*(/[a-z0-9][a-z0-9-]*)?")
# an identity is no finding, so it has not the colour of one
_COLOURS = {"holds": "#009E73", "holds by construction": "#3A7CA5", "partly": "#B57B00", "fails": "#D55E00"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim(Record):
    """One row of the register; `smoke` and `full` are the parameters that the notebook runs with."""

    id: str  # "name", or "name/part" for one of the parts that a notebook judges together
    statement: str  # in our words
    paper: str  # its folder, from the root of the repository
    published: str  # the tag that its authors gave it
    verdict: str  # ours: one of VERDICTS
    notebook: str
    rule: str  # when it holds and when it fails, written before the run
    controls: tuple[str, ...]  # what would show an effect that is none
    smoke: dict[str, Any]
    full: dict[str, Any]

    @property
    def part(self) -> str:
        """What stands behind the slash of its id, "" where nothing does."""
        return self.id.partition("/")[2]

    def summary(self) -> str:
        return f"Claim({self.id}: {self.verdict})"

    def to_text(self) -> str:
        lines = [
            f"{self.id}  [{self.verdict}]  published as {self.published} in {self.paper}",
            f"  {self.statement}",
            f"  rule: {self.rule}",
            f"  controls: {'; '.join(self.controls)}",
        ]
        return "\n".join(lines)

    def to_html(self) -> str:
        return (
            f'<div style="margin:0 0 10px;max-width:900px;line-height:1.45">{badge(self.verdict)} '
            f"<b>{html.escape(self.id)}</b> "
            f'<span style="opacity:.7">published as {html.escape(self.published)}, {html.escape(self.paper)}</span><br>'
            f'{html.escape(self.statement)}<br><span style="opacity:.8"><i>Rule.</i> {html.escape(self.rule)} '
            f"<i>Controls.</i> {html.escape('; '.join(self.controls))}.</span></div>"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Register(Record):
    """Claims in the order of their file."""

    claims: tuple[Claim, ...]

    def of(self, name: str) -> Register:
        """The claim `name`, or all its parts; an `InputError` lists the names where there is none."""
        found = tuple(claim for claim in self.claims if claim.id == name or claim.id.startswith(f"{name}/"))
        if not found:
            known = dict.fromkeys(claim.id.partition("/")[0] for claim in self.claims)
            raise InputError(f"the claim {plain(name)!r} was given; the register has {', '.join(known)}.")
        return Register(claims=found)

    def summary(self) -> str:
        counts = {verdict: sum(claim.verdict == verdict for claim in self.claims) for verdict in VERDICTS}
        told = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
        return f"Register({len(self.claims)} claims: {told})"

    def to_text(self) -> str:
        return "\n".join(claim.to_text() for claim in self.claims)

    def to_html(self) -> str:
        return "".join(claim.to_html() for claim in self.claims)


def badge(verdict: str) -> str:
    """A verdict as a coloured word, readable on light and dark pages."""
    colour = _COLOURS.get(verdict, "#7f7f7f")
    return (
        f'<span style="background:{colour};color:#fff;border-radius:4px;padding:1px 7px;font-weight:600;'
        f'font-size:85%">{html.escape(verdict)}</span>'
    )


def papers_folder() -> Path:
    """$GEONB_PAPERS, else `papers` of the checkout that geonb is installed from, else of the working folder or above it.

    Raises `InputError` where none of them has a register.
    """
    given = os.environ.get("GEONB_PAPERS")
    if given:
        candidates = [Path(given)]
    else:
        here = Path.cwd()
        candidates = [root / "papers" for root in (Path(__file__).parents[2], here, *here.parents)]
    for candidate in candidates:
        if is_file(candidate / "claims.toml"):
            return candidate
    raise InputError(
        f"the register claims.toml is not in {given or 'any folder papers from here upwards'}: work in a checkout of geonb, "
        "or name the folder that holds it with GEONB_PAPERS."
    )


def load_claims(path: str | Path | None = None) -> Register:
    """Read and check a register; by default the one of `papers_folder()`.

    Raises `InputError` for a file that is no TOML, a claim with a missing, unknown or ill-typed field, an id, tag or
    verdict that is not allowed, and for two claims with one id.

    >>> load_claims().of("zero-knob").claims[0].verdict    # doctest: +SKIP
    'open'
    """
    path = Path(path) if path is not None else papers_folder() / "claims.toml"
    if not is_file(path):
        raise InputError(f"{path} is not a file: give the path of a register of claims, such as papers/claims.toml.")
    try:
        data = tomllib.loads(read_bytes(path).decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"{path} is no TOML that is read ({plain(error)[:120]}): mend it.") from None
    tables = data.get("claim")
    if set(data) != {"claim"} or not isinstance(tables, list) or not tables:
        raise InputError(
            f"{path} has {plain(', '.join(data)) or 'nothing'} at its top; allowed is a list of [[claim]] alone."
        )
    claims: dict[str, Claim] = {}
    for number, table in enumerate(tables, 1):
        where = f"{path}, claim {number}"
        if isinstance(table, Mapping) and isinstance(table.get("id"), str):
            where += f" ({plain(table['id'])[:60]})"
        claim = _claim(table, where)
        if claim.id in claims:
            raise InputError(f"{where}: the id is there twice; allowed is each once: rename or remove one.")
        claims[claim.id] = claim
    _check_groups(claims, path)
    return Register(claims=tuple(claims.values()))


def _claim(table: Any, where: str) -> Claim:
    try:
        claim = Claim.from_dict(table)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    if not _NAME.fullmatch(claim.id):
        raise InputError(
            f"{where}: the id is {plain(claim.id)!r}; allowed are small letters, digits, hyphens, and one slash before a part."
        )
    for field in ("statement", "paper", "rule"):
        if not getattr(claim, field).strip():
            raise InputError(f"{where}: the field {field!r} is empty; allowed is a sentence: write it before the run.")
    for field, given, allowed in (("verdict", claim.verdict, VERDICTS), ("published", claim.published, TAGS)):
        if given not in allowed:
            raise InputError(f"{where}: the field {field!r} is {plain(given)!r}; allowed are {', '.join(allowed)}.")
    for field in ("paper", "notebook"):
        inside = PurePosixPath(getattr(claim, field))
        if inside.is_absolute() or ".." in inside.parts:
            raise InputError(
                f"{where}: the field {field!r} is {plain(inside)!r}; allowed is a path below the root of the repository."
            )
    if not claim.notebook.endswith(".ipynb"):
        raise InputError(
            f"{where}: the field 'notebook' is {plain(claim.notebook)!r}; allowed is a path of an .ipynb file."
        )
    if not claim.controls or not all(control.strip() for control in claim.controls):
        raise InputError(f"{where}: the field 'controls' says nothing; allowed is at least one control, in words.")
    for profile in ("smoke", "full"):
        parameters = getattr(claim, profile)
        if parameters.get("profile") != profile:
            raise InputError(f'{where}: the parameters {profile!r} need profile = "{profile}" among them: add it.')
        for name, value in parameters.items():
            if not isinstance(value, str | int | float):
                raise InputError(
                    f"{where}: the parameter {plain(name)!r} of {profile!r} is a {type(value).__name__}; allowed are "
                    "text, numbers, true and false, because a notebook's parameters are literals."
                )
    return claim


def _check_groups(claims: Mapping[str, Claim], path: Path) -> None:
    """The parts of one claim are judged in one notebook, which has one set of parameters."""
    for claim in claims.values():
        name = claim.id.partition("/")[0]
        if claim.part and name in claims:
            raise InputError(f"{path}: {name} is there by itself and in parts; allowed is one of the two: rename one.")
        first = next(other for other in claims.values() if other.id.partition("/")[0] == name)
        for field in ("notebook", "smoke", "full"):
            if getattr(claim, field) != getattr(first, field):
                raise InputError(
                    f"{path}: {claim.id} has another {field!r} than {first.id}; allowed is one for all parts, because one "
                    "run of one notebook judges them."
                )
