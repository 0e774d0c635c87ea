"""The base of all arms on the operations: learned on operations that no sequence has, kept on disk, taken up where it stopped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from geonb.coordinates.continual.language import SIZES, CharacterModel, encode, theta_of
from geonb.coordinates.continual.learner import core_weights, cores, sides, task_phases
from geonb.coordinates.continual.operation import Operation, Prompt, ask
from geonb.coordinates.model import CoordinateModel
from geonb.coordinates.phases import kernel
from geonb.errors import InputError

BATCH, RATE = 32, 3e-3
_SAVED_EVERY = 250
_VERSION = 1  # raise it when `pretrain` changes what it returns


def pretrain(
    operations: Sequence[Operation],
    *,
    steps: int,
    seed: int,
    batch: int = BATCH,
    rate: float = RATE,
    folder: Path | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> CoordinateModel:
    """The base of all arms: learned on operations outside the sequence, with U and V, cores set back to zero at the end.

    Every other step reads without modulation, so that the base stands alone; the rest under a random coordinate for each
    operation, so that U and V come from training. The predictor is trained beside it by InfoNCE (prompts of one operation
    attract each other under the kernel), and is frozen afterwards. With `folder` the result is kept there under a fingerprint of
    all that it depends on, and what a kill leaves is a state that the next call goes on from. Raises `InputError` for no
    operation.
    """
    if not operations:
        raise InputError(
            "no operations were given to pre-train on; it needs at least one: give some outside the sequence."
        )
    place = None if folder is None else folder / fingerprint(operations, steps, seed, batch, rate)
    run = _Run(operations, steps, seed, batch, rate)
    if place is None or not run.restore(place.with_suffix(".safetensors")):
        while run.step < steps:
            run.advance()
            progress(run.step, steps)
            if place is not None and (run.step % _SAVED_EVERY == 0 or run.step == steps):
                run.save(place.with_suffix(".safetensors"))
    with torch.no_grad():
        for one in cores(run.characters.maps):
            one.zero_()
    return run.model.requires_grad_(False)


def base_of(
    seed: int,
    steps: int,
    *,
    folder: str | Path | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> CoordinateModel:
    """The base of a seed: `pretrain` on the 40 operations kept for it, in `folder`, by default one of geonb's cache."""
    from geonb.coordinates.continual.selection import kept_for_base
    from geonb.models.cache import cache_folder

    place = Path(folder) if folder is not None else cache_folder() / "operation-bases"
    return pretrain(kept_for_base(), steps=steps, seed=seed, folder=place, progress=progress)


def fingerprint(operations: Sequence[Operation], steps: int, seed: int, batch: int, rate: float) -> str:
    """sha256, 32 letters, of everything that decides what `pretrain` returns."""
    told = [_VERSION, SIZES.to_dict(), [one.digest for one in operations], steps, seed, batch, rate]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:32]


class _Run:
    """Pre-training at some step, with all that the next one needs."""

    def __init__(self, operations: Sequence[Operation], steps: int, seed: int, batch: int, rate: float) -> None:
        self.operations, self.steps, self.seed, self.batch = operations, steps, seed, batch
        self.model = CoordinateModel(SIZES, seed=seed)
        self.characters = CharacterModel(self.model)
        self.weights = core_weights(task_phases("random", SIZES.pairs, len(operations), seed))
        self.step = 0
        layers = self.model.uses
        predicting = [
            *self.model.predictor.parameters(),
            *(p for layer in layers for p in layer.directions.parameters()),
        ]
        self.optimiser = torch.optim.Adam(
            [
                {"params": self.characters.base_parameters() + sides(self.characters.maps), "lr": rate},
                {"params": cores(self.characters.maps), "lr": 10 * rate / SIZES.pairs},
                {"params": predicting, "lr": rate},
            ]
        )
        self.rates = [group["lr"] for group in self.optimiser.param_groups]

    def advance(self) -> None:
        """One step; its questions depend on its number alone, so that a run that was stopped goes on as if it had not."""
        left = min(1.0, (self.steps - self.step) / (0.3 * self.steps))
        for group, rate in zip(self.optimiser.param_groups, self.rates, strict=True):
            group["lr"] = rate * left
        rng = np.random.default_rng((self.seed, 11, self.step))
        self.optimiser.zero_grad()
        self._loss(rng).backward()
        self.optimiser.step()
        self.step += 1

    def _loss(self, rng: np.random.Generator) -> Tensor:
        if self.step % 2:
            place = int(rng.integers(len(self.operations)))
            drawn = [ask(self.operations[place], rng, "named", False) for _ in range(self.batch)]
            return self.characters.loss(encode(drawn), self.weights[place])
        half = self.batch // 2
        chosen = rng.choice(len(self.operations), size=half, replace=half > len(self.operations))
        forms = ("named", "paraphrased")
        drawn = [ask(self.operations[i], rng, forms[int(rng.integers(2))], False) for i in chosen for _ in range(2)]
        return self.characters.loss(encode(drawn), None) + contrast(self.model, drawn)

    def save(self, path: Path) -> None:
        """Weights and Adam's moments in one safetensors file, whole or not at all."""
        from safetensors.torch import save

        from geonb.records import atomic_write

        held = {f"model.{name}": value.contiguous() for name, value in self.model.state_dict().items()}
        if self.step < self.steps:
            for number, parameter in enumerate(_parameters(self.optimiser)):
                # a parameter that has had no gradient yet has no moments
                for name, value in self.optimiser.state.get(parameter, {}).items():
                    held[f"adam.{number}.{name}"] = value.contiguous()
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, save({name: one.clone() for name, one in held.items()}, metadata={"step": str(self.step)}))

    def restore(self, path: Path) -> bool:
        """Take up what `path` holds; whether that is the whole run."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="pt") as stored:
                step = int((stored.metadata() or {})["step"])
                tensors = {name: stored.get_tensor(name) for name in stored.keys()}
        except (OSError, SafetensorError, KeyError, ValueError):
            # no file, or one that a full disk left short: the run starts anew and writes it again
            return False
        self.model.load_state_dict({name[6:]: one for name, one in tensors.items() if name.startswith("model.")})
        for number, parameter in enumerate(_parameters(self.optimiser)):
            lead = f"adam.{number}."
            moments = {name[len(lead) :]: one for name, one in tensors.items() if name.startswith(lead)}
            if moments:
                self.optimiser.state[parameter] = moments
        self.step = step
        return step >= self.steps


def _parameters(optimiser: torch.optim.Optimizer) -> list[torch.nn.Parameter]:
    return [one for group in optimiser.param_groups for one in group["params"]]


def contrast(model: CoordinateModel, prompts: Sequence[Prompt], temperature: float = 0.1) -> Tensor:
    """InfoNCE (van den Oord et al. 2018) of the kernel: positives are prompts of the same operation."""
    phases = model.uses[0].directions.phases(theta_of(model, prompts))
    table = kernel(phases[:, None], phases[None]) / temperature
    names = [one.operation for one in prompts]
    same = torch.tensor([[a == b for b in names] for a in names])
    itself = torch.eye(len(names), dtype=torch.bool)
    log = table.masked_fill(itself, -torch.inf).log_softmax(dim=-1)
    return -log[same & ~itself].mean()
