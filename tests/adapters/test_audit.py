"""An adapter is measured as PEFT would merge it, and what is wrong with it is said instead of raised."""

import json

import numpy as np
import pytest
import torch
import typer
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from geonb.adapters.audit import AdapterAudit, audit_adapter, random_norms
from geonb.adapters.peft_files import CONFIG, WEIGHTS, save_adapter
from geonb.cli import adapter as group
from geonb.errors import InputError
from geonb.geometry.spectrum import Spectrum
from geonb.models.checkpoint import Checkpoint
from tests.families import write_tiny

# PEFT asks transformers for a property under its old name; that is between the two of them
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
Q = "model.layers.0.self_attn.q_proj"


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    return {family: write_tiny(family, tmp_path_factory.mktemp(family)) for family in ("llama", "gpt2")}


def load(base):
    from transformers import AutoModelForCausalLM

    # in float64 the merged weight minus the base is dW to 1e-15 of the weight
    return AutoModelForCausalLM.from_pretrained(base, dtype=torch.float64)


def train(base, folder, *, targets=("q_proj", "v_proj", "down_proj"), **options):
    """An adapter that PEFT made and saved, with random factors."""
    from peft import LoraConfig, get_peft_model

    options = {"init_lora_weights": False, **options}
    config = LoraConfig(task_type="CAUSAL_LM", target_modules=list(targets), **options)
    torch.manual_seed(3)
    get_peft_model(load(base), config).save_pretrained(folder)
    return folder


def rewrite(folder, change=None, remove=(), **config):
    """Change the tensors or the config of a saved adapter."""
    content = {**json.loads((folder / CONFIG).read_text()), **config}
    (folder / CONFIG).write_text(json.dumps({key: value for key, value in content.items() if key not in remove}))
    tensors = load_file(folder / WEIGHTS)
    tensors = {key: value.clone() for key, value in (change(tensors) if change else tensors).items()}
    save_file(tensors, folder / WEIGHTS)


@pytest.fixture
def saved(tmp_path, make_pair):
    """A small adapter that geonb wrote, for the embedded or any llama base of width 64."""
    factors = {path: make_pair(64, 64, 3, seed=i) for i, path in enumerate((Q, Q.replace("0", "1")))}
    factors["model.layers.1.mlp.down_proj"] = make_pair(64, 96, 5)
    return save_adapter(tmp_path / "saved", factors, base="somewhere/else")


def said(audit, kind):
    return " | ".join(f"{one.subject}: {one.because}" for one in audit.findings if one.kind == kind)


# where two patterns match, PEFT takes the first
PATTERNS = {"rank_pattern": {r"layers\.1\..*": 2, "q_proj": 7}, "alpha_pattern": {f"^{Q}$": 3, "mlp.down_proj": 1}}
REAL = {
    "alpha": ("llama", ("q_proj", "v_proj", "down_proj"), {"r": 4, "lora_alpha": 32}),
    "rslora": ("llama", ("q_proj", "v_proj"), {"r": 6, "lora_alpha": 9, "use_rslora": True}),
    "patterns": ("llama", ("q_proj", "v_proj", "down_proj"), {"r": 4, "lora_alpha": 8, **PATTERNS}),
    "transposed": ("gpt2", ("c_attn", "c_fc"), {"r": 4, "lora_alpha": 2, "fan_in_fan_out": True}),
    "rank beyond rows": ("llama", ("k_proj",), {"r": 48, "lora_alpha": 1}),
}


@pytest.mark.parametrize(("family", "targets", "options"), REAL.values(), ids=REAL)
def test_the_numbers_are_those_of_the_merged_weight(bases, tmp_path, family, targets, options):
    from peft import PeftModel

    folder = train(bases[family], tmp_path / "a", targets=targets, **options)
    audit = audit_adapter(folder)
    plain = load(bases[family])
    merged = PeftModel.from_pretrained(load(bases[family]), str(folder)).merge_and_unload()
    assert len(audit.layers) == 2 * len(targets) and audit.findings == ()
    assert audit.base == str(bases[family])
    assert (audit.declared_rank, audit.declared_alpha) == (options["r"], options["lora_alpha"])
    for one in audit.layers:
        base = plain.get_submodule(one.name).weight.detach().numpy()
        change = merged.get_submodule(one.name).weight.detach().numpy() - base
        values = np.linalg.svd(change, compute_uv=False)
        assert one.norm == pytest.approx(values[0], rel=1e-5)
        assert one.frobenius == pytest.approx(np.linalg.norm(change), rel=1e-5)
        assert one.rank_used == pytest.approx(Spectrum.of(values).effective_rank, rel=1e-5)
        assert 1 <= one.rank_used <= min(one.rank, *one.shape)
        own = Spectrum.of(np.linalg.svd(base, compute_uv=False))
        assert one.sigma_k == pytest.approx(own.sigma_k, rel=1e-5)
        assert one.over_sigma_k == pytest.approx(values[0] / own.sigma_k, rel=1e-5)
        assert one.over_sigma_max == pytest.approx(values[0] / own.sigma_max, rel=1e-5)
        assert one.role in {"q", "k", "v", "down", "fused", "up"} and one.layer in {0, 1} and one.finite and one.moved
    assert audit.scale_rule == ("alpha / sqrt(r)" if options.get("use_rslora") else "alpha / r")
    assert AdapterAudit.from_json(audit.to_json()) == audit


def test_an_adapter_of_geonb_has_scale_one(saved, bases):
    alone = audit_adapter(saved)
    assert alone.scale_verdict == "unmeasured" and "'somewhere/else' is no folder here" in alone.because
    assert {one.scale for one in alone.layers} == {1.0} and {one.sigma_k for one in alone.layers} == {None}
    assert {one.layer for one in alone.layers} == {0, 1} and alone.n_parameters == 2 * 3 * 128 + 5 * 160
    seen = []
    audit = audit_adapter(saved, base=Checkpoint.open(bases["llama"]), progress=lambda *step: seen.append(step))
    assert [step[:2] for step in seen] == [(1, 3), (2, 3), (3, 3)]
    assert [one.norm for one in audit.layers] == [one.norm for one in alone.layers]
    expected = "beyond" if any(one.norm > one.sigma_max for one in audit.layers) else "inside"
    assert audit.scale_verdict == expected and "sigma_max in" in audit.because


@pytest.mark.parametrize(("alpha", "verdict"), [(1e-3, "inside"), (1e3, "beyond"), (0, "unmoved")])
def test_the_verdict_is_the_largest_change_against_sigma_max(bases, tmp_path, alpha, verdict):
    audit = audit_adapter(train(bases["llama"], tmp_path / "a", r=4, lora_alpha=alpha))
    assert audit.scale_verdict == verdict
    if verdict != "unmoved":
        ratios = [one.norm / one.null_norm for one in audit.layers]
        assert f"{np.median(ratios):.3g} times that of a random adapter" in audit.because
        above = sum(one.norm > one.sigma_k for one in audit.layers)
        assert f"sigma_k in {above} of {len(audit.layers)} matrices" in audit.because


def test_keys_with_the_name_of_the_adapter_are_the_same_adapter(saved):
    before = audit_adapter(saved)
    rewrite(saved, lambda tensors: {k.replace(".weight", ".default.weight"): v for k, v in tensors.items()})
    assert audit_adapter(saved) == before


def edited(part, change):
    """The tensors with `change` made to those whose key holds `part`."""
    return lambda tensors: {key: change(value) if part in key else value for key, value in tensors.items()}


Q_A = f"{Q}.lora_A"
BROKEN = {
    "NaN or infinity": edited(Q_A, lambda v: v.fill_(torch.nan)),
    "dW holds NaN": edited("", lambda v: v.double() * 1e200),
    "lora_A or lora_B is missing": lambda tensors: {k: v for k, v in tensors.items() if Q_A not in k},
    "allowed is one rank": edited(Q_A, lambda v: v[:2].clone()),
    "makes a (64, 128) change of a (64, 64) matrix": edited(Q_A, lambda v: torch.cat([v, v], 1)),
    "query_net and 1 more: matches no matrix of": lambda t: {k.replace("q_proj", "query_net"): v for k, v in t.items()},
    "stored twice": lambda t: {**t, **{k.replace(".weight", ".other.weight"): v for k, v in t.items()}},
    "no key ends in": lambda tensors: {"a.weight": torch.ones(2, 2)},
}


@pytest.mark.parametrize(("message", "change"), BROKEN.items(), ids=BROKEN)
def test_what_is_broken_is_named(saved, bases, message, change):
    rewrite(saved, change)
    audit = audit_adapter(saved, base=bases["llama"])
    assert audit.scale_verdict == "broken"
    assert message in said(audit, "problem")
    assert "problem: " in audit.to_text() and AdapterAudit.from_json(audit.to_json()) == audit
    assert "dW" in audit.to_html()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"r": 9}, "declares rank 9"),
        ({"lora_alpha": None}, "no usable number"),
        ({"r": 10**400}, "no usable number"),
        ({"rank_pattern": {"(": 4}}, "no regular expression"),
    ],
)
def test_a_config_that_peft_would_not_take_is_broken(saved, config, message):
    rewrite(saved, **config)
    audit = audit_adapter(saved)
    assert audit.scale_verdict == "broken" and message in said(audit, "problem")


def test_missing_alpha_is_the_one_that_peft_takes(bases, tmp_path):
    folder = train(bases["llama"], tmp_path / "a", r=4, lora_alpha=8)
    before = audit_adapter(folder)
    rewrite(folder, remove=["lora_alpha", "rank_pattern", "alpha_pattern"], init_lora_weights="pissa")
    audit = audit_adapter(folder)
    assert "lora_alpha is missing; PEFT takes 8" in said(audit, "note") and audit.declared_alpha is None
    assert "'pissa' also changes the base" in said(audit, "note")
    assert audit.layers == before.layers and audit.scale_verdict == before.scale_verdict


def test_a_fresh_adapter_never_moved(bases, tmp_path, saved):
    audit = audit_adapter(train(bases["llama"], tmp_path / "a", r=4, init_lora_weights=True))
    assert audit.scale_verdict == "unmoved" and not any(one.moved for one in audit.layers)
    assert "and 5 more: lora_B" in said(audit, "note") and "-" in audit.to_text()
    rewrite(saved, lambda tensors: {k: v * 0 if Q in k else v for k, v in tensors.items()})
    one_still = audit_adapter(saved, base=bases["llama"])
    assert one_still.scale_verdict in {"inside", "beyond"} and f"{Q}: lora_B" in said(one_still, "note")


def test_what_is_not_measured_is_noted(bases, tmp_path):
    folder = train(bases["llama"], tmp_path / "a", r=4, lora_alpha=1, use_dora=True)
    experts = "base_model.model.model.layers.0.mlp.experts."
    more = {
        "base_model.model.model.embed_tokens.lora_embedding_A": torch.ones(4, 8),
        "base_model.model.score.weight": torch.ones(3, 3),
        "base_model.model.a.conv.lora_A.weight": torch.ones(2, 3, 1),
        "base_model.model.a.conv.lora_B.weight": torch.ones(3, 2, 1),
        f"{experts}lora_A.weight": torch.ones(12, 8),
        f"{experts}base_layer.lora_B.weight": torch.ones(8, 12),
    }
    rewrite(folder, lambda tensors: {**tensors, **more}, target_parameters=["mlp.experts.down_proj"])
    audit = audit_adapter(folder)
    assert audit.scale_verdict == "inside" and len(audit.layers) == 6
    for part in ("DoRA", "of an embedding", "modules_to_save", "a convolution?", "experts) are not measured"):
        assert part in said(audit, "note")


def test_a_head_that_is_tied_changes_the_embedding(tmp_path, make_pair):
    base = write_tiny("llama", tmp_path / "base", tie_word_embeddings=True)
    folder = save_adapter(tmp_path / "a", {"lm_head": make_pair(2048, 64, 2)}, base=str(base))
    assert audit_adapter(folder).layers[0].role == "embed"


def test_what_cannot_be_read_is_refused_in_a_sentence(tmp_path, saved):
    with pytest.raises(InputError, match=CONFIG):
        audit_adapter(tmp_path / "nowhere")
    with pytest.raises(InputError, match="does not exist"):
        audit_adapter(saved, base="no/such/base")
    rewrite(saved, base_model_name_or_path=str(tmp_path))
    assert "cannot be opened" in audit_adapter(saved).because
    rewrite(saved, peft_type="LOHA")
    with pytest.raises(InputError, match="LOHA"):
        audit_adapter(saved)
    (saved / CONFIG).write_text("[" * 100_000)
    with pytest.raises(InputError, match="not JSON"):
        audit_adapter(saved)
    (saved / CONFIG).write_text('{"peft_type": "LORA"}')
    (saved / WEIGHTS).write_bytes(b"nothing")
    with pytest.raises(InputError, match="copy or save"):
        audit_adapter(saved)
    (saved / WEIGHTS).rename(saved / "adapter_model.bin")
    for given_path in (saved, saved / "adapter_model.bin"):
        with pytest.raises(InputError, match="never pickle"):
            audit_adapter(given_path)


def test_names_of_strangers_stay_text(saved):
    evil = "<script>alert(1)</script>\x1b[31m"
    rewrite(
        saved, lambda tensors: {k.replace("down_proj", evil): v for k, v in tensors.items()} | {evil: torch.ones(1)}
    )
    audit = audit_adapter(saved)
    assert any(evil in one.name for one in audit.layers) and evil in said(audit, "note")
    assert "<script" not in audit.to_html() and "&lt;script&gt;" in audit.to_html()
    assert "\x1b" not in audit.to_text() and "<script>" in audit.to_text()


sizes = st.integers(1, 40)


@given(sizes, sizes, sizes, st.floats(1e-6, 1e6), st.integers(0, 2**31))
def test_a_random_norm_lies_between_flat_and_rank_one(rows, columns, rank, frobenius, seed):
    norms = random_norms((rows, columns), rank, frobenius=frobenius, seed=seed, name="x")
    assert (norms >= frobenius / np.sqrt(rank) * (1 - 1e-12)).all() and (norms <= frobenius * (1 + 1e-12)).all()


@pytest.mark.parametrize(("shape", "rank"), [((40, 24), 4), ((6, 30), 10)])
def test_triangles_are_the_cores_of_gaussian_factors(shape, rank):
    generator, draws = np.random.default_rng(1), 800
    products = (generator.normal(size=(shape[0], rank)) @ generator.normal(size=(rank, shape[1])) for _ in range(draws))
    direct = np.array([np.linalg.norm(one, 2) / np.linalg.norm(one) for one in products])
    ours = random_norms(shape, rank, frobenius=1.0, draws=draws)
    assert abs(direct.mean() - ours.mean()) < 4 * np.hypot(direct.std(), ours.std()) / np.sqrt(draws)
    assert ours.std() == pytest.approx(direct.std(), rel=0.15)


def test_the_random_adapter_is_the_same_for_the_same_seed_and_name(saved):
    one, two, other = (audit_adapter(saved, seed=seed).layers[0] for seed in (0, 0, 1))
    assert one == two and one.null_interval != other.null_interval
    assert one.null_interval[0] < one.null_norm < one.null_interval[1]
    assert one.frobenius / np.sqrt(one.rank) <= one.null_norm <= one.frobenius
    # these factors are themselves random
    assert 0.8 < one.norm / one.null_norm < 1.25


def test_the_command_answers_in_text_and_in_one_json_document(saved, bases):
    root = typer.Typer()
    root.add_typer(group.app, name="adapter")
    call = CliRunner().invoke
    shown = call(root, ["adapter", "audit", str(saved), "--base", str(bases["llama"])])
    assert shown.exit_code == 0 and Q in shown.stdout and "||dW||_2" in shown.stdout
    machine = call(root, ["adapter", "audit", str(saved), "--json"])
    assert AdapterAudit.from_dict(json.loads(machine.stdout)) == audit_adapter(saved)
    assert "beyond" in call(root, ["adapter", "audit", "--help"]).stdout
