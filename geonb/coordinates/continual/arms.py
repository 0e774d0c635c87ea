"""The arms of the forgetting table: what each trains, what it is told of the task, and how it protects what it learned."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Arm:
    """`trains` names the groups that move: base, sides (U and V), cores, lora, film, superposed; `phases` tell tasks apart."""

    name: str
    told: str
    trains: tuple[str, ...]
    phases: str = ""  # "", random, orthogonal, learned
    adapters: str = ""  # "", shared, each, mixture, stacked
    adds: str = ""  # "", film, superposition
    keeps: str = ""  # "", ewc, replay, projection, apart
    joint: bool = False

    @property
    def told_apart(self) -> bool:
        """Whether it reads a task's question differently from another's, so that the task's id is needed."""
        return bool(self.phases or self.adds or self.adapters == "each")


ARMS = {
    arm.name: arm
    for arm in (
        Arm("fine-tuning", "all base weights, task after task", ("base",)),
        Arm("ewc", "the same, held by the Fisher information of earlier tasks", ("base",), keeps="ewc"),
        Arm("replay", "the same, with 1 % of earlier batches: twice the passes", ("base",), keeps="replay"),
        Arm("shared-lora", "base frozen, one LoRA for all tasks", ("lora",), adapters="shared"),
        Arm("mixture", "base frozen, LoRAs of rank 1 mixed by a router; no id", ("lora",), adapters="mixture"),
        Arm("lora-per-task", "base frozen, a LoRA of its own for each task", ("lora",), adapters="each"),
        Arm(
            "o-lora",
            "base frozen, a LoRA for each task, all added up and asked to read other directions; no id",
            ("lora",),
            adapters="stacked",
            keeps="apart",
        ),
        Arm("film", "base frozen, a scale and shift of its own for each task", ("film",), adds="film"),
        Arm("superposition", "base frozen, one change, inputs signed by task", ("superposed",), adds="superposition"),
        Arm("coordinates-random", "base, U, V frozen; cores trained; random theta", ("cores",), phases="random"),
        Arm("coordinates-orthogonal", "base, U, V frozen; cores trained; orthogonal phases", ("cores",), phases="orthogonal"),
        Arm(
            "coordinates-projected",
            "base, U, V frozen; random theta; updates kept off earlier phi",
            ("cores",),
            phases="random",
            keeps="projection",
        ),
        Arm("coordinates-learned", "base, U, V frozen; cores and own phases trained", ("cores", "theta"), phases="learned"),
        Arm("coordinates-sides", "U and V trained with the cores; orthogonal phases", ("sides", "cores"), phases="orthogonal"),
        Arm("coordinates-base", "base, U, V and cores trained; random theta", ("base", "sides", "cores"), phases="random"),
        Arm(
            "joint",
            "all tasks mixed, everything trained, id given: a reference, not a bound",
            ("base", "sides", "cores"),
            phases="orthogonal",
            joint=True,
        ),
        Arm("frozen", "nothing trained: where all start", ()),
    )
}  # fmt: skip
OPTIMISERS = ("sgd", "adam")


@dataclass(frozen=True, slots=True)
class Rates:
    """Learning rates of each kind of parameter, and the strength of EWC's penalty."""

    base: float  # also U and V, and what is superposed
    lora: float  # also experts and router
    cores: float  # for one core, see `Reading.groups`
    film: float
    theta: float  # radians a step of Adam
    ewc: float

    def values(self) -> tuple[float, ...]:
        """All of them as numbers, for the key of a run."""
        return (self.base, self.lora, self.cores, self.film, self.theta, self.ewc)
