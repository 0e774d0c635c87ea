"""Whatever a file holds, its reader answers with a value or with one sentence, and leaves everything else alone.

The short form of `python -m tests.campaigns.fuzz`: a few worsened inputs for every reader, always the same ones, and the
smallest input of every defect that the campaign has found.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from geonb.errors import GeonbError, InputError
from tests.campaigns import Hang, Place, Reader, attempt, open_place, write_files
from tests.campaigns.cases import ADAPTER, BENCH, CASES, Case, changed
from tests.campaigns.fuzz import explore
from tests.campaigns.readers import READERS

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")

BY_NAME = {reader.name: reader for reader in READERS}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    base = tmp_path_factory.mktemp("hostile")
    write_files(base, tmp_path_factory)
    before = Path.cwd()
    os.chdir(base / "inside")
    yield open_place(base)
    os.chdir(before)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_input_that_broke_a_reader_once_is_answered_with_a_sentence(case: Case, place: Place):
    content = case.content if isinstance(case.content, bytes) else case.content(place)
    assert attempt(BY_NAME[case.reader], place, content, seconds=3) is None


# -- folders that lead elsewhere --------------------------------------------------------------------------------------


@contextmanager
def within(seconds: int) -> Iterator[None]:
    """An endless answer is a failure, and not a suite that never ends."""

    def ring(number: int, frame: Any) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture
def run(place: Place, tmp_path: Path) -> Path:
    """A copy of the finished run."""
    return Path(shutil.copytree(place.inside / "run", tmp_path / "run"))


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A file outside of every folder that is read."""
    path = tmp_path / "precious.txt"
    path.write_text("precious")
    return path


def linked(path: Path, target: Path) -> Path:
    """`path` as a link to `target`."""
    path.unlink(missing_ok=True)
    path.symlink_to(target)
    return path


def test_a_model_whose_files_are_links_is_read_for_the_hub_cache_is_made_of_them(place: Place, tmp_path: Path):
    from geonb.models.checkpoint import Checkpoint

    folder = tmp_path / "snapshot"
    folder.mkdir()
    for path in (place.inside / "model").iterdir():
        (folder / path.name).symlink_to(path)
    assert Checkpoint.open(folder).digest == Checkpoint.open(place.inside / "model").digest


def test_a_report_replaces_a_link_and_leaves_its_target_alone(run: Path, victim: Path):
    from geonb.widgets.report import write_report

    linked(run / "report.html", victim)
    write_report(run)
    assert victim.read_text() == "precious" and not (run / "report.html").is_symlink()


def test_a_trace_that_is_a_link_is_never_cut_or_written(run: Path, victim: Path):
    from geonb.train.run_folder import RunFolder

    linked(run / "trace.jsonl", victim)
    with pytest.raises(InputError, match="link"):
        RunFolder(run).cut_trace(0)
    assert victim.read_text() == "precious"


def test_a_stop_request_that_is_a_link_makes_no_file_elsewhere(run: Path, tmp_path: Path):
    from geonb.train.run_folder import RunFolder

    linked(run / "stop", tmp_path / "made")
    with pytest.raises(InputError, match="link"):
        RunFolder(run).request_stop()
    assert not (tmp_path / "made").exists()


def test_a_lock_that_is_a_link_makes_no_file_elsewhere(run: Path, tmp_path: Path):
    from geonb.train.run_folder import RunFolder

    linked(run / ".lock", tmp_path / "made")
    with pytest.raises(InputError, match="link"), RunFolder(run).held():
        pass
    assert not (tmp_path / "made").exists()


def test_a_checkpoint_folder_that_is_a_link_gets_no_file(run: Path, tmp_path: Path):
    import torch

    from geonb.train.checkpoint import Snapshot, save_snapshot
    from geonb.train.run_folder import RunFolder

    (tmp_path / "elsewhere").mkdir()
    shutil.rmtree(run / "checkpoint")
    (run / "checkpoint").symlink_to(tmp_path / "elsewhere")
    one = {"a": torch.zeros(1)}
    with pytest.raises(InputError, match="link"):
        save_snapshot(
            RunFolder(run).checkpoint_path,
            Snapshot(step=1, trace_length=0, facts={}, leaves=one, best=one, controller={}),
        )
    assert not list((tmp_path / "elsewhere").iterdir())


def test_overwriting_a_folder_that_is_a_link_is_refused_in_a_sentence(run: Path, tmp_path: Path):
    from geonb.train.run_folder import RunFolder

    plan = RunFolder(run).plan()
    with pytest.raises(InputError, match="link"):
        RunFolder.create(linked(tmp_path / "link", run), plan, overwrite=True)


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_a_trace_that_is_no_file_is_refused_at_once(run: Path, kind: str):
    from geonb.train.run_folder import RunFolder

    (run / "trace.jsonl").unlink()
    if kind == "pipe":
        os.mkfifo(run / "trace.jsonl")
    else:
        (run / "trace.jsonl").mkdir()
    with within(2), pytest.raises(InputError):
        list(RunFolder(run).events())


def test_following_a_trace_that_is_a_pipe_does_not_wait(run: Path):
    from geonb.widgets.trace_columns import TraceColumns, TraceReader

    (run / "trace.jsonl").unlink()
    os.mkfifo(run / "trace.jsonl")
    with within(2):
        assert not TraceReader(run / "trace.jsonl", TraceColumns()).read()


def test_the_report_of_a_strangers_run_downloads_nothing(run: Path, monkeypatch: pytest.MonkeyPatch):
    from geonb.models import checkpoint
    from geonb.widgets.report import write_report

    asked: list[str] = []
    plan = json.loads((run / "plan.json").read_text())
    plan["model"]["source"] = "owner/name"
    (run / "plan.json").write_text(json.dumps(plan))

    def fetch(hub_id: str) -> Path:
        asked.append(hub_id)
        raise InputError("nothing is let out")

    monkeypatch.setattr(checkpoint, "_fetch", fetch)
    write_report(run)
    assert not asked


def test_bases_of_a_few_bytes_are_refused_in_a_sentence(run: Path):
    from geonb.train import setup

    path: Any = run / "checkpoint" / "bases.safetensors"
    path.write_bytes(b"{}")
    nothing: Any = None
    with pytest.raises(GeonbError):
        setup._bases(nothing, nothing, path, nothing, nothing)


# -- code, templates and expressions of a stranger --------------------------------------------------------------------


class Payload:
    """A pickle that leaves a mark when it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


def test_no_pickle_runs_whatever_it_is_called(place: Place, tmp_path: Path):
    import pickle

    from geonb.adapters.audit import audit_adapter
    from geonb.models.checkpoint import Checkpoint
    from geonb.workbench.bench import Bench

    content = pickle.dumps(Payload(tmp_path / "ran"))
    model = Path(shutil.copytree(place.inside / "model", tmp_path / "model"))
    (model / "model.safetensors").unlink()
    adapter = Path(shutil.copytree(place.inside / "adapter", tmp_path / "adapter"))
    (adapter / "adapter_model.safetensors").unlink()
    readers: list[tuple[Path, Callable[[], Any]]] = [
        (model / "pytorch_model.bin", lambda: Checkpoint.open(model)),
        (model / "model.safetensors", lambda: Checkpoint.open(model)),
        (adapter / "adapter_model.bin", lambda: audit_adapter(adapter)),
        (adapter / "adapter_model.bin", lambda: Bench.open("embedded", {"a": adapter}, device="cpu")),
        (adapter / "adapter_model.safetensors", lambda: audit_adapter(adapter)),
    ]
    for path, read in readers:
        path.write_bytes(content)
        with pytest.raises(InputError):
            read()
        path.unlink()
    assert not (tmp_path / "ran").exists()


def test_an_adapter_inside_a_models_folder_does_not_change_the_model_unseen(place: Place, tmp_path: Path):
    from geonb.models.checkpoint import Checkpoint
    from geonb.models.runtime import TorchRuntime

    folder = Path(shutil.copytree(place.inside / "model", tmp_path / "model"))
    for path in (place.inside / "adapter").iterdir():
        shutil.copy(path, folder / path.name)
    with pytest.raises(InputError, match="adapter"):
        TorchRuntime.load(Checkpoint.open(folder), device="cpu")


@pytest.mark.parametrize(
    ("field", "value"),
    [("init_lora_weights", "pissa"), ("init_lora_weights", "olora"), ("layer_replication", [[0, 2], [0, 2]])],
    ids=["pissa", "olora", "layers twice"],
)
def test_an_adapter_leaves_the_base_of_a_bench_alone(place: Place, tmp_path: Path, field: str, value: Any):
    import torch

    from geonb.workbench.bench import Bench

    folder = Path(shutil.copytree(place.inside / "adapter", tmp_path / "adapter"))
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, field: value}))
    bench = Bench.open(place.inside / "model", device="cpu")
    before = bench.runtime.logits([1, 2, 3])
    try:
        bench.add("it", folder)
    except InputError:
        return
    with bench.using(None):
        assert torch.equal(bench.runtime.logits([1, 2, 3]), before)


EXPRESSIONS = {
    "a repeat of a repeat": "(([a-z_.0-9])+)+X",
    "forty that may be there": ".?" * 40 + "X",
    "thirty choices": "(.|.)" * 30 + "X",
}


@pytest.mark.parametrize(
    "field", ["rank_pattern", "alpha_pattern", "target_modules", "exclude_modules", "modules_to_save"]
)
@pytest.mark.parametrize("name", EXPRESSIONS)
def test_no_expression_of_a_strangers_adapter_keeps_a_bench_waiting(place: Place, name: str, field: str):
    pattern = EXPRESSIONS[name]
    values = {"target_modules": pattern, "exclude_modules": pattern, "modules_to_save": [pattern]}
    content = changed(field, to=values.get(field, {pattern: 4}), of=ADAPTER)(place)
    assert attempt(BY_NAME[BENCH], place, content, seconds=1.5) is None


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_no_expression_of_a_strangers_adapter_keeps_an_audit_waiting(place: Place, name: str):
    content = changed("rank_pattern", to={EXPRESSIONS[name]: 4}, of=ADAPTER)(place)
    assert attempt(BY_NAME["adapters.audit (config, base given)"], place, content, seconds=1.5) is None


def test_layers_are_not_replicated_a_hundred_thousand_times(place: Place):
    content = changed("layer_replication", to=[[0, 2]] * 50_000, of=ADAPTER)(place)
    assert attempt(BY_NAME[BENCH], place, content, seconds=3) is None


TEMPLATES = {
    "divides by zero": "{{ 1 / 0 }}",
    "is cut short": "{% if %}",
    "refuses": "{{ raise_exception('no') }}",
    "asks for what is not there": "{{ x.y.z }}",
    "leaves its sandbox": "{{ ''.__class__.__mro__ }}",
    "is a number": 5,
    "counts to ten billion": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_chat_template_of_a_stranger_is_answered_with_a_sentence(place: Place, tmp_path: Path, name: str):
    from geonb.data.template import assistant_spans
    from geonb.models.checkpoint import Checkpoint

    folder = Path(shutil.copytree(place.inside / "model", tmp_path / "model"))
    for path in folder.glob("*.jinja"):
        path.unlink()
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": TEMPLATES[name]}))
    messages = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "good day"}]
    with within(2), pytest.raises(InputError):
        assistant_spans(Checkpoint.open(folder).load_tokenizer(), messages)


# -- every reader, a little -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_whatever_its_file_holds_a_reader_answers_with_a_value_or_a_sentence(reader: Reader, place: Place):
    found = explore(reader, place, seconds=10, examples=reader.examples)
    assert not found.failures, "\n".join(
        f"{one.kind} {one.error} at {one.where}:{one.line}: {one.message} for {one.content[:200]!r}"
        for one in found.failures
    )
