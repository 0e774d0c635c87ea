"""What a live trace costs the training it shows: blocks of steps with and without the view, alternating in one run.

python tests/benchmarks/live_views.py [--steps 400] [--block 10] [--data embedded:chat]

The training runs in a real Jupyter kernel, the view follows it from a thread of the same process and its messages go
out over the kernel's sockets, as in `%%geonb train`. Neighbouring blocks are paired, in an order that alternates, so
that whatever else the machine does falls on both; steps that follow a checkpoint or an evaluation are left out.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile

import numpy as np

_CELL = """
import json, tempfile, time
from pathlib import Path
from geonb.plan import build_plan
from geonb.train import Training
from geonb.train.events import StepEvent
from geonb.train.run_folder import RunFolder
from geonb.widgets import MassTrace

plan = build_plan("embedded", {data!r}, max_steps={steps}, calibrate=False)
run = RunFolder.create(Path(tempfile.mkdtemp()) / "run", plan)
training = Training(plan, run=run, device="cpu")
view, host, pushes = None, None, 0
rows, before, skip, watching, switched = [], time.perf_counter(), True, False, True
for event in training.events():
    now = time.perf_counter()
    if isinstance(event, StepEvent):
        if not skip and not switched:
            rows.append((event.step, watching, now - before))
        skip, switched = event.step % training.schedule.checkpoint_every == 0, False
        if event.step % {block} == 0:
            wanted = [False, True, True, False][(event.step // {block}) % 4]
            if wanted != watching:
                watching, switched = wanted, True
                if watching:
                    view = MassTrace(run)
                    host = view.widget()
                else:
                    view.close()
    else:
        skip = True
    before = time.perf_counter()
if view is not None:
    view.close()
print("ROWS" + json.dumps(rows))
"""


def main() -> None:
    """Run the cell in a kernel and print the paired ratio with its interval."""
    import nbformat
    from nbclient import NotebookClient

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--block", type=int, default=10)
    parser.add_argument("--data", default="embedded:chat")
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    cell = nbformat.v4.new_code_cell(_CELL.format(data=given.data, steps=given.steps, block=given.block))
    notebook = nbformat.v4.new_notebook(cells=[cell])
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(
            notebook, timeout=3600, kernel_name="python3", resources={"metadata": {"path": folder}}
        ).execute()
    text = "".join(output.get("text", "") for output in cell["outputs"] + notebook.cells[0]["outputs"])
    rows = json.loads(text[text.index("ROWS") + 4 :].splitlines()[0])
    blocks: dict[int, list[tuple[bool, float]]] = {}
    for step, watched, seconds in rows:
        blocks.setdefault((step - 1) // given.block, []).append((watched, seconds))
    ratios = []
    for first in range(0, max(blocks) + 1, 2):
        pair = {watched: [] for watched in (False, True)}
        for block in (first, first + 1):
            for watched, seconds in blocks.get(block, []):
                pair[watched].append(seconds)
        if pair[False] and pair[True]:
            ratios.append(np.mean(pair[True]) / np.mean(pair[False]))
    values = np.array(ratios)
    draws = np.random.default_rng(0).choice(values, size=(4000, len(values)))
    low, high = np.quantile(np.median(draws, axis=1), [0.025, 0.975])
    alone = np.median([seconds for _, watched, seconds in rows if not watched])
    print(
        json.dumps(
            {
                "data": given.data,
                "pairs": len(values),
                "seconds_per_step_alone": round(float(alone), 4),
                "ratio_median": round(float(np.median(values)), 4),
                "interval_95": [round(float(low), 4), round(float(high), 4)],
            }
        )
    )


if __name__ == "__main__":
    main()
