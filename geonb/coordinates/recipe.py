"""What a training run of a coordinate model is made from; the same recipe gives the same bytes."""

from __future__ import annotations

from dataclasses import dataclass

from geonb.coordinates.configuration import Configuration
from geonb.errors import InputError
from geonb.records import Record, plain

CONTROLLERS = ("adamw", "frank-wolfe")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe(Record):
    """Sizes, length and rates of a run.

    `controller` moves the cores: "adamw" as everything else, or "frank-wolfe", geonb's step with nothing to tune, in the ball
    that certifies the budget for every theta; U and V then stay orthonormal where they began.
    """

    configuration: Configuration
    steps: int = 300
    rows: int = 12  # texts a step, before prose
    length: int = 96  # tokens a row at most
    seed: int = 0
    base_rate: float = 3e-4  # embeddings, blocks, norms, output
    coordinate_rate: float = 1e-3  # directions, factors, cores, predictor
    warmup: float = 0.05  # share of the steps
    decay: float = 0.1  # of the base's matrices alone
    clip: float = 1.0
    controller: str = "adamw"
    evaluate_every: int = 50
    rehearsal: float = 0.25  # share of the steps of phases 2 and 3 that go back to an earlier phase
    prose: str = ""  # a JSONL or text file of running text, read beside the curriculum

    def __post_init__(self) -> None:
        if self.controller not in CONTROLLERS:
            raise InputError(
                f"the controller {plain(self.controller)!r} was given; allowed are {', '.join(CONTROLLERS)}."
            )
        if self.controller == "frank-wolfe" and self.configuration.factors != "shared":
            raise InputError("frank-wolfe moves the cores of shared factors; literal ones have none: use adamw.")
        for name, least in (("steps", 3), ("rows", 6), ("length", 16), ("evaluate_every", 1)):
            if getattr(self, name) < least:
                raise InputError(f"{name} is {getattr(self, name)}; allowed is {least} or more.")
        if self.length >= self.configuration.context:
            raise InputError(
                f"length is {self.length}; the context of the model is {self.configuration.context}: take less."
            )
        fine = self.base_rate > 0 and self.coordinate_rate > 0 and self.clip > 0 and self.decay >= 0
        if not fine or not (0 <= self.warmup < 1 and 0 <= self.rehearsal < 1):
            raise InputError(
                "a rate or share is out of its range; allowed are rates and clip above 0, shares from 0 to 1."
            )

    def summary(self) -> str:
        return f"Recipe({self.configuration.name}, {self.steps} steps of {self.rows} rows, {self.controller})"
