"""What a coordinate model must be before it is trained: of its exact size, causal, equal with a cache, within its budget."""

from __future__ import annotations

import html
import math
import time
from dataclasses import dataclass

import torch

from geonb.coordinates.cache import KeyValueCache
from geonb.coordinates.configuration import BUDGET, TOLERANCE, Configuration
from geonb.coordinates.model import CoordinateModel
from geonb.records import Record, plain

# the published table, by component: it sums to 10.096 million, not to ten
PUBLISHED = {
    "embedding": 1_400_000,
    "base": 5_200_000,
    "modulation": 1_840_000,
    "predictor": 256_000,
    "output": 1_400_000,
}
_CACHE_ERROR = 1e-5
_PROBE = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition(Record):
    """One condition with its figure; `passed` is None where it does not apply."""

    name: str
    passed: bool | None
    found: str

    def summary(self) -> str:
        sign = {True: "✓", False: "✗", None: "–"}[self.passed]
        return plain(f"{sign} {self.name}: {self.found}")


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedModel(Record):
    """The exact parameter table of a configuration and what was found of the model built from it."""

    name: str
    components: dict[str, int]
    total: int
    conditions: tuple[Condition, ...]

    @property
    def passed(self) -> bool:
        """Whether no condition failed."""
        return all(one.passed is not False for one in self.conditions)

    def summary(self) -> str:
        return f"VerifiedModel({plain(self.name)}: {self.total:,} parameters, {'passed' if self.passed else 'failed'})"

    def to_text(self) -> str:
        lines = [f"{plain(self.name)}: {self.total:,} parameters"]
        lines += [
            f"  {name:12}{count:>12,}   published {PUBLISHED[name]:>10,}   {_off(count, PUBLISHED[name])}"
            for name, count in self.components.items()
        ]
        lines.append(f"  {'total':12}{self.total:>12,}   stated    {BUDGET:>10,}   {_off(self.total, BUDGET)}")
        lines += [f"  {one.summary()}" for one in self.conditions]
        return "\n".join([*lines, "passed" if self.passed else "failed"])

    def to_html(self) -> str:
        cells = "".join(
            f'<tr><td>{html.escape(name)}</td><td style="text-align:right">{count:,}</td>'
            f'<td style="text-align:right">{stated:,}</td><td style="text-align:right">{_off(count, stated)}</td></tr>'
            for name, count, stated in (
                *((name, count, PUBLISHED[name]) for name, count in self.components.items()),
                ("total", self.total, BUDGET),
            )
        )
        told = "".join(f'<li style="list-style:none">{html.escape(one.summary())}</li>' for one in self.conditions)
        return (
            f"<table><caption>{html.escape(self.name)}</caption><tr><th>component</th><th>parameters</th><th>published</th>"
            f'<th>difference</th></tr>{cells}</table><ul style="padding-left:4px">{told}</ul>'
        )


def verify(sizes: Configuration, *, seed: int = 0, batch: int = 2, tokens: int = _PROBE) -> VerifiedModel:
    """Build the model of `sizes` and find out: exact counts, causality, cache, budget, gradients, time and memory.

    The cores, zero in a new model, are filled at random first, large enough for the budget to bind: a model that does not
    modulate would pass all of it.
    """
    model = CoordinateModel(sizes, seed=seed).eval()
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for factors in _factors(model):
            target = factors.cores if hasattr(factors, "cores") else factors.left
            target.copy_(torch.randn(target.shape, generator=generator) * 0.05)
    text = torch.randint(0, sizes.vocabulary, (batch, tokens), generator=generator)
    components = model.components()
    total = sum(parameter.numel() for parameter in model.parameters())
    conditions = [_counted(sizes, components, total), _sized(sizes, total), _causal(model, text), _cached(model, text)]
    conditions += [
        _bounded(model, generator),
        _felt(model, text),
        _trained(model, text),
        _spread(model),
        _costs(model, text),
    ]
    return VerifiedModel(name=sizes.name, components=components, total=total, conditions=tuple(conditions))


def _factors(model: CoordinateModel) -> list:
    return [linear.factors for layer in model.uses for linear in layer.changes.values()]


def _counted(sizes: Configuration, components: dict[str, int], total: int) -> Condition:
    stated = sizes.counts()
    passed = stated == components and sum(stated.values()) == total
    return Condition(
        name="the formula counts what was built", passed=passed, found=f"{sum(stated.values()):,} and {total:,}"
    )


def _sized(sizes: Configuration, total: int) -> Condition:
    off = total / BUDGET - 1
    within = abs(off) <= TOLERANCE if sizes.name in ("B", "C", "D") else None
    return Condition(name=f"within {TOLERANCE:.1%} of {BUDGET:,}", passed=within, found=f"{off:+.3%}")


@torch.no_grad()
def _causal(model: CoordinateModel, text: torch.Tensor) -> Condition:
    changed = text.clone()
    place = text.shape[1] // 2
    changed[:, place:] = (changed[:, place:] + 1) % model.sizes.vocabulary
    before, after = model(text).logits[:, :place], model(changed).logits[:, :place]
    largest = float((before - after).abs().max())
    return Condition(
        name="causal: later tokens change no earlier logit", passed=largest == 0.0, found=f"largest change {largest:g}"
    )


@torch.no_grad()
def _cached(model: CoordinateModel, text: torch.Tensor) -> Condition:
    whole = model(text).logits
    cache = KeyValueCache(mode="token")
    cut = text.shape[1] // 3
    parts = [model(text[:, :cut], cache=cache).logits]
    parts += [model(text[:, place : place + 1], cache=cache).logits for place in range(cut, text.shape[1])]
    largest = float((torch.cat(parts, dim=1) - whole).abs().max() / whole.abs().max())
    found = f"relative {largest:.1e}; {cache.values_per_token():,} values a token"
    return Condition(name="read with a cache as without", passed=largest <= _CACHE_ERROR, found=found)


@torch.no_grad()
def _bounded(model: CoordinateModel, generator: torch.Generator) -> Condition:
    worst = 0.0
    theta = torch.randn(16, 1, model.sizes.coordinates, generator=generator) * 3
    for layer in model.uses:
        weights = layer.directions(theta)
        for linear in layer.changes.values():
            change = torch.linalg.matrix_norm(linear.dense_change(weights[:, 0]).double(), ord=2).max()
            worst = max(worst, float(change / torch.linalg.matrix_norm(linear.base.weight.double(), ord=2)))
    found = f"largest ||dW||_2 / ||W||_2 of 16 random theta {worst:.4f}, allowed {model.sizes.budget:g}"
    return Condition(name="within the spectral budget", passed=worst <= model.sizes.budget * (1 + 1e-5), found=found)


@torch.no_grad()
def _felt(model: CoordinateModel, text: torch.Tensor) -> Condition:
    change = float((model(text).logits - model(text, modulate=False).logits).abs().max())
    return Condition(
        name="theta changes what is said", passed=change > 0, found=f"largest change of a logit {change:.3g}"
    )


def _trained(model: CoordinateModel, text: torch.Tensor) -> Condition:
    logits = model(text).logits
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), text[:, 1:].flatten())
    loss.backward()
    silent = [name for name, one in model.named_parameters() if one.grad is None or not bool(one.grad.abs().sum() > 0)]
    model.zero_grad(set_to_none=True)
    found = "all" if not silent else f"{len(silent)} without, such as {silent[0]}"
    return Condition(name="every parameter gets a gradient", passed=not silent, found=found)


def _spread(model: CoordinateModel) -> Condition:
    dimensions = model.effective_dimensions()
    expected = min(model.sizes.layers * model.sizes.pairs, model.sizes.coordinates)
    limit = 2 * model.sizes.pairs
    found = f"{dimensions} of {model.sizes.coordinates} dimensions of theta act; {limit} coordinates can be orthogonal"
    return Condition(name="the directions have full rank", passed=dimensions == expected, found=found)


@torch.no_grad()
def _costs(model: CoordinateModel, text: torch.Tensor) -> Condition:
    def seconds(**options) -> float:
        taken = []
        for _ in range(5):
            start = time.perf_counter()
            model(text, **options)
            taken.append(time.perf_counter() - start)
        return sorted(taken)[2]

    ratio = seconds() / seconds(modulate=False)
    megabytes = sum(one.numel() * one.element_size() for one in model.parameters()) / 2**20
    found = f"weights {megabytes:.1f} MiB; a pass takes {ratio:.2f} times that of the base alone (told, not judged)"
    return Condition(name="cost", passed=None if math.isfinite(ratio) else False, found=found)


def _off(count: int, stated: int) -> str:
    return f"{count / stated - 1:+.2%}"
