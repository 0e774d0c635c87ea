"""A model that trains in a second, data and runs of it, each made once a session; and how a still picture is read."""

from __future__ import annotations

import functools
import json
import time
import urllib.parse
import warnings
import xml.etree.ElementTree as tree
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from tests.families import write_tiny

_made: dict[Any, Any] = {}


def _once(make: Any) -> Any:
    """`make`, called once for each value of the arguments after the first."""

    @functools.wraps(make)
    def made(factory: Any, *given: Any) -> Any:
        key = make.__name__, factory.getbasetemp(), *given
        if key not in _made:
            _made[key] = make(factory, *given)
        return _made[key]

    return made


@_once
def tiny_model(factory: Any) -> Path:
    """A random two-layer llama of width 32; `factory` is pytest's `tmp_path_factory`."""
    return write_tiny("llama", factory.mktemp("models") / "tiny", hidden_size=32, intermediate_size=48)


def sums(fruit: str = "apples") -> str:
    """Two hundred records of one line each, as JSONL."""
    rows = ({"text": f"{i} {fruit} and {i % 17} pears make {i + i % 17} pieces."} for i in range(200))
    return "".join(json.dumps(row) + "\n" for row in rows)


@_once
def tiny_data(factory: Any) -> Path:
    """`sums()` as a file."""
    path = factory.mktemp("data") / "sums.jsonl"
    path.write_text(sums())
    return path


@_once
def tiny_plan(factory: Any, steps: int = 4) -> Any:
    """A plan of the tiny model on the sums."""
    from geonb.plan import build_plan

    return build_plan(tiny_model(factory), tiny_data(factory), max_steps=steps, calibrate=False)


@_once
def tiny_run(factory: Any, steps: int = 4) -> Path:
    """The folder of a finished, verified run: read it, or copy it before changing it."""
    from geonb.train import run_training

    folder = factory.mktemp("runs") / f"steps-{steps}"
    run_training(tiny_plan(factory, steps), output=folder)
    return folder


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def pictures(html: str) -> list[str]:
    """The text of each picture in a still view, after checking that nothing in it can run or leave the machine."""
    page = _Page()
    page.feed(html)
    page.close()
    found = []
    for tag, attributes in page.tags:
        assert tag in {"img", "table", "caption", "thead", "tbody", "tr", "th", "td", "details", "summary", "p", "pre"}
        assert set(attributes) <= {"alt", "style", "src"}, attributes
        if tag == "img":
            scheme, _, quoted = str(attributes["src"]).partition(",")
            assert scheme == "data:image/svg+xml"
            root = tree.fromstring(urllib.parse.unquote(quoted))
            assert not [part for part in root.iter() if part.tag.endswith(("script", "foreignObject", "image"))]
            found.append(" ".join(root.itertext()))
    return found


def options(factory: Any) -> str:
    """The tiny model and the sums as the TOML of a cell, with a horizon that no test lives to see."""
    return f'model = "{tiny_model(factory)}"\ndata = "{tiny_data(factory)}"\nmax_steps = 4000\n'


def train(shell: Any, line: str, cell: str = "# the folder says it all", *, steps: int = 0) -> Any:
    """Start a run behind a cell of an IPython shell, and return its job when it has made some steps."""
    from geonb.cli.live import TrainingJob
    from geonb.train import RunFolder
    from geonb.train.events import StepEvent

    job = shell.run_cell_magic("geonb", f"train {line}", cell)
    assert isinstance(job, TrainingJob) and RunFolder(job.folder).is_run()
    until = time.monotonic() + 60
    while sum(isinstance(event, StepEvent) for event in RunFolder(job.folder).events()) < steps:
        assert job.is_running and time.monotonic() < until, job
        time.sleep(0.02)
    return job


def completed(shell: Any, line: str) -> list[str]:
    """What an IPython shell offers at the end of `line`."""
    with warnings.catch_warnings():
        # IPython keeps this call for its own terminal and would have others call a provisional one
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        return list(shell.complete("", line)[1])
