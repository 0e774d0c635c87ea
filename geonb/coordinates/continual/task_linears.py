"""What a task adds to a linear map besides cores: a scale and shift, signs of its inputs, soft weights of LoRAs, or their sum."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from geonb.coordinates.continual.learner import TaskFactors


class FilmLinear(nn.Module):
    """FiLM (Perez et al. 2018): y = (1 + scale) W x + shift, with scale and shift (out,) of one task and 0 at the start."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear
        self.scale = nn.Parameter(torch.zeros(linear.out_features))
        self.shift = nn.Parameter(torch.zeros(linear.out_features))

    @property
    def weight(self) -> Tensor:
        """The weight of the map that is scaled."""
        return self.linear.weight

    def forward(self, x: Tensor) -> Tensor:
        return (1 + self.scale) * self.linear(x) + self.shift


class SuperposedLinear(nn.Module):
    """Parameter superposition (Cheung et al. 2019): y = W x + D (c * x); D is shared by all tasks, the signs c are one task's.

    D (out, in) starts at zero, so that the frozen base is what every task starts from; the tasks' changes D_k diag(c_k) lie in
    one matrix and interfere as <c_j, c_k> / in does.
    """

    def __init__(self, linear: nn.Linear, shared: nn.Parameter, signs: Tensor) -> None:
        super().__init__()
        self.linear, self.shared = linear, shared
        self.register_buffer("signs", signs)
        self.signs: Tensor

    @property
    def weight(self) -> Tensor:
        """The weight of the map that is changed."""
        return self.linear.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + functional.linear(x * self.signs, self.shared)


def contexts(tasks: int, inputs: int, generator: torch.Generator) -> Tensor:
    """Random signs (tasks, inputs) of +-1, the binary contexts of Cheung et al. 2019.

    >>> contexts(2, 3, torch.Generator().manual_seed(0)).abs().tolist()
    [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
    """
    return torch.randint(0, 2, (tasks, inputs), generator=generator).float() * 2 - 1


class MixtureFactors(TaskFactors):
    """Several LoRAs whose soft weights a router reads off every input: y = sum_e softmax(R x)_e U_e V_e^T x.

    MoLORA (Zadouri et al. 2023) with experts of rank 1. It is told no task: the router and all experts are shared by all of them.
    """

    def __init__(self, inputs: int, outputs: int, experts: int, generator: torch.Generator) -> None:
        super().__init__(inputs, outputs, 1, 1, generator)
        # experts are not orthogonal to each other: there may be more of them than the map has outputs
        self.left = nn.Parameter(torch.randn(outputs, experts, generator=generator) / outputs**0.5)
        self.right = nn.Parameter(torch.randn(inputs, experts, generator=generator) / inputs**0.5)
        self.cores = nn.Parameter(torch.eye(experts)[None])
        self.router = nn.Parameter(torch.zeros(inputs, experts))

    def change(self, x: Tensor, core: Tensor) -> Tensor:
        mixed = (x @ self.right) * (x @ self.router).softmax(dim=-1)
        return mixed @ core[0, 0].T @ self.left.T


class StackedFactors(TaskFactors):
    """O-LoRA (Wang et al. 2023): the LoRAs of all tasks added up, y = sum_k U_k V_k^T x, of which one at a time is trained.

    It is told no task. `overlap` keeps a task's V out of the directions that earlier ones read, whose U and V stand still.
    """

    def __init__(self, inputs: int, outputs: int, tasks: int, rank: int, generator: torch.Generator) -> None:
        super().__init__(inputs, outputs, 1, 1, generator)
        drawn = [TaskFactors(inputs, outputs, 1, rank, generator).right.detach() for _ in range(tasks)]
        self.left = nn.Parameter(torch.zeros(tasks, outputs, rank))
        self.right = nn.Parameter(torch.stack(drawn))
        self.learning = 0  # the task whose LoRA moves; those after it are still zero

    def change(self, x: Tensor, core: Tensor) -> Tensor:
        left, right = (_up_to(one, self.learning) for one in (self.left, self.right))
        return (x @ right) @ left.T

    def small(self, core: Tensor) -> Tensor:
        """||U||_F ||V||_F as a core of one number: a bound of the norm, where no budget asks for more."""
        return core * self.left.norm() * self.right.norm()

    def overlap(self) -> Tensor:
        """sum_j<k ||V_j^T V_k||_F^2 of the task k that is learned: 0 where it reads no direction of an earlier one."""
        earlier, own = self.right[: self.learning].detach(), self.right[self.learning]
        return (earlier.mT @ own).square().sum()


def _up_to(parts: Tensor, place: int) -> Tensor:
    """Parts (tasks, n, rank) up to `place` side by side, (n, (place + 1) rank); the gradient reaches the last alone."""
    both = torch.cat([parts[:place].detach(), parts[place : place + 1]])
    return both.transpose(0, 1).flatten(1)
