"""One operation: a pure function of small inputs with a short answer, its names, and how it is asked in text."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from geonb.records import Record

FORMS = ("named", "paraphrased", "anonymous")
LONGEST = 6  # characters of an answer
_HELD_OUT = 10  # one tuple of inputs in that many
_WORKED = 4  # examples before an anonymous question
_TRAINED = ("{name}: {inputs} =", "what is the {name} for {inputs} ?", "find the {name}, given {inputs} :")
_UNSEEN = "given {inputs} , the {name} is"

Value = int | str


@dataclass(frozen=True, slots=True)
class Whole:
    """Whole numbers from `low` to `high`, both included."""

    low: int
    high: int

    @property
    def size(self) -> int:
        return self.high - self.low + 1

    def draw(self, rng: np.random.Generator) -> int:
        return int(rng.integers(self.low, self.high + 1))

    def holds(self, value: Value) -> bool:
        return isinstance(value, int) and self.low <= value <= self.high


@dataclass(frozen=True, slots=True)
class Word:
    """Words of `length` letters of `alphabet`, all of them."""

    alphabet: str
    length: int

    @property
    def size(self) -> int:
        return len(self.alphabet) ** self.length

    def draw(self, rng: np.random.Generator) -> str:
        return "".join(self.alphabet[place] for place in rng.integers(len(self.alphabet), size=self.length))

    def holds(self, value: Value) -> bool:
        return isinstance(value, str) and len(value) == self.length and set(value) <= set(self.alphabet)


@dataclass(frozen=True, slots=True)
class OneOf:
    """One of a list of words."""

    words: tuple[str, ...]

    @property
    def size(self) -> int:
        return len(self.words)

    def draw(self, rng: np.random.Generator) -> str:
        return self.words[int(rng.integers(len(self.words)))]

    def holds(self, value: Value) -> bool:
        return value in self.words


Argument = Whole | Word | OneOf


@dataclass(frozen=True, slots=True)
class Operation:
    """A function, the ranges of its inputs and three names: its own, a paraphrase for training and one that is held out."""

    domain: str
    name: str
    paraphrase: str
    unseen: str
    function: Callable[..., Value | bool]
    arguments: tuple[Argument, ...]

    @property
    def size(self) -> int:
        """How many distinct inputs there are."""
        return math.prod(argument.size for argument in self.arguments)

    def answer(self, inputs: tuple[Value, ...]) -> str:
        """The answer as text: a number, letters, or yes and no."""
        found = self.function(*inputs)
        if isinstance(found, bool):
            return "yes" if found else "no"
        return str(found)

    def inputs(self, rng: np.random.Generator, *, held_out: bool) -> tuple[Value, ...]:
        """Inputs of the wanted side."""
        while True:
            drawn = tuple(argument.draw(rng) for argument in self.arguments)
            if is_held_out(drawn) == held_out:
                return drawn

    @property
    def digest(self) -> str:
        """sha256 of domain, names, ranges and the answers to 200 fixed inputs: it changes when the operation does."""
        rng = np.random.default_rng(0)
        drawn = [tuple(argument.draw(rng) for argument in self.arguments) for _ in range(200)]
        told = [self.domain, self.name, self.paraphrase, self.unseen, repr(self.arguments)]
        told += [f"{shown(inputs)} {self.answer(inputs)}" for inputs in drawn]
        return hashlib.sha256("\n".join(told).encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt(Record):
    """A question and its answer; `prompt + " " + answer` is the text to learn."""

    operation: str
    form: str
    prompt: str
    answer: str
    inputs: tuple[int | str, ...]
    held_out: bool

    def summary(self) -> str:
        return f"Prompt({self.prompt} {self.answer})"


def is_held_out(inputs: tuple[Value, ...]) -> bool:
    """Whether inputs belong to the held-out side, by their hash: the same for every operation, form and seed."""
    return hashlib.sha256(repr(inputs).encode()).digest()[0] % _HELD_OUT == 0


def shown(inputs: tuple[Value, ...]) -> str:
    """Inputs as text, with spaces between them."""
    return " ".join(map(str, inputs))


def ask(operation: Operation, rng: np.random.Generator, form: str, held_out: bool) -> Prompt:
    """A prompt of one form; held out means other inputs and, for `paraphrased`, a name and a sentence never trained on."""
    inputs = operation.inputs(rng, held_out=held_out)
    if form == "named":
        text = f"{operation.name}: {shown(inputs)} ="
    elif form == "paraphrased":
        name = operation.unseen if held_out else (operation.name, operation.paraphrase)[int(rng.integers(2))]
        sentence = _UNSEEN if held_out else _TRAINED[int(rng.integers(len(_TRAINED)))]
        text = sentence.format(name=name, inputs=shown(inputs))
    else:
        # worked examples are never held-out inputs, so that no held-out answer is shown anywhere
        worked = [operation.inputs(rng, held_out=False) for _ in range(_WORKED)]
        text = "".join(f"{shown(one)} > {operation.answer(one)} ; " for one in worked) + f"{shown(inputs)} >"
    answer = operation.answer(inputs)
    return Prompt(
        operation=operation.name, form=form, prompt=text, answer=answer, inputs=inputs, held_out=held_out
    )  # fmt: skip


def near(value: float) -> int:
    """The nearest whole number, halves upwards; the slack keeps the rounding of floats from deciding a half.

    >>> near(2.5), near(-2.5)
    (3, -2)
    """
    return math.floor(value + 0.5 + 1e-9)


def domain(name: str, rows: list[tuple]) -> tuple[Operation, ...]:
    """Operations from rows (name, paraphrase, held-out paraphrase, function, argument, ...); (low, high) is `Whole`."""
    made = []
    for title, paraphrase, unseen, function, *ranges in rows:
        arguments = tuple(Whole(*one) if isinstance(one, tuple) else one for one in ranges)
        made.append(Operation(name, title, paraphrase, unseen, function, arguments))
    return tuple(made)
