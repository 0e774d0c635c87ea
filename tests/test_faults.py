"""The short form of the fault campaign: a few trials of every arm, in a process of its own (it forks)."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_no_fault_leaves_a_run_half_written_or_other_bytes(tmp_path):
    command = [
        sys.executable,
        "-m",
        "tests.campaigns.faults",
        "--kills",
        "4",
        "--writes",
        "3",
        "--report",
        str(tmp_path),
    ]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=900, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    trials = json.loads((tmp_path / "faults.json").read_text())
    assert {trial["arm"] for trial in trials} == {
        "SIGKILL", "disk full", "read-only", "two runs", "clock", "corrupt checkpoint", "NaN loss", "out of memory",
    }  # fmt: skip
    assert not [trial for trial in trials if trial["ending"].startswith("BROKEN")]
    assert "0 broken" in (tmp_path / "faults.md").read_text()
