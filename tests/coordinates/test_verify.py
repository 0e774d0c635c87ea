"""`geonb coordinates verify` finds what is wrong with a model, and says the exact size of a right one."""

import json

import pytest
import torch
from typer.testing import CliRunner

from geonb.cli.app import app
from geonb.coordinates import model as model_module
from geonb.coordinates import verify as verify_module
from geonb.coordinates.configuration import preset
from geonb.coordinates.model import Layer
from geonb.coordinates.modulated_linear import ModulatedLinear
from geonb.coordinates.verify import VerifiedModel, verify


@pytest.mark.slow
def test_preset_b_passes_and_its_total_is_printed():
    result = CliRunner().invoke(app, ["coordinates", "verify", "--preset", "B"])
    assert result.exit_code == 0, result.output
    assert "9,999,232" in result.output and result.output.rstrip().endswith("passed")


def test_a_tiny_model_passes_and_the_record_is_json():
    found = verify(preset("tiny"))
    assert found.passed and VerifiedModel.from_json(found.to_json()) == found
    assert "<td>modulation</td>" in found.to_html()
    result = CliRunner().invoke(app, ["coordinates", "verify", "--preset", "tiny", "--json"])
    assert json.loads(result.output)["total"] == found.total == 140_576


def failing(found):
    return {one.name.split(":")[0] for one in found.conditions if one.passed is False}


def test_a_coordinate_that_sees_the_future_is_found(monkeypatch):
    whole = verify_module.CoordinateModel._prefix
    monkeypatch.setattr(
        verify_module.CoordinateModel,
        "_prefix",
        lambda self, x, mode, cache: whole(self, x.mean(dim=1, keepdim=True).expand_as(x), mode, cache),
    )
    found = verify(preset("tiny"))
    assert "causal" in failing(found) and "read with a cache as without" in failing(found)


def test_a_budget_that_is_not_kept_is_found(monkeypatch):
    monkeypatch.setattr(ModulatedLinear, "bounded_core", lambda self, weights: self.factors.core(weights))
    assert failing(verify(preset("tiny"))) == {"within the spectral budget"}


def test_positions_that_start_anew_behind_a_cache_are_found(monkeypatch):
    from geonb.coordinates import model

    honest = model.rotations
    monkeypatch.setattr(model, "rotations", lambda tokens, start, sizes, like: honest(tokens, 0, sizes, like))
    assert failing(verify(preset("tiny"))) == {"read with a cache as without"}


def test_a_model_that_ignores_its_coordinate_is_found(monkeypatch):
    monkeypatch.setattr(model_module, "changed", lambda linears, x, *rest, **named: [one.base(x) for one in linears])
    assert {"theta changes what is said", "every parameter gets a gradient"} <= failing(verify(preset("tiny")))


def test_a_parameter_more_is_found(monkeypatch):
    made = Layer.__init__

    def more(self, *arguments):
        made(self, *arguments)
        self.extra = torch.nn.Parameter(torch.ones(3))

    monkeypatch.setattr(Layer, "__init__", more)
    assert "the formula counts what was built" in failing(verify(preset("tiny")))


def test_misuse_is_one_sentence(tmp_path):
    result = CliRunner().invoke(app, ["coordinates", "verify", "--preset", "Z"])
    assert result.exit_code != 0 and "allowed are B, C, D, tiny" in str(result.exception)
