"""From a plan to everything that a run holds: model, examples, adapters, controller, retention text and probes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from geonb.adapters.experts import Adapter, inject, save_adapter
from geonb.data.batches import batch_at
from geonb.data.collate import pad_token
from geonb.data.example import Example
from geonb.errors import InputError
from geonb.models.checkpoint import Checkpoint
from geonb.models.runtime import TorchRuntime
from geonb.plan.bases import input_basis
from geonb.plan.calibrate import gradient_bases
from geonb.plan.inputs import load_inputs
from geonb.plan.plan import Plan
from geonb.records import atomic_write
from geonb.train.controllers.base import Controller, TrainedMatrix
from geonb.train.controllers.registry import make_controller, make_factors
from geonb.train.objective import Evaluation, evaluate

# probes continue this many prompts; sixteen keep an evaluation below a second on the embedded model (convention)
N_PROBES = 16


@dataclass(slots=True)
class Equipment:
    """What a run works with; built once by `equip`, never changed except through the factors."""

    plan: Plan
    checkpoint: Checkpoint
    runtime: TorchRuntime
    training: Sequence[Example]
    evaluation: Sequence[Example]
    retention: Sequence[Example]
    prompts: list[tuple[int, ...]]
    adapters: dict[str, Adapter]
    matrices: tuple[TrainedMatrix, ...]
    controller: Controller
    pad: int

    @property
    def model(self) -> nn.Module:
        return self.runtime.model

    @property
    def device(self) -> torch.device:
        return self.runtime.device

    def batch(self, step: int) -> list[int]:
        """The rows of the training set that step number `step` (from 0) uses."""
        return [
            int(row)
            for row in batch_at(
                step, n_train=len(self.training), batch_size=int(self.plan.batch["size"]), seed=self.plan.seed
            )
        ]

    def counted_tokens(self, row: int) -> int:
        """How many tokens of one training example the loss counts."""
        return sum(self.training[row].loss_mask)

    def evaluate_retention(self, *, limit: int | None = None) -> Evaluation | None:
        """Loss on held-out base text (the first `limit` of them), or None where the run has none."""
        if not self.retention:
            return None
        return evaluate(self.model, self.retention[:limit], pad=self.pad, device=self.device)

    def save(self, folder: Path, products: Mapping[str, tuple[Tensor, Tensor]]) -> Path:
        """Write `products` as a PEFT adapter of this run's base model, with its provenance in the header."""
        plan = self.plan
        transposed = any(type(adapter.base).__name__ == "Conv1D" for adapter in self.adapters.values())
        return save_adapter(
            folder,
            products,
            self.adapters,
            base=plan.model["source"],
            transposed=transposed,
            notes={
                "model_digest": plan.model["digest"],
                "data_digest": plan.data["digest"],
                "seed": str(plan.seed),
                "plan_digest": hashlib.sha256(plan.to_json().encode()).hexdigest(),
                "controller": plan.controller["name"],
            },
        )


def _equal_prompts(examples: Sequence[Example]) -> list[tuple[int, ...]]:
    """The first probes' prompts, cut to the shortest of them: prompts of one length run as one batch."""
    prompts = [example.prompt_ids for example in examples[:N_PROBES]]
    shortest = min(len(prompt) for prompt in prompts)
    return [prompt[:shortest] for prompt in prompts]


def _bases(plan: Plan, checkpoint: Checkpoint, path: Path | None, runtime, training) -> dict[str, Tensor]:
    """Every target's basis, read back from `path` when a resumed run left it there (the same bytes, and no work)."""
    from safetensors.torch import save

    if path is not None and path.is_file():
        return _read_bases(plan, path)
    refs = {ref.name: ref for ref in checkpoint.refs}
    chosen = plan.chosen()
    of_gradient = [target for target in chosen if target.basis == "gradient"]
    measured = gradient_bases(runtime, training, of_gradient, seed=plan.seed) if of_gradient else {}
    found = {}
    for target in chosen:
        basis = measured.get(target.name)
        if basis is None:
            basis = input_basis(target, checkpoint.read(refs[target.name]).double().numpy(), plan.seed)
        found[target.name] = torch.from_numpy(np.ascontiguousarray(basis, dtype=np.float32))
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, save(found))
    return found


def _read_bases(plan: Plan, path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    again = "start the run again with --overwrite."
    try:
        found = load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} cannot be read ({error}): {again}") from None
    for target in plan.chosen():
        basis = found.get(target.name)
        if basis is None or basis.ndim != 2 or basis.shape[1] != target.shape[1] or basis.dtype != torch.float32:
            raise InputError(f"{path} holds no basis of {target.name} that fits its plan: {again}")
    return found


def equip(plan: Plan, *, device: str = "auto", bases_path: Path | None = None) -> Equipment:
    """Load what `plan` names, check that it is still the same bytes, and put zero adapters into the model."""
    inputs = load_inputs(plan)
    checkpoint = inputs.checkpoint
    if checkpoint.digest != plan.model["digest"]:
        raise InputError(f"the weights of {plan.model['source']} changed since the plan was made: make a new plan.")
    if inputs.data_digest != plan.data["digest"]:
        raise InputError(f"the data {plan.data['path']} changed since the plan was made: make a new plan.")
    runtime = TorchRuntime.load(checkpoint, device=device)
    pad = pad_token(runtime.tokenizer)

    bases = _bases(plan, checkpoint, bases_path, runtime, inputs.training)
    factors, matrices = {}, []
    for target in plan.chosen():
        made = make_factors(
            plan.controller["name"],
            basis=bases[target.name].to(runtime.device),
            in_features=target.shape[1],
            out_features=target.shape[0],
            rank=target.rank,
            budget=target.budget,
            sides=plan.controller.get("sides", "one"),
            seed=plan.seed,
        ).to(runtime.device)
        factors[target.name if target.expert is not None else target.module] = made
        matrices.append(
            TrainedMatrix(
                name=target.name,
                factors=made,
                budget=target.budget,
                sigma_k=target.sigma_k,
                sigma_max=target.sigma_max,
                gap_boundary=target.gap_boundary,
            )
        )
    adapters = inject(runtime.model, factors)
    batch_size = int(plan.batch["size"])
    controller = make_controller(
        plan.controller["name"],
        tuple(matrices),
        horizon=int(plan.horizon["steps"]),
        batches_per_epoch=-(-len(inputs.training) // batch_size),
        # only a baseline has a rate to be given
        **({"rate": plan.controller["rate"]} if "rate" in plan.controller else {}),
    )
    prompts = _equal_prompts(inputs.retention or inputs.evaluation)
    return Equipment(
        plan=plan,
        checkpoint=checkpoint,
        runtime=runtime,
        training=inputs.training,
        evaluation=inputs.evaluation,
        retention=inputs.retention,
        prompts=prompts,
        adapters=adapters,
        matrices=tuple(matrices),
        controller=controller,
        pad=pad,
    )
