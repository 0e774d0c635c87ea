"""`geonb stop`: ask a run to end at its next step, with a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass

import typer

from geonb.cli import options
from geonb.cli.output import answer, prints
from geonb.errors import InputError
from geonb.records import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class StopRequest(Record):
    """Which runs were asked to stop, and at which step they stood."""

    folders: tuple[str, ...]
    steps: tuple[int, ...]

    def to_text(self) -> str:
        return "\n".join(
            f"{folder}: asked to stop after step {step}; go on later with geonb train run --resume -o {folder}"
            for folder, step in zip(self.folders, self.steps, strict=True)
        )


@prints
def stop(
    run: str | None = typer.Argument(
        None, metavar="[RUN]", help="The folder of a run; in a notebook the one in training."
    ),
    json: bool = options.AS_JSON,
) -> StopRequest:
    """Ask RUN to stop at its next step: it saves a checkpoint and the best adapter, and can be resumed."""
    from geonb.cli.live import running_jobs
    from geonb.train.run_folder import RunFolder

    own = [job.folder for job in running_jobs()]
    folders = [run] if run is not None else own
    if not folders:
        raise InputError("no run is training in this process: give the folder of the run to stop.")
    steps = []
    for folder in folders:
        found = RunFolder.open(folder)
        # a run of this process may not have written its first status yet
        if folder not in own and not found.is_alive():
            raise InputError(f"the run {folder} is not training: `geonb train status {folder}` says how it ended.")
        status = found.status()
        if status is not None and status.state == "verifying":
            raise InputError(f"the run {folder} has made its steps and is verifying: there is no step left to stop at.")
        found.request_stop()
        steps.append(status.step if status is not None else 0)
    return answer(StopRequest(folders=tuple(folders), steps=tuple(steps)), as_json=json)
