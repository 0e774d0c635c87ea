"""Real servers for the browser tests: JupyterLab and the dashboard, each in its own process on a free port."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

TOKEN = "a-token-for-tests"


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(url: str, process: subprocess.Popen, seconds: float = 90) -> None:
    """Until `url` answers; a process that ended first is an error with its log."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode}")
        with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
            with urllib.request.urlopen(url, timeout=5):
                return
        time.sleep(0.3)
    raise TimeoutError(url)


@contextlib.contextmanager
def serving(command: list[str], url: str, *, log: Path, environment: dict[str, str] | None = None) -> Iterator[str]:
    """The server that `command` starts, until the block ends."""
    surroundings = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **(environment or {})}
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, env=surroundings)
        try:
            wait_for(url, process)
            yield url
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            if process.poll() is None:
                process.kill()


@contextlib.contextmanager
def lab(root: Path, *, log: Path) -> Iterator[str]:
    """JupyterLab on the folder `root`; yields its address without the token."""
    port = free_port()
    settings = log.parent / "lab-settings"
    # the news prompt asks the network, and a first start would cover the page with it
    notifications = settings / "@jupyterlab" / "apputils-extension"
    notifications.mkdir(parents=True, exist_ok=True)
    (notifications / "notification.jupyterlab-settings").write_text(
        json.dumps({"fetchNews": "false", "checkForUpdates": False})
    )
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--ServerApp.port={port}",
        "--ServerApp.port_retries=0", "--ServerApp.ip=127.0.0.1", f"--IdentityProvider.token={TOKEN}",
        f"--ServerApp.root_dir={root}", f"--LabApp.user_settings_dir={settings}",
        f"--LabApp.workspaces_dir={log.parent / 'lab-workspaces'}", "--LabApp.news_url=",
    ]  # fmt: skip
    own = {"JUPYTER_CONFIG_DIR": str(log.parent / "jupyter"), "JUPYTER_DATA_DIR": str(log.parent / "jupyter-data")}
    with serving(command, f"http://127.0.0.1:{port}/api?token={TOKEN}", log=log, environment=own):
        yield f"http://127.0.0.1:{port}"


def notebook(path: Path, cells: list[str]) -> Path:
    """Write a notebook of code cells."""
    import nbformat

    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    made.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(made, path)
    return path
