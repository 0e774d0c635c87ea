"""Several donors into one target: each brings its own change, and a batch goes on where it was stopped."""

import shutil

import numpy as np
import pytest

from geonb.errors import InputError
from geonb.merge.transplant import transplant_batch
from tests.families import write_tiny
from tests.merge.donors import perturbed, stored_bytes, weights_of
from tests.tiny import sums


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    path = tmp_path_factory.mktemp("texts") / "sums.jsonl"
    path.write_text("".join(sums().splitlines(keepends=True)[:40]))
    return path


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    return write_tiny("llama", tmp_path_factory.mktemp("target") / "tiny")


@pytest.fixture(scope="module")
def donor(target, tmp_path_factory):
    return perturbed(target, tmp_path_factory.mktemp("donor") / "donor")


def test_a_batch_adds_every_donors_own_change_to_the_target(target, texts, tmp_path):
    donors = [perturbed(target, tmp_path / f"donor-{seed}", seed=seed, size=0.1) for seed in (1, 2)]
    found = transplant_batch(target, donors, tmp_path / "out", probes=texts, rule="none", scale=0.5, device="cpu")
    assert [path.name for path in sorted((tmp_path / "out").iterdir())] == ["1-donor-1", "2-donor-2"]
    before, after, *others = (weights_of(one) for one in (target, tmp_path / "out" / "2-donor-2", *donors))
    for one in found.runs[1].matrices:
        expected = before[one.name] + 0.5 * sum(other[one.name] - before[one.name] for other in others)
        assert np.allclose(after[one.name], expected, atol=1e-6)
    # two random changes are as good as orthogonal, and the first step finds nothing there
    assert found.runs[0].overlap is None and abs(found.runs[1].overlap) < 0.05
    assert found.effect.kl.value > 0 and found.output == str(tmp_path / "out" / "2-donor-2")
    assert "donor-2" in found.to_text()


def test_a_second_copy_of_a_donor_overlaps_entirely(target, donor, texts, tmp_path):
    again = shutil.copytree(donor, tmp_path / "again")
    found = transplant_batch(target, [donor, again], tmp_path / "out", probes=texts, rule="none", device="cpu")
    assert found.runs[1].overlap == pytest.approx(1.0, abs=1e-6)


def test_a_batch_goes_on_where_it_was_stopped(target, texts, tmp_path):
    donors = [perturbed(target, tmp_path / f"donor-{seed}", seed=seed) for seed in (1, 2)]
    options = {"probes": texts, "device": "cpu"}
    whole = transplant_batch(target, donors, tmp_path / "whole", **options)
    part = transplant_batch(target, donors, tmp_path / "part", **options)
    shutil.rmtree(tmp_path / "part" / "2-donor-2")
    before = (tmp_path / "part" / "1-donor-1" / "merge.json").stat().st_mtime_ns
    part = transplant_batch(target, donors, tmp_path / "part", **options)
    assert part.skipped == (str(tmp_path / "part" / "1-donor-1"),) and not whole.skipped
    assert (tmp_path / "part" / "1-donor-1" / "merge.json").stat().st_mtime_ns == before
    for step in ("1-donor-1", "2-donor-2"):
        assert stored_bytes(tmp_path / "part" / step) == stored_bytes(tmp_path / "whole" / step)
    assert part.effect == whole.effect
    # other inputs are no excuse for writing over a step
    with pytest.raises(InputError, match="1-donor-1 exists"):
        transplant_batch(target, donors, tmp_path / "part", scale=0.5, **options)


def test_a_step_whose_files_were_changed_is_not_taken_for_done(target, texts, tmp_path):
    donors = [perturbed(target, tmp_path / f"donor-{seed}", seed=seed) for seed in (1, 2)]
    transplant_batch(target, donors, tmp_path / "out", probes=texts, device="cpu")
    weights = tmp_path / "out" / "2-donor-2" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(InputError, match="2-donor-2 exists"):
        transplant_batch(target, donors, tmp_path / "out", probes=texts, device="cpu")


def test_a_batch_of_one_or_into_a_model_is_refused(target, donor, texts, tmp_path):
    with pytest.raises(InputError, match="a batch was given 1 donors"):
        transplant_batch(target, [donor], tmp_path / "out", probes=texts)
    with pytest.raises(InputError, match="is a file or a model"):
        transplant_batch(target, [donor, donor], target, probes=texts)
