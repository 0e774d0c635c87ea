"""Each number of an adapter is what dense algebra says of the weight that PEFT would merge, and its null is a random one's."""

import json
import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from geonb.adapters.baseline import Baseline, calibrate_baseline, random_factors
from geonb.adapters.lora_geometry import COMPARED, PLAIN, AdapterGeometry, analyze_adapter
from geonb.adapters.peft_files import WEIGHTS, save_adapter
from geonb.errors import InputError
from geonb.geometry.spectrum import Spectrum
from tests.families import write_tiny

# PEFT asks transformers for a property under its old name; that is between the two of them
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
Q = "model.layers.0.self_attn.q_proj"


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    return {family: write_tiny(family, tmp_path_factory.mktemp(family) / family) for family in ("llama", "gpt2")}


def load(base):
    from transformers import AutoModelForCausalLM

    # in float64 the merged weight minus the base is dW to 1e-15 of the weight
    return AutoModelForCausalLM.from_pretrained(base, dtype=torch.float64)


def train(base, folder, targets, **options):
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(3)
    config = LoraConfig(task_type="CAUSAL_LM", target_modules=list(targets), init_lora_weights=False, **options)
    get_peft_model(load(base), config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def adapter(bases, tmp_path_factory):
    targets = ("q_proj", "v_proj", "down_proj", "up_proj")
    return train(bases["llama"], tmp_path_factory.mktemp("adapter"), targets, r=3, lora_alpha=5)


REAL = {
    "llama": (("q_proj", "down_proj", "up_proj"), {"r": 3, "lora_alpha": 5}),
    "gpt2": (("c_attn", "c_fc"), {"r": 4, "lora_alpha": 2, "fan_in_fan_out": True, "use_rslora": True}),
}


@pytest.mark.parametrize("family", REAL)
def test_the_numbers_are_those_of_the_merged_weight(bases, tmp_path, family):
    from peft import PeftModel

    targets, options = REAL[family]
    folder = train(bases[family], tmp_path / "a", targets, **options)
    found = analyze_adapter(folder, bases[family], top_k=9, subspace_rank=7)
    plain, other = load(bases[family]), load(bases[family])
    merged = PeftModel.from_pretrained(other, str(folder)).merge_and_unload()
    assert len(found.rows) == 2 * len(targets) and found.findings == ()
    for row in found.rows:
        path = row.name.removesuffix(".weight")
        weight, after = (one.get_submodule(path).weight.detach().numpy() for one in (plain, merged))
        if family == "gpt2":  # Conv1D stores (in, out)
            weight, after = weight.T, after.T
        change = after - weight
        u, s, vt = np.linalg.svd(weight)
        values = np.linalg.svd(change, compute_uv=False)
        assert row.shape == change.shape and row.rank == options["r"] and row.top_k == 9
        assert row.singular_values == pytest.approx(values[: row.rank], rel=1e-5)
        assert (row.norm, row.frobenius) == pytest.approx((values[0], np.linalg.norm(change)), rel=1e-5)
        assert row.relative_change == pytest.approx(np.linalg.norm(change) / np.linalg.norm(weight), rel=1e-5)
        assert row.stable_rank.value == pytest.approx(np.linalg.norm(change) ** 2 / values[0] ** 2, rel=1e-5)
        shift = np.abs(np.linalg.svd(after, compute_uv=False) - s).max() / values[0]
        assert row.weyl_utilisation.value == pytest.approx(shift, rel=1e-4)
        heard = np.linalg.norm(change @ vt[:9].T, axis=0)
        assert row.amplification_cv.value == pytest.approx(heard.std() / heard.mean(), rel=1e-4)
        assert row.amplification_peak.value == pytest.approx(heard.max() / heard.mean(), rel=1e-4)
        assert row.amplification_argmax == heard.argmax() + 1
        assert row.amplification_energy.value == pytest.approx((heard**2).sum() / (change**2).sum(), rel=1e-4)
        overlap = np.linalg.norm(u[:, :7].T @ change) / np.linalg.norm(change)
        assert row.subspace_overlap.value == pytest.approx(overlap, rel=1e-4)
        assert row.subspace_overlap.null == pytest.approx(math.sqrt(7 / len(change)))
        reached = np.cumsum(np.linalg.norm(u.T @ change, axis=1) ** 2) / np.linalg.norm(change) ** 2
        if reached[min(change.shape) - 1] > 0.5:
            assert row.projection_depth.value == np.argmax(reached >= 0.5) + 1
        assert row.null_source == "drawn"
    assert AdapterGeometry.from_json(found.to_json()) == found


def test_the_null_is_a_random_adapter_of_equal_rank_and_size_in_the_same_matrix(bases, adapter):
    found = analyze_adapter(adapter, bases["llama"], top_k=9, draws=4, seed=11)
    row = found.rows[0]
    weight = load(bases["llama"]).get_submodule(row.name.removesuffix(".weight")).weight.detach().numpy()
    u, s, vt = np.linalg.svd(weight)
    weyl, variation, depth = [], [], []
    for left, right in random_factors(row.shape, row.rank, frobenius=row.frobenius, draws=4, seed=11, name=row.name):
        change = left @ right
        assert np.linalg.norm(change) == pytest.approx(row.frobenius)
        shift = np.abs(np.linalg.svd(weight + change, compute_uv=False) - s).max()
        weyl.append(shift / np.linalg.norm(change, 2))
        heard = np.linalg.norm(change @ vt[:9].T, axis=0)
        variation.append(heard.std() / heard.mean())
        written = np.cumsum(np.linalg.norm(u.T @ change, axis=1) ** 2) / np.linalg.norm(change) ** 2
        depth.append(np.argmax(written >= 0.5) + 1)
    assert row.weyl_utilisation.null == pytest.approx(np.mean(weyl), rel=1e-3)
    assert row.amplification_cv.null == pytest.approx(np.mean(variation), rel=1e-4)
    low, high = row.amplification_cv.null_interval
    assert (high - low) / 4 == pytest.approx(np.std(variation, ddof=1), rel=1e-4)
    if min(row.shape) == row.shape[0]:
        assert row.projection_depth.null == pytest.approx(np.mean(depth))


def test_a_random_adapter_looks_like_its_null(bases, tmp_path):
    generator = torch.Generator().manual_seed(8)
    names = [f"model.layers.{layer}.self_attn.{name}_proj" for layer in (0, 1) for name in "qo"]
    pairs = {
        name: (torch.randn(64, 4, generator=generator) * 0.01, torch.randn(4, 64, generator=generator))
        for name in names
    }
    found = analyze_adapter(save_adapter(tmp_path / "r", pairs, base="x"), bases["llama"], draws=8, top_k=32)
    for name in COMPARED:
        ratios = [getattr(row, name).ratio for row in found.rows]
        assert np.mean(ratios) == pytest.approx(1, rel=0.25), name


def test_an_adapter_along_the_bases_strongest_direction_stands_out(bases, tmp_path):
    weight = load(bases["llama"]).get_submodule(Q).weight.detach()
    u, _, vt = torch.linalg.svd(weight)
    pair = {Q: ((u[:, :1] * 0.1).float(), vt[:1].float())}
    (row,) = analyze_adapter(save_adapter(tmp_path / "top", pair, base="x"), bases["llama"], top_k=16).rows
    assert row.weyl_utilisation.value == pytest.approx(1, abs=1e-3) and row.weyl_utilisation.ratio > 3
    assert row.projection_depth.value == 1 and row.amplification_argmax == 1
    assert row.amplification_energy.value == pytest.approx(1, abs=1e-5)
    assert row.amplification_cv.value == pytest.approx(math.sqrt(15), rel=1e-4)  # one of sixteen is heard
    assert row.subspace_overlap.value == pytest.approx(1, abs=1e-5)
    spectrum = Spectrum.of(np.linalg.svd(weight.numpy(), compute_uv=False))
    assert row.subspace_rank == spectrum.structural_rank


def test_an_adapter_in_the_tail_has_no_amplification_and_says_so(bases, tmp_path):
    vt = torch.linalg.svd(load(bases["llama"]).get_submodule(Q).weight.detach())[2]
    pair = {Q: (torch.ones(64, 2) * 0.1, vt[-2:].float())}
    found = analyze_adapter(save_adapter(tmp_path / "tail", pair, base="x"), bases["llama"], top_k=16)
    (row,) = found.rows
    assert math.isnan(row.amplification_cv.value) and row.amplification_argmax is None
    assert row.amplification_energy.value < 1e-10 and "hears none of W's top 16" in found.findings[0].because
    assert "nan" not in found.to_text() and "nan" not in found.to_html()
    assert AdapterGeometry.from_json(found.to_json()) == found


def test_any_column_sorts(bases, adapter):
    found = analyze_adapter(adapter, bases["llama"], sort_by="weyl_utilisation")
    values = [row.weyl_utilisation.value for row in found.rows]
    assert values == sorted(values, reverse=True) and found.sort_by == "weyl_utilisation"
    for column in (*PLAIN, *COMPARED):
        again = found.sorted(column)
        assert {row.name for row in again.rows} == {row.name for row in found.rows} and again.sort_by == column
    assert [row.layer for row in found.sorted("layer").rows] == [0] * 4 + [1] * 4
    with pytest.raises(InputError, match="'size' is no column to sort by; allowed are layer, name, role"):
        analyze_adapter(adapter, bases["llama"], sort_by="size")


@pytest.fixture(scope="module")
def baseline(bases, tmp_path_factory):
    path = tmp_path_factory.mktemp("baseline") / "b.json"
    calibrate_baseline(bases["llama"], 3, draws=5, top_k=64, output=path)
    return path


def test_a_baseline_stands_in_for_the_draws(bases, adapter, baseline):
    drawn = analyze_adapter(adapter, bases["llama"], draws=5)
    kept = analyze_adapter(adapter, bases["llama"], baseline=baseline)
    assert {row.null_source for row in kept.rows} == {"baseline"} and kept.findings == ()
    for one, other in zip(drawn.rows, kept.rows, strict=True):
        assert one.weyl_utilisation.value == other.weyl_utilisation.value
        # the same draws: what does not depend on the size is the same
        assert other.amplification_cv.null == pytest.approx(one.amplification_cv.null, rel=1e-6)
        assert other.projection_depth.null == one.projection_depth.null
        # what does is interpolated between five sizes
        assert other.weyl_utilisation.null == pytest.approx(one.weyl_utilisation.null, rel=0.5)


def test_at_a_calibrated_size_the_interpolation_is_exact(bases, baseline, tmp_path):
    weight = load(bases["llama"]).get_submodule(Q).weight.detach().numpy()
    known = Baseline.load(baseline)
    ((left, right),) = random_factors((64, 64), 3, frobenius=0.1 * np.linalg.norm(weight), draws=1)
    pair = {Q: (torch.tensor(left), torch.tensor(right))}
    (row,) = analyze_adapter(save_adapter(tmp_path / "r", pair, base="x"), bases["llama"], baseline=known).rows
    place = known.relative_changes.index(0.1)
    assert row.weyl_utilisation.null == pytest.approx(known.of(f"{Q}.weight").weyl_utilisation[place][0], rel=1e-4)


def test_a_rank_or_size_that_the_baseline_lacks_is_drawn_anew_and_said(bases, baseline, tmp_path, make_pair):
    other = Q.replace("0", "1")
    left, right = make_pair(64, 64, 3)
    pairs = {Q: (left, right), other: make_pair(64, 64, 5), Q.replace("q_", "o_"): (left * 1e4, right)}
    found = analyze_adapter(save_adapter(tmp_path / "two", pairs, base="x"), bases["llama"], baseline=baseline)
    assert {row.name.removesuffix(".weight"): row.null_source for row in found.rows} == {
        Q: "baseline",
        other: "drawn",
        Q.replace("q_", "o_"): "drawn",
    }
    assert "no random adapter of this rank and size here: drawn anew" in found.findings[0].because


def test_a_baseline_that_does_not_fit_is_refused(bases, adapter, baseline, tmp_path, make_pair):
    with pytest.raises(
        InputError, match=r"the baseline was drawn in .* has the digest .*: calibrate one for this base"
    ):
        other = write_tiny("llama", tmp_path / "other", initializer_range=0.5, hidden_size=64, intermediate_size=96)
        weights = load_file(other / "model.safetensors")
        save_file({name: value * 2 for name, value in weights.items()}, other / "model.safetensors", {"format": "pt"})
        analyze_adapter(adapter, other, baseline=baseline)
    with pytest.raises(InputError, match="drawn with top-k 64, and 9 was asked for"):
        analyze_adapter(adapter, bases["llama"], baseline=baseline, top_k=9)
    five = save_adapter(tmp_path / "five", {Q: make_pair(64, 64, 5)}, base="x")
    with pytest.raises(InputError, match=r"the baseline is of rank 3 and this adapter's matrices are of \[5\]"):
        analyze_adapter(five, bases["llama"], baseline=baseline)
    content = json.loads(baseline.read_text())
    content["matrices"][0]["weyl_utilisation"] = [[0.1, 0.1]]
    (tmp_path / "cut.json").write_text(json.dumps(content))
    for name, text in (("cut.json", None), ("list.json", '{"matrices": 5}'), ("bytes.json", b"\xff\xfe")):
        if text is not None:
            (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(InputError):
            analyze_adapter(adapter, bases["llama"], baseline=tmp_path / name)


def test_what_cannot_be_measured_is_said_or_refused(bases, tmp_path, make_pair):
    nothing = torch.zeros(64, 2), torch.ones(2, 64)
    broken = torch.full((64, 2), math.nan), torch.ones(2, 64)
    pairs = {Q: make_pair(64, 64, 2), Q.replace("0", "1"): nothing, Q.replace("q_", "o_"): broken, "a\x1b[2Jb": nothing}
    folder = save_adapter(tmp_path / "mixed", pairs, base="somewhere/else")
    found = analyze_adapter(folder, bases["llama"])
    assert [row.name for row in found.rows] == [f"{Q}.weight"]
    said = " | ".join(f"{one.subject}: {one.because}" for one in found.findings)
    assert "dW = 0: this matrix never moved" in said and "dW holds NaN" in said and "matches no (64, 64) matrix" in said
    assert "\x1b" not in found.to_text() and found.base == str(bases["llama"])
    with pytest.raises(InputError, match=r"'somewhere/else' is no folder here; this analysis needs the base's weights"):
        analyze_adapter(folder)
    only = save_adapter(tmp_path / "only", {Q: nothing}, base="x")
    with pytest.raises(InputError, match=r"changes no matrix of .* that can be measured \(.*dW = 0"):
        analyze_adapter(only, bases["llama"])
    with pytest.raises(InputError, match=f"holds no .*{WEIGHTS.split('.')[0]}|holds no adapter_config"):
        analyze_adapter(tmp_path, bases["llama"])
    for wrong, match in (
        ({"draws": 1}, "a spread needs two"),
        ({"top_k": 1}, "a variation needs two"),
        ({"subspace_rank": 0}, "the subspace rank 0 was given; allowed are 1 and more"),
    ):
        with pytest.raises(InputError, match=match):
            analyze_adapter(folder, bases["llama"], **wrong)
