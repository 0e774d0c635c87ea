"""What a STaR run was asked to do: checked before any work, written down, and compared when a run is resumed."""

from __future__ import annotations

from dataclasses import dataclass

from geonb.errors import InputError
from geonb.records import Record

FRESH, CUMULATIVE = "fresh_base", "cumulative"
STRATEGIES = (FRESH, CUMULATIVE)
# below this many problems a round the documentation calls the loop unreliable
FLOOR = 500
_RANGES = {
    "rounds": (1, 100),
    "problems_per_round": (1, 1_000_000),
    "samples": (1, 1000),
    "few_shot": (0, 3),
    "max_generation_tokens": (1, 1_000_000),
    "max_steps": (1, 1_000_000_000),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StarOptions(Record):
    """Every choice and every input of a STaR run, the inputs with their digests: equal options mean equal bytes."""

    model: str
    model_digest: str
    data: str
    data_digest: str
    eval_data: str | None
    eval_digest: str | None
    initial_adapter: str | None
    initial_digest: str | None
    rounds: int
    problems_per_round: int
    samples: int
    temperature: float
    strategy: str
    few_shot: int
    max_generation_tokens: int
    max_generation_source: str
    rationalise: bool
    control: bool
    all_rounds: bool
    max_steps: int | None
    seed: int
    seed_source: str


def check_numbers(**given: int | float | None) -> None:
    """Raise `InputError` for a number outside its range; None is a default that is filled in later."""
    for name, value in given.items():
        flag = "--" + name.replace("_", "-")
        if value is None:
            continue
        if name == "temperature":
            if not 0.01 <= float(value) <= 10:
                raise InputError(
                    f"{flag} was given {value}; allowed are 0.01 to 10: 1 draws from the model's own distribution (greedy "
                    "decoding would draw the same solution every time)."
                )
            continue
        low, high = _RANGES[name]
        if not low <= value <= high:
            raise InputError(f"{flag} was given {value}; allowed are {low} to {high}: choose a number from there.")


def check_choices(strategy: str, *, resume: bool, overwrite: bool) -> None:
    """Raise `InputError` for an unknown strategy and for options that exclude each other."""
    if strategy not in STRATEGIES:
        raise InputError(
            f"--strategy was given {strategy!r}; allowed are {' and '.join(STRATEGIES)}: choose one of them."
        )
    if resume and overwrite:
        raise InputError("--resume and --overwrite exclude each other; give one of them.")


def check_same(options: StarOptions, before: StarOptions, where: str) -> None:
    """Raise `InputError` where a resumed run was asked for something else than the run in the folder."""
    now, then = options.to_dict(), before.to_dict()
    names = [name for name in now if now[name] != then[name]]
    if names:
        name = names[0]
        raise InputError(
            f"the STaR run in {where} was made with {name} {then[name]!r}, and --resume was given {now[name]!r}: repeat the "
            "same options and inputs, or start anew with --overwrite."
        )
