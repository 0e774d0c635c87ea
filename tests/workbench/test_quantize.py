"""Quantised models: what lies in the file, multiplied out by hand, gives the gaps, norms and counts of the record."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from scipy.special import rel_entr, softmax

from geonb.errors import InputError
from geonb.geometry.spectrum import Spectrum
from geonb.models.checkpoint import Checkpoint
from geonb.models.geometry import MatrixGeometry
from geonb.models.matrix_ref import MatrixRef
from geonb.workbench.quantised import Quantised
from geonb.workbench.quantize import quantize_model, rounding
from tests.families import write_tiny

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
for package in ("torchao", "gguf"):
    pytest.importorskip(package)

FORMS = [("torchao", 8), ("torchao", 4), ("gguf", 8), ("gguf", 4)]
Q_PROJ, DOWN = "model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny("llama", tmp_path_factory.mktemp("models") / "tiny", hidden_size=64, intermediate_size=96)


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    path = tmp_path_factory.mktemp("probes") / "few.jsonl"
    texts = [f"The index of {i} tables is read before row {i * 37} is written to the log." for i in range(4)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


@pytest.fixture(scope="module")
def made(model, few, tmp_path_factory):
    """Each form's folder and record, made once."""
    root, found = tmp_path_factory.mktemp("quantised"), {}

    def make(form, bits):
        if (form, bits) not in found:
            folder = root / f"{form}{bits}"
            found[form, bits] = folder, quantize_model(model, folder, form=form, bits=bits, probes=few)
        return found[form, bits]

    return make


def original(model, module):
    return load_file(model / "model.safetensors")[f"{module}.weight"].double().numpy()


def torchao_by_hand(folder, module):
    """Integers less their zero, times the scale of their group of columns."""
    tensors = load_file(folder / "model.safetensors")
    parts = {name.removeprefix(f"{module}._weight_"): one for name, one in tensors.items() if name.startswith(module)}
    integers, scale = parts["qdata"].double().numpy(), parts["scale"].double().numpy()
    rows, columns = integers.shape
    scale = scale.reshape(rows, -1, 1)
    zero = parts["zero_point"].double().numpy().reshape(scale.shape) if "zero_point" in parts else 0.0
    return ((integers.reshape(rows, scale.shape[1], -1) - zero) * scale).reshape(rows, columns)


def gguf_by_hand(folder, name, shape, bits):
    """Blocks of 32: a float16 scale, then 32 bytes (Q8_0), or 16 bytes of two nibbles that stand for -8 to 7 (Q4_0)."""
    from gguf import GGUFReader

    tensor = next(one for one in GGUFReader(str(folder / "model.gguf")).tensors if one.name == name)
    blocks = np.frombuffer(np.asarray(tensor.data).tobytes(), dtype=np.uint8).reshape(-1, 34 if bits == 8 else 18)
    scale = blocks[:, :2].copy().view(np.float16).astype(np.float64)
    rest = blocks[:, 2:]
    if bits == 8:
        integers = rest.copy().view(np.int8).astype(np.float64)
    else:
        integers = np.concatenate([rest & 15, rest >> 4], axis=1).astype(np.float64) - 8
    return (integers * scale).reshape(shape)


def row(record, module):
    return next(one for one in record.matrices if one.name == f"{module}.weight")


@pytest.mark.parametrize(("form", "bits"), FORMS)
def test_the_norm_of_the_rounding_is_that_of_the_file_multiplied_out_by_hand(form, bits, made, model):
    folder, record = made(form, bits)
    weight, found = original(model, DOWN), row(record, DOWN)
    if form == "torchao":
        stored = torchao_by_hand(folder, DOWN)
    else:
        stored = gguf_by_hand(folder, "blk.1.ffn_down.weight", weight.shape, bits)
    error = stored - weight
    assert found.error_norm == pytest.approx(np.linalg.norm(error, 2), rel=1e-4)
    assert found.relative_error == pytest.approx(np.linalg.norm(error) / np.linalg.norm(weight), rel=1e-4)
    assert found.buried == (np.linalg.svd(weight, compute_uv=False) <= np.linalg.norm(error, 2)).sum()
    assert record.verdict == "passed" and Quantised.load(folder / "export.json") == record


def test_int8_is_absmax_rounding_of_each_row(made, model):
    folder, _ = made("torchao", 8)
    weight = original(model, Q_PROJ)
    step = np.abs(weight).max(1, keepdims=True) / 127.5  # the 255 steps from -127.5 to 127.5
    by_hand = np.clip(np.round(weight / step), -128, 127) * step
    differ = np.abs(torchao_by_hand(folder, Q_PROJ) - by_hand) > 1e-6
    # float32 puts an entry halfway between two integers, such as each row's largest, on either side
    halfway = np.abs(np.abs(weight / step) % 1 - 0.5) < 1e-3
    assert not (differ & ~halfway).any() and differ.mean() < 0.01


def test_the_turned_rows_of_a_gguf_are_turned_back_before_they_are_measured(made, model):
    folder, record = made("gguf", 8)
    weight, heads = original(model, Q_PROJ), Checkpoint.open(model).config["num_attention_heads"]
    stored = gguf_by_hand(folder, "blk.0.attn_q.weight", weight.shape, 8)
    size = weight.shape[0] // heads
    # llama.cpp's row (head, i, half) is row (head, half, i) here
    order = [h * size + half * size // 2 + i for h in range(heads) for i in range(size // 2) for half in (0, 1)]
    turned = np.empty_like(stored)
    turned[order] = stored
    assert row(record, Q_PROJ).error_norm == pytest.approx(np.linalg.norm(turned - weight, 2), rel=1e-4)
    assert row(record, Q_PROJ).error_norm < 0.1 * np.linalg.norm(stored - weight, 2)


@pytest.mark.parametrize("bits", [8, 4])
def test_the_gap_is_that_of_a_model_with_the_weights_multiplied_out_by_hand(bits, made, model, few):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder, record = made("torchao", bits)
    tokenizer = AutoTokenizer.from_pretrained(model)
    one, other = (AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval() for _ in range(2))
    with torch.no_grad():
        for name, module in other.named_modules():
            if isinstance(module, torch.nn.Linear) and name != "lm_head":
                module.weight.copy_(torch.from_numpy(torchao_by_hand(folder, name)))
    means, same, n = [], 0, 0
    for line in few.read_text().splitlines():
        ids = tokenizer(json.loads(line)["text"], return_tensors="pt").input_ids
        ids = (
            torch.cat([ids, torch.tensor([[tokenizer.eos_token_id]])], 1)
            if ids[0, -1] != tokenizer.eos_token_id
            else ids
        )
        with torch.no_grad():
            p, q = (run(ids).logits[0].double().numpy() for run in (one, other))
        means.append(rel_entr(softmax(p, 1), softmax(q, 1)).sum(1).mean())
        same += (p.argmax(1) == q.argmax(1)).sum()
        n += len(p)
    assert record.gaps["same token"].n == n
    assert record.gaps["KL mean"].value == pytest.approx(np.mean(means), rel=0.02)
    assert record.gaps["same token"].value == pytest.approx(same / n, abs=1.5 / n)


def test_seconds_are_of_pairs_and_a_gguf_is_not_timed(made):
    _, record = made("torchao", 8)
    assert record.slowdown.n == record.seconds_before.n == record.seconds_after.n >= 9
    assert record.slowdown.interval[0] <= record.slowdown.value <= record.slowdown.interval[1]
    assert 0 < record.seconds_after.interval[0] <= record.seconds_after.value and "float32" in record.slowdown.operator
    _, record = made("gguf", 8)
    assert record.slowdown is None and any("not timed" in note for note in record.notes)


def test_sizes_are_told_as_they_are(made, model):
    size = {key: made(*key)[1].bytes for key in FORMS}
    for folder, record in map(lambda key: made(*key), FORMS):
        files = {path.name: path.stat().st_size for path in folder.iterdir() if path.name != "export.json"}
        assert record.files == files and record.base_bytes == (model / "model.safetensors").stat().st_size
    assert size["gguf", 4] < size["gguf", 8]
    # torchao keeps a byte for each int4 on a CPU, and says so
    assert size["torchao", 4] >= size["torchao", 8]
    assert any("a byte of its own" in note for note in made("torchao", 4)[1].notes)


def test_the_gguf_is_named_for_what_it_is(made):
    from gguf import GGUFReader

    for bits in (8, 4):
        reader = GGUFReader(str(made("gguf", bits)[0] / "model.gguf"))
        assert bytes(reader.fields["general.name"].parts[-1]) == f"tiny in {bits} bits".encode()


def test_the_text_names_the_worst_matrices_and_the_html_escapes(made):
    _, record = made("torchao", 4)
    text = record.to_text()
    assert (
        record.worst(1)[0].name in text and "below sigma_k in 14 of 14 matrices" in text and "KL mean as served" in text
    )
    ratios = [one.error_norm / one.sigma_k for one in record.worst(14)]
    assert ratios == sorted(ratios, reverse=True) and "<table" in record.to_html()
    hostile = Quantised.from_dict({**record.to_dict(), "model": "<script>\x1b[2J"})
    assert "<script>" not in hostile.to_html() and "\x1b" not in hostile.to_text()


def test_beyond_the_tolerance_nothing_is_kept(model, few, tmp_path):
    record = quantize_model(model, tmp_path / "new" / "out", probes=few, tolerance=1e-6, geometry=False)
    assert (
        record.verdict == "failed"
        and record.output is None
        and record.because.startswith("beyond the tolerance of int8")
    )
    assert list(tmp_path.iterdir()) == [] and record.matrices == ()


def test_a_failure_leaves_the_earlier_export_alone(model, few, tmp_path):
    quantize_model(model, tmp_path / "out", probes=few, geometry=False)
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert (
        quantize_model(model, tmp_path / "out", bits=4, probes=few, tolerance=0.0, overwrite=True).verdict == "failed"
    )
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    assert quantize_model(model, tmp_path / "out", bits=4, probes=few, overwrite=True, geometry=False).bits == 4
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_experts_of_a_mixture_stay_and_it_is_judged_by_most_tokens(few, tmp_path):
    base = write_tiny("mixtral", tmp_path / "base")
    record = quantize_model(base, tmp_path / "out", probes=few)
    assert record.verdict == "passed" and set(record.tolerance) == {"logit gap of 90%", "KL mean"}
    assert {one.role for one in record.matrices} == {"q", "k", "v", "o"}
    assert any("stay as they were (down, embed, fused, head, router)" in note for note in record.notes)


@pytest.mark.parametrize(
    ("options", "because"),
    [
        ({"form": "awq"}, "the form 'awq' is not known; allowed are torchao, gguf"),
        ({"bits": 2}, "2 bits were given; allowed are 8 and 4"),
        ({"bits": 16, "form": "gguf"}, "16 bits were given; allowed are 8 and 4"),
        ({"probes": "nowhere.jsonl"}, "nowhere.jsonl"),
        ({"device": "abacus"}, "the device 'abacus' is not there"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(options, because, model, tmp_path):
    with pytest.raises(InputError, match=because):
        quantize_model(model, tmp_path / "out", **options)
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_exists_is_refused(model, tmp_path):
    (tmp_path / "mine").write_text("")
    with pytest.raises(InputError, match="exists; allowed is a new or empty folder"):
        quantize_model(model, tmp_path)
    with pytest.raises(InputError, match="is no export of geonb"):
        quantize_model(model, tmp_path, overwrite=True)
    with pytest.raises(InputError, match="which is what is exported"):
        quantize_model(model, model, overwrite=True)


def test_models_that_no_form_can_hold_are_refused(tmp_path, made):
    gpt2 = write_tiny("gpt2", tmp_path / "gpt2")
    with pytest.raises(InputError, match=r"keeps its matrices outside of nn\.Linear"):
        quantize_model(gpt2, tmp_path / "out")
    with pytest.raises(InputError, match="cannot be written as gguf here"):
        quantize_model(gpt2, tmp_path / "out", form="gguf")
    odd = write_tiny("llama", tmp_path / "odd", hidden_size=48)
    with pytest.raises(InputError, match="int4 needs a multiple of 32"):
        quantize_model(odd, tmp_path / "out", bits=4)
    with pytest.raises(InputError, match="is quantised"):
        quantize_model(made("torchao", 8)[0], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def measured(weight, changed):
    rows, columns = weight.shape
    ref = MatrixRef(name="w", module="w", role="q", layer=0, expert=None, shape=(rows, columns), dtype="float32",
                    targetable=True, because="", parts=("w",))  # fmt: skip
    values = np.linalg.svd(weight, compute_uv=False)
    found = MatrixGeometry(ref=ref, spectrum=Spectrum.of(values, shape=(rows, columns)))
    return values, rounding(found, torch.from_numpy(weight), torch.from_numpy(changed))


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 12), st.integers(2, 12), st.integers(0, 2**32 - 1), st.sampled_from([0.0, 1e-6, 1e-2, 1.0, 10.0]))
def test_every_singular_value_moves_by_no_more_than_the_norm(rows, columns, seed, size):
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((rows, columns))
    error = size * rng.standard_normal((rows, columns))
    values, found = measured(weight, weight + error)
    moved = np.abs(np.linalg.svd(weight + error, compute_uv=False) - values).max()
    assert moved <= found.error_norm * (1 + 1e-6) + 1e-12
    assert found.error_norm == pytest.approx(np.linalg.norm(error, 2), rel=1e-4, abs=1e-12)
    # what is not buried stands above the rounding, and so is not zero in W_q
    if size:
        assert found.buried == (values <= found.error_norm).sum()
    else:
        assert found.buried == 0 and found.relative_error == 0


def test_independent_entries_have_the_norm_of_the_null():
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((300, 200))
    _, noise = measured(weight, weight + 0.01 * rng.uniform(-1, 1, weight.shape))
    assert noise.error_norm == pytest.approx(noise.noise_norm, rel=0.05)
    # rounding everything the same way is one direction, and far from noise
    _, drift = measured(weight, weight + 0.01)
    assert drift.error_norm == pytest.approx(0.01 * math.sqrt(300 * 200)) and drift.error_norm > 6 * drift.noise_norm
