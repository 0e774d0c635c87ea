"""The fault campaign: a real training run is hit by one fault at a time, and must come back to the same bytes or say why.

python -m tests.campaigns.faults [--kills 50] [--writes 25] [--seed 0] [--report FOLDER]

Arms: SIGKILL at random instants; a disk that is full, and a file system that turns read-only, at the n-th write; two runs
on one folder; a clock that jumps; a checkpoint with flipped or missing bytes; a loss that is not a number; a batch that
does not fit into memory. Every trial is a process of its own, forked from one that has loaded everything; what counts as
passed is written beside each arm. The report is faults.json and faults.md.
"""

from __future__ import annotations

import argparse
import builtins
import collections
import errno
import io
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

FILES = (
    "trace.jsonl", "verification.json", "losses.json", "samples.json",
    "adapter/adapter_model.safetensors", "adapter/adapter_config.json", "adapter-last/adapter_model.safetensors",
)  # fmt: skip
SAME, REFUSED, BROKEN = "same bytes", "clear refusal", "BROKEN"


@dataclass(frozen=True, slots=True)
class Trial:
    """One fault: which arm, where it struck, how it ended, and in whose words."""

    arm: str
    where: str
    ending: str
    said: str


def contents(folder: Path) -> dict[str, bytes | None]:
    """The bytes that a resumed run must share with one that was never disturbed."""
    return {name: (folder / name).read_bytes() if (folder / name).is_file() else None for name in FILES}


def in_child(action: Callable[[], None], *, kill_after: float | None = None) -> tuple[int, str]:
    """Run `action` in a forked process: (0 done, 2 refused in a sentence, 1 any other error, -9 killed), and what it said."""
    read, write = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.close(read)
        code, said = 1, ""
        try:
            action()
            code = 0
        except BaseException as error:
            from geonb.errors import GeonbError

            told = isinstance(error, GeonbError) or (isinstance(error, OSError) and error.errno is not None)
            code, said = (2 if told else 1), f"{type(error).__name__}: {error}"
        finally:
            os.write(write, said.encode("utf-8", "replace")[:4000])
            os._exit(code)
    os.close(write)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    with os.fdopen(read, "rb") as stream:
        said = stream.read().decode("utf-8", "replace")
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), said


class Campaign:
    """A tiny model, its plan, the undisturbed run, and the trials so far."""

    def __init__(self, root: Path, *, steps: int = 16) -> None:
        from geonb.plan import build_plan
        from geonb.train import run_training
        from tests.families import write_tiny
        from tests.tiny import sums

        self.root = root
        (root / "sums.jsonl").write_text(sums())
        model = write_tiny("llama", root / "model", hidden_size=32, intermediate_size=48)
        self.plan = build_plan(model, root / "sums.jsonl", max_steps=steps, calibrate=False)
        began = time.perf_counter()
        run_training(self.plan, output=root / "whole", device="cpu")
        self.seconds = time.perf_counter() - began
        self.whole = contents(root / "whole")
        self.trials: list[Trial] = []
        self._next = 0

    def folder(self) -> Path:
        """A run folder that nobody has used."""
        self._next += 1
        return self.root / f"run{self._next}"

    def train(self, folder: Path, **options: Any) -> None:
        """The whole run into `folder`."""
        from geonb.train import run_training

        run_training(self.plan, output=folder, device="cpu", **options)

    def go_on(self, folder: Path) -> tuple[int, str]:
        """What a person does after a fault: resume; where nothing was begun, start."""
        if not (folder / "plan.json").is_file():
            return in_child(lambda: self.train(folder))
        return in_child(lambda: self.train(folder, resume=True))

    def judge(self, arm: str, where: str, folder: Path, *, may_refuse: bool = False) -> Trial:
        """Go on after the fault and compare; a half-written adapter is never accepted."""
        code, said = self.go_on(folder)
        if code == 0:
            found = contents(folder)
            differing = [name for name in FILES if found[name] != self.whole[name]]
            ending = SAME if not differing else f"{BROKEN}: {', '.join(differing)} differ"
        elif code == 2 and may_refuse:
            ending = REFUSED
        else:
            ending = f"{BROKEN}: exit {code}"
        leftover = [path.name for path in folder.rglob("*.part")] if folder.is_dir() and code == 0 else []
        # a killed writer cannot take its temporary file back; it must not grow without bound
        if len(leftover) > 3:
            ending = f"{BROKEN}: {len(leftover)} temporary files left"
        trial = Trial(arm=arm, where=where, ending=ending, said=said)
        self.trials.append(trial)
        shutil.rmtree(folder, ignore_errors=True)
        return trial

    # -- the arms -----------------------------------------------------------------------------------------------------

    def kills(self, count: int, generator: random.Random) -> Iterator[Trial]:
        """SIGKILL at uniformly random instants of the run: the same bytes."""
        for _ in range(count):
            folder, instant = self.folder(), generator.uniform(0, self.seconds)
            in_child(lambda at=folder: self.train(at), kill_after=instant)
            yield self.judge("SIGKILL", f"after {instant:.3f} s of {self.seconds:.1f}", folder)

    def failing_writes(self, count: int, generator: random.Random, number: int, arm: str) -> Iterator[Trial]:
        """The n-th write, flush to disk or creation of a file fails with `number`: a sentence, then the same bytes."""
        total = self._count_writes()
        for place in sorted(generator.sample(range(1, total + 1), min(count, total))):
            folder = self.folder()
            code, said = in_child(lambda at=folder, n=place: _with_failing_writes(n, number, lambda: self.train(at)))
            where = f"write {place} of {total}"
            if code == 1:
                self.trials.append(Trial(arm=arm, where=where, ending=f"{BROKEN}: no sentence", said=said))
                yield self.trials[-1]
            yield self.judge(arm, where, folder)

    def _count_writes(self) -> int:
        read, write = os.pipe()
        folder = self.folder()

        def count() -> None:
            made = _with_failing_writes(0, 0, lambda: self.train(folder))
            os.write(write, str(made).encode())

        in_child(count)
        os.close(write)
        with os.fdopen(read) as stream:
            return int(stream.read())

    def two_runs(self, count: int) -> Iterator[Trial]:
        """Two processes train into one new folder: one is refused, and the other is not disturbed."""
        for round_number in range(count):
            folder, children = self.folder(), []
            for _ in range(2):
                child = os.fork()
                if child == 0:
                    code, _said = 1, ""
                    try:
                        self.train(folder)
                        code = 0
                    except BaseException as error:
                        from geonb.errors import GeonbError

                        code = 2 if isinstance(error, GeonbError) else 1
                    finally:
                        os._exit(code)
                children.append(child)
            codes = sorted(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)
            fine = codes == [0, 2] and contents(folder) == self.whole
            ending = SAME if fine else f"{BROKEN}: exits {codes}"
            self.trials.append(Trial(arm="two runs", where=f"round {round_number + 1}", ending=ending, said=""))
            shutil.rmtree(folder, ignore_errors=True)
            yield self.trials[-1]

    def clocks(self) -> Iterator[Trial]:
        """The wall clock jumps by a day in the middle, either way: the same bytes, without any resumption."""
        for jump in (-86_400, 86_400):
            folder = self.folder()

            def jumping(at: Path = folder, by: int = jump) -> None:
                real = time.time
                from geonb.train.events import StepEvent

                def shift(event: Any) -> None:
                    if isinstance(event, StepEvent) and event.step == 8:
                        time.time = lambda: real() + by

                self.train(at, sinks=[shift])

            code, said = in_child(jumping)
            ending = SAME if code == 0 and contents(folder) == self.whole else f"{BROKEN}: exit {code}"
            self.trials.append(Trial(arm="clock", where=f"{jump:+d} s at step 8", ending=ending, said=said))
            shutil.rmtree(folder, ignore_errors=True)
            yield self.trials[-1]

    def corruptions(self, count: int, generator: random.Random) -> Iterator[Trial]:
        """The checkpoint of a killed run loses or changes bytes: a refusal, never a silent restart or another result."""
        for number in range(count):
            folder = self.folder()
            in_child(lambda at=folder: self.train(at, sinks=[_killed_at(10)]))
            path = folder / "checkpoint" / "state.safetensors"
            data = bytearray(path.read_bytes())
            if number % 2:
                cut = generator.randrange(len(data))
                del data[cut:]
                where = f"cut at byte {cut}"
            else:
                place, bit = generator.randrange(len(data)), generator.randrange(8)
                data[place] ^= 1 << bit
                where = f"bit {bit} of byte {place} of {len(data)} flipped"
            path.write_bytes(bytes(data))
            yield self.judge("corrupt checkpoint", where, folder, may_refuse=True)

    def not_a_number(self) -> Iterator[Trial]:
        """A loss that is not finite ends the run as diverged, with the best adapter kept."""
        folder = self.folder()

        def poisoned() -> None:
            from geonb.train import gradient

            real, passes = gradient.forward_losses, [0]

            def poison(model: Any, batch: Any, **options: Any) -> Any:
                losses = real(model, batch, **options)
                passes[0] += 1
                if passes[0] == 20:
                    losses.nll.mul_(float("nan"))
                return losses

            gradient.forward_losses = poison
            self.train(folder)

        code, said = in_child(poisoned)
        stop = json.loads((folder / "trace.jsonl").read_text().splitlines()[-1])
        kept = (folder / "adapter" / "adapter_model.safetensors").is_file()
        fine = code == 0 and stop.get("reason") == "diverged" and kept
        ending = REFUSED if fine else f"{BROKEN}: exit {code}, {stop}"
        self.trials.append(Trial(arm="NaN loss", where="forward pass 20", ending=ending, said=said or stop["because"]))
        shutil.rmtree(folder, ignore_errors=True)
        yield self.trials[-1]

    def memory(self) -> Iterator[Trial]:
        """A batch does not fit: the micro-batch is halved, the trace says so, and the run ends as it should."""
        import torch

        for room in (2, 1):
            folder = self.folder()

            def scarce(at: Path = folder, limit: int = room) -> None:
                from geonb.train import gradient

                real = gradient.forward_losses

                def bounded(model: Any, batch: Any, **options: Any) -> Any:
                    if len(batch["input_ids"]) > limit:
                        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
                    return real(model, batch, **options)

                gradient.forward_losses = bounded
                self.train(at)

            code, said = in_child(scarce)
            events = [json.loads(line) for line in (folder / "trace.jsonl").read_text().splitlines()]
            notes = [event["because"] for event in events if event["kind"] == "note"]
            fine = code == 0 and len(notes) == 1 and events[-1].get("reason") == "horizon"
            ending = "went on, noted" if fine else f"{BROKEN}: exit {code}, notes {notes}"
            self.trials.append(
                Trial(arm="out of memory", where=f"room for {room}", ending=ending, said=said or notes[0])
            )
            shutil.rmtree(folder, ignore_errors=True)
            yield self.trials[-1]


def _killed_at(step: int) -> Callable[[Any], None]:
    from geonb.train.events import StepEvent

    def kill(event: Any) -> None:
        if isinstance(event, StepEvent) and event.step == step:
            os.kill(os.getpid(), signal.SIGKILL)

    return kill


def _with_failing_writes(place: int, number: int, action: Callable[[], None]) -> int:
    """Run `action` with the `place`-th operation that changes the disk, and every later one, failing; 0 only counts them."""
    made = [0]

    def tick(name: Any) -> None:
        made[0] += 1
        if place and made[0] >= place:
            raise OSError(number, os.strerror(number), str(name))

    def counted(real: Callable[..., Any], name_of: Callable[..., Any]) -> Callable[..., Any]:
        def replaced(*given: Any, **named: Any) -> Any:
            tick(name_of(*given))
            return real(*given, **named)

        return replaced

    # every way in which geonb changes a file: created, made durable, renamed, linked, appended to
    os.fsync = counted(os.fsync, lambda *given: "a file")  # type: ignore[assignment]
    os.replace = counted(os.replace, lambda *given: given[0])  # type: ignore[assignment]
    os.link = counted(os.link, lambda *given: given[0])  # type: ignore[assignment]
    tempfile.mkstemp = counted(tempfile.mkstemp, lambda *given: "a temporary file")  # type: ignore[assignment]
    real_open = io.open

    def opened(file: Any, mode: str = "r", *given: Any, **named: Any) -> Any:
        if any(letter in mode for letter in "wax+") and not isinstance(file, int):
            tick(file)
        return real_open(file, mode, *given, **named)

    io.open = builtins.open = opened  # type: ignore[assignment]
    action()
    return made[0]


def report(trials: list[Trial], folder: Path, seconds: float) -> str:
    """Write faults.json and faults.md; returns the table."""
    counts: dict[str, collections.Counter] = {}
    for trial in trials:
        counts.setdefault(trial.arm, collections.Counter())[trial.ending.split(":")[0]] += 1
    rows = [
        "# Faults\n",
        "Each trial is a real training run in a process of its own, hit once; the instants and what was said: faults.json.\n",
        "| fault | trials | " + " | ".join((SAME, REFUSED, "went on, noted", BROKEN)) + " |",
        "|---|---|---|---|---|---|",
    ]
    for arm, found in counts.items():
        cells = (found[ending] for ending in (SAME, REFUSED, "went on, noted", BROKEN))
        rows.append(f"| {arm} | {sum(found.values())} | " + " | ".join(str(cell) for cell in cells) + " |")
    broken = [f"- {one.arm}, {one.where}: {one.ending} ({one.said})" for one in trials if one.ending.startswith(BROKEN)]
    text = "\n".join([*rows, "", f"{len(trials)} trials in {seconds:.0f} s; {len(broken)} broken.", *broken, ""])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "faults.md").write_text(text, encoding="utf-8")
    # the temporary folder is nobody's business
    told = re.sub(r"[^\s\"]*geonb-faults-[^/]*/", "", json.dumps([asdict(one) for one in trials], indent=1))
    (folder / "faults.json").write_text(told + "\n", encoding="utf-8")
    return text


def main() -> None:
    """Run every arm and write the report; exit 1 where anything broke."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--writes", type=int, default=25, help="places for each of the two failing disks")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--report", type=Path, default=Path("campaign"))
    given = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    generator, began = random.Random(given.seed), time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="geonb-faults-") as root:
        campaign = Campaign(Path(root))
        arms = (
            campaign.kills(given.kills, generator),
            campaign.failing_writes(given.writes, generator, errno.ENOSPC, "disk full"),
            campaign.failing_writes(given.writes, generator, errno.EROFS, "read-only"),
            campaign.two_runs(max(1, given.kills // 10)),
            campaign.clocks(),
            campaign.corruptions(max(2, given.kills // 5), generator),
            campaign.not_a_number(),
            campaign.memory(),
        )
        for arm in arms:
            for trial in arm:
                print(f"{trial.arm:20} {trial.where:40} {trial.ending}", file=sys.stderr, flush=True)
    text = report(campaign.trials, given.report, time.perf_counter() - began)
    print(text)
    raise SystemExit(any(trial.ending.startswith(BROKEN) for trial in campaign.trials))


if __name__ == "__main__":
    main()
