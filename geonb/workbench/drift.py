"""Dual-path scan: how far an adapter's own words lie from what its base would say, beside a random adapter's.

A measurement, not a verdict: a number is large or small only beside that of a random adapter of the same rank and norm.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from geonb.errors import InputError
from geonb.geometry.measurement import Measurement
from geonb.geometry.statistics import bootstrap_interval, wilson
from geonb.record_tables import table_html
from geonb.records import Record
from geonb.workbench.bench import Bench
from geonb.workbench.generation import Continuation, Prompt, TextStream, generate, printable

APPROVED_RANK = 10  # the base approves of a token that stands among its first ten (convention)
UNLIKELY, VERY_UNLIKELY = -math.log(0.01), -math.log(0.001)  # nats: p below 1 % and below 0.1 %
_BARS = "▁▂▃▄▅▆▇█"
_ROWS = 64  # tokens at a time in float64: 64 x 150,000 x 8 bytes is 77 MB


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftToken(Record):
    """One token of a continuation, as both models see it at its place; entropies, KL and surprisal in nats."""

    id: int
    text: str  # "" inside a character that later tokens complete
    entropy_base: float
    entropy_adapter: float
    kl: float  # KL(adapter || base)
    base_rank: int  # 1 = the base's own choice
    agrees: bool  # both models' first choices are one token
    surprisal: float  # -ln p_base(token)

    @property
    def entropy_change(self) -> float:
        """dH = H_base - H_adapter: positive where the adapter is the surer."""
        return self.entropy_base - self.entropy_adapter

    @property
    def approved(self) -> bool:
        """Whether the token is among the base's first ten."""
        return self.base_rank <= APPROVED_RANK


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptDrift(Record):
    """The tokens that the adapter wrote after one prompt, and those that each random adapter wrote after it."""

    prompt: str
    tokens: tuple[DriftToken, ...]
    null: tuple[tuple[DriftToken, ...], ...]  # one entry a random adapter

    @property
    def kl(self) -> float:
        """Mean KL(adapter || base) over the tokens, nats."""
        return _mean([token.kl for token in self.tokens])


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftScan(Record):
    """The scan of one or more prompts; `measured` holds its numbers by name, each with the random adapter's as null."""

    prompts: tuple[PromptDrift, ...]
    measured: dict[str, Measurement]
    null_kl_95: float | None  # 95th percentile of a token's KL under the random adapter
    null_draws: int
    null_seed: int

    def summary(self) -> str:
        return f"DriftScan({len(self.prompts)} prompts, KL {self.measured['mean KL']!r})"

    def to_text(self) -> str:
        top = self._scale()
        lines = ["Drift along the adapter's own greedy text (a measurement; large or small only beside the null)"]
        lines += [f"  {name:28}{measured!r}" for name, measured in self.measured.items()]
        unit = f"null's 95th percentile of {top:.3g}" if self.null_kl_95 else f"largest of {top:.3g}"
        lines.append(f"  one bar a token, its KL: {_BARS[0]} is 0, {_BARS[-1]} the {unit} nats or more")
        for number, one in enumerate(self.prompts, 1):
            strip = "".join(_BARS[min(7, int(8 * token.kl / top))] for token in one.tokens)
            lines.append(f"  {number:>3}  {strip}")
            worst = sorted(one.tokens, key=lambda token: -token.kl)[:3]
            told = ", ".join(f"{printable(_shown(token))!r} {token.kl:.3g}" for token in worst)
            lines.append(f"       {one.kl:.3g} nats a token; most at {told}")
        return "\n".join(lines)

    def to_html(self) -> str:
        rows = [(name, repr(measured), measured.null, measured.operator) for name, measured in self.measured.items()]
        table = table_html(("quantity", "measured", "random adapter", "how"), rows, caption="Drift from the base")
        return table + self._legend() + "".join(self._shaded(one) for one in self.prompts)

    def _scale(self) -> float:
        """The KL that is shaded fully: the null's 95th percentile, or the largest seen where there is no null."""
        largest = max((token.kl for one in self.prompts for token in one.tokens), default=0.0)
        return self.null_kl_95 or largest or 1.0

    def _legend(self) -> str:
        top = self._scale()
        steps = "".join(
            f'<span style="{_shade(share)}"> {share * top:.3g} </span>' for share in (0, 0.25, 0.5, 0.75, 1)
        )
        beyond = "; underlined: above the random adapter's 95th percentile" if self.null_kl_95 else ""
        return f'<p style="font-size:90%">KL(adapter || base) in nats: {steps} darker is farther{beyond}</p>'

    def _shaded(self, one: PromptDrift) -> str:
        top, spans = self._scale(), []
        for token in one.tokens:
            line = ";border-bottom:2px solid" if self.null_kl_95 and token.kl > self.null_kl_95 else ""
            title = (
                f"KL {token.kl:.3g}, entropy {token.entropy_base:.3g} to {token.entropy_adapter:.3g}, base rank "
                f"{token.base_rank}, surprisal {token.surprisal:.3g}{_mark(token.surprisal)}"
            )
            shown = html.escape(printable(_shown(token))).replace("\n", "↵\n")
            spans.append(f'<span title="{html.escape(title)}" style="{_shade(token.kl / top)}{line}">{shown}</span>')
        box = "white-space:pre-wrap;overflow-wrap:anywhere;line-height:1.7;margin:6px 0"
        asked = html.escape(printable(one.prompt))
        return f'<div style="{box}"><div style="font-weight:600">{asked}</div>{"".join(spans)}</div>'


def _shade(share: float) -> str:
    # one hue, by strength alone: readable without colour vision, on white and on black
    return f"background:rgba(38,110,190,{0.65 * min(1.0, max(0.0, share)):.3f});padding:1px 0"


def _mark(surprisal: float) -> str:
    return " (p < 0.1 %)" if surprisal > VERY_UNLIKELY else " (p < 1 %)" if surprisal > UNLIKELY else ""


def _shown(token: DriftToken) -> str:
    return token.text or "⋯"


def scan_prompt(
    bench: Bench,
    prompt: Prompt,
    *,
    label: str,
    max_tokens: int = 256,
    continuation: Continuation | None = None,
    null_draws: int = 1,
    seed: int = 0,
) -> PromptDrift:
    """Scan one prompt: adapter and base each read the adapter's greedy text in one forward pass (teacher-forced).

    `continuation` is that text where it was generated before. A random adapter (`random_adapter`) is scanned the same
    way along its own text, `null_draws` times. Raises `InputError` for an unknown label or a negative number of draws.
    """
    check_draws(null_draws)
    if label not in bench.labels:
        raise InputError(f"there is no adapter {label!r}; loaded are {', '.join(bench.labels) or 'none'}.")
    written = continuation or generate(bench, prompt, label=label, max_tokens=max_tokens)
    tokens = _read(bench, prompt, written.tokens, label)
    null = []
    for draw in range(null_draws):
        with random_adapter(bench, label, seed=seed + draw):
            other = generate(bench, prompt, label=label, max_tokens=max_tokens)
            null.append(_read(bench, prompt, other.tokens, label))
    return PromptDrift(prompt=prompt.text, tokens=tokens, null=tuple(null))


def check_draws(null_draws: int) -> None:
    """Raise `InputError` for a negative number of random adapters."""
    if null_draws < 0:
        raise InputError(f"{null_draws} random adapters were asked for; allowed are 0 and more: give 1 for one null.")


def scan(
    bench: Bench, prompts: Sequence[Prompt], *, label: str, max_tokens: int = 256, null_draws: int = 1, seed: int = 0
) -> DriftScan:
    """`scan_prompt` over all `prompts`, and their summary.

    >>> bench = Bench.open("embedded", {"mine": "run/adapter"})  # doctest: +SKIP
    >>> scan(bench, [encode_prompt(bench.runtime.tokenizer, "Hello")], label="mine")  # doctest: +SKIP
    """
    if not prompts:
        raise InputError("a drift scan was given no prompt; allowed are one or more: give a text to continue.")
    scanned = [
        scan_prompt(bench, one, label=label, max_tokens=max_tokens, null_draws=null_draws, seed=seed) for one in prompts
    ]
    return summarise(scanned, seed=seed)


def summarise(prompts: Sequence[PromptDrift], *, seed: int = 0) -> DriftScan:
    """The summary of scanned prompts: means with a bootstrap over prompts, rates with Wilson's interval over tokens."""
    tokens = [token for one in prompts for token in one.tokens]
    null = [token for one in prompts for draw in one.null for token in draw]
    draws = min(len(one.null) for one in prompts)
    measured = {}
    for name, of in (("mean KL", _kl), ("entropy change", _entropy_change)):
        means = [_mean([of(token) for token in one.tokens]) for one in prompts]
        controls = [_mean([of(token) for draw in one.null for token in draw]) for one in prompts] if null else None
        # the interval is over prompts: tokens of one text follow from each other
        interval = bootstrap_interval(means, rng=np.random.default_rng(seed)) if len(means) > 1 else None
        measured[name] = Measurement(
            value=_mean(means),
            interval=interval,
            n=len(means),
            null=_mean(controls) if controls else None,
            unit="nats a token",
            operator=f"mean over prompts of the mean over tokens, bootstrap over prompts, seed {seed}, {_null_said(draws)}",
        )
    for name, holds in (
        ("base approval (top 10)", lambda token: token.approved),
        ("same first choice", lambda token: token.agrees),
        ("surprisal > -ln 0.01", lambda token: token.surprisal > UNLIKELY),
        ("surprisal > -ln 0.001", lambda token: token.surprisal > VERY_UNLIKELY),
    ):
        count = sum(map(holds, tokens))
        measured[name] = Measurement(
            value=count / len(tokens),
            interval=wilson(count, len(tokens)),
            n=len(tokens),
            null=sum(map(holds, null)) / len(null) if null else None,
            unit="of tokens",
            operator=f"Wilson interval as if tokens were independent, {_null_said(draws)}",
        )
    return DriftScan(
        prompts=tuple(prompts),
        measured=measured,
        null_kl_95=float(np.quantile([token.kl for token in null], 0.95)) if null else None,
        null_draws=draws,
        null_seed=seed,
    )


def _kl(token: DriftToken) -> float:
    return token.kl


def _entropy_change(token: DriftToken) -> float:
    return token.entropy_change


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else math.nan


def _null_said(draws: int) -> str:
    return f"null: {draws} random adapter(s) of equal rank and ||dW||_F in every matrix" if draws else "no null drawn"


def _read(bench: Bench, prompt: Prompt, written: Sequence[int], label: str) -> tuple[DriftToken, ...]:
    """Both models' view of every written token, from one forward pass each over prompt and text."""
    import torch

    ids = [*prompt.ids, *written[:-1]]  # the last token predicts nothing that was written
    seen = []
    for name in (None, label):
        with bench.using(name):
            seen.append(bench.runtime.logits(ids)[len(prompt.ids) - 1 :])
    stream, texts = TextStream(bench.runtime.tokenizer), []
    special = set(bench.runtime.tokenizer.all_special_ids)
    for token in written:
        piece = stream.add(token)
        # an end token has no text, but a name
        texts.append(str(bench.runtime.tokenizer.convert_ids_to_tokens(token)) if token in special else piece)
    found = []
    for start in range(0, len(written), _ROWS):
        chosen = torch.tensor(written[start : start + _ROWS])[:, None]
        base, adapted = (torch.log_softmax(one[start : start + _ROWS].double(), dim=-1) for one in seen)
        own = base.gather(1, chosen)
        columns = (
            torch.special.entr(base.exp()).sum(-1),
            torch.special.entr(adapted.exp()).sum(-1),
            # a masked word has probability 0 in both, and 0 ln 0 is 0
            torch.where(adapted.exp() > 0, adapted.exp() * (adapted - base), 0).sum(-1).clamp_min(0),
            (base > own).sum(-1) + 1,
            base.argmax(-1) == adapted.argmax(-1),
            -own[:, 0],
        )
        for offset, row in enumerate(zip(*(column.tolist() for column in columns), strict=True)):
            one, other, kl, rank, agrees, surprisal = row
            found.append(
                DriftToken(
                    id=int(written[start + offset]),
                    text=texts[start + offset],
                    entropy_base=one,
                    entropy_adapter=other,
                    kl=kl,
                    base_rank=rank,
                    agrees=agrees,
                    surprisal=surprisal,
                )
            )
    return tuple(found)


@contextmanager
def random_adapter(bench: Bench, label: str, *, seed: int = 0) -> Iterator[None]:
    """Inside the block adapter `label` has Gaussian factors of its own ranks, each ||BA||_F as it was; then its own again.

    Only the weights of lora_A and lora_B are exchanged, in place, so that scale and wiring stay PEFT's.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    kept: list[tuple[Any, Any]] = []
    try:
        with bench.using(label) as model, torch.no_grad():
            for left, right, experts in _factors(model, model.active_adapter):
                kept += [(left, left.detach().clone()), (right, right.detach().clone())]
                sizes = _frobenius(left, right, experts)
                for factor in (left, right):
                    drawn = torch.randn(factor.shape, generator=generator, dtype=torch.float32)
                    factor.copy_(drawn.to(factor.device, factor.dtype))
                ratios = (sizes / _frobenius(left, right, experts)).to(left.dtype)
                left.copy_((left.flatten(1).unflatten(1, (-1, experts)) * ratios).reshape(left.shape))
        yield
    finally:
        with torch.no_grad():
            for factor, own in kept:
                factor.copy_(own)


def _factors(model: Any, name: str) -> Iterator[tuple[Any, Any, int]]:
    """(B, A, experts) of every module that has LoRA factors under `name`."""
    for module in model.modules():
        for first, second in (("lora_A", "lora_B"), ("lora_embedding_A", "lora_embedding_B")):
            sides = getattr(module, second, {}), getattr(module, first, {})
            if all(name in side for side in sides):
                left, right = (getattr(side[name], "weight", side[name]) for side in sides)
                yield left, right, int(getattr(module, "num_experts", 1) or 1)


def _frobenius(left: Any, right: Any, experts: int) -> Any:
    """||B_e A_e||_F of each expert (one where there are none), without a product: tr(B^T B A A^T)^1/2."""
    # PEFT stacks experts: A is (expert, r) by in, B is out by (r, expert); a convolution's kernel is part of A's columns
    b = left.detach().double().flatten(1).unflatten(1, (-1, experts)).permute(2, 0, 1)
    a = right.detach().double().flatten(1).unflatten(0, (experts, -1))
    return ((b.mT @ b) * (a @ a.mT)).sum((1, 2)).clamp_min(0).sqrt()
