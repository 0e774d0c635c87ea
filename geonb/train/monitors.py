"""The optional watchers of a run: entropy regulariser, intrinsic dimension and topology of the probes' states."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from geonb.plan.plan import Plan
from geonb.train.objective import Losses, to_tensors

if TYPE_CHECKING:
    from geonb.train.setup import Equipment


class Monitors:
    """`--entropy-reg`, `--dim-monitor` and `--topo-monitor`, each off unless the plan's options name it."""

    def __init__(self, plan: Plan, equipment: Equipment) -> None:
        self.entropy_reg = bool(plan.options.get("entropy_reg", False))
        self.dimension = bool(plan.options.get("dim_monitor", False))
        self.topology = bool(plan.options.get("topo_monitor", False))
        self.equipment = equipment
        self._entropy: float | None = None
        self._persistence: float | None = None

    def begin(self, entropy: float) -> None:
        """Take the base model's next-token entropy on the evaluation set as the floor that is kept."""
        self._entropy = entropy

    def entropy_penalty(self, losses: Losses, tokens: int) -> torch.Tensor | float:
        """A hinge in nats: how far the batch's mean entropy lies below half of the base model's; 0 above it.

        Fine-tuning rightly makes a model surer, so not every fall is punished: half the base model's entropy is the
        floor (convention), and one nat below it costs as much as one nat of loss.
        """
        if not self.entropy_reg or self._entropy is None:
            return 0.0
        mean = losses.entropy.sum() / losses.count.sum().clamp_min(1)
        share = losses.count.sum() / tokens
        return share * torch.relu(0.5 * self._entropy - mean)

    def measure(self) -> dict[str, float | None]:
        """Dimension (TwoNN) and total 0-dimensional persistence of the last hidden states, where asked for."""
        found: dict[str, float | None] = {}
        if not (self.dimension or self.topology):
            return found
        cloud = self._cloud()
        if self.dimension:
            from geonb.geometry.dimension import two_nn

            found["dimension"] = float(two_nn(cloud))
        if self.topology:
            from geonb.geometry.dimension import h0_persistence

            total = float(np.sum(h0_persistence(cloud)))
            self._persistence = self._persistence or total
            found["topology"] = total / self._persistence
        return found

    @torch.no_grad()
    def _cloud(self) -> np.ndarray:
        """One point per evaluation example: its mean last hidden state."""
        equipment, points = self.equipment, []
        for index in range(len(equipment.evaluation)):
            batch = to_tensors(equipment.evaluation, [index], equipment.pad, equipment.device)
            output = equipment.model(
                input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], output_hidden_states=True
            )
            points.append(output.hidden_states[-1][0].mean(0).double().cpu().numpy())
        return np.stack(points)

    def state(self) -> dict[str, Any]:
        return {"entropy": self._entropy, "persistence": self._persistence}

    def restore(self, state: dict[str, Any]) -> None:
        self._entropy, self._persistence = state["entropy"], state["persistence"]
