"""Lower precision of the large products in training: casts, and for float16 a scale that keeps gradients from vanishing."""

from __future__ import annotations

import torch
from torch import Tensor

from geonb.coordinates.model import CoordinateModel

_KINDS = {"bfloat16": torch.bfloat16, "float16": torch.float16}


class Precision:
    """Casts for the forward pass and, for float16 alone, a gradient scaler (Micikevicius et al. 2018).

    bfloat16 has the range of float32 and needs no scale. The scale is part of a run's state: with another one a resumed run would
    leave out other steps.
    """

    def __init__(self, model: CoordinateModel, name: str) -> None:
        self.kind = _KINDS.get(name)
        self.device = model.embedding.weight.device.type
        self.scaler = torch.amp.GradScaler(self.device, init_scale=2.0**12, enabled=name == "float16")
        # the scaler looks at an optimiser's gradients; this one holds all of them and moves nothing
        self._all = torch.optim.SGD(model.parameters(), lr=0.0)

    def cast(self) -> torch.autocast:
        """The context of a forward pass."""
        return torch.autocast(self.device, dtype=self.kind, enabled=self.kind is not None)

    def backward(self, loss: Tensor) -> bool:
        """Leave the gradients of `loss` in the parameters; False where they overflowed, and the step is to be left out."""
        self.scaler.scale(loss).backward()
        if not self.scaler.is_enabled():
            return True
        self.scaler.unscale_(self._all)
        before = self.scaler.get_scale()
        self.scaler.update()
        return self.scaler.get_scale() >= before

    def state(self) -> dict[str, Tensor]:
        """The scale and how long it has held."""
        if not self.scaler.is_enabled():
            return {}
        kept = self.scaler.state_dict()
        return {"precision": torch.tensor([kept["scale"], kept["_growth_tracker"]], dtype=torch.float64)}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take up what `state` gave."""
        if self.scaler.is_enabled():
            scale, tracker = state["precision"].tolist()
            self.scaler.load_state_dict({**self.scaler.state_dict(), "scale": scale, "_growth_tracker": int(tracker)})
