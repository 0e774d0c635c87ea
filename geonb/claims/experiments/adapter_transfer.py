"""Moving an adapter between networks: two small language models of other seed and width."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from geonb.errors import InputError

WINDOW = 4  # tokens that a small model reads
MAPPED = ("up", "down")
RANK = 8


class SmallModel(nn.Module):
    """The next token from the last `WINDOW` tokens: an embedding, two residual blocks h + W2 gelu(W1 norm(h)), a head."""

    def __init__(self, vocabulary: int, width: int, seed: int, blocks: int = 2) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.embedding = nn.Embedding(vocabulary, 32)
            self.enter = nn.Linear(WINDOW * 32, width)
            self.up = nn.ModuleList(nn.Linear(width, 2 * width) for _ in range(blocks))
            self.down = nn.ModuleList(nn.Linear(2 * width, width) for _ in range(blocks))
            self.head = nn.Linear(width, vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        state = self.enter(self.embedding(tokens).flatten(1))
        for up, down in zip(self.up, self.down, strict=True):
            state = state + down(functional.gelu(up(functional.layer_norm(state, state.shape[-1:]))))
        return self.head(functional.layer_norm(state, state.shape[-1:]))

    def matrices(self) -> dict[str, nn.Linear]:
        """The matrices that an adapter changes, by name."""
        return {f"{kind}.{place}": module for kind in MAPPED for place, module in enumerate(getattr(self, kind))}


Change = dict[str, Tensor]  # name -> dW (out, in)


@dataclass(frozen=True, slots=True)
class Contexts:
    """Windows of tokens (n, WINDOW) and the token that follows each."""

    tokens: Tensor
    following: Tensor

    def __len__(self) -> int:
        return len(self.tokens)

    def part(self, start: int, stop: int) -> Contexts:
        """The contexts from `start` to `stop`."""
        return Contexts(self.tokens[start:stop], self.following[start:stop])


def contexts_of(tokenizer: Any, texts: Sequence[str], *, most: int, seed: int = 0) -> Contexts:
    """`most` windows of the texts in random order; whole texts, so that two calls on other texts share none.

    Raises `InputError` where the texts hold fewer.
    """
    windows = []
    for ids in tokenizer(list(texts), add_special_tokens=False)["input_ids"]:
        if len(ids) > WINDOW:
            windows.append(torch.tensor(ids).unfold(0, WINDOW + 1, 1))
    every = torch.cat(windows)
    if len(every) < most:
        raise InputError(f"{most} windows were asked of texts that hold {len(every)}: give more text.")
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(every))[:most])
    return Contexts(every[order, :WINDOW], every[order, WINDOW])


def loss_of(model: SmallModel, contexts: Contexts) -> float:
    """Mean cross-entropy in nats a token."""
    with torch.no_grad():
        return float(functional.cross_entropy(model(contexts.tokens), contexts.following))


def unigram_loss(train: Contexts, test: Contexts, vocabulary: int) -> float:
    """What the tokens' frequencies alone give, each count raised by 0.1."""
    counts = torch.bincount(train.following, minlength=vocabulary).double() + 0.1
    return float(-(counts / counts.sum()).log()[test.following].mean())


def train_model(
    model: SmallModel, contexts: Contexts, *, steps: int, batch: int = 256, rate: float = 3e-3, seed: int = 0
) -> SmallModel:
    """Adam on random batches, the rate falling to zero along a cosine; the model itself is trained and given back."""
    _descend(
        list(model.parameters()),
        lambda rows: _batch_loss(model, contexts, rows),
        len(contexts),
        steps,
        batch,
        rate,
        seed,
    )
    return model


def _batch_loss(model: SmallModel, contexts: Contexts, rows: Tensor) -> Tensor:
    return functional.cross_entropy(model(contexts.tokens[rows]), contexts.following[rows])


def _descend(
    parameters: list, loss: Callable[[Tensor], Tensor], size: int, steps: int, batch: int, rate: float, seed: int
) -> None:
    optimiser = torch.optim.Adam(parameters, lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        optimiser.zero_grad()
        loss(torch.randint(size, (batch,), generator=generator)).backward()
        optimiser.step()
        schedule.step()


@contextmanager
def changed(model: SmallModel, change: Mapping[str, Tensor]) -> Iterator[SmallModel]:
    """The model with each dW added to its matrix, and taken away again at the end."""
    matrices = model.matrices()
    before = {name: matrices[name].weight.data for name in change}
    try:
        for name, delta in change.items():
            matrices[name].weight.data = before[name] + delta
        yield model
    finally:
        for name, weight in before.items():
            matrices[name].weight.data = weight


def train_adapter(
    model: SmallModel, contexts: Contexts, *, steps: int, batch: int = 256, rate: float = 5e-3, seed: int = 0
) -> Change:
    """dW = B A of rank `RANK` for every matrix, learnt with the model itself frozen; B starts at zero."""
    generator = torch.Generator().manual_seed(seed)
    matrices = model.matrices()
    factors = {
        name: (
            torch.zeros(module.out_features, RANK, requires_grad=True),
            (torch.randn(RANK, module.in_features, generator=generator) / module.in_features**0.5).requires_grad_(),
        )
        for name, module in matrices.items()
    }

    def loss(rows: Tensor) -> Tensor:
        given = {f"{name}.weight": matrices[name].weight.detach() + b @ a for name, (b, a) in factors.items()}
        logits = torch.func.functional_call(model, given, (contexts.tokens[rows],))
        return functional.cross_entropy(logits, contexts.following[rows])

    _descend([one for both in factors.values() for one in both], loss, len(contexts), steps, batch, rate, seed)
    return {name: (b @ a).detach() for name, (b, a) in factors.items()}


@torch.no_grad()
def activations(model: SmallModel, contexts: Contexts) -> dict[str, tuple[Tensor, Tensor]]:
    """What goes into each matrix and what comes out, (n, in) and (n, out)."""
    seen: dict[str, tuple[Tensor, Tensor]] = {}
    handles = [
        module.register_forward_hook(lambda module, given, out, name=name: seen.update({name: (given[0], out)}))
        for name, module in model.matrices().items()
    ]
    try:
        model(contexts.tokens)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def rotation(source: Tensor, target: Tensor) -> Tensor:
    """R (d_target, d_source) with R R' or R'R the identity that maximises tr(R' Y'X): y ~ R x, rows centred."""
    x, y = (source - source.mean(0)).double(), (target - target.mean(0)).double()
    left, _, right = torch.linalg.svd(y.T @ x, full_matrices=False)
    return (left @ right).float()


def mapped(
    change: Change, source: Mapping[str, tuple[Tensor, Tensor]], target: Mapping[str, tuple[Tensor, Tensor]]
) -> Change:
    """dW_T = R_out dW_S R_in', both maps by Procrustes on the activations of the same contexts."""
    return {
        name: rotation(source[name][1], target[name][1]) @ delta @ rotation(source[name][0], target[name][0]).T
        for name, delta in change.items()
    }


def random_mapped(change: Change, target: SmallModel, *, seed: int) -> Change:
    """The same with random orthogonal maps: a change of the same size that knows nothing of the target."""
    generator = torch.Generator().manual_seed(seed)

    def turn(rows: int, columns: int) -> Tensor:
        size = max(rows, columns)
        return torch.linalg.qr(torch.randn(size, size, generator=generator))[0][:rows, :columns]

    matrices = target.matrices()
    return {
        name: turn(matrices[name].out_features, delta.shape[0])
        @ delta
        @ turn(matrices[name].in_features, delta.shape[1]).T
        for name, delta in change.items()
    }


def copied(change: Change, target: SmallModel) -> Change:
    """The change as it is, cut or filled up with zeros to the target's shapes."""
    found = {}
    for name, module in target.matrices().items():
        delta = torch.zeros_like(module.weight)
        rows, columns = (min(one, other) for one, other in zip(delta.shape, change[name].shape, strict=True))
        delta[:rows, :columns] = change[name][:rows, :columns]
        found[name] = delta
    return found


@dataclass(frozen=True, slots=True)
class Texts:
    """What the small models learn, what the adapters learn, what the maps are read from, and two held-out sets."""

    base: Contexts
    base_test: Contexts
    task: Contexts
    task_test: Contexts
    both: Contexts  # for the maps: half of each kind, none of it trained on


def shipped_contexts(tokenizer: Any, *, mapped_on: int = 4000) -> Texts:
    """Documentation as the base, the Bible as the task; whole passages are held out."""
    from geonb.claims.experiments.words import shipped_texts

    base, task = shipped_texts(("retention",)), shipped_texts(("kjv",))
    cut = int(0.8 * len(base))
    held_base = contexts_of(tokenizer, base[cut:], most=2500 + mapped_on // 2)
    held_task = contexts_of(tokenizer, task[2500:], most=2500 + mapped_on // 2)
    ours, theirs = held_base.part(2500, len(held_base)), held_task.part(2500, len(held_task))
    return Texts(
        base=contexts_of(tokenizer, base[:cut], most=16000),
        base_test=held_base.part(0, 2500),
        task=contexts_of(tokenizer, task[:2500], most=16000),
        task_test=held_task.part(0, 2500),
        both=Contexts(torch.cat([ours.tokens, theirs.tokens]), torch.cat([ours.following, theirs.following])),
    )


@dataclass(slots=True)
class Trained:
    """A small model, the adapter that was trained in it, and its losses on (task, base) without and with that."""

    model: SmallModel
    change: Change
    before: tuple[float, float]
    after: tuple[float, float]

    @classmethod
    def make(cls, texts: Texts, vocabulary: int, width: int, seed: int, *, steps: int, adapter_steps: int) -> Trained:
        """Train the model on the base, then an adapter on the task."""
        model = train_model(SmallModel(vocabulary, width, seed), texts.base, steps=steps, batch=128, seed=seed)
        model.requires_grad_(False)
        change = train_adapter(model, texts.task, steps=adapter_steps, batch=128, seed=seed)
        made = cls(model, change, (0.0, 0.0), (0.0, 0.0))
        made.before, made.after = made.losses(texts, {}), made.losses(texts, change)
        return made

    def losses(self, texts: Texts, change: Mapping[str, Tensor]) -> tuple[float, float]:
        """Held-out losses on the task and on the base with `change` in place."""
        with changed(self.model, change):
            return loss_of(self.model, texts.task_test), loss_of(self.model, texts.base_test)

    def retention(self, losses: tuple[float, float]) -> float:
        """The fall of the task's loss over that of the adapter trained here."""
        return (self.before[0] - losses[0]) / (self.before[0] - self.after[0])

    def drift(self, losses: tuple[float, float], unigram: float) -> float:
        """The share of the gain over a unigram model of the base's text that is undone."""
        return (losses[1] - self.before[1]) / (unigram - self.before[1])


def transfer(source: Trained, target: Trained, texts: Texts, *, seed: int) -> dict[str, tuple[float, float]]:
    """The target's losses (task, base) with the source's adapter moved in three ways, and with its own."""
    there, here = activations(source.model, texts.both), activations(target.model, texts.both)
    return {
        "mapped": target.losses(texts, mapped(source.change, there, here)),
        "random map": target.losses(texts, random_mapped(source.change, target.model, seed=seed)),
        "naive copy": target.losses(texts, copied(source.change, target.model)),
        "trained there": target.after,
    }
