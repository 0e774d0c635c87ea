"""A small regression problem that every controller can move: bounded linear maps fitted to shifted ones."""

import pytest
import torch
from torch import nn

from geonb.adapters.bounded import BoundedAdapter
from geonb.train.controllers.base import TrainedMatrix, leaves
from geonb.train.controllers.registry import make_controller, make_factors


class Problem:
    """Linear maps of the given shapes, each with an adapter, and the squared distance to other linear maps' outputs."""

    def __init__(
        self,
        name,
        *,
        seed=0,
        shapes=((7, 9), (6, 5)),
        rank=3,
        budget=0.8,
        sides="one",
        horizon=20,
        scale=1.0,
        dtype=torch.float32,
        **options,
    ):
        generator = torch.Generator().manual_seed(seed)
        self.scale, self.matrices, self.adapters, self.inputs, self.targets = scale, [], [], [], []
        for index, (rows, columns) in enumerate(shapes):
            base = nn.Linear(columns, rows, bias=False, dtype=dtype)
            base.weight.data.copy_(torch.randn(rows, columns, generator=generator) / columns**0.5)
            base.requires_grad_(False)
            values = torch.linalg.svdvals(base.weight.double()).tolist()
            basis = torch.linalg.qr(torch.randn(columns, rank, generator=generator))[0].mT.contiguous()
            factors = make_factors(
                name,
                basis=basis,
                in_features=columns,
                out_features=rows,
                rank=rank,
                budget=budget,
                sides=sides,
                seed=seed + index,
            )
            self.matrices.append(
                TrainedMatrix(
                    name=f"layer.{index}",
                    factors=factors,
                    budget=budget,
                    sigma_k=values[1],
                    sigma_max=values[0],
                    gap_boundary=values[1] - values[2],
                )
            )
            self.adapters.append(BoundedAdapter(base, factors))
            hidden = torch.randn(16, columns, generator=generator)
            shift = torch.randn(rows, columns, generator=generator)
            self.inputs.append(hidden.to(dtype))
            self.targets.append((hidden @ (base.weight.float() + shift).mT).to(dtype))
        self.matrices = tuple(self.matrices)
        self.controller = make_controller(name, self.matrices, horizon=horizon, batches_per_epoch=4, **options)

    def loss(self):
        return self.scale * sum(
            (adapter(hidden).float() - target.float()).square().mean()
            for adapter, hidden, target in zip(self.adapters, self.inputs, self.targets, strict=True)
        )

    @torch.no_grad()
    def value(self):
        return float(self.loss())

    def step(self, index):
        for leaf in self.leaves().values():
            leaf.grad = None
        loss = self.loss()
        loss.backward()
        return self.controller.step(float(loss.detach()), index)

    def leaves(self):
        return leaves(self.matrices)

    def changes(self):
        """dW of every matrix, float64."""
        with torch.no_grad():
            return [left.double() @ right.double() for left, right in (m.factors() for m in self.matrices)]


@pytest.fixture(scope="session")
def make_problem():
    return Problem
