"""An arm of the benchmark: one way of fine-tuning with all its settings, named so that rows can be paired."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from geonb.errors import InputError
from geonb.records import Record

ZERO_KNOB = ("frank-wolfe", "mass", "mass-layer")
LORA = ("adamw", "muon", "prodigy", "schedule-free", "dog")
METHODS = (*ZERO_KNOB, *LORA, "scaled-gd", "nb-lora", "full")
FORMS = ("lora", "rslora", "pissa", "dora", "lora+")
BASES = ("tail", "top", "full", "gradient", "random")
RANKS = ("8", "32", "tail")
TARGETS = ("all", "q+v")
# what geonb.workbench.benchmark.variants can exchange in `frank-wolfe`: the field, and what it may be, the default first
VARIANTS = {
    "confirm": ("none", "agreement"),
    "decay": ("linear", "constant", "cosine", "anytime"),
    "memory": ("horizon", "anytime", "noise"),
    "average": ("none", "schedule-free"),
    "outputs": ("all", "tail"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm(Record):
    """Every setting of one way of fine-tuning; what a method has no use for stays at its default.

    `rate` is the learning rate of a tuned method, None where the method derives it. `budget` is the radius R of a bounded
    adapter in units of `unit_of_budget` ("sigma_k" or "sigma_max"). `unit` multiplies the step of `frank-wolfe`
    (1 is what the product does), `momentum` its exponent in 1 - T^-momentum. `power` to `polyak` are those of
    `geonb.workbench.benchmark.variants.Variant`, for `frank-wolfe` alone.
    """

    method: str
    rate: float | None = None
    rank: str = "tail"
    targets: str = "all"
    form: str = "lora"
    schedule: str = "cosine"
    basis: str = "tail"
    sides: str = "one"
    budget: float = 1.0
    unit_of_budget: str = "sigma_max"
    unit: float = 1.0
    momentum: float = 0.5
    power: float = 0.0
    confirm: str = "none"
    decay: str = "linear"
    memory: str = "horizon"
    average: str = "none"
    outputs: str = "all"
    polyak: float = 1.0

    def __post_init__(self) -> None:
        for name, given, allowed in (
            ("method", self.method, METHODS),
            ("form", self.form, FORMS),
            ("rank", self.rank, RANKS),
            ("targets", self.targets, TARGETS),
            ("basis", self.basis, BASES),
            ("schedule", self.schedule, ("cosine", "constant")),
            ("sides", self.sides, ("one", "two")),
            ("unit_of_budget", self.unit_of_budget, ("sigma_k", "sigma_max")),
            *((name, getattr(self, name), allowed) for name, allowed in VARIANTS.items()),
        ):
            if given not in allowed:
                raise InputError(f"an arm was given the {name} {given!r}; allowed are {', '.join(allowed)}.")
        if self.is_tuned and self.rate is None:
            raise InputError(f"the method {self.method} has a learning rate to be given: name it with rate.")
        if self.rate is not None and not self.is_tuned and self.method != "schedule-free":
            raise InputError(f"the method {self.method} derives its steps: leave the rate {self.rate:g} out.")
        if self.form != "lora" and (self.method not in LORA or (self.form == "lora+" and self.method != "adamw")):
            raise InputError(f"the form {self.form} is not made for the method {self.method}: give lora.")
        for name, value in (("rate", self.rate), ("budget", self.budget), ("unit", self.unit), ("polyak", self.polyak)):
            if value is not None and not 0 < value < math.inf:
                raise InputError(f"an arm was given the {name} {value:g}; allowed is any finite number above 0.")
        for name, value in (("momentum", self.momentum), ("power", self.power)):
            if not 0 <= value < math.inf:
                raise InputError(f"an arm was given the {name} {value:g}; allowed is any finite number from 0 on.")
        if self.is_variant and self.method != "frank-wolfe":
            named = ", ".join(("power", *VARIANTS, "polyak"))
            raise InputError(f"the method {self.method} has no variants: leave {named} at their defaults.")

    @property
    def is_tuned(self) -> bool:
        """Whether somebody has to choose a learning rate for it."""
        return self.method in ("adamw", "muon", "scaled-gd", "nb-lora", "full")

    @property
    def is_variant(self) -> bool:
        """Whether it exchanges something in `frank-wolfe` that the product has no name for."""
        return (
            self.power != 0
            or self.polyak != 1
            or any(getattr(self, name) != allowed[0] for name, allowed in VARIANTS.items())
        )

    @property
    def key(self) -> str:
        """Every setting that is not the default, in a fixed order: equal keys are equal arms."""
        said = [self.method]
        for field in fields(self)[1:]:
            value = getattr(self, field.name)
            if value != field.default:
                said.append(f"{field.name}={value if isinstance(value, str) else _number(value)}")
        return " ".join(said)

    def summary(self) -> str:
        return f"Arm({self.key})"


def _number(value: float) -> str:
    """Six digits where they are the number, else as many as it takes to tell it from its neighbours."""
    value = float(value) + 0.0  # one zero only
    return short if float(short := f"{value:g}") == value else repr(value)


def adamw(rate: float, rank: str = "tail", *, form: str = "lora", targets: str = "all") -> Arm:
    """AdamW on LoRA factors through PEFT, alpha = 2r, cosine to zero after 5 % of warm-up, clipping at 1."""
    return Arm(method="adamw", rate=rate, rank=rank, form=form, targets=targets)


# the customary setting, and the one that the peer project ships since it gave up its derived controller
FOLKLORE = adamw(2e-4, "8", targets="q+v")
PEER_DEFAULT = adamw(2e-4, "32", form="pissa")
# the three budgets of the product; the rule of papers/zero-knob made the third its default
OPEN = Arm(method="frank-wolfe")
STRICT = Arm(method="frank-wolfe", unit_of_budget="sigma_k")
THREE = DEFAULT = Arm(method="frank-wolfe", unit_of_budget="sigma_k", budget=3.0)
# as `--budget` of a plan calls them
BUDGETS = {"balanced": THREE, "open": OPEN, "strict": STRICT}
