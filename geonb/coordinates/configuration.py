"""The sizes of a coordinate-modulated model: presets, a YAML file that is read and checked completely, and exact counts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geonb.errors import InputError
from geonb.records import Record, is_file, plain, read_bytes

TARGETS = ("q", "k", "v", "gate")
FACTORS = ("shared", "independent")
# the published total, and how far from it a preset may lie
BUDGET, TOLERANCE = 10_000_000, 0.005


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration(Record):
    """A Llama-style model whose q, k, v and gate matrices move with a coordinate theta in R^coordinates.

    `pairs` is m, the number of (cos, sin) pairs of each layer; `rank` is r, that of the change of a matrix; `distinct_blocks`
    below `layers` uses each block's matrices several times, with norms and modulation of its own each time. `budget` is rho:
    ||dW(theta)||_2 <= rho ||W||_2 for every theta. `direction_scale` is the spread of the directions in units of
    1/sqrt(coordinates): at 4 two random coordinates are uncorrelated (mean kernel about -0.001), at 1 they are not (0.38).
    """

    name: str = "B"
    vocabulary: int = 3125
    width: int = 448
    layers: int = 10
    distinct_blocks: int = 10
    heads: int = 16
    key_value_heads: int = 4
    head_width: int = 16
    feed_forward: int = 178
    tied: bool = False
    coordinates: int = 1024
    pairs: int = 64
    rank: int = 12
    predictor_width: int = 144
    factors: str = "shared"
    budget: float = 0.3
    direction_scale: float = 4.0
    context: int = 1024
    rope_base: float = 10_000.0
    norm_epsilon: float = 1e-5

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, (int, float)) and not isinstance(value, bool) and not 0 < value < 1e9:
                raise InputError(f"the field {field.name!r} is {value}; allowed is a number above 0 and below 1e9.")
        if self.factors not in FACTORS:
            raise InputError(f"the field 'factors' is {plain(self.factors)!r}; allowed are {' and '.join(FACTORS)}.")
        for whole, part in (("layers", "distinct_blocks"), ("heads", "key_value_heads")):
            if getattr(self, whole) % getattr(self, part):
                raise InputError(
                    f"{part} is {getattr(self, part)} and {whole} is {getattr(self, whole)}; allowed is a divisor of it."
                )
        if self.head_width % 2:
            raise InputError(
                f"head_width is {self.head_width}; allowed is an even number, because it is rotated in pairs."
            )
        if self.rank > min(out for _, (_, out) in self.shapes.items()):
            raise InputError(f"rank is {self.rank}; allowed is at most the smallest side of a matrix that it changes.")

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """The modulated matrices as (inputs, outputs)."""
        keys = self.key_value_heads * self.head_width
        return {
            "q": (self.width, self.heads * self.head_width),
            "k": (self.width, keys),
            "v": (self.width, keys),
            "gate": (self.width, self.feed_forward),
        }

    def counts(self) -> dict[str, int]:
        """The parameters of each component, exactly; their sum is what the built model has.

        >>> sum(preset("B").counts().values())
        9999232
        """
        shapes, weights = self.shapes, 2 * self.pairs
        attention = sum(a * b for a, b in (shapes["q"], shapes["k"], shapes["v"])) + shapes["q"][1] * self.width
        block = attention + 3 * self.width * self.feed_forward
        if self.factors == "shared":
            factors = sum(self.rank * (a + b) + weights * self.rank**2 for a, b in shapes.values())
        else:
            factors = sum(weights * self.rank * (a + b) for a, b in shapes.values())
        hidden = self.predictor_width
        predictor = (self.width + 1) * hidden + 2 * (hidden + 1) * hidden + 2 * hidden + (hidden + 1) * self.coordinates
        return {
            "embedding": self.vocabulary * self.width,
            "base": self.distinct_blocks * block + (2 * self.layers + 1) * self.width,
            "modulation": self.layers * (factors + self.pairs * self.coordinates),
            "predictor": predictor,
            "output": 0 if self.tied else self.vocabulary * self.width,
        }

    def summary(self) -> str:
        return f"Configuration({plain(self.name)}: {sum(self.counts().values()):,} parameters)"


_PRESETS = {
    "B": {},
    # closest to the published table: the natural head width, five blocks each used twice
    "C": {"head_width": 28, "feed_forward": 400, "distinct_blocks": 5},
    # tied embeddings pay for a wider feed-forward part
    "D": {"feed_forward": 280, "tied": True},
    "tiny": {
        "vocabulary": 512, "width": 64, "layers": 2, "distinct_blocks": 2, "heads": 4, "key_value_heads": 2, "head_width": 16,
        "feed_forward": 96, "coordinates": 64, "pairs": 8, "rank": 4, "predictor_width": 32, "context": 256,
    },
}  # fmt: skip
PRESETS = tuple(_PRESETS)


def preset(name: str) -> Configuration:
    """One of the presets B (the default), C, D and tiny.

    >>> sum(preset("C").counts().values())
    9997712
    """
    if name not in _PRESETS:
        raise InputError(f"the preset {plain(name)!r} was given; allowed are {', '.join(PRESETS)}.")
    return Configuration(name=name, **_PRESETS[name])


def read_table(path: str | Path) -> Mapping[str, Any]:
    """The table of fields that a YAML file holds; raises `InputError` where there is none."""
    import yaml

    path = Path(path)
    if not is_file(path):
        raise InputError(f"{path} is not a file: give a YAML file, or one of the presets {', '.join(PRESETS)}.")
    try:
        data = yaml.safe_load(read_bytes(path).decode("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no YAML: {plain(str(error).splitlines()[0])}.") from None
    if not isinstance(data, Mapping):
        raise InputError(f"{path} holds no table of fields; allowed is one `name: value` a line.")
    return data


def read_configuration(path: str | Path) -> Configuration:
    """A configuration from a YAML file: fields of `Configuration`, and `preset` for what the file does not say.

    Every key is read: an unknown one is an error. Numbers are numbers in every notation (YAML 1.1 reads `1e-5` as text). The
    table `training` is the recipe's, see `recipe.read_recipe`.
    """
    data = {key: value for key, value in read_table(path).items() if key != "training"}
    fields = {field.name: field for field in dataclasses.fields(Configuration)}
    unknown = [key for key in data if key not in fields and key != "preset"]
    if unknown:
        raise InputError(
            f"{path} has the field {plain(unknown[0])!r}; allowed are preset, {', '.join(fields)} and training."
        )
    start = preset(data.get("preset", "B")).to_dict()
    given = {key: number(value, fields[key].type) for key, value in data.items() if key != "preset"}
    try:
        return Configuration.from_dict({**start, **given})
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def number(value: Any, kind: Any) -> Any:
    """The number that a YAML value stands for where `kind` is one; anything else as it is."""
    if isinstance(value, str) and kind in ("int", "float", int, float):
        try:
            number = float(value)
        except ValueError:
            return value
        return int(number) if kind in ("int", int) and number.is_integer() else number
    if isinstance(value, int) and not isinstance(value, bool) and kind in ("float", float):
        return float(value)
    return value
