"""Every derivation is recomputed from its own inputs, survives JSON, and says what it must say."""

import dataclasses
import math

import pytest

from geonb.derive import FIFTEEN, Derivation, derive_all, recompute
from geonb.derive.derivation import EVIDENCE, shown
from geonb.errors import DerivationError

VARIANTS = [
    {},
    {"calibration": None},
    {"controller": "mass"},
    {"budget": "balanced"},
    {"controller": "mass-layer", "budget": "strict"},
    {"controller": "scaled-gd"},
    {"basis": "full", "ranks": {"layers.0.q": 12, "layers.0.up": 5}},
    {"sides": "two", "max_rank": 3, "ranks": {"layers.0.q": 3, "layers.0.up": 2}},
    {"memory_limit": 500, "memory_source": "a test"},
    {"n_eval": 0, "resolves": None},
]


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@pytest.mark.parametrize("module", FIFTEEN, ids=lambda module: module.__name__.rpartition(".")[2])
def test_value_follows_from_the_stored_inputs(context, module, variant):
    derivation = module.derive(dataclasses.replace(context, **variant))
    read_back = Derivation.from_json(derivation.to_json())
    assert read_back == derivation
    assert recompute(read_back) == (derivation.value, derivation.documented_value)


def test_numbers_run_from_one_to_fifteen_and_keys_are_file_names(context):
    derivations = derive_all(context)
    assert [derivation.number for derivation in derivations] == list(range(1, 16))
    assert [derivation.key for derivation in derivations] == [m.__name__.rpartition(".")[2] for m in FIFTEEN]


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_every_derivation_has_formula_source_evidence_and_reason(context, variant):
    for derivation in derive_all(dataclasses.replace(context, **variant)):
        assert derivation.formula and derivation.source and derivation.documented_formula
        assert derivation.because.endswith(".")
        assert {derivation.evidence, derivation.documented_evidence} <= set(EVIDENCE)
        assert derivation.replaces in derivation.to_text()
        assert "<table" in derivation.to_html()


def test_documented_forms_that_failed_are_not_called_validated(context):
    tags = {derivation.key: derivation for derivation in derive_all(context)}
    assert "validated" not in {derivation.evidence for derivation in tags.values()}
    for key in ("learning_rate", "adam_epsilon", "early_stopping", "initialisation", "dropout"):
        assert tags[key].documented_evidence == "disproven"
    assert not tags["residual_scaling"].applied and not tags["dropout"].applied and not tags["adam_epsilon"].applied


def test_an_unknown_evidence_is_refused(context):
    with pytest.raises(DerivationError, match="evidence 'certain'; allowed are proven"):
        dataclasses.replace(derive_all(context)[0], evidence="certain")


def test_unmeasured_is_none_and_never_a_number(context):
    derivations = {d.key: d for d in derive_all(dataclasses.replace(context, calibration=None))}
    assert derivations["batch_size"].documented_value is None
    assert derivations["batch_size"].value == 16 and derivations["batch_size"].evidence == "convention"
    assert derivations["residual_scaling"].documented_value is None
    assert derivations["lora_rank"].beside["gradient"] is None
    assert "unmeasured" in derivations["residual_scaling"].to_text()


def test_an_unresolved_noise_scale_is_not_used(context):
    unresolved = dataclasses.replace(context.calibration, resolved=False)
    derivation = FIFTEEN[7].derive(dataclasses.replace(context, calibration=unresolved))
    assert derivation.value == 16 and derivation.documented_value is None


def test_html_of_a_derivation_escapes(context):
    hostile = dataclasses.replace(derive_all(context)[0], because="<script>alert(1)</script>", replaces="<b>")
    assert "<script>" not in hostile.to_html() and "<b>" not in hostile.to_html()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "unmeasured"),
        (True, "yes"),
        (1234, "1,234"),
        (0.123456, "0.1235"),
        ({"a.b": 2, "a.c": 2}, "2"),
        ({"a.b": 1.5, "a.c": 2.5}, "1.5 .. 2.5"),
        ({"steps": 3, "share": 0.5}, "steps 3, share 0.5"),
        ({}, "nothing"),
        ((1, "x"), "1, x"),
        (math.inf, "inf"),
    ],
)
def test_shown(value, text):
    assert shown(value) == text
