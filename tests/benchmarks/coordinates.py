"""What modulation costs: a pass of preset B beside its base alone and beside materialised weights, paired, medians.

python tests/benchmarks/coordinates.py [--tokens 64] [--repeats 15]
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time

import numpy as np
import torch

from geonb.coordinates.configuration import preset
from geonb.coordinates.model import CoordinateModel
from geonb.coordinates.modulated_linear import SharedFactors
from geonb.coordinates.precision import Precision


def seconds(run) -> float:
    """CPU time, which other work on the machine lengthens less than the clock's."""
    start = time.process_time()
    run()
    return time.process_time() - start


def materialised(model: CoordinateModel, tokens: torch.Tensor) -> None:
    """Every wavelet of every modulated matrix as a matrix of its own, added up once for one theta: the published evaluation."""
    theta = model.predict(model.embedding(tokens), "sequence")[0, 0]
    for layer in model.uses:
        weights = layer.directions(theta)
        for linear in layer.changes.values():
            factors = linear.factors
            assert isinstance(factors, SharedFactors)
            terms = factors.left @ factors.cores @ factors.right.T  # (2m, out, in)
            torch.einsum("j,joi->oi", weights, terms)


def fill(model: CoordinateModel, size: float) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for layer in model.uses:
            for linear in layer.changes.values():
                cores = linear.factors.cores
                cores.copy_(torch.randn(cores.shape, generator=generator) * size)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--training", nargs=2, metavar=("PRECISION", "LAYERS"), help="one training pass alone")
    options = parser.parse_args()
    if options.training:
        training(*options.training)
        return
    model = CoordinateModel(preset("B")).eval()
    tokens = torch.randint(0, 3125, (1, options.tokens), generator=torch.Generator().manual_seed(0))
    for name, size in (
        ("inside the certified budget", 1e-4),
        ("budget looked at for each token", 3e-3),
        ("budget binds", 3e-2),
    ):
        fill(model, size)
        rows = []
        with torch.no_grad():
            for _ in range(options.repeats + 1):
                base = seconds(lambda: model(tokens, modulate=False))
                token = seconds(lambda: model(tokens))
                sequence = seconds(lambda: model(tokens, mode="sequence"))
                rows.append((base, token, sequence, seconds(lambda: materialised(model, tokens))))
        base, token, sequence, whole = np.median(np.array(rows[1:]), axis=0)
        ratios = np.median(np.array(rows[1:])[:, 1] / np.array(rows[1:])[:, 0])
        print(
            f"{name}: base {base * 1e3:.1f} ms, theta a token {token * 1e3:.1f} ms ({ratios:.2f} times), "
            f"one theta {sequence * 1e3:.1f} ms, wavelets materialised {whole * 1e3:.0f} ms ({whole / token:.0f} times)"
        )
    for precision in ("float32", "bfloat16"):
        for checkpointed in ("kept", "again"):
            # a process of its own each: what was the peak of one is no peak of the next
            subprocess.run([sys.executable, __file__, "--training", precision, checkpointed], check=True)


def training(precision: str, activations: str) -> None:
    """Time and memory of one training pass of preset B at 8 x 128."""
    model = CoordinateModel(preset("B")).train()
    fill(model, 3e-3)
    model.checkpointed = activations == "again"
    text = torch.randint(0, 3125, (8, 128), generator=torch.Generator().manual_seed(0))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    with Precision(model, precision).cast():
        logits = model(text).logits
    torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), text[:, 1:].flatten()).backward()
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    taken = time.process_time() - start
    above = (after - before) / 2**10
    print(
        f"training pass at 8 x 128, {precision}, layers {activations}: {taken:.1f} s, peak {after / 2**20:.2f} GiB "
        f"({above:.0f} MiB above)",
        flush=True,
    )


if __name__ == "__main__":
    main()
