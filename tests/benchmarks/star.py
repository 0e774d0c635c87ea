"""Does the embedded model get better by its own checked solutions? The table of notebooks/tour/star.ipynb.

    python tests/benchmarks/star.py [--folder FOLDER] [--seeds 0,1,2]

For each seed: an adapter on 200 worked examples, then two rounds of `run_star` on the other problems (500 a round, four
solutions each, fresh base, with the control that trains on wrong answers). What FOLDER already holds is not made again; from
nothing it takes about 40 core minutes. The last lines average over the seeds, with intervals over the held-out problems.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np

_WORKED = 200
_ARMS = {"start": "start", "round 1": "round-1", "control": "round-1/control", "round 2": "round-2"}
_PAIRS = (("start", "round 1"), ("start", "round 2"), ("control", "round 1"))


def rounds(folder: Path, seed: int) -> Path:
    """The STaR run of `seed` below `folder`, made where it is not there yet."""
    from geonb.assets import resolve_data
    from geonb.plan import build_plan
    from geonb.train import run_training
    from geonb.workbench.star import run_star

    worked, rest = folder / f"init-{seed}.jsonl", folder / f"rest-{seed}.jsonl"
    adapter, target = folder / f"init-{seed}", folder / f"exp-{seed}"
    lines = resolve_data("embedded:chat").read_text().splitlines()
    order = np.random.default_rng([seed, 99]).permutation(len(lines))
    worked.write_text("".join(lines[place] + "\n" for place in order[:_WORKED]))
    rest.write_text("".join(lines[place] + "\n" for place in order[_WORKED:]))
    if not (adapter / "verification.json").is_file():
        run_training(build_plan("embedded", worked, seed=seed), output=adapter, overwrite=adapter.exists())
    if not (target / "star.json").is_file():
        run_star(
            "embedded", rest, target, eval_data="embedded:chat/eval", initial_adapter=adapter, rounds=2,
            problems_per_round=500, samples=4, seed=seed, control=True, all_rounds=True, resume=target.exists(),
        )  # fmt: skip
    return target


def held_out(run: Path, arm: str) -> np.ndarray:
    """1.0 for each held-out problem that `arm` answers right."""
    lines = (run / _ARMS[arm] / "heldout.jsonl").read_text().splitlines()
    return np.array([float(json.loads(line)["right"]) for line in lines])


def by_luck(folder: Path, run: Path, seed: int, number: int) -> dict[str, object]:
    """How many drawn solutions of a round are right, and how many would be with the answers shuffled within a group."""
    from geonb.workbench.star.problems import gather_problems
    from geonb.workbench.star.scores import right_by_chance

    pool = gather_problems(folder / f"rest-{seed}.jsonl", "embedded:chat/eval", few_shot=0, seed=seed).pool
    rows = [json.loads(line) for line in (run / f"round-{number}" / "samples.jsonl").read_text().splitlines()]
    answers: dict[int, list] = {}
    for row in rows:
        answers.setdefault(row["problem"], []).append(row["answer"])
    asked = [pool[place] for place in answers]
    luck = right_by_chance(
        list(answers.values()), [one.answer for one in asked], [one.group for one in asked], seed=(seed, number, 14)
    )
    return {
        "round": number,
        "right": sum(row["right"] for row in rows),
        "of": len(rows),
        "by_luck": luck.value,
        "interval": luck.interval,
        "reference_solutions": sum(row["text"] == pool[row["problem"]].worked for row in rows),
    }


def main() -> None:
    """Make what is missing, and print one JSON line a seed and one a comparison."""
    from geonb.workbench.compare_adapters import paired_test

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--seeds", default="0,1,2")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        runs = {int(seed): rounds(folder, int(seed)) for seed in given.seeds.split(",")}
        for seed, run in runs.items():
            right = {arm: int(held_out(run, arm).sum()) for arm in _ARMS}
            drawn = [by_luck(folder, run, seed, number) for number in (1, 2)]
            print(json.dumps({"seed": seed, **right, "drawn": drawn}), flush=True)
        for before, after in _PAIRS:
            first, second = (np.mean([held_out(run, arm) for run in runs.values()], axis=0) for arm in (before, after))
            found = paired_test(first, second, higher_is_better=True, unit="", seed=0).difference
            print(json.dumps({"difference": f"{after} - {before}", "value": found.value, "interval": found.interval}))


if __name__ == "__main__":
    main()
