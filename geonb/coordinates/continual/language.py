"""The operations as tasks of a character-level coordinate model: texts, losses on answers alone, exact answers.

Two layers of width 64 learn some of the operations and not the arithmetic of large numbers: the figures compare arms, and say
nothing of what a larger model learns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from geonb.coordinates.configuration import Configuration
from geonb.coordinates.continual.learner import TaskFactors, cores, sides
from geonb.coordinates.continual.operation import Operation, Prompt, ask
from geonb.coordinates.model import CoordinateModel, rotations
from geonb.coordinates.modulated_linear import ModulatedLinear

PAD, END = 0, ord("\n")
# one character a token; the budget is wide, so that it does not decide which arm learns; cores of rank 24 have as many numbers as
# a LoRA of rank 4: 24 x 24 x 8 matrices = 4,608 = 4 (128 x 3 + 192) x 2 layers; a LoRA of rank 1 learns next to nothing here
SIZES = Configuration(
    name="operations", vocabulary=128, width=64, layers=2, distinct_blocks=2, heads=4, key_value_heads=4, head_width=16,
    feed_forward=128, coordinates=256, pairs=64, rank=24, predictor_width=32, context=512, budget=4.0,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Batch:
    """Characters (n, length) and where their answers and ends are (n, length - 1), as targets of the character before."""

    tokens: Tensor
    answers: Tensor


def encode(prompts: Sequence[Prompt]) -> Batch:
    """Prompts with their answers, padded on the right.

    >>> from geonb.coordinates.continual.operations import draw
    >>> int(encode([draw("sum", np.random.default_rng(0))]).answers.sum())  # " 148" and the end
    5
    """
    questions = [[ord(letter) for letter in one.prompt] for one in prompts]
    answers = [[ord(letter) for letter in f" {one.answer}"] + [END] for one in prompts]
    length = max(len(q) + len(a) for q, a in zip(questions, answers, strict=True))
    tokens = torch.full((len(prompts), length), PAD)
    wanted = torch.zeros(len(prompts), length - 1, dtype=torch.bool)
    for row, (question, answer) in enumerate(zip(questions, answers, strict=True)):
        end = len(question) + len(answer)
        tokens[row, :end] = torch.tensor(question + answer)
        wanted[row, len(question) - 1 : end - 1] = True
    return Batch(tokens, wanted)


class OperationTask:
    """One operation in one form: training batches from one side of its inputs, tests from the other."""

    def __init__(self, operation: Operation, *, form: str, batch: int, tests: int, seed: int) -> None:
        self.operation, self.form, self.size = operation, form, batch
        rng = np.random.default_rng((seed, 7))
        self.questions = [ask(operation, rng, form, True) for _ in range(tests)]
        self.test = encode(self.questions)

    def batch(self, rng: np.random.Generator, size: int | None = None) -> Batch:
        return encode([ask(self.operation, rng, self.form, False) for _ in range(size or self.size)])

    def chance(self) -> float:
        """The share of the most frequent answer among the tests."""
        answers = [one.answer for one in self.questions]
        return max(map(answers.count, answers)) / len(answers)


class CharacterModel(nn.Module):
    """A coordinate model read under given weights of its cores, the same in every layer."""

    def __init__(self, model: CoordinateModel) -> None:
        super().__init__()
        self.model = model
        self.maps: list[ModulatedLinear] = [one for layer in model.uses for one in layer.changes.values()]
        for one in self.maps:
            one.factors = TaskFactors.of(one.factors)  # type: ignore[arg-type]

    def forward(self, tokens: Tensor, weights: Tensor | None) -> Tensor:
        """Logits (n, length, vocabulary); weights (1, 1, count)."""
        x = self.model.embedding(tokens)
        rotation = rotations(tokens.shape[1], 0, self.model.sizes, x)
        for number, layer in enumerate(self.model.uses):
            x = layer(x, weights, None, rotation, None, number)
        return self.model.output(self.model.norm(x))  # type: ignore[misc]

    def base_parameters(self) -> list[nn.Parameter]:
        """Embeddings, output, norms and all matrices but U, V and the cores; directions and predictor are never trained here."""
        apart = {id(p) for p in cores(self.maps) + sides(self.maps)}
        apart |= {id(p) for layer in self.model.uses for p in layer.directions.parameters()}
        apart |= {id(p) for p in self.model.predictor.parameters()}
        return [p for p in self.model.parameters() if id(p) not in apart]

    def loss(self, batch: Batch, weights: Tensor | None) -> Tensor:
        """Mean cross-entropy of the answers' characters, in nats."""
        logits = self(batch.tokens[:, :-1], weights)
        return functional.cross_entropy(logits[batch.answers], batch.tokens[:, 1:][batch.answers])

    @torch.no_grad()
    def grades(self, batch: Batch, weights: Tensor | None) -> Tensor:
        """(n, 2): whether greedy decoding would give the whole answer and stop, and the share of its characters that are right.

        Every argmax on the true prefix is right exactly where decoding is, so one pass is enough.
        """
        right = (self(batch.tokens[:, :-1], weights).argmax(dim=-1) == batch.tokens[:, 1:]) & batch.answers
        share = right.sum(dim=-1) / batch.answers.sum(dim=-1)
        return torch.stack([(share == 1).float(), share], dim=-1)


def theta_of(model: CoordinateModel, prompts: Sequence[Prompt]) -> Tensor:
    """theta (n, coordinates) that the predictor gives to each whole question, its answer unseen."""
    letters = [[ord(letter) for letter in one.prompt] for one in prompts]
    counts = torch.tensor([len(row) for row in letters])
    flat = model.embedding(torch.tensor([letter for row in letters for letter in row]))
    rows = torch.repeat_interleave(torch.arange(len(letters)), counts)
    sums = torch.zeros(len(letters), flat.shape[1]).index_add(0, rows, flat)
    return model.predictor(sums / counts[:, None])
