"""What a coordinate costs a trained model, and what less would do: bits, reuse, time, movement, switches, of any run.

    python tests/benchmarks/coordinate_savings.py RUN [--texts 48] [--repeats 15] [--tokens 48]

RUN is the folder of a `geonb coordinates train` run; nothing is written into it. All texts are held-out ones of its grammar, none
of them a calibration's. Times are CPU time of one thread, a token of generating behind a prompt that was read before: every arm
once in each round, in turns, medians and medians of paired ratios. A budget is that of its matrix, rho ||W||_2.
"""

from __future__ import annotations

import argparse
import time
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from geonb.coordinates.analyze import encoded, style_of
from geonb.coordinates.calibration import calibrate, held_out_texts
from geonb.coordinates.decoding import generate
from geonb.coordinates.lipschitz import ChangeBounds
from geonb.coordinates.model import CoordinateModel
from geonb.coordinates.reader import Reader
from geonb.coordinates.reduced import reduced_cores, reduced_phases, reduced_weights
from geonb.coordinates.reuse import Reuse, remembered_cores
from geonb.coordinates.run import load_model, load_tokenizer
from geonb.coordinates.trained import trained_model
from geonb.coordinates.uncertainty import THRESHOLD, innovations
from geonb.errors import InputError

TOLERANCES = (0.3, 1.0)
_LONGEST = 64  # tokens of a text, as where reduced ways to read are measured
_SEED = 1  # of the texts: calibration draws its own with 0
_PROMPT, _STYLE = "The baker", "It is hereby noted that the guard opens the door."


def less(model: CoordinateModel, tokenizer: Any, texts: list[str], folder: str) -> None:
    """Fewer bits and fewer computations beside the full reading."""
    print("\nless, on the same texts")
    # int8 replaces the weights it is given: a model of its own
    print(f"  {reduced_weights(load_model(folder), tokenizer, texts=texts).summary()}")
    print(f"  {reduced_phases(model, tokenizer, texts=texts).summary()}")
    for tolerance in TOLERANCES:
        found, policy = reduced_cores(model, tokenizer, tolerance, texts=texts)
        print(f"  {found.summary()}")
        print(f"    {policy.reused:,} of {policy.asked:,} layers of tokens were reused: {policy.share:.1%}")


@torch.no_grad()
def worse(model: CoordinateModel, tokenizer: Any, rows: list[Tensor]) -> None:
    """What a wrong coordinate does, and none: against these the figures of less are to be read."""
    style = style_of(model, tokenizer, _STYLE).reshape(1, 1, -1)

    def before(ids: Tensor) -> Tensor:
        theta = model.predict(model.embedding(ids), "token")
        # a token under the coordinate of the one before it; the first keeps its own
        return model(ids, theta=torch.cat([theta[:, :1], theta[:, :-1]], dim=1)).logits

    full = [model(ids).logits[0] for ids in rows]
    print("\nworse, on the same texts (95 % over whole texts)")
    for name, read in (
        ("the coordinate of the token before", before),
        ("one foreign style for all tokens", lambda ids: model(ids, theta=style, mode="sequence").logits),
        ("no change at all, the base alone", lambda ids: model(ids, modulate=False).logits),
    ):
        print(f"  {name}: {gap(full, [read(ids)[0] for ids in rows], rows)}")


def gap(full: list[Tensor], other: list[Tensor], rows: list[Tensor]) -> str:
    """How far logits are off, how often the likeliest token is the same, and what it costs of the held-out loss."""
    first, second = torch.cat(full).double(), torch.cat(other).double()
    sides = [
        torch.cat([cross_entropy(one[:-1], ids[0, 1:], reduction="none") for one, ids in zip(side, rows, strict=True)])
        for side in (full, other)
    ]
    text = np.repeat(np.arange(len(rows)), [ids.shape[1] - 1 for ids in rows])
    low, high = over_texts((sides[1] - sides[0]).double().numpy(), text)
    same = (first.argmax(-1) == second.argmax(-1)).double().mean()
    before, after = (float(one.mean()) for one in sides)
    return (
        f"logits off by {float((second - first).norm() / first.norm()):.2%}, likeliest token the same {float(same):.1%}, "
        f"held out {before:.4f} -> {after:.4f} nats, {after - before:+.4f} [{low:+.4f}, {high:+.4f}]"
    )


def times(model: CoordinateModel, tokenizer: Any, *, repeats: int, tokens: int) -> None:
    """Milliseconds a token of generating, arm by arm."""
    prompt, style = encoded(tokenizer, _PROMPT), style_of(model, tokenizer, _STYLE)
    policies = {tolerance: Reuse.of(model, tolerance) for tolerance in TOLERANCES}

    def reusing(tolerance: float) -> Reader:
        # what is held is of another text: the policy begins anew, its bounds do not
        return Reader(model, reuse=Reuse(policies[tolerance].bounds, tolerance))

    arms = {
        "no reuse": lambda: Reader(model),
        **{f"reuse within {one:g}": (lambda one=one: reusing(one)) for one in TOLERANCES},
        "one style": lambda: Reader(model, style),
        "one style, cores remembered": lambda: Reader(model, style),
    }
    rows = []
    for turn in range(repeats + 1):
        row = {}
        for place in range(len(arms)):
            name = list(arms)[(place + turn) % len(arms)]
            with remembered_cores(model) if name.endswith("remembered") else nullcontext():
                row[name] = milliseconds(model, prompt, arms[name](), tokens)
        rows.append([row[name] for name in arms])
    found = np.array(rows[1:])  # the first round fills the caches
    print(f"\nmilliseconds a token of generating ({tokens} tokens, medians of {repeats} rounds, over no reuse paired)")
    for place, name in enumerate(arms):
        ratios = found[:, place] / found[:, 0]
        low, high = np.quantile(ratios, [0.25, 0.75])
        told = "" if not place else f", {np.median(ratios):.2f} times ({low:.2f} to {high:.2f} half of the rounds)"
        print(f"  {name:28} {np.median(found[:, place]):6.2f}{told}")


def milliseconds(model: CoordinateModel, prompt: list[int], reader: Reader, tokens: int) -> float:
    """CPU time a token of `tokens` likeliest tokens; the prompt and what follows it at once are read before."""
    made = generate(model, prompt, max_tokens=tokens + 1, decoding="greedy", reader=reader)
    next(made)
    start = time.process_time()
    count = sum(1 for _ in made)
    return (time.process_time() - start) * 1e3 / count


@torch.no_grad()
def movement(model: CoordinateModel, bounds: ChangeBounds, rows: list[Tensor]) -> None:
    """How large the change would be without its budget, and how far it goes from a token to the next within it."""
    sizes, moves, certified = [], [], []
    for ids in rows:
        theta = model.predict(model.embedding(ids), "token")
        phases = [layer.directions.phases(theta)[0] for layer in model.uses]
        # small cores in budgets, before and after each is scaled onto its ball: their singular values are the change's
        weights = torch.stack([torch.cat([one.cos(), one.sin()], dim=-1) for one in phases]).double()
        change = torch.einsum("lsj,lmjab->lmsab", weights, bounds.cores)
        size = torch.linalg.matrix_norm(change, ord=2)
        within = change / size.clamp_min(1.0)[..., None, None]
        sizes.append(size.flatten(0, 1))
        moves.append(torch.linalg.matrix_norm(within.diff(dim=2), ord=2).flatten(0, 1))
        steps = [([one[at] for one in phases], [one[at + 1] for one in phases]) for at in range(ids.shape[1] - 1)]
        certified.append(torch.stack([bounds.between(*step).amax(dim=1) for step in steps], dim=1))
    size, moved, proved = (torch.cat(parts, dim=1).numpy() for parts in (sizes, moves, certified))
    print(f"\nthe change dW in budgets, {size.shape[0]} matrices and {size.shape[1]:,} tokens")
    print(f"  before it is bounded: median of a matrix {ranged(np.median(size, axis=1))}")
    print(f"  beyond its budget at {(size > 1).mean():.1%} of tokens and matrices")
    print(f"  from one token to the next, bounded: median of a matrix {ranged(np.median(moved, axis=1))}")
    print(f"  what is certified of that, a layer's worst matrix: median of a layer {ranged(np.median(proved, axis=1))}")


def ranged(values: np.ndarray) -> str:
    """Median and range, in words."""
    return f"{np.median(values):.2f}, of all {values.min():.2f} to {values.max():.2f}"


@torch.no_grad()
def switches(model: CoordinateModel, tokenizer: Any, rows: list[Tensor]) -> None:
    """Where adaptive decoding would draw, on texts that no threshold was found on."""
    found = calibrate(model, tokenizer)
    surprise, entropy, of_text = [], [], []
    for number, ids in enumerate(rows):
        reading = model(ids)
        assert reading.theta is not None
        surprise.append(innovations(reading.theta)[0, 1:])
        entropy.append(torch.special.entr(reading.logits[0, 1:].double().softmax(dim=-1)).sum(dim=-1))
        of_text.append(torch.full((ids.shape[1] - 1,), number))
    u, nats, text = (torch.cat(parts).numpy() for parts in (surprise, entropy, of_text))
    print(f"\nswitches of adaptive decoding: {found.summary()}")
    print(f"  on {len(u):,} tokens of {len(rows)} texts that no calibration saw (95 % over whole texts)")
    for name, drawn in (
        (f"u > {found.uncertainty:.3g}", u > found.uncertainty),
        (f"entropy > {found.entropy:.3g} nats", nats > found.entropy),
        (f"published u > {THRESHOLD:g}", u > THRESHOLD),
    ):
        print(f"    {name:24} {share_of(drawn, text)}")


def share_of(drawn: np.ndarray, text: np.ndarray) -> str:
    """The share of tokens, with an interval over whole texts."""
    low, high = over_texts(drawn, text)
    return f"{drawn.mean():.1%} [{low:.1%}, {high:.1%}]"


def over_texts(values: np.ndarray, text: np.ndarray) -> tuple[float, float]:
    """95 % of the mean of tokens' values where whole texts are drawn anew."""
    sums, counts = np.bincount(text, weights=values), np.bincount(text)
    draws = np.random.default_rng(0).multinomial(len(counts), np.full(len(counts), 1 / len(counts)), size=2000)
    low, high = np.quantile(draws @ sums / (draws @ counts), [0.025, 0.975])
    return float(low), float(high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="the folder of a `geonb coordinates train` run")
    parser.add_argument("--texts", type=int, default=48, help="held-out texts that are read")
    parser.add_argument("--repeats", type=int, default=15, help="rounds of the times")
    parser.add_argument("--tokens", type=int, default=48, help="tokens of each generated text that are timed")
    options = parser.parse_args()
    if min(options.texts, options.repeats, options.tokens) < 2:
        parser.error("--texts, --repeats and --tokens are 2 or more each.")
    torch.set_num_threads(1)
    try:
        run = trained_model(options.run)
        model, tokenizer = load_model(options.run), load_tokenizer(options.run)
        bounds = ChangeBounds(model)
    except InputError as error:
        parser.error(str(error))
    texts = held_out_texts(options.texts, seed=_SEED)
    rows = [torch.tensor([encoded(tokenizer, text)[: min(_LONGEST, model.sizes.context)]]) for text in texts]
    print(f"preset {run.recipe.configuration.name}, {run.summary()}")
    print(f"{len(texts)} held-out texts, {sum(one.shape[1] for one in rows):,} tokens")
    print("a coordinate's standard deviation over held-out pairs, compositions and dialogues, at the end of its phases")
    for one in run.spreads:
        print(f"  {one.summary()}")
    movement(model, bounds, rows)
    switches(model, tokenizer, rows)
    times(model, tokenizer, repeats=options.repeats, tokens=options.tokens)
    less(model, tokenizer, texts, options.run)
    worse(model, tokenizer, rows)


if __name__ == "__main__":
    main()
