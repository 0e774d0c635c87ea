"""What a null-space transplant keeps of a donor and what it costs, beside the plain sum scaled to the same distance.

python tests/benchmarks/merging.py [--steps 300] [--folder FOLDER]

The donor is the embedded model with a real adapter (King James prose) merged in; the probes are held-out base text. For
each rule and scale: the share of the change that survives, KL and loss on held-out base text, and how much of the donor's
advantage on its own text the merged model has. The last lines interpolate the plain sum to the soft rule's KL and to its
held-out loss: what is above them is what the projector is worth. FOLDER keeps the donor, and later runs take it from there.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np

_ARMS = (
    ("none", 0.28),
    ("none", 0.35),
    ("none", 0.5),
    ("none", 0.7),
    ("none", 1.0),
    ("soft", 0.7),
    ("soft", 1.0),
    ("hard", 1.0),
)


def donor(folder: Path, steps: int) -> Path:
    """The embedded model with an adapter trained for `steps` in its weights, made once."""
    from geonb.plan import build_plan
    from geonb.train import run_training
    from geonb.workbench.export import merge_adapter

    if not (folder / "donor" / "config.json").is_file():
        if not (folder / "run" / "verification.json").is_file():
            plan = build_plan("embedded", "embedded:kjv", max_steps=steps, budget="open")
            run_training(plan, output=folder / "run", device="cpu", overwrite=(folder / "run").exists())
        merge_adapter("embedded", folder / "run", folder / "donor")
    return folder / "donor"


def main() -> None:
    """Merge by every arm and print one JSON line each, then the comparison."""
    from geonb.merge.transplant import transplant

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch)
        source = donor(folder, given.steps)
        rows = []
        for rule, scale in _ARMS:
            merged = transplant(
                "embedded", source, Path(scratch) / f"{rule}-{scale}", rule=rule, scale=scale,
                donor_text="embedded:kjv/eval", device="cpu",
            )  # fmt: skip
            rows.append({"rule": rule, "scale": scale, **facts(merged)})
            print(json.dumps(rows[-1]), flush=True)
    plain = sorted((row for row in rows if row["rule"] == "none"), key=lambda row: row["kl"])
    soft = next(row for row in rows if (row["rule"], row["scale"]) == ("soft", 1.0))
    for cost in ("kl", "held_out"):
        at = float(np.interp(soft[cost], [row[cost] for row in plain], [row["advantage"] for row in plain]))
        print(json.dumps({"at_equal": cost, "soft": soft["advantage"], "plain_sum_interpolated": round(at, 4)}))


def facts(merged) -> dict[str, float]:
    """The numbers of one merge that are compared."""
    effect = merged.effect
    return {
        "preserved": round(merged.preserved or 0.0, 4),
        "kl": round(effect.kl.value, 5),
        "held_out": round(effect.held_out.value, 5),
        "advantage": round(effect.gained or 0.0, 4),
    }


if __name__ == "__main__":
    main()
