"""A Llama-style language model whose q, k, v and gate matrices are functions of a coordinate theta.

RMSNorm (Zhang and Sennrich 2019), rotary positions (Su et al. 2021), grouped queries (Ainslie et al. 2023), SwiGLU (Shazeer
2020); modulation by `ModulatedLinear`. Three modes of theta in one code path: `token` (theta_t from tokens <= t, the default),
`sequence` (one for the whole text) and `segment` (one a segment, by an index).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from geonb.coordinates.cache import KeyValueCache
from geonb.coordinates.configuration import TARGETS, Configuration
from geonb.coordinates.known import Known
from geonb.coordinates.layer_cores import bounded_cores, changed, together
from geonb.coordinates.modulated_linear import ModulatedLinear
from geonb.coordinates.phases import Directions, weights_of
from geonb.coordinates.predictor import Predictor, running_mean
from geonb.errors import InputError

MODES = ("token", "sequence", "segment")


@dataclass(slots=True)
class Reading:
    """What a forward pass gives: logits (batch, tokens, vocabulary) and the theta of each slot (batch, slots, coordinates)."""

    logits: Tensor
    theta: Tensor | None
    phases: list[Tensor]  # per layer (batch, slots, pairs)


class Block(nn.Module):
    """The matrices of one block; norms and modulation belong to the layer that uses it."""

    def __init__(self, sizes: Configuration, generator: torch.Generator) -> None:
        super().__init__()
        heads, width = sizes.heads * sizes.head_width, sizes.width
        made = {name: _linear(a, b, generator) for name, (a, b) in sizes.shapes.items()}
        self.q, self.k, self.v, self.gate = (made[name] for name in TARGETS)
        # residual branches start small, so that depth does not blow the stream up (Radford et al. 2019)
        self.o = _linear(heads, width, generator, scale=(2 * sizes.layers) ** -0.5)
        self.up = _linear(width, sizes.feed_forward, generator)
        self.down = _linear(sizes.feed_forward, width, generator, scale=(2 * sizes.layers) ** -0.5)


class Layer(nn.Module):
    """One use of a block: attention and SwiGLU under the weights phi(theta) of this layer's directions."""

    block: Block

    def __init__(self, sizes: Configuration, block: Block, generator: torch.Generator) -> None:
        super().__init__()
        self.sizes = sizes
        # the block may be another layer's too, and is registered by the model
        object.__setattr__(self, "block", block)
        self.attention_norm = nn.RMSNorm(sizes.width, eps=sizes.norm_epsilon)
        self.feed_forward_norm = nn.RMSNorm(sizes.width, eps=sizes.norm_epsilon)
        self.directions = Directions(
            sizes.pairs, sizes.coordinates, scale=sizes.direction_scale, generator=generator
        )  # fmt: skip
        self.changes: dict[str, ModulatedLinear] = {}
        for name in TARGETS:
            linear = ModulatedLinear(
                getattr(block, name),
                2 * sizes.pairs,
                sizes.rank,
                budget=sizes.budget,
                factors=sizes.factors,
                generator=generator,
            )
            del linear.base
            object.__setattr__(linear, "base", getattr(block, name))
            self.changes[name] = linear
        self.modulated = nn.ModuleDict(self.changes)
        self._known = Known()

    def forward(
        self,
        x: Tensor,
        weights: Tensor | None,
        slots: Tensor | None,
        rotation: tuple[Tensor, Tensor],
        cache,
        number: int,
        cores: Tensor | None = None,
    ) -> Tensor:
        """x (batch, tokens, width) one layer on; `cores` (batch, slots, matrices, r, r), between bases, where they are known."""
        linears, orthonormal = list(self.changes.values()), cores is not None
        if weights is not None and cores is None and together(linears):
            cores = bounded_cores([linears], [weights], self._known)[0]
        sizes, normed = self.sizes, self.attention_norm(x)
        mapped = self._mapped(TARGETS[:3], normed, weights, slots, cores, orthonormal)
        q, k, v = (_heads(one, sizes.head_width) for one in mapped)
        q, k = rotate(q, rotation), rotate(k, rotation)
        if cache is not None:
            k, v = cache.extend(number, k, v)
        tokens, seen = q.shape[2], k.shape[2]
        mask = None
        if tokens > 1 and seen > tokens:
            mask = torch.ones(tokens, seen, dtype=torch.bool, device=x.device).tril(seen - tokens)
        mixed = functional.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None and tokens > 1, enable_gqa=True
        )
        x = x + self.block.o(mixed.transpose(1, 2).flatten(2))
        normed = self.feed_forward_norm(x)
        (gate,) = self._mapped(TARGETS[3:], normed, weights, slots, cores, orthonormal)
        return x + self.block.down(functional.silu(gate) * self.block.up(normed))

    def _mapped(
        self,
        names,
        x: Tensor,
        weights: Tensor | None,
        slots: Tensor | None,
        cores: Tensor | None,
        orthonormal: bool,
    ) -> list[Tensor]:
        linears = [self.changes[name] for name in names]
        if weights is None or cores is None:
            return [one(x, weights, slots) for one in linears]
        first = TARGETS.index(names[0])
        chosen = cores[:, :, first : first + len(names)]
        return changed(linears, x, chosen, slots, self._known, orthonormal=orthonormal)


class CoordinateModel(nn.Module):
    """The whole model; `forward(tokens)` reads (batch, tokens) and gives a `Reading`.

    >>> from geonb.coordinates.configuration import preset
    >>> model = CoordinateModel(preset("tiny"), seed=0)
    >>> model(torch.tensor([[1, 2, 3]])).logits.shape
    torch.Size([1, 3, 512])
    """

    def __init__(self, sizes: Configuration, *, seed: int = 0) -> None:
        super().__init__()
        self.sizes = sizes
        generator = torch.Generator().manual_seed(seed)
        self.embedding = nn.Embedding(sizes.vocabulary, sizes.width)
        nn.init.normal_(self.embedding.weight, std=0.02, generator=generator)
        blocks = [Block(sizes, generator) for _ in range(sizes.distinct_blocks)]
        uses = sizes.layers // sizes.distinct_blocks
        self.uses = [Layer(sizes, blocks[number // uses], generator) for number in range(sizes.layers)]
        # the lists are what the checkpoint knows; `uses` is the same layers with their type
        self.blocks, self.layers = nn.ModuleList(blocks), nn.ModuleList(self.uses)
        self.norm = nn.RMSNorm(sizes.width, eps=sizes.norm_epsilon)
        self.predictor = Predictor(sizes.width, sizes.predictor_width, sizes.coordinates, generator)
        self.output = None if sizes.tied else _linear(sizes.width, sizes.vocabulary, generator)
        self._known = Known()
        self.checkpointed = False  # whether training keeps a layer's input alone (Chen et al. 2016)

    def forward(
        self,
        tokens: Tensor,
        *,
        theta: Tensor | None = None,
        phases: list[Tensor] | None = None,
        mode: str = "token",
        slots: Tensor | None = None,
        modulate: bool = True,
        cache: KeyValueCache | None = None,
    ) -> Reading:
        """Read `tokens` (batch, tokens); theta is predicted unless given, as (batch, slots, coordinates), or as `phases`.

        In mode `token` there is a slot a token; in `sequence` one, predicted from the last token's prefix; in `segment` `slots`
        (batch, tokens) names the slot of each token. `modulate=False` is the base model alone. Raises `InputError` for an
        unknown mode, tokens beyond the context or the vocabulary, and a cache that is not valid here.
        """
        self._check(tokens, mode, slots, theta, phases, cache)
        x = self.embedding(tokens)
        start = cache.tokens if cache is not None else 0
        every: list[Tensor] = []
        if modulate and phases is not None:
            every = phases
        elif modulate and theta is None and not torch.is_grad_enabled():
            theta, every = self._followed(x, mode, cache)
        elif modulate:
            theta = self.predict(x, mode, cache) if theta is None else theta
            with torch.autocast(x.device.type, enabled=False):  # a phase of bfloat16 is off by a hundredth of a radian
                every = [layer.directions.phases(theta) for layer in self.uses]
        if cache is not None:
            cache.check(mode, every or None)
        rotation = rotations(tokens.shape[1], start, self.sizes, x)
        weights = [weights_of(one) for one in every] if modulate else [None] * len(self.uses)
        cores = self._cores(weights) if modulate else [None] * len(self.uses)
        # what a layer computes is computed again on the way back, instead of being kept
        again = self.checkpointed and torch.is_grad_enabled() and cache is None
        for number, layer in enumerate(self.uses):
            given = (x, weights[number], slots, rotation, cache, number, cores[number])
            x = checkpoint(layer, *given, use_reentrant=False, preserve_rng_state=False) if again else layer(*given)
        if cache is not None:
            cache.tokens += tokens.shape[1]
        x = self.norm(x)
        logits = functional.linear(x, self.embedding.weight) if self.output is None else self.output(x)
        return Reading(logits=logits, theta=theta, phases=every)

    def _cores(self, weights) -> Sequence[Tensor | None]:
        """All layers' cores at once where no graph is kept; else each layer computes its own, which frees them with it."""
        rows = [list(layer.changes.values()) for layer in self.uses]
        if torch.is_grad_enabled() or not together([one for row in rows for one in row]):
            return [None] * len(rows)
        return list(bounded_cores(rows, weights, self._known, orthonormal=True))

    def predict(self, embedded: Tensor, mode: str, cache: KeyValueCache | None = None) -> Tensor:
        """theta of each slot from the embeddings (batch, tokens, width): a slot a token, or the last token's alone."""
        with torch.autocast(embedded.device.type, enabled=False):
            return self.predictor(self._prefix(embedded, mode, cache))

    def _prefix(self, embedded: Tensor, mode: str, cache: KeyValueCache | None) -> Tensor:
        mean, total = running_mean(embedded, cache.total if cache else None, cache.tokens if cache else 0)
        if cache is not None:
            cache.total = total
        return mean if mode == "token" else mean[:, -1:]

    def _followed(self, embedded: Tensor, mode: str, cache: KeyValueCache | None) -> tuple[Tensor, list[Tensor]]:
        """The predicted theta and its phases in every layer: one product from the predictor's units, where no graph is kept."""
        predictor = self.predictor
        directions: list[Tensor] = [layer.directions.directions for layer in self.uses]
        tensors = [*directions, predictor.leave.weight, predictor.leave.bias]
        fold = self._known.once("folded directions", tensors, lambda: predictor.folded(torch.cat(directions)))
        with torch.autocast(embedded.device.type, enabled=False):
            units = predictor.units(self._prefix(embedded, mode, cache))
            free = predictor.leave(units)
            length = math.sqrt(free.shape[-1]) / free.norm(dim=-1, keepdim=True).clamp_min(1e-20)
            phases = functional.linear(units, *fold) * length
        return free * length, list(phases.split([len(one) for one in directions], dim=-1))

    def effective_dimensions(self) -> int:
        """How many dimensions of theta do anything: the rank of all layers' directions together."""
        stacked = torch.cat([layer.directions.directions for layer in self.uses])
        return int(torch.linalg.matrix_rank(stacked.detach().double()))

    def components(self) -> dict[str, int]:
        """The parameters of each component, counted on the built modules."""
        groups = {"embedding": [self.embedding], "predictor": [self.predictor], "output": [self.output]}
        counted = {
            name: sum(p.numel() for m in group if m is not None for p in m.parameters())
            for name, group in groups.items()
        }
        modulation = sum(
            p.numel() for layer in self.uses for part in (layer.directions, layer.modulated) for p in part.parameters()
        )
        whole = sum(p.numel() for p in self.parameters())
        base = whole - modulation - sum(counted.values())
        order = ("embedding", "base", "modulation", "predictor", "output")
        return {name: {**counted, "base": base, "modulation": modulation}[name] for name in order}

    def _check(self, tokens, mode, slots, theta, phases, cache) -> None:
        if mode not in MODES:
            raise InputError(f"the mode {mode!r} was given; allowed are {', '.join(MODES)}.")
        if tokens.dim() != 2 or not tokens.shape[1]:
            raise InputError(
                f"tokens of shape {tuple(tokens.shape)} were given; allowed is (batch, tokens), at least one."
            )
        end = tokens.shape[1] + (cache.tokens if cache is not None else 0)
        if end > self.sizes.context:
            raise InputError(
                f"{end} tokens were given; the context of {self.sizes.name} is {self.sizes.context}: cut the text."
            )
        if int(tokens.max()) >= self.sizes.vocabulary or int(tokens.min()) < 0:
            raise InputError(f"a token is {int(tokens.max())}; allowed are 0 to {self.sizes.vocabulary - 1}.")
        if mode == "segment" and (slots is None or (theta is None and phases is None)):
            raise InputError(
                "mode segment was given no slots or no theta; it needs both: which slot a token has, and theirs."
            )


def rotations(tokens: int, start: int, sizes: Configuration, like: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines (tokens, head width / 2) of the positions start, start + 1, ..."""
    half = sizes.head_width // 2
    rates = sizes.rope_base ** (-torch.arange(half, device=like.device, dtype=torch.float32) / half)
    angles = torch.arange(start, start + tokens, device=like.device, dtype=torch.float32)[:, None] * rates
    return angles.cos().to(like.dtype), angles.sin().to(like.dtype)


def rotate(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Turn the pairs (i, i + half) of (batch, heads, tokens, head width) by their position's angles."""
    cosine, sine = rotation
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)


def _heads(x: Tensor, width: int) -> Tensor:
    return x.unflatten(-1, (-1, width)).transpose(1, 2)


def _linear(inputs: int, outputs: int, generator: torch.Generator, *, scale: float = 1.0) -> nn.Linear:
    linear = nn.Linear(inputs, outputs, bias=False)
    nn.init.normal_(linear.weight, std=0.02 * scale, generator=generator)
    return linear
