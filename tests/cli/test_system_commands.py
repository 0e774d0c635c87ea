"""`system status|probe|cache|benchmark` as a shell calls them; the cache is cleared of its own and nothing else."""

import json
import statistics

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from geonb.backends import status
from geonb.cli import system as group
from geonb.cli.output import exit_code_of
from geonb.errors import InputError
from geonb.models import Checkpoint
from geonb.models.cache import file_digest
from geonb.models.spectra import model_spectra
from geonb.workbench import system
from tests import tiny

app = typer.Typer()
app.add_typer(group.app, name="system")


def call(*arguments, answers=None):
    return CliRunner().invoke(app, ["system", *map(str, arguments)], input=answers)


@pytest.fixture
def cache(tmp_path, tmp_path_factory, monkeypatch):
    """A cache with a scan of the tiny model in it, a cell's data, the list of names, and a stranger's file."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("GEONB_CACHE", str(folder))
    checkpoint = Checkpoint.open(tiny.tiny_model(tmp_path_factory))
    model_spectra(checkpoint)
    file_digest(checkpoint.folder / "config.json")
    (folder / "cells").mkdir()
    (folder / "cells" / f"{'0' * 16}.jsonl").write_text('{"text": "x"}\n')
    (folder / "models.json").write_text('{"models": {}}')
    (folder / "spectra" / "notes.txt").write_text("mine")
    return folder


def kinds(record):
    return {kind["kind"]: kind["entries"] for kind in record["kinds"]}


def test_status_tells_this_machine_and_says_json():
    done = call("status")
    assert done.exit_code == 0 and "backends" in done.stdout and "  numpy" in done.stdout
    found = status.MachineStatus.from_dict(json.loads(call("status", "--json").stdout))
    assert found.backends[0].reason is None


def test_probe_passes_here_and_fails_with_an_exit_code_of_one(monkeypatch):
    found = status.BackendProbe.from_dict(json.loads(call("probe", "--json").stdout))
    assert found.verdict == "passed" and exit_code_of(found) == 0
    monkeypatch.setattr(status, "_TOLERANCES", {name: 0.0 for name in status._TOLERANCES})
    assert exit_code_of(status.probe_backends()) == 1
    assert "MiB written" in call("probe", "memory").stdout
    assert "probe was given 'disk'; allowed are backends and memory" in str(call("probe", "disk").exception)


def test_the_cache_is_counted_by_kind(cache):
    found = json.loads(call("cache", "--json").stdout)
    assert found["folder"] == str(cache) and found["is_there"]
    n_spectra = len(list((cache / "spectra").glob("*.npz")))
    assert n_spectra > 0
    assert kinds(found) == {
        "spectra": n_spectra,
        "files": len(list((cache / "files").iterdir())),
        "cells": 1,
        "names": 1,
        "other": 1,
    }
    total = sum(path.stat().st_size for path in cache.rglob("*") if path.is_file())
    assert sum(kind["bytes"] for kind in found["kinds"]) == total
    assert str(cache) in call("cache").stdout


def test_clearing_takes_what_can_be_computed_again_and_nothing_else(cache):
    before = kinds(json.loads(call("cache", "--json").stdout))
    found = json.loads(call("cache", "--clear", "--yes", "--json").stdout)
    assert kinds(found) == {"spectra": 0, "files": 0, "cells": 1, "names": 1, "other": 1}
    assert {kind["kind"]: kind["entries"] for kind in found["cleared"]} == {
        "spectra": before["spectra"],
        "files": before["files"],
    }
    left = {path.relative_to(cache).as_posix() for path in cache.rglob("*") if path.is_file()}
    assert left == {"cells/0000000000000000.jsonl", "models.json", "spectra/notes.txt"}


def test_clearing_follows_no_link(cache, tmp_path):
    outside = tmp_path / "outside"
    (cache / "spectra").rename(outside)
    (cache / "spectra").symlink_to(outside, target_is_directory=True)
    kept = sorted(outside.iterdir())
    target = tmp_path / "precious"
    target.write_text("keep")
    (cache / "files" / ("a" * 64)).symlink_to(target)
    found = json.loads(call("cache", "--clear", "--yes", "--json").stdout)
    assert sorted(outside.iterdir()) == kept and target.read_text() == "keep"
    assert kinds(found)["spectra"] == 0 and kinds(found)["other"] == 2, "the two links are told as not geonb's"


def test_clearing_asks_first(cache, monkeypatch):
    told = call("cache", "--clear")
    assert isinstance(told.exception, InputError) and "nobody can be asked here: add --yes" in str(told.exception)
    monkeypatch.setattr("geonb.cli.system.sys", type("Sys", (), {"stdin": type("In", (), {"isatty": lambda: True})}))
    count = len(list((cache / "spectra").glob("*.npz")))
    assert call("cache", "--clear", answers="n\n").exit_code == 1
    assert len(list((cache / "spectra").glob("*.npz"))) == count
    done = call("cache", "--clear", answers="y\n")
    assert done.exit_code == 0 and f"cleared {count} of spectra" in done.stdout


def test_a_cache_that_is_not_there_is_empty(tmp_path, monkeypatch):
    monkeypatch.setenv("GEONB_CACHE", str(tmp_path / "absent"))
    found = system.cache_status(clear=True)
    assert not found.is_there and sum(kind.entries for kind in found.kinds) == 0
    assert "(nothing there yet)" in found.to_text() and not (tmp_path / "absent").exists()


@pytest.mark.parametrize(("backend", "tiers"), [("torch", 3), ("numpy", 2)])
def test_the_benchmark_times_every_tier_at_every_shape_on_the_same_matrix(backend, tiers):
    shapes = ((24, 40), (32, 32))
    found = system.benchmark(shapes, backend=backend, repeats=3, seed=1)
    assert [row.shape for row in found.rows] == [shape for shape in shapes for _ in range(tiers)]
    assert found.dtype == ("bfloat16" if backend == "torch" else "float64")
    for row in found.rows:
        low, high = row.time.interval
        assert 0 < low <= row.time.value <= high and row.time.n == row.ratio.n == 3
        # bfloat16 has exact float32 products: its tier is good to the bound of the float32 sums
        assert row.error <= (1e-3 if row.tier == "bf16-gram" else 1e-7)
        if row.tier == "float64-svd":
            assert row.error == 0 and row.ratio.value == 1
    assert "75.0%" in found.rows[0].time.operator  # 1 - 2 / 2^3
    assert system.Benchmark.from_json(found.to_json()) == found


def test_the_span_of_seven_runs_holds_the_median_as_often_as_said():
    rng = np.random.default_rng(0)
    runs = rng.exponential(size=(20_000, system.REPEATS))
    median = np.log(2)
    held = ((runs.min(axis=1) < median) & (median < runs.max(axis=1))).mean()
    assert held == pytest.approx(1 - 2 / 2**system.REPEATS, abs=0.004)
    measured = system._median([3.0, 1.0, 2.0], "ms")
    assert (measured.value, measured.interval) == (statistics.median([1, 2, 3]), (1.0, 3.0))


@pytest.mark.slow
def test_the_benchmark_is_a_table_or_a_document():
    done = call("benchmark", "--repeats", 3, "--backend", "numpy")
    assert done.exit_code == 0 and "512 x 1536  float64-gram" in done.stdout
    found = json.loads(call("benchmark", "--repeats", 3, "--json").stdout)
    assert len(found["rows"]) == 3 * len(system.SHAPES)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--repeats", 2], "2 repeats and the shapes .* were given; allowed are at least 3 repeats"),
        (["--backend", "fortran"], "the backend 'fortran' is not known; allowed are numpy, torch, jax, mlx"),
    ],
)
def test_a_benchmark_that_says_nothing_is_refused(arguments, message):
    told = call("benchmark", *arguments)
    with pytest.raises(InputError, match=message):
        raise told.exception
