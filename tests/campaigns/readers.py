"""Every reader of a stranger's bytes: what it is fed, from which folder, and what it may raise.

`READERS` is the table. A reader answers with a value or a `GeonbError`; `tests.campaigns.fuzz` says what else counts.
"""

from __future__ import annotations

import copy
import importlib
import io
import json
import sys
from collections.abc import Callable
from typing import Any

from geonb.errors import GeonbError
from tests.campaigns import Place, Reader

# -- the readers ------------------------------------------------------------------------------------------------------


def _file(name: str, read: Callable[[Place], Any]) -> Callable[[Place, bytes], Any]:
    """Put the input where `name` stands, read, and put back what stood there."""

    def feed(place: Place, content: bytes) -> Any:
        path = place.inside / name
        path.write_bytes(content)
        try:
            return read(place)
        finally:
            path.unlink(missing_ok=True)
            if name in place.seeds:
                path.write_bytes(place.seeds[name])

    return feed


def _seed(name: str) -> Callable[[Place], bytes]:
    return lambda place: place.seeds[name]


def _reads(name: str, form: str, file: str, read: Callable[[Place], Any], **more: Any) -> Reader:
    return Reader(name=name, form=form, seed=_seed(file), feed=_file(file, read), **more)


def _calls(module: str, name: str, path: str) -> Callable[[Place], Any]:
    return lambda place: getattr(importlib.import_module(f"geonb.{module}"), name)(place.inside / path)


def _model(place: Place) -> Any:
    from geonb.models.checkpoint import Checkpoint

    found = Checkpoint.open(place.inside / "model")
    _ = found.context_length, found.layers, found.parameters, found.files, repr(found)
    for ref in found.refs:
        found.read(ref)
    return None


def _tokenised(place: Place) -> Any:
    from geonb.data.dataset import tokenise
    from geonb.data.records import read_records
    from geonb.models.checkpoint import Checkpoint

    checkpoint = place.once("checkpoint", lambda: Checkpoint.open("embedded"))
    tokenizer = place.once("tokenizer", checkpoint.load_tokenizer)
    tokenise(read_records(place.inside / "data.jsonl"), tokenizer, context_length=512)


def _tokenizer(place: Place) -> Any:
    from geonb.data.dataset import tokenise
    from geonb.data.records import DataRecord
    from geonb.models.checkpoint import Checkpoint

    checkpoint = place.once("tiny", lambda: Checkpoint.open(place.inside / "model"))
    messages = ({"role": "user", "content": "hello"}, {"role": "assistant", "content": "good day"})
    tokenizer = checkpoint.load_tokenizer()
    for record in (DataRecord(1, "text", "one", (), None, ""), DataRecord(2, "messages", "", messages, None, "")):
        tokenise([record], tokenizer, context_length=64)


def _runtime(place: Place) -> Any:
    from geonb.models.checkpoint import Checkpoint
    from geonb.models.runtime import TorchRuntime

    TorchRuntime.load(Checkpoint.open(place.inside / "model"), device="cpu").logits([1, 2, 3])


def _bench(place: Place) -> Any:
    from geonb.models.checkpoint import Checkpoint
    from geonb.models.runtime import TorchRuntime
    from geonb.workbench.bench import Bench

    def load() -> Any:
        return TorchRuntime.load(Checkpoint.open(place.inside / "model"), device="cpu")

    runtime = copy.copy(place.once("runtime", load))
    runtime.model = copy.deepcopy(runtime.model)
    bench = Bench(runtime=runtime, adapters={})
    bench.add("it", place.inside / "adapter")
    with bench.using("it"):
        bench.runtime.logits([1, 2, 3])
    with bench.using(None):
        bench.runtime.logits([1, 2, 3])


def _audit(place: Place) -> Any:
    from geonb.adapters.audit import audit_adapter

    checkpoint = place.once("tiny", lambda: _open_model(place))
    return audit_adapter(place.inside / "adapter", base=checkpoint)


def _audit_alone(place: Place) -> Any:
    from geonb.adapters.audit import audit_adapter

    return audit_adapter(place.inside / "adapter")


def _open_model(place: Place) -> Any:
    from geonb.models.checkpoint import Checkpoint

    return Checkpoint.open(place.inside / "model")


def _factors(place: Place) -> Any:
    from geonb.adapters import experts, peft_files

    peft_files.load_factors(place.inside / "adapter")
    experts.load_factors(place.inside / "adapter")


def _plan(place: Place) -> Any:
    from geonb.plan.plan import Plan

    plan = Plan.load(place.inside / "run" / "plan.json")
    return [plan, (plan.to_text(explain=True), "")]


def _run(place: Place) -> Any:
    from geonb.train.run_folder import RunFolder

    return RunFolder.open(place.inside / "run")


def _compared(place: Place) -> Any:
    from geonb.train.compare import compare_runs

    return compare_runs([place.inside / "run", place.inside / "run"])


def _report(place: Place) -> Any:
    from geonb.widgets.report import write_report

    return "", write_report(place.inside / "run").read_text(encoding="utf-8")


def _library(place: Place) -> Any:
    from geonb.widgets.dashboards.library import Library

    library = Library([str(place.inside)])
    library.model_sources()


def _line(place: Place) -> Any:
    from geonb.widgets.trace_columns import TraceColumns, TraceReader
    from geonb.widgets.trace_picture import columns_picture

    columns = TraceColumns()
    TraceReader(place.inside / "run" / "trace.jsonl", columns).read()
    return "", columns_picture(columns, hints=True)


def _spectrum(place: Place, content: bytes) -> Any:
    from geonb.models import cache

    folder = cache.cache_folder() / "spectra"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "hostile.npz").write_bytes(content)
    return cache.load_spectrum("hostile")


def _spectrum_seed(place: Place) -> bytes:
    import numpy as np

    facts = {"shape": [3, 3], "tier": "exact", "error_bound": 0.0, "backend": "numpy", "dtype": "float32"}
    stream = io.BytesIO()
    np.savez(stream, values=np.array([3.0, 2.0, 1.0]), facts=np.array(json.dumps(facts)))
    return stream.getvalue()


def _prompts(place: Place, content: bytes) -> Any:
    from geonb.models.checkpoint import Checkpoint
    from geonb.workbench.prompts import read_prompts

    tokenizer = place.once("tokenizer", lambda: Checkpoint.open("embedded").load_tokenizer())
    path = place.inside / "prompts.jsonl"
    path.write_bytes(content)
    read_prompts(path, tokenizer, context=512)


def _prepared(place: Place, content: bytes) -> Any:
    from geonb.data.prepare import prepare

    path = place.inside / "source.jsonl"
    path.write_bytes(content)
    return prepare(path, place.inside / "prepared.jsonl", overwrite=True, show_dropped=True)


def _registry(place: Place, content: bytes) -> Any:
    from geonb.models.cache import cache_folder
    from geonb.models.registry import list_models

    path = cache_folder() / "models.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    try:
        return list_models(cached=False)
    finally:
        path.unlink()


def _cell(place: Place, content: bytes) -> Any:
    from geonb.magics import GeonbMagics

    # a folder that is not there stops every command before it works, behind the reading of all options
    line = f"plan --model {place.inside / 'nothing'} --data {place.inside / 'nothing'}"
    GeonbMagics(shell=None).geonb(line, content.decode("utf-8", "surrogatepass"))


def _words(place: Place, content: bytes) -> Any:
    from geonb.cli.app import main

    before, sys.stdout = sys.stdout, io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    try:
        main(content.decode("utf-8", "surrogateescape").split("\x1f"))
    except SystemExit:
        pass
    finally:
        sys.stdout = before


def _text(read: Callable[[str], Any]) -> Callable[[Place, bytes], Any]:
    return lambda place, content: read(content.decode("utf-8", "surrogateescape"))


def _checkpoint_path(text: str) -> Any:
    importlib.import_module("geonb.models.checkpoint").Checkpoint.open(text)


def _many_paths(text: str) -> Any:
    """Every reader that is given a path, one after the other: the first that does not refuse it in a sentence ends it."""
    from geonb.adapters.audit import audit_adapter
    from geonb.adapters.peft_files import load_factors
    from geonb.data.records import read_records
    from geonb.plan.plan import Plan
    from geonb.train.compare import compare_runs
    from geonb.train.run_folder import refuse_existing
    from geonb.train.status import run_status
    from geonb.widgets.mass_trace import MassTrace
    from geonb.workbench.bench import adapter_folder

    readers = (
        read_records, load_factors, audit_adapter, adapter_folder, Plan.load, run_status, MassTrace, refuse_existing,
        lambda path: compare_runs([path, path]),
    )  # fmt: skip
    for read in readers:
        try:
            read(text)
        except GeonbError:
            pass


def _options(text: str) -> Any:
    from geonb.plan.options import bytes_of, expert_names, role_names

    refused = []
    for read in (bytes_of, role_names, lambda tokens: expert_names(tokens, ())):
        try:
            read(text)
        except GeonbError as error:
            refused.append(error)


def _record(module: str, name: str, seed: Callable[[Place], bytes]) -> Reader:
    def feed(place: Place, content: bytes) -> Any:
        found = getattr(importlib.import_module(module), name).from_json(content)
        return found.checked() if name == "PlanOptions" else found

    return Reader(name=f"{module.removeprefix('geonb.')}.{name}.from_json", form="json", seed=seed, feed=feed)


def _json_of(make: Callable[[Place], Any]) -> Callable[[Place], bytes]:
    return lambda place: place.once(f"seed {make!r}", lambda: make(place).to_json().encode())


def _plan_options(place: Place) -> Any:
    from geonb.plan.options import PlanOptions

    return PlanOptions(seed=1, exclude_roles=("q",), memory_budget=10**6)


def _measured(place: Place) -> Any:
    from geonb.geometry.measurement import Measurement

    return Measurement(value=0.5, interval=(0.4, 0.6), n=30, null=0.0, unit="nats", operator="mean")


def _spectrum_record(place: Place) -> Any:
    from geonb.geometry.spectrum import Spectrum

    return Spectrum.of([3.0, 2.0, 1.0])


_status = _calls("train.status", "run_status", "run")
_trace = _calls("widgets.mass_trace", "MassTrace", "run")
_headers = _calls("models.headers", "read_header", "model/model.safetensors")
_index = _calls("models.headers", "read_headers", "model")
_data = _calls("data.records", "read_records", "data.jsonl")
_snapshot = _calls("train.checkpoint", "load_snapshot", "run/checkpoint/state.safetensors")
_INDEX = b'{"metadata": {}, "weight_map": {"a": "model.safetensors", "b": "model.safetensors"}}'
_MODELS = b'{"schema": 1, "models": {"mine": {"folder": "/nowhere"}}}'
_ADAPTER, _WEIGHTS = "adapter/adapter_config.json", "adapter/adapter_model.safetensors"


def usage_error() -> type[BaseException]:
    """What a magic raises for a person: one line, no traceback."""
    from IPython.core.error import UsageError

    return UsageError


READERS: tuple[Reader, ...] = (
    _reads("models.headers.read_header", "safetensors", "model/model.safetensors", _headers, examples=40),
    Reader(
        "models.headers.weight_files", "json", lambda place: _INDEX, _file("model/model.safetensors.index.json", _index),
        examples=40,
    ),
    _reads("models.checkpoint.Checkpoint (config.json)", "json", "model/config.json", _model),
    _reads("models.checkpoint.Checkpoint (weights)", "safetensors", "model/model.safetensors", _model),
    _reads("models.checkpoint.load_tokenizer (tokenizer.json)", "json", "model/tokenizer.json", _tokenizer, examples=4),
    _reads("models.checkpoint.load_tokenizer (config)", "json", "model/tokenizer_config.json", _tokenizer, examples=4),
    _reads("models.runtime.TorchRuntime.load", "json", "model/config.json", _runtime, examples=6),
    Reader("models.checkpoint.resolve", "path", lambda place: b"model", _text(_checkpoint_path)),
    Reader("models.cache.load_spectrum", "npz", _spectrum_seed, _spectrum, examples=30),
    Reader("models.registry", "json", lambda place: _MODELS, _registry, leads=True),
    _reads("data.records.read_records", "jsonl", "data.jsonl", _data, examples=60),
    _reads("data.dataset.tokenise", "jsonl", "data.jsonl", _tokenised, examples=20),
    Reader("data.prepare", "jsonl", _seed("data.jsonl"), _prepared, examples=20),
    Reader("workbench.prompts.read_prompts", "jsonl", lambda place: b'{"prompt": "one and one"}\n', _prompts, examples=20),
    _reads("adapters.load_factors", "safetensors", _WEIGHTS, _factors, examples=30),
    _reads("adapters.audit (config, base given)", "json", _ADAPTER, _audit),
    _reads("adapters.audit (config's own base)", "json", _ADAPTER, _audit_alone, leads=True),
    _reads("adapters.audit (weights)", "safetensors", _WEIGHTS, _audit),
    _reads("workbench.bench (config)", "json", _ADAPTER, _bench, examples=8),
    _reads("workbench.bench (weights)", "safetensors", _WEIGHTS, _bench, examples=6),
    _reads("plan.plan.Plan", "json", "run/plan.json", _plan),
    _record("geonb.plan.options", "PlanOptions", _json_of(_plan_options)),
    Reader("plan.options (text)", "path", lambda place: b"8GB", _text(_options), examples=40),
    _record("geonb.geometry.measurement", "Measurement", _json_of(_measured)),
    _record("geonb.geometry.spectrum", "Spectrum", _json_of(_spectrum_record)),
    _record("geonb.train.gates", "Verification", _seed("run/verification.json")),
    _record("geonb.train.samples", "Samples", _seed("run/samples.json")),
    _record("geonb.train.example_losses", "ExampleLosses", _seed("run/losses.json")),
    _record("geonb.adapters.audit", "AdapterAudit", _json_of(_audit)),
    _record("geonb.train.compare", "RunsCompared", _json_of(_compared)),
    _record("geonb.train.status", "RunStatus", _json_of(_status)),
    _reads("train.run_folder.events", "jsonl", "run/trace.jsonl", lambda place: list(_run(place).events())),
    _reads("train.run_folder.status", "json", "run/status.json", lambda place: (_run(place).status(), _run(place).is_alive())),
    _reads("train.status.run_status (plan)", "json", "run/plan.json", _status),
    _reads("train.status.run_status (status)", "json", "run/status.json", _status),
    _reads("train.status.run_status (verification)", "json", "run/verification.json", _status),
    _reads("train.checkpoint.load_snapshot", "safetensors", "run/checkpoint/state.safetensors", _snapshot),
    *(
        _reads(f"train.compare ({name})", form, f"run/{name}", _compared)
        for name, form in (
            ("plan.json", "json"), ("status.json", "json"), ("trace.jsonl", "jsonl"), ("verification.json", "json"),
            ("losses.json", "json"),
        )
    ),
    _reads("widgets.trace_columns", "jsonl", "run/trace.jsonl", _line, examples=30),
    *(
        _reads(f"widgets.mass_trace ({name})", form, f"run/{name}", _trace)
        for name, form in (
            ("plan.json", "json"), ("status.json", "json"), ("trace.jsonl", "jsonl"), ("verification.json", "json"),
            ("samples.json", "json"),
        )
    ),
    *(
        _reads(f"widgets.report ({name})", form, f"run/{name}", _report, leads=True, examples=6)
        for name, form in (
            ("plan.json", "json"), ("trace.jsonl", "jsonl"), ("verification.json", "json"), ("samples.json", "json"),
        )
    ),
    _reads("widgets.dashboards.library", "json", "run/plan.json", _library),
    Reader("magics (cell)", "toml", lambda place: b'seed = 1\nbasis = "tail"\n', _cell, may=(GeonbError, usage_error())),
    Reader("cli", "words", lambda place: b"train\x1fstatus\x1fnowhere", _words, examples=30),
    Reader("paths", "path", lambda place: b"nowhere", _text(_many_paths), examples=30),
)  # fmt: skip
