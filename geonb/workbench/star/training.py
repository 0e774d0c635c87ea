"""One training inside a round: what `train run` does, in a run folder of its own, and the base that it starts from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geonb.errors import GeonbError
from geonb.train.events import StopEvent
from geonb.train.gates import Verification
from geonb.train.run_folder import RunFolder
from geonb.workbench.star.keeping import Row, divided, write_rows
from geonb.workbench.star.sampling import Progress


@dataclass(frozen=True, slots=True)
class Trained:
    """A finished training: its adapter, its steps and the best of them, its gates' verdict, the sizes of both sides."""

    adapter: Path
    steps: int
    best_step: int  # 0: the loss on the validation side never fell, and the adapter is zero
    verification: str
    train: int
    validation: int


def train_on(
    model: Any,
    folder: Path,
    rows: Sequence[Row],
    *,
    seed: int,
    max_steps: int | None,
    device: str,
    progress: Progress | None,
    stage: str,
) -> Trained:
    """Train the derived plan on `rows` in `folder`/run; a training that was interrupted there goes on.

    A fifth of the solved problems chooses the adapter by its loss. Raises `GeonbError` where somebody stopped the run.
    """
    from geonb.plan.build import build_plan
    from geonb.train.execute import run_training

    train, validation = divided(rows, seed=(seed, 2))
    run = RunFolder(folder / "run")
    if not run.is_run():
        paths = [
            write_rows(folder / f"{name}.jsonl", part) for name, part in (("train", train), ("validation", validation))
        ]
        plan = build_plan(
            model,
            paths[0],
            eval_data=paths[1],
            output=run.path,
            seed=seed,
            max_steps=max_steps,
            device=device,
        )
        going_on = False
    else:
        plan, going_on = run.plan(), True
    status = run.status()
    if not (run.verification_path.is_file() and status is not None and status.state in {"done", "failed"}):
        horizon = int(plan.horizon["steps"])

        def follow(event: Any) -> None:
            if progress is not None and event.kind == "step":
                progress(stage, event.step, horizon)

        done = run_training(plan, output=run.path, resume=going_on, sinks=[follow], device=device)
        if done.verification is None:
            raise GeonbError(f"the training in {run.path} was stopped before its end; --resume goes on with it.")
    stop = next(event for event in reversed(list(run.events())) if isinstance(event, StopEvent))
    return Trained(
        adapter=run.adapter_path,
        steps=stop.step,
        best_step=stop.best_step,
        verification=Verification.load(run.verification_path).verdict,
        train=len(train),
        validation=len(validation),
    )


def merged_base(model: Any, adapter: Path, folder: Path, *, device: str) -> Path:
    """The model with `adapter` in its weights, as float32: what a cumulative round trains its new adapter on.

    geonb trains a new adapter from zero, so going on from an adapter means to make it part of the base: then
    W_n = W + dW_1 + ... + dW_n, and each dW has its own bounds against the matrix that it was added to.
    """
    from geonb.workbench.export.export import merge_adapter

    if not (folder / "export.json").is_file():
        made = merge_adapter(model, adapter, folder, dtype="float32", device=device)
        if made.verdict != "passed":
            raise GeonbError(f"{adapter} could not be merged into its base: {made.summary()}")
    return folder
