"""The smallest input of every defect that the campaign of hostile input has found, each beside what should be said."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.campaigns import ESCAPE, MARKUP, Place

DEEP, HUGE = b"[" * 100_000, b"9" * 5000


@dataclass(frozen=True, slots=True)
class Case:
    """One input that broke its reader once: a file's bytes, or how they are made from the valid ones."""

    name: str
    reader: str
    content: bytes | Callable[[Place], bytes]


def changed(*path: Any, to: Any, of: str) -> Callable[[Place], bytes]:
    """The valid JSON file `of` with the value at `path` replaced."""

    def make(place: Place) -> bytes:
        tree = json.loads(place.seeds[of])
        holder = tree
        for key in path[:-1]:
            holder = holder[key]
        holder[path[-1]] = to
        return json.dumps(tree).encode()

    return make


def headed(header: Any, data: bytes = b"") -> bytes:
    """A safetensors file with this header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(**changes: Any) -> dict[str, Any]:
    """One tensor's entry in a header, with changes; None takes a field away."""
    whole = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16], **changes}
    return {"a": {key: value for key, value in whole.items() if value is not None}}


_HEADER, _INDEX = "models.headers.read_header", "models.headers.weight_files"
_CONFIG, _WEIGHTS = "models.checkpoint.Checkpoint (config.json)", "models.checkpoint.Checkpoint (weights)"
MODEL, ADAPTER, _PLAN = "model/config.json", "adapter/adapter_config.json", "run/plan.json"
BENCH = "workbench.bench (config)"

CASES = (
    # -- models -------------------------------------------------------------------------------------------------------
    Case("a header that is a list", _HEADER, headed([])),
    Case("a header that is a number", _HEADER, headed(0)),
    Case("a header whose tensor is a number", _HEADER, headed({"a": 0})),
    Case("a header without offsets", _HEADER, headed(entry(data_offsets=None))),
    Case("a header with one offset", _HEADER, headed(entry(data_offsets=[0]))),
    Case("a header with offsets of text", _HEADER, headed(entry(data_offsets=["a", "b"]))),
    Case("a header without a shape", _HEADER, headed(entry(shape=None), b"\0" * 16)),
    Case("a header without a dtype", _HEADER, headed(entry(dtype=None), b"\0" * 16)),
    Case("a header whose shape is a number", _HEADER, headed(entry(shape=4), b"\0" * 16)),
    Case("a header of a hundred thousand brackets", _HEADER, headed(DEEP)),
    Case("a header with a number of 5,000 digits", _HEADER, headed(b'{"a": ' + HUGE + b"}")),
    Case("a header that claims more than the file has", _HEADER, (2**63).to_bytes(8, "little") + b"{}"),
    Case("a header with negative offsets", _HEADER, headed(entry(data_offsets=[-16, 0]))),
    Case("a terabyte claimed by a hundred bytes", _HEADER, headed(entry(shape=[10**6, 10**6], data_offsets=[0, 4 * 10**12]))),
    Case("a shape of text", _WEIGHTS, headed(entry(shape=["a", 2]), b"\0" * 16)),
    Case("a shape that the bytes do not fill", _WEIGHTS, headed(entry(shape=[10**6, 10**6]), b"\0" * 16)),
    Case("a parameter stored with no dimension", _WEIGHTS,
         headed({"model.embed_tokens.weight": entry(shape=[])["a"]}, b"\0" * 16)),
    Case("an index that is a number", _INDEX, b"0"),
    Case("an index that is no text", _INDEX, b"\x80"),
    Case("an index of brackets", _INDEX, DEEP),
    Case("an index with a long number", _INDEX, HUGE),
    Case("an index that names a list", _INDEX, b'{"weight_map": {"a": []}}'),
    Case("an index that names too long a file", _INDEX, b'{"weight_map": {"a": "%s"}}' % (b"a" * 5000)),
    Case("an index that leads out of its folder", _INDEX, b'{"weight_map": {"a": "../../outside/model/model.safetensors"}}'),
    Case("a config of brackets", _CONFIG, DEEP),
    Case("a config with a long number", _CONFIG, HUGE),
    Case("architectures that are a number", _CONFIG, changed("architectures", to=7, of=MODEL)),
    Case("architectures that hold a number", _CONFIG, changed("architectures", to=[7], of=MODEL)),
    Case("a config that fails transformers' own check", _CONFIG, changed("rope_parameters", to=1, of=MODEL)),
    Case("a padding token beyond the vocabulary", _CONFIG, changed("pad_token_id", to=10**6, of=MODEL)),
    Case("a vocabulary of a quintillion", _CONFIG, changed("vocab_size", to=10**18, of=MODEL)),
    Case("ten million layers", _CONFIG, changed("num_hidden_layers", to=10**7, of=MODEL)),
    Case("a context of text", _CONFIG, changed("max_position_embeddings", to="x", of=MODEL)),
    Case("a tokenizer of brackets", "models.checkpoint.load_tokenizer (tokenizer.json)", DEEP),
    Case("a tokenizer with half a token", "models.checkpoint.load_tokenizer (tokenizer.json)",
         changed("added_tokens", 0, to={"id": 0}, of="model/tokenizer.json")),
    Case("an activation that is a list", "models.runtime.TorchRuntime.load", changed("rms_norm_eps", to=[1], of=MODEL)),
    Case("a name too long for a path", "models.checkpoint.resolve", b"9" * 5000),
    Case("the home of nobody", "models.checkpoint.resolve", b"~nobody-here/x"),
    Case("a registry of brackets", "models.registry", DEEP),
    # -- data ---------------------------------------------------------------------------------------------------------
    Case("a record of brackets", "data.records.read_records", DEEP),
    Case("a record with a long number", "data.records.read_records", b'{"text": ' + HUGE + b"}"),
    Case("a record with half a character", "data.records.read_records", b'{"text": "\\ud800"}'),
    Case("half a character for the tokenizer", "data.dataset.tokenise", b'{"text": "a\\ud800"}'),
    Case("half a character in a prompt", "workbench.prompts.read_prompts", b'{"prompt": "a\\ud800"}'),
    Case("a record with a zero in it", "data.dataset.tokenise", b'{"text": "a\\u0000b"}'),
    Case("a record of ten megabytes", "data.records.read_records", b'{"text": "%s"}' % (b"x" * 10**7)),
    Case("records that are no text", "data.records.read_records", b"\xff\xfe{\0"),
    Case("prompts of brackets", "workbench.prompts.read_prompts", DEEP),
    Case("prompts with a long number", "workbench.prompts.read_prompts", HUGE),
    # -- adapters -----------------------------------------------------------------------------------------------------
    Case("a pattern that repeats a repeat, audited", "adapters.audit (config, base given)",
         changed("rank_pattern", to={"(([a-z_.0-9])+)+X": 4}, of=ADAPTER)),
    Case("a pattern that repeats a repeat, loaded", BENCH, changed("target_modules", to="(([a-z_.0-9])+)+X", of=ADAPTER)),
    Case("a config that names another module to import", BENCH, changed("megatron_config", to={"a": 1}, of=ADAPTER)),
    Case("invocation tokens that are an object", BENCH, changed("alora_invocation_tokens", to={"x": None}, of=ADAPTER)),
    Case("weights of a few bytes, loaded", "workbench.bench (weights)", b"{}"),
    Case("factors without their counterpart", "adapters.load_factors", headed({"a.lora_A.weight": entry()["a"]}, b"\0" * 16)),
    Case("an expert layout that is no JSON", "adapters.load_factors", headed({"__metadata__": {"expert_parameters": "{"}})),
    Case("an expert layout that is text", "adapters.load_factors", headed({"__metadata__": {"expert_parameters": '"x"'}})),
    # -- plans and options --------------------------------------------------------------------------------------------
    Case("a plan whose targets are a number", "plan.plan.Plan", changed("targets", to=1, of=_PLAN)),
    Case("a plan whose target is a number", "plan.plan.Plan", changed("targets", 0, to=1, of=_PLAN)),
    Case("a plan whose model is a number", "widgets.dashboards.library", changed("model", to=1, of=_PLAN)),
    Case("a plan whose reasons are text", "plan.plan.Plan", changed("measured_during_training", to="x", of=_PLAN)),
    Case("a plan whose split says nothing", "plan.plan.Plan", changed("split", to={}, of=_PLAN)),
    Case("a plan whose rank is text", "plan.plan.Plan", changed("targets", 0, "rank", to="x", of=_PLAN)),
    Case("a plan with a hostile name", "plan.plan.Plan", changed("model", "name", to=MARKUP + ESCAPE, of=_PLAN)),
    Case("a plan of brackets", "plan.plan.Plan", DEEP),
    Case("roles that are a number", "plan.options.PlanOptions.from_json", b'{"exclude_roles": 1}'),
    Case("a budget beyond every number", "plan.options (text)", b"9" * 400 + b"TB"),
    Case("an expert of 5,000 digits", "plan.options (text)", b"L0.E" + HUGE),
    # -- records ------------------------------------------------------------------------------------------------------
    Case("an interval of three", "geometry.measurement.Measurement.from_json",
         b'{"value": 1.0, "interval": [1, 2, 3], "n": 1, "null": null, "unit": "", "operator": ""}'),
    Case("a value of text", "geometry.measurement.Measurement.from_json",
         b'{"value": "x", "interval": null, "n": 1, "null": null, "unit": "", "operator": ""}'),
    Case("a unit that steers the terminal", "geometry.measurement.Measurement.from_json",
         b'{"value": 1.0, "interval": null, "n": 1, "null": null, "unit": "\\u001b[2J", "operator": ""}'),
    Case("a shape below zero", "geometry.spectrum.Spectrum.from_json", b'{"values": [3, 2], "shape": [-1, 3]}'),
    Case("singular values of text", "geometry.spectrum.Spectrum.from_json", b'{"values": ["x"], "shape": [1, 1]}'),
    Case("samples that are a number", "train.samples.Samples.from_json", b'{"samples": 1}'),
    Case("a sample that is a number", "train.samples.Samples.from_json", b'{"samples": [1]}'),
    Case("a sample of numbers", "train.samples.Samples.from_json", b'{"samples": [{"prompt": 1, "base": 2, "adapted": 3}]}'),
    Case("a sample of markup", "train.samples.Samples.from_json",
         json.dumps({"samples": [{"prompt": MARKUP, "base": ESCAPE, "adapted": MARKUP}]}).encode()),
    Case("a gate of an unknown state", "train.gates.Verification.from_json",
         changed("gates", 0, "status", to="x", of="run/verification.json")),
    Case("a gate that steers the terminal", "train.gates.Verification.from_json",
         changed("gates", 0, "because", to=ESCAPE, of="run/verification.json")),
    Case("a verdict of markup", "widgets.report (verification.json)",
         changed("verdict", to=MARKUP, of="run/verification.json")),
    Case("a spectrum whose error is beyond every number", "geometry.spectrum.Spectrum.from_json",
         b'{"values": [2.0, 1.0], "shape": [2, 2], "error_bound": 1e308}'),
    Case("a cached spectrum of nothing", "models.cache.load_spectrum", lambda place: _npz(place, [float("nan")])),
    Case("a cached spectrum of text", "models.cache.load_spectrum", lambda place: _npz(place, ["a"])),
    # -- runs ---------------------------------------------------------------------------------------------------------
    Case("a trace of an empty line", "train.run_folder.events", b"\n"),
    Case("a trace line that is a number", "train.run_folder.events", b"0\n"),
    Case("a trace line of an unknown kind", "train.run_folder.events", b'{"kind": "x"}\n'),
    Case("a trace line whose kind is a list", "train.run_folder.events", b'{"kind": []}\n'),
    Case("a trace that is no text", "train.run_folder.events", b"\x80\n"),
    Case("a trace of brackets", "train.run_folder.events", DEEP + b"\n"),
    Case("a trace with a long number", "train.run_folder.events", HUGE + b"\n"),
    Case("a status that is no text", "train.run_folder.status", b"\x80"),
    Case("a state that is an object", "train.status.run_status (status)",
         changed("state", to={}, of="run/status.json")),
    Case("a message that steers the terminal", "train.status.run_status (status)",
         changed("message", to=ESCAPE, of="run/status.json")),
    Case("a followed state that is a list", "widgets.mass_trace (status.json)", changed("state", to=[""], of="run/status.json")),
    Case("a horizon of text", "widgets.mass_trace (status.json)", changed("horizon", to=" ", of="run/status.json")),
    Case("conditions that are text", "widgets.mass_trace (trace.jsonl)",
         b'{"kind": "eval", "step": 0, "loss": 1, "conditions": "e"}\n' * 2),
    Case("a bar of a trillion characters", "train.status.RunStatus.from_json",
         json.dumps({"folder": "run", "state": "training", "step": 10**12, "horizon": 1, "loss": None, "validation_loss": None,
                     "binding": None, "seconds_per_step": None, "seconds_left": None, "verdict": None, "message": ""}).encode()),
    Case("conditions that are a number, drawn", "widgets.trace_columns",
         lambda place: place.seeds["run/trace.jsonl"] + b'{"kind": "eval", "step": 0, "loss": 1, "conditions": [0]}\n'),
    Case("a unit that is a number, drawn", "widgets.trace_columns",
         lambda place: place.seeds["run/trace.jsonl"].replace(b'"unit":', b'"unit":5,"x":')),
    Case("a verification of no matrix", "widgets.report (verification.json)",
         changed("layers", to=[], of="run/verification.json")),
    Case("a note of markup", "widgets.mass_trace (trace.jsonl)",
         json.dumps({"kind": "note", "step": 1, "because": MARKUP}).encode() + b"\n"),
    Case("a layer of markup", "widgets.trace_columns", lambda place: place.seeds["run/trace.jsonl"].replace(
        b"self_attn", json.dumps(MARKUP)[1:-1].encode())),
    # -- magics and paths ---------------------------------------------------------------------------------------------
    Case("a cell of brackets", "magics (cell)", b"a = " + b"[" * 20_000),
    Case("a cell with a long number", "magics (cell)", b"a = " + HUGE),
    Case("a cell with a long number in hexadecimal", "magics (cell)", b"a = 0x" + b"f" * 5000),
    Case("a cell of forty thousand bytes that fills a gigabyte", "magics (cell)", b"a." * 20_000 + b"b = 1"),
    Case("a cell with half a character", "magics (cell)", b'{"text": "\xed\xa0\x80"}'),
    Case("an option that asks for help", "magics (cell)", b"help = true"),
    Case("a path with a zero in it", "paths", b"a\0b"),
    Case("a file that cannot be read to its end", "paths", b"/proc/self/mem"),
    Case("a path too long for a file system", "paths", b"a" * 5000),
)  # fmt: skip


def _npz(place: Place, values: Any) -> bytes:
    import io

    import numpy as np

    facts = {"shape": [1, 1], "tier": "exact", "error_bound": 0.0, "backend": "numpy", "dtype": "float32"}
    stream = io.BytesIO()
    np.savez(stream, values=np.array(values), facts=np.array(json.dumps(facts)))
    return stream.getvalue()


def mended() -> str:
    """The part of the campaign's report that tells what it found before: a line for each case above."""
    lines = ["", "## Found before, and mended where it failed", "", "The suite runs each of these smallest inputs:", ""]
    return "\n".join([*lines, *(f"- {case.reader}: {case.name}" for case in CASES), ""])
