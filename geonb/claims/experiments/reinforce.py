"""REINFORCE on a reward that can be checked, and the angle between its gradient and that of cross-entropy."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from geonb.claims.experiments.short_training import Update, Workshop
from geonb.data.example import Example
from geonb.train.controllers.base import TrainedMatrix, leaves
from geonb.train.objective import forward_losses, to_tensors


@dataclass(frozen=True, slots=True)
class Sampled:
    """One sampled answer a row: tokens (rows, new), which of them count (up to the end token), and the reward in {0, 1}."""

    tokens: Tensor
    counted: Tensor
    reward: Tensor


@torch.no_grad()
def sample_answers(
    workshop: Workshop, examples: Sequence[Example], *, generator: torch.Generator, longest: int = 6
) -> Sampled:
    """Draw one answer for each example at temperature 1; right is what agrees to the last token, end included."""
    end = workshop.runtime.tokenizer.eos_token_id
    ids, mask = padded([example.prompt_ids for example in examples], workshop.pad)
    drawn = []
    past, current = None, ids
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    for _ in range(longest):
        output = workshop.model(
            input_ids=current, attention_mask=mask, position_ids=positions, past_key_values=past, use_cache=True
        )
        past = output.past_key_values
        current = torch.multinomial(output.logits[:, -1].float().softmax(-1), 1, generator=generator)
        drawn.append(current)
        mask = torch.cat([mask, torch.ones_like(current)], 1)
        positions = positions[:, -1:] + 1
    tokens = torch.cat(drawn, 1)
    ended = (tokens == end).cumsum(1)
    counted = (ended == 0) | ((tokens == end) & (ended == 1))
    rewards = []
    for row, keep, example in zip(tokens, counted, examples, strict=True):
        truth = [token for token, counts in zip(example.input_ids, example.loss_mask, strict=True) if counts]
        rewards.append(float(row[keep].tolist() == truth))
    return Sampled(tokens, counted, torch.tensor(rewards))


def reinforce_loss(workshop: Workshop, examples: Sequence[Example], sampled: Sampled, advantage: Tensor) -> Tensor:
    """- mean over answers of (advantage x log-probability of the answer): its gradient is minus that of the mean reward.

    `advantage` is (answers,), or several of them (k, answers) for as many losses from one pass.
    """
    ids, mask = padded([example.prompt_ids for example in examples], workshop.pad)
    ids, mask = torch.cat([ids, sampled.tokens], 1), torch.cat([mask, sampled.counted.long()], 1)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    logits = workshop.model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False).logits
    new = sampled.tokens.shape[1]
    logarithms = logits[:, -new - 1 : -1].float().log_softmax(-1)
    chosen = logarithms.gather(2, sampled.tokens[:, :, None])[:, :, 0]
    return -(advantage * (chosen * sampled.counted).sum(1)).mean(-1)


def padded(prompts: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Prompts padded on the left, and the mask of what is no padding: (rows, longest)."""
    longest = max(map(len, prompts))
    ids = torch.full((len(prompts), longest), pad)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(prompt)
        mask[row, longest - len(prompt) :] = 1
    return ids, mask


def flat_gradient(loss: Tensor, matrices: tuple[TrainedMatrix, ...], *, again: bool = False) -> Tensor:
    """The gradient of `loss` over every trained number, as one double-precision vector; `again` where more is asked of it."""
    parts = torch.autograd.grad(loss, list(leaves(matrices).values()), retain_graph=again)
    return torch.cat([part.reshape(-1).double() for part in parts])


@dataclass(frozen=True, slots=True)
class Angles:
    """What the steps of one run of REINFORCE showed of its gradient's angle to that of cross-entropy.

    `raw` has, by pair of gradients, one cosine a step: "rl-ce" of samples and cross-entropy on the same questions, "ce-ce"
    on disjoint ones, "shuffled-ce" with the rewards in another order. `cross`, `rl` and `ce` are sums over the steps of
    <g_RL, g_CE'>, <g_RL, g_RL'> and <g_CE, g_CE'> over disjoint questions, with the expectation over answers taken exactly;
    `along` is the sum of <g_sampled, g_RL'>, which is that of `rl` but for noise where the samples estimate it.
    """

    raw: dict[str, list[float]]
    cross: float
    rl: float
    ce: float
    along: float
    size: int  # D, trained numbers
    rewards: tuple[float, ...]

    @property
    def cosine(self) -> float:
        """The cosine of the expected gradients; nan where one of them is not resolved from its noise."""
        return self.cross / (self.rl * self.ce) ** 0.5 if self.rl > 0 and self.ce > 0 else float("nan")


def balanced(examples: Sequence[Example], count: int, rng: np.random.Generator) -> list[Example]:
    """`count` examples without repetition, the groups by turns, so that any run of them has the groups in equal parts.

    Without it the share of each kind in a handful of questions is most of the noise of a gradient.
    """
    order = rng.permutation(len(examples))
    groups: dict[str | None, list[Example]] = {}
    for row in order:
        groups.setdefault(examples[int(row)].group, []).append(examples[int(row)])
    rounds = itertools.zip_longest(*(groups[name] for name in sorted(groups, key=str)))
    return [one for turn in rounds for one in turn if one is not None][:count]


def right_probability(workshop: Workshop, examples: Sequence[Example]) -> Tensor:
    """log p of each example's counted tokens, differentiable: (examples,), nats."""
    batch = to_tensors(examples, range(len(examples)), workshop.pad, workshop.runtime.device)
    return -forward_losses(workshop.model, batch).nll


def angles(
    workshop: Workshop,
    matrices: tuple[TrainedMatrix, ...],
    examples: Sequence[Example],
    *,
    steps: int,
    questions: int,
    answers: int,
    exact: int,
    seed: int,
    update: Update,
) -> Angles:
    """Follow REINFORCE for `steps` steps of `update` on `questions` x `answers` samples, and measure at each of them.

    The gradients that noise must not bias are taken on two disjoint halves of `exact` questions each. With one right
    answer y* the mean reward is p(y*), so that the expected gradient of REINFORCE is that of p(y*): no sample is needed.
    """
    rng, generator = np.random.default_rng([seed, 7]), torch.Generator().manual_seed(seed)
    raw: dict[str, list[float]] = {"rl-ce": [], "ce-ce": [], "shuffled-ce": []}
    cross = rl = ce = along = 0.0
    rewards = []
    parameters = list(leaves(matrices).values())
    for step in range(steps):
        chosen = balanced(examples, 2 * exact, rng)
        g_rl, g_ce = [], []
        for half in (chosen[:exact], chosen[exact:]):
            logarithm = right_probability(workshop, half)
            g_rl.append(flat_gradient(-logarithm.exp().mean(), matrices, again=True))
            g_ce.append(flat_gradient(-logarithm.mean(), matrices))
        asked = [example for example in chosen[:questions] for _ in range(answers)]
        sampled = sample_answers(workshop, asked, generator=generator)
        advantage = sampled.reward - sampled.reward.mean()
        order = torch.from_numpy(rng.permutation(len(asked)))
        both = reinforce_loss(workshop, asked, sampled, torch.stack([advantage, advantage[order]]))
        g_sampled = flat_gradient(both[0], matrices, again=True)
        g_shuffled = flat_gradient(both[1], matrices)
        raw["rl-ce"].append(_cosine(g_sampled, g_ce[0]))
        raw["ce-ce"].append(_cosine(g_ce[0], g_ce[1]))
        raw["shuffled-ce"].append(_cosine(g_shuffled, g_ce[0]))
        cross += float(g_rl[0] @ g_ce[1] + g_rl[1] @ g_ce[0]) / 2
        along += float(g_sampled @ g_rl[1])
        rl += float(g_rl[0] @ g_rl[1])
        ce += float(g_ce[0] @ g_ce[1])
        rewards.append(float(sampled.reward.mean()))
        _step(parameters, g_sampled, update, step)
    return Angles(raw, cross, rl, ce, along, sum(p.numel() for p in parameters), tuple(rewards))


def follow(
    workshop: Workshop,
    matrices: tuple[TrainedMatrix, ...],
    examples: Sequence[Example],
    objective: str,
    *,
    steps: int,
    questions: int,
    answers: int,
    seed: int,
    update: Update,
) -> list[float]:
    """Make `steps` steps on the objective "reinforce", "shuffled" or "cross-entropy" and return the mean rewards."""
    rng, generator = np.random.default_rng([seed, 7]), torch.Generator().manual_seed(seed)
    parameters, rewards = list(leaves(matrices).values()), []
    for step in range(steps):
        asked = balanced(examples, questions, rng)
        if objective == "cross-entropy":
            loss = workshop.batch_loss(asked, range(len(asked)))
        else:
            asked = [example for example in asked for _ in range(answers)]
            sampled = sample_answers(workshop, asked, generator=generator)
            advantage = sampled.reward - sampled.reward.mean()
            if objective == "shuffled":
                advantage = advantage[torch.from_numpy(rng.permutation(len(asked)))]
            loss = reinforce_loss(workshop, asked, sampled, advantage)
            rewards.append(float(sampled.reward.mean()))
        _step(parameters, flat_gradient(loss, matrices), update, step)
    return rewards


def _step(parameters: Sequence[Tensor], gradient: Tensor, update: Update, step: int) -> None:
    place = 0
    for parameter in parameters:
        parameter.grad = gradient[place : place + parameter.numel()].reshape(parameter.shape).to(parameter.dtype)
        place += parameter.numel()
    update(0.0, step)


def _cosine(first: Tensor, second: Tensor) -> float:
    norms = float(first.norm() * second.norm())
    return float(first @ second) / norms if norms > 0 else 0.0
