"""Run one notebook in a process of its own: `python -m geonb.claims.execute` in a folder that holds job.json.

The folder is the process's: it reads in.ipynb there and writes out.ipynb after every cell. When the process that
started it is gone, however it went, this one ends its kernel, removes the folder and leaves.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
import time
from pathlib import Path

JOB, SOURCE, RESULT, LOG = "job.json", "in.ipynb", "out.ipynb", "log.txt"
_POLL = 0.5  # seconds


def end_processes(pid: int) -> None:
    """Kill the process `pid` and all that it started; a kernel is in a session of its own, and no group holds both."""
    import psutil

    try:
        process = psutil.Process(pid)
        every = [*process.children(recursive=True), process]
    except psutil.NoSuchProcess:
        return
    for one in every:
        try:
            one.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(every, timeout=5)


def _leave_with(parent: int, folder: Path) -> None:
    import psutil

    while os.getppid() == parent and psutil.pid_exists(parent):
        time.sleep(_POLL)
    for child in psutil.Process().children(recursive=True):
        end_processes(child.pid)
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def main() -> int:
    """Execute what job.json asks for; 0 where every cell ran, 1 where one raised."""
    folder = Path.cwd()
    job = json.loads((folder / JOB).read_text(encoding="utf-8"))
    threading.Thread(target=_leave_with, args=(job["parent"], folder), daemon=True).start()
    import papermill
    from papermill.exceptions import PapermillExecutionError

    try:
        # relative paths: papermill fills in braces of a path from the parameters
        papermill.execute_notebook(
            SOURCE,
            RESULT,
            parameters=job["parameters"],
            cwd=str(folder / "shelf"),
            kernel_name="python3",
            language="python",
            store_widget_state=False,
            progress_bar=False,
        )
    except PapermillExecutionError:
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
