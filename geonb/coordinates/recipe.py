"""What a training run of a coordinate model is made from; the same recipe gives the same bytes."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geonb.coordinates.configuration import Configuration, number, read_configuration, read_table
from geonb.errors import GeonbError, InputError
from geonb.records import Record, is_file, plain

CONTROLLERS = ("adamw", "frank-wolfe", "none")
RECIPE = "recipe.json"  # its name in the folder of a run
PRECISIONS = ("float32", "bfloat16", "float16")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe(Record):
    """Sizes, length and rates of a run.

    `controller` moves the cores: "adamw" as everything else, or "frank-wolfe", geonb's step with nothing to tune, in the ball
    that certifies the budget for every theta; U and V then stay orthonormal where they began. With "none" the cores stay zero:
    the base alone, as a control. `precision` is that of the large products; the budget, phases, norms and losses stay float32.
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
    precision: str = "float32"
    checkpointing: bool = False  # less memory for a forward pass more; the gradients are the same
    prose: str = ""  # a JSONL or text file of running text, read beside the curriculum

    def __post_init__(self) -> None:
        if self.controller not in CONTROLLERS:
            raise InputError(
                f"the controller {plain(self.controller)!r} was given; allowed are {', '.join(CONTROLLERS)}."
            )
        if self.precision not in PRECISIONS:
            raise InputError(f"the precision {plain(self.precision)!r} was given; allowed are {', '.join(PRECISIONS)}.")
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

    def check_same(self, other: Recipe) -> None:
        """Raise `InputError` where `other`, which a run is to be resumed with, is not what it was begun with."""
        for field in dataclasses.fields(self):
            begun, given = getattr(self, field.name), getattr(other, field.name)
            if begun != given:
                raise InputError(
                    f"the run was begun with another recipe: {field.name} {plain(begun)}, and {plain(given)} was given; "
                    "a run goes on with what it was begun with: leave that out, or give another folder."
                )


def recipe_of(folder: str | Path) -> Recipe | None:
    """The recipe of the coordinate model's run in `folder`; None where none can be read, or a plan makes it an adapter's run."""
    path = Path(folder) / RECIPE
    if is_file(path) and not is_file(path.parent / "plan.json"):
        with contextlib.suppress(GeonbError, OSError, ValueError):
            return Recipe.load(path)
    return None


def read_recipe(path: str | Path, start: Recipe | None = None, **given: Any) -> Recipe:
    """The recipe of a YAML file: fields of the model, and those of the run in a table `training`; `given` ones come first.

    What neither says is that of `start`, or the default.

    Raises `InputError` for an unknown key, a value of another kind, and a recipe that cannot be.
    """
    sizes = read_configuration(path)
    table = read_table(path).get("training") or {}
    fields = {field.name: field for field in dataclasses.fields(Recipe) if field.name != "configuration"}
    if not isinstance(table, Mapping):
        raise InputError(
            f"{path} has a field 'training' that is no table; allowed are fields such as `steps: 300` in it."
        )
    unknown = [key for key in table if key not in fields]
    if unknown:
        raise InputError(f"{path} has the field {plain(unknown[0])!r} in training; allowed are {', '.join(fields)}.")
    read = {} if start is None else start.to_dict()
    read |= {key: number(value, fields[key].type) for key, value in table.items()}
    try:
        return Recipe.from_dict({**read, **given, "configuration": sizes.to_dict()})
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
