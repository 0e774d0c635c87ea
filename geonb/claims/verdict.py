"""From checks to a verdict, by one rule for all claims."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

from geonb.claims.checks import CONSTRUCTION, DECIDES, EVIDENCE, HOLDS, MACHINERY, REFUTED, Check
from geonb.claims.register import Claim, Register, badge, load_claims
from geonb.errors import InputError
from geonb.records import Record, plain

BY_CONSTRUCTION, FAILS = "holds by construction", "fails"
DECIDED = ("holds", BY_CONSTRUCTION, "partly", FAILS)
INCONCLUSIVE, MACHINERY_ONLY = "inconclusive", "machinery only"
PROFILES = ("smoke", "full")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict(Record):
    """What one run of a notebook says of one claim, beside what the register says."""

    claim: str
    statement: str
    rule: str
    registered: str
    decision: str  # one of VERDICTS
    because: str
    checks: tuple[Check, ...]

    def summary(self) -> str:
        return f"Verdict({self.claim}: {self.decision})"

    def to_text(self) -> str:
        lines = [f"{self.claim}: {self.decision} (the register says {self.registered}); {self.because}"]
        lines += [f"  {check.summary()}  [{DECIDES[check.decides]}]" for check in self.checks]
        return "\n".join(lines)

    def to_html(self) -> str:
        because = self.because[:1].upper() + self.because[1:]
        checks = "".join(
            f'<li style="list-style:none">{html.escape(check.summary())} '
            f'<span style="opacity:.6">[{DECIDES[check.decides]}]</span></li>'
            for check in self.checks
        )
        return (
            f'<div style="margin:0 0 10px;max-width:900px;line-height:1.45">{badge(self.decision)} '
            f"<b>{html.escape(self.claim)}</b> {html.escape(self.statement)}<br>"
            f'<span style="opacity:.8">{html.escape(because)} The register says {html.escape(self.registered)}.</span>'
            f'<ul style="margin:2px 0 0;padding-left:14px">{checks}</ul></div>'
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimResult(Record):
    """The verdicts of one run of one notebook; `problems` says why it failed, and is empty where it passed."""

    claim: str
    profile: str  # smoke or full
    geonb: str  # the version that judged
    verdicts: tuple[Verdict, ...]
    problems: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether the notebook's stated rule was kept: nothing failed, and nothing contradicts the register."""
        return not self.problems

    def summary(self) -> str:
        told = ", ".join(f"{one.claim.partition('/')[2] or one.claim} {one.decision}" for one in self.verdicts)
        return f"ClaimResult({self.claim}, {self.profile}: {told}; {'passed' if self.passed else 'failed'})"

    def to_text(self) -> str:
        lines = [f"{self.claim} ({self.profile}): {'passed' if self.passed else 'failed'}"]
        lines += [f"  ✗ {problem}" for problem in self.problems]
        # a name from a file must not steer the terminal; the line breaks are this method's own
        return "\n".join(
            plain(line) for part in (*lines, *map(Verdict.to_text, self.verdicts)) for line in part.split("\n")
        )

    def to_html(self) -> str:
        state = "passed" if self.passed else "failed"
        problems = "".join(f"<li>{html.escape(problem)}</li>" for problem in self.problems)
        head = f"<p><b>{html.escape(self.claim)}</b> ({html.escape(self.profile)}): {state}</p>"
        return head + (f"<ul>{problems}</ul>" if problems else "") + "".join(one.to_html() for one in self.verdicts)


def decide(checks: Sequence[Check]) -> tuple[str, str]:
    """The decision that the checks of one claim lead to, and why.

    In this order: a check of the machinery that is not met leaves the claim inconclusive; with no check that decides it is
    "machinery only"; evidence that is not met leaves it inconclusive; with one met check for "refuted" it fails; a deciding
    check that was not measured, or whose interval holds its threshold, leaves it inconclusive; all that it needs met, it
    holds, by construction where it needs identities alone; else it is partly true where there are checks for "refuted",
    and fails where there are none.
    """
    by_use = {use: [check for check in checks if check.decides == use] for use in DECIDES}
    needed = [*by_use[HOLDS], *by_use[CONSTRUCTION]]
    deciding = [*needed, *by_use[REFUTED]]
    broken = [check for check in by_use[MACHINERY] if not check.met]
    if broken:
        return INCONCLUSIVE, f"what it is measured with failed: {broken[0].sentence}."
    if not deciding:
        return MACHINERY_ONLY, "no check of this profile decides it."
    if not needed:
        raise InputError(
            f"the check {deciding[0].name!r} can refute, and no check can hold; allowed is at least one that decides 'holds'."
        )
    lacking = [check for check in by_use[EVIDENCE] if not check.met]
    if lacking:
        return INCONCLUSIVE, f"the evidence is not complete: {lacking[0].sentence}."
    against = [check for check in by_use[REFUTED] if check.met]
    if against:
        return FAILS, f"{against[0].sentence}."
    unsure = [check for check in deciding if check.met is None]
    if unsure:
        return INCONCLUSIVE, f"{unsure[0].sentence}."
    missed = [check for check in needed if not check.met]
    if not missed:
        return ("holds" if by_use[HOLDS] else BY_CONSTRUCTION), "every condition of its rule is met."
    return ("partly" if by_use[REFUTED] else FAILS), f"{missed[0].sentence}."


def judge(
    claim_id: str, checks: Sequence[Check], *, profile: str = "full", register: Register | None = None
) -> ClaimResult:
    """Judge the claim `claim_id`, or all its parts, by `checks`; `verify` does the same and raises where it failed.

    A run fails where a check of the machinery is not met, where its decision contradicts a decided verdict of the
    register, and where the full profile leaves undecided what the register says is decided. So a claim
    that fails passes when its refutation reproduces, and one that the register leaves open fails by its machinery alone.
    Raises `InputError` for an unknown claim, part or profile, and where there is no check at all.
    """
    from geonb._version import __version__

    if profile not in PROFILES:
        raise InputError(f"the profile {plain(profile)!r} was given; allowed are {' and '.join(PROFILES)}.")
    claims = (load_claims() if register is None else register).of(claim_id).claims
    parts = {claim.id.removeprefix(claim_id).removeprefix("/"): claim for claim in claims}
    if not checks:
        raise InputError(
            f"{claim_id} was given no check; allowed is at least one: a notebook that checks nothing cannot fail."
        )
    for check in checks:
        if check.part not in parts:
            known = ", ".join(repr(part) for part in parts)
            raise InputError(f"the check {check.name!r} is of the part {check.part!r}; {claim_id} has {known}.")
    verdicts = [_verdict(claim, [check for check in checks if check.part == part]) for part, claim in parts.items()]
    return ClaimResult(
        claim=claim_id,
        profile=profile,
        geonb=__version__,
        verdicts=tuple(verdicts),
        problems=tuple(problem for verdict in verdicts for problem in _problems(verdict, profile)),
    )


def _verdict(claim: Claim, checks: list[Check]) -> Verdict:
    decision, because = decide(checks)
    return Verdict(
        claim=claim.id,
        statement=claim.statement,
        rule=claim.rule,
        registered=claim.verdict,
        decision=decision,
        because=because,
        checks=tuple(checks),
    )


def _problems(verdict: Verdict, profile: str) -> list[str]:
    broken = [check for check in verdict.checks if check.decides == MACHINERY and not check.met]
    found = [f"{verdict.claim}: {check.sentence}." for check in broken]
    if found:
        return found
    is_decided = verdict.decision in DECIDED
    if is_decided and verdict.registered in DECIDED and verdict.decision != verdict.registered:
        return [
            f"{verdict.claim}: the register says {verdict.registered}, this run {verdict.decision}: {verdict.because}"
        ]
    if profile == "full" and verdict.decision == MACHINERY_ONLY:
        return [f"{verdict.claim}: the full profile must decide it, and no check does."]
    if profile == "full" and verdict.registered in DECIDED and not is_decided:
        return [f"{verdict.claim}: the register says {verdict.registered}, and this run cannot tell: {verdict.because}"]
    return []
