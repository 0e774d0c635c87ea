"""Spectra of a synthetic bfloat16 checkpoint shaped like LFM2-350M, against a loop of svdvals; run on demand.

    python tests/benchmarks/spectra.py [--runs 3] [--workers 2]

Both ways are timed in turns in one process; the figures are medians.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from geonb.models import Checkpoint, stream_geometry

_ATTENTION = {2, 5, 8, 10, 12, 14}


def shapes() -> dict[str, tuple[int, int]]:
    """The matrices: 16 layers of width 1024, feed-forward 4608; ten convolution and six attention layers."""
    found = {"model.embed_tokens.weight": (65536, 1024)}
    for layer in range(16):
        block = f"model.layers.{layer}"
        if layer in _ATTENTION:
            for name, rows in (("q_proj", 1024), ("k_proj", 512), ("v_proj", 512), ("out_proj", 1024)):
                found[f"{block}.self_attn.{name}.weight"] = (rows, 1024)
        else:
            found[f"{block}.conv.in_proj.weight"] = (3072, 1024)
            found[f"{block}.conv.out_proj.weight"] = (1024, 1024)
        for name, shape in (("w1", (4608, 1024)), ("w3", (4608, 1024)), ("w2", (1024, 4608))):
            found[f"{block}.feed_forward.{name}.weight"] = shape
    return found


def write(folder: Path) -> None:
    """Gaussian matrices with a decaying spectrum, in bfloat16."""
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for name, (rows, columns) in shapes().items():
        decay = torch.logspace(0, -1.2, columns)
        tensors[name] = (torch.randn(rows, columns, generator=generator) * decay * 0.05).bfloat16()
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "synthetic", "architectures": ["Synthetic"]}))


def memory() -> float:
    """Peak resident memory of this process in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder)
        checkpoint = Checkpoint.open(folder)
        # one small matrix first, so that no run pays for imports
        list(stream_geometry(checkpoint, refs=checkpoint.refs[-1:], use_cache=False))
        ours, theirs, peak = [], [], 0.0
        for _ in range(options.runs):
            before, begun = memory(), time.perf_counter()
            geometries = list(stream_geometry(checkpoint, workers=options.workers, use_cache=False))
            ours.append(time.perf_counter() - begun)
            peak = max(peak, memory() - before)
            begun = time.perf_counter()
            exact = {ref.name: torch.linalg.svdvals(checkpoint.read(ref).float()) for ref in checkpoint.refs}
            theirs.append(time.perf_counter() - begun)
        errors = []
        for geometry in geometries[:: max(1, len(geometries) // 8)]:
            weight = checkpoint.read(geometry.ref).double()
            tall = weight if weight.shape[0] >= weight.shape[1] else weight.mT.contiguous()
            reference = torch.linalg.svdvals(tall).numpy()
            shown = reference > 1e-2 * reference[0]
            errors.append(float(np.abs(geometry.spectrum.values[shown] / reference[shown] - 1).max()))
        print(
            json.dumps(
                {
                    "matrices": len(geometries),
                    "cores": os.cpu_count(),
                    "threads_of_the_loop": torch.get_num_threads(),
                    "geonb_seconds": round(statistics.median(ours), 2),
                    "svdvals_seconds": round(statistics.median(theirs), 2),
                    "median_paired_speed_up": round(
                        statistics.median(b / a for a, b in zip(ours, theirs, strict=True)), 2
                    ),
                    "uncertified_k": sum(not geometry.spectrum.k_certified for geometry in geometries),
                    "largest_relative_error_above_1e-2": max(errors),
                    "tiers": {t: sum(g.spectrum.tier == t for g in geometries) for t in ("bf16-gram", "float64-gram")},
                    "peak_extra_memory_gb": round(peak, 3),
                    "compared": len(exact),
                }
            )
        )


if __name__ == "__main__":
    main()
