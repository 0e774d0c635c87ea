"""A merge against a dense computation from the written-out activations, and what it may never do."""

import json
import math
import shutil

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from geonb.assets import dataset_path, embedded_model_folder
from geonb.errors import InputError
from geonb.merge.probes import gather_texts
from geonb.merge.report import MergeRun
from geonb.merge.transplant import transplant
from geonb.models.checkpoint import Checkpoint
from tests.families import write_tiny
from tests.merge.donors import perturbed, stored_bytes, weights_of
from tests.tiny import sums, tiny_model, tiny_run

# transformers warns about itself whenever PEFT loads an adapter
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """Sixty short sums: fewer tokens than would fill the inputs' space are taken where a test needs that."""
    path = tmp_path_factory.mktemp("texts") / "sums.jsonl"
    path.write_text("".join(sums().splitlines(keepends=True)[:60]))
    return path


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """Two probes of a few tokens and two held-out texts: the probes cannot span 64 directions."""
    folder = tmp_path_factory.mktemp("few")
    lines = sums().splitlines(keepends=True)
    (folder / "probes.jsonl").write_text(lines[0] + lines[1])
    (folder / "held.jsonl").write_text(lines[50] + lines[60] + lines[70])
    return {"probes": folder / "probes.jsonl", "held_out": folder / "held.jsonl"}


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    return write_tiny("llama", tmp_path_factory.mktemp("target") / "tiny")


@pytest.fixture(scope="module")
def donor(target, tmp_path_factory):
    return perturbed(target, tmp_path_factory.mktemp("donor") / "donor")


def inputs_of(folder, examples):
    """The inputs of every linear map of a model, stacked and in float64, by the module's path."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    found = {}
    for path, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_hook(
                lambda module, args, output, path=path: found.setdefault(path, []).append(args[0].flatten(0, -2))
            )
    with torch.no_grad():
        for example in examples:
            model(input_ids=torch.tensor([example.input_ids]))
    return {path: torch.cat(rows).double().numpy() for path, rows in found.items()}


def logits(folder, ids):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).logits[0]


def test_every_written_matrix_and_norm_is_that_of_the_dense_computation(target, donor, few, tmp_path):
    run = transplant(target, donor, tmp_path / "out", rule="hard", scale=0.7, device="cpu", **few)
    gathered = gather_texts(Checkpoint.open(target), **few)
    seen, held = inputs_of(target, gathered.probes), inputs_of(target, gathered.held_out)
    before, after, other = weights_of(target), weights_of(tmp_path / "out"), weights_of(donor)
    assert {one.name for one in run.matrices} == {
        name for name in before if ".layers." in name and before[name].ndim == 2
    }
    for one in run.matrices:
        inputs, change = seen[one.name.removesuffix(".weight")], other[one.name] - before[one.name]
        values, right = np.linalg.svd(inputs, full_matrices=True)[1:]
        used = right[: int((values > 1e-6 * values[0]).sum())]
        safe = change - change @ used.T @ used
        assert np.allclose(after[one.name], before[one.name] + 0.7 * safe, atol=1e-6)
        assert one.tokens == len(inputs) and one.kept == inputs.shape[1] - len(used)
        assert one.preserved.value == pytest.approx(np.linalg.norm(safe) / np.linalg.norm(change), rel=1e-6)
        assert one.preserved.null == pytest.approx(math.sqrt(1 - len(used) / inputs.shape[1]), rel=1e-9)
        own = np.linalg.norm(inputs @ before[one.name].T)
        assert one.behaviour.value < 1e-6
        assert one.behaviour.null == pytest.approx(0.7 * np.linalg.norm(inputs @ change.T) / own, rel=1e-6)
        elsewhere = held[one.name.removesuffix(".weight")]
        expected = 0.7 * np.linalg.norm(elsewhere @ safe.T) / np.linalg.norm(elsewhere @ before[one.name].T)
        assert one.behaviour_held_out.value == pytest.approx(expected, rel=1e-5) and expected > 0.01
        energy = values**2 / (values**2).sum()
        entropy = -(energy[energy > 0] * np.log(energy[energy > 0])).sum()
        assert one.effective_rank == pytest.approx(math.exp(entropy), rel=1e-6)


@pytest.mark.parametrize("family", ["llama", "gpt2", "mixtral", "lfm2"])
def test_the_hard_rule_leaves_the_models_logits_on_the_probes_alone_and_moves_others(family, few, tmp_path):
    source = write_tiny(family, tmp_path / "target")
    run = transplant(source, perturbed(source, tmp_path / "donor"), tmp_path / "out", rule="hard", device="cpu", **few)
    gathered = gather_texts(Checkpoint.open(source), **few)

    def largest(examples):
        ids = [example.input_ids for example in examples]
        return max(float((logits(tmp_path / "out", one) - logits(source, one)).abs().max()) for one in ids)

    assert largest(gathered.probes) < 1e-4 and largest(gathered.held_out) > 1e-2
    assert run.preserved > 0.3


def test_kl_and_losses_are_those_of_the_two_models(target, donor, texts, tmp_path):
    run = transplant(target, donor, tmp_path / "out", probes=texts, donor_text=texts, device="cpu")
    gathered = gather_texts(Checkpoint.open(target), probes=texts, donor_text=texts)
    divergences, changes = [], []
    for example in gathered.held_out:
        one, other = (
            torch.log_softmax(logits(folder, example.input_ids)[:-1].double(), -1)
            for folder in (target, tmp_path / "out")
        )
        divergences.append(float((one.exp() * (one - other)).sum(-1).mean()))
        labels = torch.tensor(example.input_ids[1:])
        changes.append(float((one - other).gather(1, labels[:, None]).mean()))
    effect = run.effect
    assert effect.kl.value == pytest.approx(np.mean(divergences), rel=1e-5) and effect.kl.n == len(divergences) == 12
    assert effect.held_out.value == pytest.approx(np.mean(changes), abs=1e-6)
    assert effect.kl.interval[0] <= effect.kl.value <= effect.kl.interval[1]
    assert effect.donor_text.n == 60 and len(effect.donor_perplexity) == 3
    counts = np.ones(2048)
    for example in gathered.probes:
        counts += np.bincount(example.input_ids, minlength=2048)
    nll = [-np.log(counts[token] / counts.sum()) for one in gathered.held_out for token in one.input_ids[1:]]
    assert effect.unigram_perplexity == pytest.approx(math.exp(np.mean(nll)), rel=1e-9)
    # random weights cannot beat token frequencies, so the test has nothing to say
    assert effect.smoke == "unmeasured" and run.verdict is None


@pytest.mark.parametrize("rule", ["soft", "hard", "edge", "none"])
def test_a_merge_with_itself_and_a_scale_of_zero_change_no_bit(target, donor, texts, tmp_path, rule):
    signed = perturbed(target, tmp_path / "signed", size=0.0)
    tensors = load_file(signed / "model.safetensors")
    # a sum with +0 would turn this into +0
    tensors["model.layers.0.mlp.up_proj.weight"][0, :3] = -0.0
    save_file(tensors, signed / "model.safetensors", metadata={"format": "pt"})
    own = transplant(signed, signed, tmp_path / "own", probes=texts, rule=rule, device="cpu")
    none = transplant(signed, donor, tmp_path / "none", probes=texts, rule=rule, scale=0.0, device="cpu")
    assert stored_bytes(tmp_path / "own") == stored_bytes(tmp_path / "none") == stored_bytes(signed)
    assert own.effect.kl.value == none.effect.kl.value == 0.0
    assert own.preserved is None and all(one.preserved is None for one in own.matrices)
    if rule != "hard":
        assert none.preserved > 0


def test_only_linear_maps_inside_blocks_change_and_the_rest_is_listed(target, donor, texts, tmp_path):
    everything = perturbed(target, tmp_path / "everything")
    tensors = load_file(everything / "model.safetensors")
    tensors["model.embed_tokens.weight"] *= 1.5
    tensors["model.norm.weight"] += 1
    save_file(tensors, everything / "model.safetensors", metadata={"format": "pt"})
    run = transplant(target, everything, tmp_path / "out", probes=texts, rule="none", device="cpu")
    before, after, other = weights_of(target), weights_of(tmp_path / "out"), weights_of(everything)
    left = {one.name: one for one in run.left}
    assert set(before) == set(left) | {one.name for one in run.matrices}
    for name in before:
        assert np.array_equal(after[name], before[name]) if name in left else np.allclose(after[name], other[name])
    assert left["model.embed_tokens.weight"].donor_change == pytest.approx(0.5, rel=1e-5)
    assert left["model.norm.weight"].because == "norm or bias" and left["lm_head.weight"].donor_change == 0.0


@pytest.mark.parametrize("family", ["gpt2", "mixtral", "lfm2"])
def test_other_families_without_a_projection_become_the_donor(family, texts, tmp_path):
    """Conv1D is stored transposed, experts apart or together: each part must land where it came from."""
    source = write_tiny(family, tmp_path / "target")
    other = perturbed(source, tmp_path / "donor")
    run = transplant(source, other, tmp_path / "out", probes=texts, rule="none", device="cpu")
    before, after, theirs = weights_of(source), weights_of(tmp_path / "out"), weights_of(other)
    left = {one.name for one in run.left}
    assert run.matrices and left < set(before)
    for name in set(before) - left:
        assert np.allclose(after[name], theirs[name], atol=1e-6) and not np.allclose(after[name], before[name])
    if family == "mixtral":
        assert {one.expert for one in run.matrices} == {None, 0, 1, 2}
        assert any("router" == one.because for one in run.left)
    AutoModelForCausalLM.from_pretrained(tmp_path / "out")


def test_an_expert_that_no_probe_reached_stays_the_targets(few, tmp_path):
    source = write_tiny("mixtral", tmp_path / "target", num_local_experts=40, num_experts_per_tok=1)
    other = perturbed(source, tmp_path / "donor")
    run = transplant(source, other, tmp_path / "out", device="cpu", **few)
    alone = [one.name for one in run.left if one.because == "no probe token reached it"]
    assert alone and any("reached by no probe token" in note for note in run.notes)
    written, before = Checkpoint.open(tmp_path / "out"), Checkpoint.open(source)
    for name in alone:
        assert torch.equal(written.read(written.ref(name)), before.read(before.ref(name)))


def test_the_dtype_stays_and_what_rounding_costs_is_told(target, donor, few, tmp_path):
    half = {}
    for name, source in (("target", target), ("donor", donor)):
        half[name] = tmp_path / name
        AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16).save_pretrained(half[name])
        for file in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copyfile(source / file, half[name] / file)
    run = transplant(half["target"], half["donor"], tmp_path / "out", rule="hard", device="cpu", **few)
    assert {tensor.dtype for tensor in load_file(tmp_path / "out" / "model.safetensors").values()} == {torch.bfloat16}
    seen = inputs_of(half["target"], gather_texts(Checkpoint.open(half["target"]), **few).probes)
    before, after = weights_of(half["target"]), weights_of(tmp_path / "out")
    for one in run.matrices:
        inputs, took = seen[one.name.removesuffix(".weight")], after[one.name] - before[one.name]
        own = np.linalg.norm(inputs @ before[one.name].T)
        assert one.written == pytest.approx(np.linalg.norm(inputs @ took.T) / own, rel=1e-4)
        # what was meant is exactly nothing here; what bfloat16 can store is not
        assert one.behaviour.value < 1e-6 < 1e-4 < one.written and 1e-4 < one.rounding < 0.1


def test_the_folder_is_a_whole_model_with_its_record_and_nothing_foreign(target, donor, texts, tmp_path):
    source = shutil.copytree(target, tmp_path / "source")
    (source / "modeling_evil.py").write_text("raise SystemExit")
    (source / "training_args.bin").write_bytes(b"\x80\x04.")
    run = transplant(source, donor, tmp_path / "deep" / "out", probes=texts, device="cpu")
    written = {path.name for path in (tmp_path / "deep" / "out").iterdir()}
    assert written == {path.name for path in target.iterdir()} | {"merge.json"}
    assert MergeRun.load(tmp_path / "deep" / "out" / "merge.json") == run
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]
    assert Checkpoint.open(tmp_path / "deep" / "out").files == run.files
    assert "||dW||" in run.to_text() and run.to_html().startswith("<table")


def test_less_memory_means_more_passes_and_the_same_model(target, donor, texts, tmp_path):
    whole = transplant(target, donor, tmp_path / "whole", probes=texts, device="cpu")
    parts = transplant(target, donor, tmp_path / "parts", probes=texts, memory=1, device="cpu")
    assert stored_bytes(tmp_path / "whole") == stored_bytes(tmp_path / "parts")
    assert any("in 1 pass " in note for note in whole.notes) and any("in 8 passes " in note for note in parts.notes)


def test_nothing_that_exists_is_written_over_unasked(target, donor, texts, tmp_path):
    first = transplant(target, donor, tmp_path / "out", probes=texts, device="cpu")
    with pytest.raises(InputError, match=r"out exists; allowed is a new or empty folder"):
        transplant(target, donor, tmp_path / "out", probes=texts, device="cpu")
    second = transplant(target, donor, tmp_path / "out", probes=texts, scale=0.5, overwrite=True, device="cpu")
    assert MergeRun.load(tmp_path / "out" / "merge.json") == second != first
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="is not a geonb merge, so --overwrite leaves it alone"):
        transplant(target, donor, mine, probes=texts, overwrite=True, device="cpu")
    for place in (donor, donor / "below", target.parent):
        with pytest.raises(InputError, match="lie in each other"):
            transplant(target, donor, place, probes=texts, overwrite=True, device="cpu")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "out"]


def test_a_merge_that_fails_leaves_nothing_behind(target, donor, texts, tmp_path):
    bad = perturbed(target, tmp_path / "bad")
    tensors = load_file(bad / "model.safetensors")
    tensors["model.layers.1.mlp.down_proj.weight"][0, 0] = math.nan
    save_file(tensors, bad / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"layers\.1\.mlp\.down_proj\.weight holds NaN or infinity in .*bad"):
        transplant(target, bad, tmp_path / "out", probes=texts, device="cpu")
    assert [path.name for path in tmp_path.iterdir()] == ["bad"]


def test_impossible_options_are_refused_before_any_work(target, donor, texts, tmp_path):
    with pytest.raises(InputError, match="the rule 'firm' was given"):
        transplant(target, donor, tmp_path / "out", probes=texts, rule="firm")
    with pytest.raises(InputError, match="the scale nan was given"):
        transplant(target, donor, tmp_path / "out", probes=texts, scale=math.nan)
    with pytest.raises(InputError, match="does not exist"):
        transplant(target, tmp_path / "none", tmp_path / "out", probes=texts)
    with pytest.raises(InputError, match=r"cannot be merged into .*hidden_size is 64 in the target and 256"):
        transplant(target, "embedded", tmp_path / "out", probes=texts)
    quantised = shutil.copytree(donor, tmp_path / "quantised")
    config = json.loads((quantised / "config.json").read_text())
    (quantised / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": "gptq"}}))
    with pytest.raises(InputError, match=r"is quantised \(gptq\)"):
        transplant(target, quantised, tmp_path / "out", probes=texts)
    assert not (tmp_path / "out").exists()


def test_a_donor_tuned_from_another_base_brings_only_its_own_change(target, donor, texts, tmp_path):
    elsewhere = perturbed(target, tmp_path / "elsewhere", seed=9)
    transplant(elsewhere, donor, tmp_path / "out", base=target, probes=texts, rule="none", device="cpu")
    there, after, start, other = (weights_of(one) for one in (elsewhere, tmp_path / "out", target, donor))
    name = "model.layers.1.self_attn.q_proj.weight"
    assert np.allclose(after[name], there[name] + other[name] - start[name], atol=1e-6)


def test_a_trained_adapters_change_comes_over_whole_or_off_the_probes(tmp_path_factory, few, tmp_path):
    base = tiny_model(tmp_path_factory)
    adapted = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), str(tiny_run(tmp_path_factory) / "adapter")
    )
    tuned = shutil.copytree(base, tmp_path / "tuned")
    adapted.merge_and_unload().save_pretrained(tuned)
    whole = transplant(base, tuned, tmp_path / "whole", rule="none", device="cpu", **few)
    safe = transplant(base, tuned, tmp_path / "safe", rule="hard", device="cpu", **few)
    gathered = gather_texts(Checkpoint.open(base), **few)
    for example in (*gathered.probes, *gathered.held_out):
        ids = example.input_ids
        assert torch.allclose(logits(tmp_path / "whole", ids), logits(tuned, ids), atol=1e-4)
    for example in gathered.probes:
        assert torch.allclose(logits(tmp_path / "safe", example.input_ids), logits(base, example.input_ids), atol=1e-4)
    assert whole.effect.kl.value > safe.effect.kl.value > 0
    assert 0 < safe.preserved < 1 == pytest.approx(whole.preserved)


def test_a_merge_that_ruins_a_working_model_fails_its_smoke_test(tmp_path):
    ruin = perturbed(embedded_model_folder(), tmp_path / "ruin", size=6.0)
    lines = dataset_path("retention").read_text().splitlines(keepends=True)
    (tmp_path / "texts.jsonl").write_text("".join(lines[:30]))
    run = transplant("embedded", ruin, tmp_path / "out", rule="none", probes=tmp_path / "texts.jsonl", device="cpu")
    assert run.verdict == run.effect.smoke == "failed" and "no longer uses context" in run.effect.because
    assert run.effect.perplexity[1] > run.effect.unigram_perplexity > run.effect.perplexity[0]
