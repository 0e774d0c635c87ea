"""Which notebooks a set of claims needs, with which parameters: everything is checked here, before the first one runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from geonb.claims.parameters import check_parameters, judged_ids, notebook_hash, parameters_of
from geonb.claims.register import Claim, Register
from geonb.claims.run import PlannedRun, digest_of, rows_hash, rule_hash
from geonb.claims.verdict import PROFILES
from geonb.errors import InputError
from geonb.records import Record, is_folder, plain

MODEL = "model"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedBatch(Record):
    """The runs that a set of claims needs; `notes` tell what a person may not expect."""

    runs: tuple[PlannedRun, ...]
    model: str  # that was given for all of them, "" where none was
    notes: tuple[str, ...]


def plan_batch(
    ids: Sequence[str], *, register: Register, root: Path, profile: str, model: str | None = None
) -> PlannedBatch:
    """The notebooks of the claims `ids` (all where there is none), each once for each set of parameters.

    Raises `InputError`, with the claim's name, for an unknown id or profile; for a notebook that is not there, has no
    parameters cell or judges another claim; for a parameter that it has not or that has another type; for a model that
    cannot be opened, and for one that no notebook takes.
    """
    from geonb._version import __version__

    if profile not in PROFILES:
        raise InputError(f"the profile {plain(profile)!r} was given; allowed are {' and '.join(PROFILES)}.")
    if not register.claims:
        raise InputError("the register has no claim, so there is nothing to run: add one to papers/claims.toml.")
    shown = None if model is None else _absolute(model)
    groups = _groups(ids, register, profile)
    sources, without = [], []
    for notebook, claims in groups:
        known = parameters_of(root / notebook)
        given = dict(getattr(claims[0], profile))
        if shown is not None:
            if MODEL in known:
                given[MODEL] = shown
            else:
                without.append(_where(notebook, claims))
        check_parameters(known, given, _where(notebook, claims))
        _check_judged(root / notebook, claims)
        source = {**known, **given}.get(MODEL)
        sources.append((given, source if isinstance(source, str) else ""))
    if without and len(without) == len(groups):
        raise InputError(
            f"the model {plain(model)} was given, and no notebook of {', '.join(without)} has a parameter {MODEL!r}: "
            "leave it out, or name a claim about models."
        )
    # last, because to look at a model takes longest
    hashes = {"": ""}
    runs = []
    for (notebook, claims), (given, source) in zip(groups, sources, strict=True):
        if source not in hashes:
            hashes[source] = _model_hash(source, "--model" if source == shown else _where(notebook, claims))
        runs.append(
            PlannedRun(
                name=_name(notebook, given, register, profile),
                notebook=notebook,
                ids=_ids(claims),
                profile=profile,
                model=source,
                parameters=given,
                notebook_hash=notebook_hash(root / notebook),
                rows_hash=rows_hash(claims),
                rules={claim.id: rule_hash(claim) for claim in claims},
                model_hash=hashes[source],
                geonb=__version__,
            )
        )
    notes = tuple(f"{name}: it has no parameter {MODEL!r}, and runs as registered." for name in without)
    return PlannedBatch(runs=tuple(runs), model=shown or "", notes=notes)


def _groups(ids: Sequence[str], register: Register, profile: str) -> list[tuple[str, tuple[Claim, ...]]]:
    """Each notebook with the claims that one run of it judges: those that share the parameters too."""
    wanted = {claim.id.partition("/")[0] for name in ids for claim in register.of(name).claims}
    groups: dict[tuple[str, str], list[Claim]] = {}
    for claim in register.claims:
        groups.setdefault((claim.notebook, digest_of(getattr(claim, profile))), []).append(claim)
    return [
        (notebook, tuple(claims))
        for (notebook, _), claims in groups.items()
        if not ids or any(claim.id.partition("/")[0] in wanted for claim in claims)
    ]


def _name(notebook: str, parameters: dict[str, Any], register: Register, profile: str) -> str:
    """The path of the notebook without its first folder; with the claim's name where it runs with several parameters."""
    path = PurePosixPath(notebook).with_suffix("")
    parts = path.parts[1:] if path.parts[0] == "notebooks" and len(path.parts) > 1 else path.parts
    own = [claim for claim in register.claims if claim.notebook == notebook]
    groups = {digest_of(getattr(claim, profile)) for claim in own}
    name = "/".join(parts)
    if len(groups) == 1:
        return name
    without = {key: value for key, value in parameters.items() if key != MODEL}
    first = next(
        claim
        for claim in own
        if {key: value for key, value in getattr(claim, profile).items() if key != MODEL} == without
    )
    return f"{name}--{first.id.partition('/')[0]}"


def _ids(claims: tuple[Claim, ...]) -> tuple[str, ...]:
    """The names that one run judges, each with all its parts."""
    return tuple(dict.fromkeys(claim.id.partition("/")[0] for claim in claims))


def _where(notebook: str, claims: tuple[Claim, ...]) -> str:
    return f"{_ids(claims)[0]} ({notebook})"


def _check_judged(path: Path, claims: tuple[Claim, ...]) -> None:
    judged, wanted, where = judged_ids(path), _ids(claims), _where(claims[0].notebook, claims)
    # a name that is computed is known when it has run
    if judged is None:
        return
    if not judged:
        raise InputError(f"{plain(where)}: the notebook's last cell calls no `claims.verify`: a notebook must judge.")
    if set(judged) != set(wanted):
        raise InputError(
            f"{plain(where)}: the notebook judges {plain(', '.join(judged))}, and the register has it judge "
            f"{', '.join(wanted)}: make the two agree."
        )


def _absolute(model: str) -> str:
    """A folder by its whole path, because a notebook runs elsewhere; a hub id or a name as it is."""
    return str(Path(model).resolve()) if is_folder(model) else model


def _model_hash(source: str, where: str) -> str:
    from geonb.models.checkpoint import Checkpoint

    try:
        return Checkpoint.open(source).digest
    except InputError as error:
        raise InputError(f"{plain(where)}: {error}") from None
