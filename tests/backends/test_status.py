"""What the machine has is what the system says; a probe really computes, and notices what is wrong."""

import os
import platform
import shutil
import sys

import numpy as np
import pytest

from geonb.backends import REGISTRY, available, get_backend, status
from geonb.errors import BackendError, InputError


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return status.machine_status(tmp_path_factory.mktemp("cache") / "not" / "yet" / "there")


def test_versions_are_those_of_the_modules(found):
    import numpy
    import torch

    assert found.python == platform.python_version()
    assert found.libraries["numpy"] == numpy.__version__ and found.libraries["torch"] == torch.__version__


def test_every_backend_of_the_registry_is_told_usable_or_why_not(found):
    assert [backend.name for backend in found.backends] == list(REGISTRY)
    for backend in found.backends:
        assert (backend.reason is None) == (available()[backend.name] is None)
        assert backend.devices if backend.reason is None else not backend.devices
    torch = next(backend for backend in found.backends if backend.name == "torch")
    assert torch.devices[0].startswith("cpu")


def test_memory_and_disk_are_what_the_system_says(found, tmp_path):
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert found.memory_total == pytest.approx(pages, rel=0.01)
    assert 0 < found.memory_available <= found.memory_total
    assert found.disk_free == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.1)
    assert found.processors <= (os.cpu_count() or 1)


def test_a_status_shows_itself_and_survives_json(found):
    text = found.to_text()
    assert f"geonb       {found.geonb} on Python" in text and "OMP_NUM_THREADS is" in text
    assert all(f"  {name:9} " in text for name in REGISTRY)
    assert "<table" in found.to_html()
    assert status.MachineStatus.from_json(found.to_json()) == found


def test_an_installation_that_is_broken_is_told_not_raised(monkeypatch):
    def broken():
        raise OSError("libmissing.so: cannot open shared object file\nand more")

    monkeypatch.setitem(status._DEVICES, "numpy", broken)
    numpy = status.machine_status().backends[0]
    assert numpy.reason == "installed, but it cannot be used (libmissing.so: cannot open shared object file)"
    monkeypatch.setitem(sys.modules, "torch", None)
    torch = status.machine_status().backends[1]
    assert torch.reason is not None and "torch" in torch.reason


def test_a_container_that_allows_less_is_told(tmp_path, monkeypatch):
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(status, "_MEMORY_LIMITS", (str(tmp_path / "absent"), str(limit)))
    for written, told in (("max\n", None), (f"{2**29}\n", 2**29), (f"{2**62}\n", None)):
        limit.write_text(written)
        assert status.machine_status().memory_limit == told
    limit.write_text(f"{2**29}")
    assert "of which a container allows 0.5 GB" in status.machine_status().to_text()


def test_asking_jax_for_its_devices_does_not_load_it_here(monkeypatch):
    if available()["jax"] is not None:
        pytest.skip(f"jax: {available()['jax']}")
    import jax

    expected = [f"{device.platform}:{device.id}" for device in jax.devices()]
    assert status._jax_devices() == expected
    monkeypatch.delitem(sys.modules, "jax")
    assert status._jax_devices() == expected
    assert "jax" not in sys.modules
    monkeypatch.setenv("JAX_PLATFORMS", "nonsense")
    with pytest.raises(RuntimeError, match="nonsense"):
        status._jax_devices()


def test_every_installed_backend_passes_its_probe():
    probe = status.probe_backends()
    assert probe.verdict == "passed"
    for one in probe.backends:
        assert one.verdict == ("absent" if available()[one.name.split()[0]] else "passed")
        if one.verdict == "passed":
            assert set(one.errors) == set(one.tolerances)
            assert all(0 <= error < 1e-9 for error in one.errors.values())
    assert status.BackendProbe.from_json(probe.to_json()) == probe
    assert all(one.name in probe.to_text() and one.name in probe.to_html() for one in probe.backends)


@pytest.mark.parametrize(
    ("operation", "wrong"),
    [
        ("svdvals", lambda right: right * (1 + 1e-9)),
        ("gram", lambda right: right + 1e-6),
        ("svd", lambda right: (right[0], right[1] * 1.001, right[2])),
        ("polar", lambda right: right * 0.999),
        ("eigvalsh", lambda right: right * np.nan),
    ],
)
def test_a_backend_that_computes_wrongly_fails_its_probe(monkeypatch, operation, wrong):
    kind = type(get_backend("numpy"))
    real = getattr(kind, operation)
    monkeypatch.setattr(kind, operation, lambda *given, **named: wrong(real(*given, **named)))
    probe = status.probe_backends()
    numpy = probe.backends[0]
    assert probe.verdict == numpy.verdict == "failed"
    assert numpy.because.startswith("beyond the tolerance: ")
    # the others are compared with NumPy's own solver, which the adapter's mistake does not reach
    assert {one.verdict for one in probe.backends[1:]} <= {"passed", "absent"}


def test_a_backend_that_raises_fails_its_probe_and_the_others_go_on(monkeypatch):
    def broken(*_, **__):
        raise BackendError("no\nsecond line")

    monkeypatch.setattr(type(get_backend("numpy")), "svd", broken)
    probe = status.probe_backends()
    assert probe.backends[0].because == "BackendError: no" and probe.verdict == "failed"
    assert len(probe.backends) >= len(REGISTRY)
    assert "numpy" in probe.to_text()


def test_memory_that_is_probed_is_really_written():
    size = 64 * 2**20
    probe = status.probe_memory(size)
    assert probe.bytes_asked == size
    # pages that were only promised would not make the process grow
    assert probe.bytes_grown > 0.8 * size
    assert probe.copy_bytes_per_second > 0 and probe.copies == 5
    assert "64 MiB written" in probe.to_text()
    assert status.MemoryProbe.from_json(probe.to_json()) == probe


@pytest.mark.parametrize("size", [0, -1, 2**20 - 1, 2**60])
def test_memory_that_cannot_be_probed_is_refused(size):
    with pytest.raises(InputError, match=r"bytes were asked for; allowed are 1 MiB to"):
        status.probe_memory(size)
