"""Runs and models for the dashboard tests: a tiny run made in seconds, and copies that are cut, alive or hostile."""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from pathlib import Path

# what a page would run if text ever became markup; the first can be the name of a folder
IMAGE = "<img src=x onerror=window.pwned=1>"
SCRIPT = "<script>window.pwned=1</script>"
# steps of the finished run `tiny`
STEPS = 5
FIRST = "model.layers.0.self_attn.q_proj.weight"

# a training that goes on until it is stopped; its argument is the run folder
LIVE = """
import sys
from geonb.plan import build_plan
from geonb.train import run_training
plan = build_plan("embedded", "embedded:chat", max_steps=400, calibrate=False, output=sys.argv[1])
run_training(plan, output=sys.argv[1], device="cpu")
"""


def write_data(path: Path) -> Path:
    """200 short conversations."""
    rows = [
        [{"role": "user", "content": f"Ada has {n} apples and gives {m} away."}, {"role": "assistant", "content": f"{n - m}"}]
        for n in range(20, 70)
        for m in (3, 5, 7, 9)
    ]  # fmt: skip
    path.write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows))
    return path


def plan_only(folder: Path, data: Path) -> Path:
    """A run of the embedded model that was planned and not begun."""
    from geonb.plan import build_plan
    from geonb.train.run_folder import RunFolder

    plan = build_plan("embedded", data, max_steps=400, calibrate=False, output=folder, seed=1)
    return RunFolder.create(folder, plan).path


def trained(folder: Path, data: Path, *, model: Path, steps: int = 5) -> Path:
    """A finished, verified run of a tiny model."""
    from geonb.plan import build_plan
    from geonb.train import run_training
    from tests.families import write_tiny

    plan = build_plan(
        write_tiny("llama", model), data, max_steps=steps, calibrate=False, output=folder, seed=1, device="cpu"
    )
    run_training(plan, output=folder, device="cpu")
    return folder


def trained_to_answer_with_a_script(folder: Path, data: Path) -> Path:
    """A finished run of the embedded model: 16 steps are enough for it to generate `SCRIPT` when it is asked `IMAGE`."""
    from geonb.plan import build_plan
    from geonb.train import run_training
    from geonb.widgets import write_report

    rows = [[{"role": "user", "content": f"{IMAGE} {n}"}, {"role": "assistant", "content": SCRIPT}] for n in range(200)]
    data.write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows))
    folder.parent.mkdir(parents=True, exist_ok=True)
    plan = build_plan("embedded", data, max_steps=16, calibrate=False, output=folder, device="cpu")
    run_training(plan, output=folder, device="cpu")
    write_report(folder)
    return folder


def unreadable(folder: Path) -> Path:
    """A folder that is listed as a run and holds nothing that could be shown."""
    folder.mkdir(parents=True)
    (folder / "plan.json").write_text("{")
    return folder


def copied(run: Path, name: str) -> Path:
    """The same run under another name on the same shelf, listed behind it."""
    folder = Path(shutil.copytree(run, run.with_name(name)))
    os.utime(folder / "trace.jsonl", (1, 1))
    return folder


def edit(path: Path, change) -> None:
    """Let `change` rewrite the JSON in `path` in place."""
    found = json.loads(path.read_text())
    change(found)
    path.write_text(json.dumps(found))


def as_if_training(folder: Path) -> Path:
    """The run before its verification, trained by this very process as far as anyone can see."""
    (folder / "verification.json").unlink()
    # nobody holds its lock: its process and its clock have to do
    (folder / ".lock").unlink()
    shutil.rmtree(folder / "adapter")
    own = {"state": "training", "process": os.getpid(), "updated": time.time() + 3600, "message": ""}
    edit(folder / "status.json", lambda status: status.update(own))
    return folder


def cut_in_the_middle(folder: Path) -> Path:
    """The run as it is while its plan is being written."""
    text = (folder / "plan.json").read_text()
    (folder / "plan.json").write_text(text[: len(text) // 2])
    return folder


def worse(folder: Path, by: float = 0.5) -> Path:
    """The run with every task loss of its adapter raised, and a verification that says so."""
    spread = 0.01  # an interval of no width is no interval

    def raise_losses(losses):
        losses["adapted"] = [
            value + by + spread * (-1) ** place for place, value in enumerate(losses["adapted"])
        ]  # of an even number, so that the mean is raised by exactly `by`

    def raise_task(verification):
        task = verification["task"]
        task["value"] += by
        task["interval"] = [end + by for end in task["interval"]]

    edit(folder / "losses.json", raise_losses)
    edit(folder / "verification.json", raise_task)
    return folder


def hostile_model(root: Path) -> Path:
    """A tiny checkpoint whose folder, config and tensors are called what must never run."""
    from safetensors.torch import load_file, save_file

    from tests.families import write_tiny

    folder = write_tiny("llama", root / IMAGE)
    weights = load_file(folder / "model.safetensors")
    matrix = next(value for value in weights.values() if value.ndim == 2)[:24, :16]
    for name in (SCRIPT, IMAGE):
        weights[f"{name}.weight"] = matrix.clone()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    edit(folder / "config.json", lambda config: config.update(architectures=[SCRIPT], note=IMAGE))
    return folder


def hostile_run(run: Path, base: Path) -> Path:
    """A copy of `run` in which every text that a page shows is one that must never run."""
    folder = copied(run, IMAGE)
    for path in (*folder.glob("*.json"), *folder.glob("*.jsonl")):
        text = path.read_text().replace(FIRST, SCRIPT)
        for plain in ("spectral bound", "stationarity", "spectral norm of the weight change"):
            text = text.replace(json.dumps(plain), json.dumps(SCRIPT))
        path.write_text(text)

    def rename(plan):
        plan["model"]["name"], plan["data"]["path"] = SCRIPT, IMAGE
        plan["targets"][1]["because"] = plan["derivations"][0]["because"] = IMAGE

    def answer(samples):
        samples["samples"] = [{"prompt": IMAGE, "base": SCRIPT, "adapted": IMAGE + SCRIPT}]

    edit(folder / "plan.json", rename)
    edit(folder / "samples.json", answer)
    edit(folder / "status.json", lambda status: status.update(message=IMAGE))
    edit(folder / "adapter" / "adapter_config.json", lambda config: config.update(base_model_name_or_path=str(base)))
    return folder


def handshake(port: int, origin: str, *, subprotocol: str | None = None) -> int:
    """The HTTP status that a websocket of a page of `origin` is answered with."""
    lines = [
        "GET /runs/ws HTTP/1.1", f"Host: 127.0.0.1:{port}", "Upgrade: websocket", "Connection: Upgrade",
        "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", f"Origin: {origin}",
        *([f"Sec-WebSocket-Protocol: {subprotocol}"] if subprotocol else []),
    ]  # fmt: skip
    with socket.create_connection(("127.0.0.1", port), timeout=20) as stream:
        stream.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        return int(stream.recv(4096).split()[1])


def other_address() -> str | None:
    """An address of this machine that is not the loopback, None where it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # a datagram socket chooses its route without sending anything
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return None
        found = probe.getsockname()[0]
    return None if found.startswith("127.") else found
