"""Every option of a plan, checked before anything is opened: types, ranges, and pairs that exclude each other."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from geonb.derive.lora_rank import RANK_RULES
from geonb.errors import InputError
from geonb.models.matrix_ref import ROLES
from geonb.records import Record

CONTROLLERS = ("frank-wolfe", "mass", "mass-layer")
BASES = ("tail", "top", "full", "gradient", "random")
BUDGETS = ("balanced", "open", "strict")
SIDES = ("one", "two")
BENCHMARKS = ("quick", "reasoning", "factual", "comprehensive")

_SHORT_EXPERT = re.compile(r"[Ll]([0-9]{1,6})\.[Ee]([0-9]{1,6})")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOptions(Record):
    """What a person asked for, beyond model and data; None is "derive it". Bytes, tokens and steps are integers."""

    output: str | None = None
    eval_data: str | None = None
    seed: int | None = None
    seq_length: int | None = None
    max_steps: int | None = None
    epochs: int | None = None
    controller: str = "frank-wolfe"
    basis: str = "tail"
    budget: str = "balanced"
    sides: str = "one"
    memory_budget: int | None = None
    max_rank: int | None = None
    rank_rule: str = "tail"
    exclude_roles: tuple[str, ...] = ()
    target_experts: tuple[str, ...] = ()
    entropy_reg: bool = False
    topo_monitor: bool = False
    dim_monitor: bool = False
    benchmark: str | None = None
    calibrate: bool = True

    def checked(self) -> PlanOptions:
        """This record, or an `InputError` that names the option, what is allowed and what to do."""
        _one_of("--controller", self.controller, CONTROLLERS)
        _one_of("--basis", self.basis, BASES)
        _one_of("--budget", self.budget, BUDGETS)
        _one_of("--sides", self.sides, SIDES)
        _one_of("--rank-rule", self.rank_rule, RANK_RULES)
        for role in self.exclude_roles:
            _one_of("--exclude-roles", role, ROLES)
        if self.benchmark is not None:
            _one_of("--benchmark", self.benchmark, BENCHMARKS)
        _whole("--seed", self.seed, 0, 2**32 - 1)
        _whole("--seq-length", self.seq_length, 2, 2**31 - 1)
        _whole("--max-steps", self.max_steps, 1, 2**31 - 1)
        _whole("--epochs", self.epochs, 1, 2**31 - 1)
        _whole("--memory-budget", self.memory_budget, 1, 2**62)
        _whole("--max-rank", self.max_rank, 1, 2**31 - 1)
        _exclude("--max-steps", self.max_steps, "--epochs", self.epochs, "both set the horizon")
        full = self.basis == "full" or None
        reason = "the full basis keeps every input direction"
        _exclude("--basis full", full, "--max-rank", self.max_rank, reason)
        _exclude("--basis full", full, "--memory-budget", self.memory_budget, reason)
        rule = None if self.rank_rule == RANK_RULES[0] else self.rank_rule
        _exclude("--basis full", full, f"--rank-rule {rule}", rule, reason)
        if rule == "gradient" and not self.calibrate:
            raise InputError(
                "--rank-rule gradient was given without a calibration, which is what measures a gradient's rank: have "
                "the plan calibrated, or choose another rule."
            )
        other = None if self.controller == "frank-wolfe" else self.controller
        two = self.sides == "two" or None
        _exclude(f"--controller {other}", other, "--sides two", two, "its factors have their own geometry")
        moved = "mass" if self.controller == "mass" else None
        basis = None if self.basis == "tail" else self.basis
        _exclude("--controller mass", moved, f"--basis {basis}", basis, "the Cayley chart chooses its own directions")
        return self


def _one_of(option: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise InputError(f"{option} was given {value!r}; allowed are {', '.join(allowed)}: choose one of them.")


def _whole(option: str, value: object, low: int, high: int) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InputError(
            f"{option} was given {value!r}; allowed is a whole number from {low} to {high}: correct it, or leave it "
            "out to have it derived."
        )


def _exclude(first: str, one: object, second: str, other: object, because: str) -> None:
    if one is not None and other is not None:
        raise InputError(f"{first} and {second} were both given, but {because}: give only one of them.")


def bytes_of(text: str | int | None) -> int | None:
    """A memory budget in bytes from an integer or text such as "8GB", "512 MiB" (with an i powers of 1024, else 1000).

    >>> bytes_of("2GiB")
    2147483648
    """
    if text is None or isinstance(text, int):
        return text
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kKmMgGtT]?)(i?)[bB]?\s*", text)
    if found is None:
        raise InputError(f"--memory-budget was given {text!r}; allowed is a size such as 8GB or 512MiB: correct it.")
    base = 1024 if found[3] else 1000
    size = float(found[1]) * base ** " KMGT".index(found[2].upper() or " ")
    if size >= 2**63:
        raise InputError(
            f"--memory-budget was given {text[:40]!r}, more than any machine has; give a size such as 8GB."
        )
    return int(size)


def role_names(tokens: str | Iterable[str] | None) -> tuple[str, ...]:
    """The roles in "q,k" or ["q", "k"], each once and in the order of `ROLES`, so that equal sets give equal plans.

    >>> role_names("up, gate,up")
    ('gate', 'up')
    """
    if tokens is None:
        return ()
    parts = {part.strip() for part in (tokens.split(",") if isinstance(tokens, str) else tokens)}
    for part in sorted(parts):
        _one_of("--exclude-roles", part, ROLES)
    return tuple(role for role in ROLES if role in parts)


def expert_names(tokens: str | Iterable[str] | None, refs: Iterable) -> tuple[str, ...]:
    """The names of the expert matrices that `tokens` name: "L0.E1,L2.E0", or full matrix names, in any mixture.

    `refs` are the checkpoint's `MatrixRef`s. A token that is neither, or names no expert of this model, is refused.
    """
    if tokens is None:
        return ()
    parts = tokens.split(",") if isinstance(tokens, str) else list(tokens)
    experts = [ref for ref in refs if ref.expert is not None]
    by_name = {ref.name: ref for ref in experts}
    found: dict[str, None] = {}
    for part in (part.strip() for part in parts):
        short = _SHORT_EXPERT.fullmatch(part)
        if short:
            layer, expert = int(short[1]), int(short[2])
            names = [ref.name for ref in experts if ref.layer == layer and ref.expert == expert]
        elif part in by_name:
            names = [part]
        else:
            raise InputError(
                f"--target-experts was given {part!r}; allowed are tokens such as L0.E1 or full names of expert "
                "matrices, separated by commas: see `geonb model info` for the names."
            )
        if not names:
            have = f"layers {_span(ref.layer for ref in experts)}, experts {_span(ref.expert for ref in experts)}"
            raise InputError(
                f"--target-experts was given {part!r}, but this model has "
                f"{have if experts else 'no experts'}: name an expert that exists, or leave the option out."
            )
        found.update(dict.fromkeys(names))
    return tuple(ref.name for ref in experts if ref.name in found)


def _span(numbers: Iterable[int | None]) -> str:
    known = [number for number in numbers if number is not None]
    return f"{min(known)} to {max(known)}" if known else "none"


def default_output(model_name: str, data_path: str, seed: int) -> str:
    """runs/<model>-<data>-<seed>, relative to where the command runs, with nothing in it that a path could trip over.

    >>> default_output("org/Model 1", "my data.jsonl", 7)
    'runs/Model-1-my-data-7'
    """
    # "embedded:kjv" names a data set inside the package
    stem = Path(str(data_path).replace(":", "-")).name.removesuffix(".jsonl")
    return f"runs/{_plain(Path(model_name).name)}-{_plain(stem)}-{seed}"


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "model"
