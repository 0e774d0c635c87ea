"""Short trainings on equal terms: one model in memory, adapters put on and taken off, the same examples in the same order."""

from __future__ import annotations

import dataclasses
import functools
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from geonb.adapters.bounded import inject, remove
from geonb.data.batches import batch_at
from geonb.data.collate import pad_token
from geonb.data.example import Example
from geonb.errors import InputError
from geonb.models.checkpoint import Checkpoint
from geonb.models.runtime import TorchRuntime
from geonb.train.controllers.base import TrainedMatrix, leaves
from geonb.train.controllers.registry import make_factors
from geonb.train.objective import Evaluation, chunks, evaluate, forward_losses, to_tensors

Update = Callable[[float, int], Any]  # mean loss of the batch, number of the step from 0


@dataclass(slots=True)
class Workshop:
    """A loaded model and the matrices that geonb would adapt; make one with `Workshop.open`.

    >>> workshop = Workshop.open("embedded", rank=8)                          # doctest: +SKIP
    >>> with workshop.adapted("adamw", seed=0) as matrices: ...               # doctest: +SKIP
    """

    runtime: TorchRuntime
    targets: tuple[Any, ...]
    rank: int
    pad: int
    retention: Sequence[Example]  # held-out text of the base's own kind
    _bases: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def open(cls, model: str | Path, *, rank: int = 8, device: str = "cpu") -> Workshop:
        """Load `model` and plan its targets; every adapter has rank `rank` or the matrix's own where that is smaller.

        Raises `InputError` for what is no causal language model and a rank below 1.
        """
        from geonb.plan import build_plan
        from geonb.plan.inputs import load_inputs

        if rank < 1:
            raise InputError(f"the rank {rank} was given; allowed is any whole number from 1 on.")
        checkpoint = Checkpoint.open(model)
        plan = build_plan(checkpoint, "embedded:chat", max_steps=8, seed=0, calibrate=False, device=device)
        runtime = TorchRuntime.load(checkpoint, device=device)
        # one matrix of each expert layer would be no fair sample, and plain linear maps are what all methods share
        targets = tuple(target for target in plan.chosen() if target.expert is None)
        if not targets:
            raise InputError(f"{model} has no plain linear map that geonb adapts: give another model.")
        pad = pad_token(runtime.tokenizer)
        return cls(runtime=runtime, targets=targets, rank=rank, pad=pad, retention=tuple(load_inputs(plan).retention))

    @property
    def model(self) -> Any:
        return self.runtime.model

    @contextmanager
    def adapted(
        self, kind: str, *, seed: int, budget: float = 1.0, unit: str = "sigma_max"
    ) -> Iterator[tuple[TrainedMatrix, ...]]:
        """Inside the block the model has fresh zero adapters with the factors of the controller `kind`.

        "adamw" gives plain LoRA factors, "mass" a Cayley chart, "mass-layer" Stiefel points, "frank-wolfe" a ball.
        `budget` is the radius of a bounded kind, in units of `unit` ("sigma_max" or "sigma_k") of its matrix.
        """
        factors, matrices = {}, []
        for place, target in enumerate(self.targets):
            rank = min(self.rank, *target.shape)
            radius = budget * getattr(target, unit)
            made = make_factors(
                kind,
                basis=self._basis(target, rank),
                in_features=target.shape[1],
                out_features=target.shape[0],
                rank=rank,
                budget=radius,
                seed=1000 * seed + place,
            ).to(self.runtime.device)
            factors[target.module] = made
            matrices.append(
                TrainedMatrix(
                    name=target.name,
                    factors=made,
                    budget=made.budget,
                    sigma_k=target.sigma_k,
                    sigma_max=target.sigma_max,
                    gap_boundary=target.gap_boundary,
                )
            )
        adapters = inject(self.model, factors)
        try:
            yield tuple(matrices)
        finally:
            remove(self.model, adapters)

    def _basis(self, target: Any, rank: int) -> Tensor:
        from geonb.plan.bases import input_basis

        if target.name not in self._bases:
            ref = next(ref for ref in self.runtime.checkpoint.refs if ref.name == target.name)
            weight = self.runtime.checkpoint.read(ref).double().numpy()
            basis = input_basis(dataclasses.replace(target, rank=rank, basis="tail"), weight, 0)
            self._bases[target.name] = torch.from_numpy(basis.copy()).float()
        return self._bases[target.name].to(self.runtime.device)

    def examples(self, domain: str, seed: int) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
        """The training and the held-out examples that `seed` draws of one of the benchmark's domains."""
        return _examples(self.runtime.tokenizer, domain, seed)

    def loss(self, examples: Sequence[Example], limit: int | None = None) -> float:
        """Mean loss on the first `limit` of `examples`, nats a counted token."""
        return self.evaluation(examples, limit).loss

    def evaluation(self, examples: Sequence[Example], limit: int | None = None) -> Evaluation:
        """Loss, entropy and one loss an example on the first `limit` of `examples`."""
        return evaluate(self.model, examples[:limit], pad=self.pad, device=self.runtime.device, batch_size=32)

    def batch_loss(self, examples: Sequence[Example], rows: Sequence[int]) -> Tensor:
        """Mean loss over the counted tokens of `rows`, nats, differentiable."""
        counted = sum(sum(examples[row].loss_mask) for row in rows)
        batch = to_tensors(examples, rows, self.pad, self.runtime.device)
        return forward_losses(self.model, batch).nll.sum() / counted

    def learn(
        self,
        examples: Sequence[Example],
        matrices: tuple[TrainedMatrix, ...],
        update: Update,
        *,
        steps: int,
        batch: int,
        seed: int,
        first: int = 0,
        penalty: Callable[[], Tensor] | None = None,
    ) -> list[float]:
        """Make `steps` steps from number `first` on and return the loss of each batch, without the penalty.

        Batch number t is the same for every arm with this `seed`. A loss that is not finite ends the run and is the last.
        """
        parameters = list(leaves(matrices).values())
        losses = []
        for step in range(first, first + steps):
            for parameter in parameters:
                parameter.grad = None
            loss = self.batch_loss(
                examples, [int(row) for row in batch_at(step, n_train=len(examples), batch_size=batch, seed=seed)]
            )
            losses.append(float(loss.detach()))
            if not math.isfinite(losses[-1]):
                break
            (loss if penalty is None else loss + penalty()).backward()
            update(losses[-1], step)
        return losses

    def right(self, examples: Sequence[Example], limit: int | None = None) -> list[bool]:
        """Of each example whether greedy decoding would reproduce its counted tokens to the last one."""
        found = []
        for rows in chunks(range(len(examples[:limit])), 64):  # type: ignore[arg-type]
            batch = to_tensors(examples, rows, self.pad, self.runtime.device)
            with torch.no_grad():
                logits = self.model(
                    input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False
                ).logits[:, :-1]
            labels = batch["labels"][:, 1:]
            found += ((logits.argmax(-1) == labels) | (labels == -100)).all(1).tolist()
        return found


@functools.lru_cache(maxsize=16)
def _examples(tokenizer: Any, domain: str, seed: int) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    from geonb.data.dataset import tokenise
    from geonb.data.records import read_records
    from geonb.workbench.benchmark.domains import domain_files

    with tempfile.TemporaryDirectory(prefix="geonb-") as folder:
        first, second = (
            tokenise(read_records(path), tokenizer, context_length=None, max_length=None).examples
            for path in domain_files(domain, seed, Path(folder))
        )
    return tuple(first), tuple(second)


def gradient_steps(matrices: tuple[TrainedMatrix, ...], rate: float) -> Update:
    """Plain gradient descent with a constant rate: no momentum, no clipping, no schedule."""
    parameters = list(leaves(matrices).values())

    @torch.no_grad()
    def update(loss: float, step: int) -> None:
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.sub_(parameter.grad, alpha=rate)

    return update


def clipped(matrices: tuple[TrainedMatrix, ...], update: Update) -> Update:
    """`update`, and after it the scales S of a Cayley chart back in [0, b]."""

    def both(loss: float, step: int) -> Any:
        report = update(loss, step)
        for matrix in matrices:
            matrix.factors.clip()  # type: ignore[operator]
        return report

    return both


@dataclass(frozen=True, slots=True)
class Searched:
    """A search for the best learning rate: every rate that was tried with its loss, infinite where it diverged."""

    losses: Mapping[float, float]

    @property
    def rate(self) -> float:
        """The rate of the lowest loss."""
        return min(self.losses, key=lambda rate: self.losses[rate])

    @property
    def closed(self) -> bool:
        """Whether a worse rate was seen on both sides of the best."""
        return min(self.losses) < self.rate < max(self.losses)


def search_rate(
    loss_of: Callable[[float], float], start: Sequence[float], *, factor: float = 10**0.5, most: int = 9
) -> Searched:
    """Try the rates of `start`, then one more beyond whichever edge is best, until it has a worse neighbour on both sides.

    At most `most` rates are tried; a loss that is not finite is infinitely bad.

    >>> search_rate(lambda rate: (rate - 4) ** 2, (1.0, 2.0), factor=2).rate
    4.0
    """
    if len(start) < 2 or factor <= 1:
        raise InputError(
            f"a search was given {len(start)} rates and the factor {factor:g}; allowed are 2 or more, above 1."
        )
    losses: dict[float, float] = {}

    def look(rate: float) -> None:
        value = loss_of(rate)
        losses[rate] = value if math.isfinite(value) else math.inf

    for rate in start:
        look(rate)
    while len(losses) < most and not (found := Searched(losses)).closed:
        look(found.rate * factor if found.rate == max(losses) else found.rate / factor)
    return Searched(dict(sorted(losses.items())))
