"""What this machine has: libraries, devices, threads, memory, disk; and whether each backend really computes.

`machine_status` looks; `probe_backends` and `probe_memory` do something and measure what came of it.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from geonb._version import __version__
from geonb.backends.registry import REGISTRY, available, get_backend
from geonb.errors import GeonbError, InputError
from geonb.record_tables import table_html
from geonb.records import Record

_LIBRARIES = ("numpy", "scipy", "torch", "transformers", "peft", "safetensors", "tokenizers", "jax", "mlx", "pyarrow")
# errors of a sound float64 decomposition are a few units of round-off times sigma_max; its Gram matrix halves the digits
# of the smallest of these singular values (1e-3 of the largest)
_TOLERANCES = {"singular values": 1e-13, "by Gram matrix": 1e-10, "U S V^T": 1e-13, "polar factor": 1e-10}
_SHAPE = (48, 96)
_PROBED_BYTES = 256 * 2**20
_COPIES = 5
_MEMORY_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendStatus(Record):
    """A backend, the version and devices of its library, and the reason where it cannot be used."""

    name: str
    version: str | None
    devices: tuple[str, ...]
    reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineStatus(Record):
    """This machine as geonb sees it; bytes, and None where the system does not tell."""

    geonb: str
    python: str
    system: str
    libraries: dict[str, str | None]
    backends: tuple[BackendStatus, ...]
    processors: int  # that this process may use
    threads: int | None  # that torch uses for one operation
    omp_num_threads: str | None
    memory_total: int | None
    memory_available: int | None
    memory_limit: int | None  # of the container, where it is less than the total
    disk_folder: str
    disk_free: int | None

    def summary(self) -> str:
        usable = ", ".join(backend.name for backend in self.backends if backend.reason is None)
        return f"MachineStatus(geonb {self.geonb}, Python {self.python}, {usable})"

    def to_text(self) -> str:
        lines = [f"{name:11} {value}" for name, value in self._facts()]
        for backend in self.backends:
            what = backend.reason or f"{backend.version or ''} on {', '.join(backend.devices) or 'its default device'}"
            lines.append(f"  {backend.name:9} {'no: ' if backend.reason else ''}{what}")
        return "\n".join(lines)

    def to_html(self) -> str:
        rows = [(one.name, one.version, ", ".join(one.devices), one.reason or "usable") for one in self.backends]
        return table_html(("", ""), self._facts(), caption="This machine") + table_html(
            ("backend", "version", "devices", ""), rows
        )

    def _facts(self) -> list[tuple[str, str]]:
        others = ", ".join(f"{name} {version}" for name, version in self.libraries.items() if version)
        absent = ", ".join(name for name, version in self.libraries.items() if not version)
        limit = f", of which a container allows {_gigabytes(self.memory_limit)}" if self.memory_limit else ""
        return [
            ("geonb", f"{self.geonb} on Python {self.python}, {self.system}"),
            ("libraries", others + (f"; not installed: {absent}" if absent else "")),
            (
                "processors",
                f"{self.processors} usable; torch uses {self.threads or '?'} threads, "
                f"OMP_NUM_THREADS is {self.omp_num_threads or 'not set'}",
            ),
            ("memory", f"{_gigabytes(self.memory_available)} free of {_gigabytes(self.memory_total)}{limit}"),
            ("disk", f"{_gigabytes(self.disk_free)} free at {self.disk_folder!r}"),
            ("backends", ""),
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbedBackend(Record):
    """One backend after a small decomposition: `errors` are relative to sigma_max, by operation."""

    name: str
    errors: dict[str, float]
    tolerances: dict[str, float]
    verdict: str  # "passed", "failed" or "absent"
    because: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendProbe(Record):
    """Every backend's decompositions against NumPy in float64, and NumPy's against a matrix of known singular values."""

    shape: tuple[int, int]
    backends: tuple[ProbedBackend, ...]
    verdict: str  # "failed" when one that is installed failed

    def to_text(self) -> str:
        lines = [
            f"A {self.shape[0]} x {self.shape[1]} matrix of known singular values, error relative to sigma_max:",
            "",
        ]
        lines.append(f"  {'backend':12} " + " ".join(f"{name:>15}" for name in _TOLERANCES) + "  verdict")
        for one in self.backends:
            errors = " ".join(
                f"{one.errors[name]:>15.1e}" if name in one.errors else f"{'-':>15}" for name in _TOLERANCES
            )
            lines.append(f"  {one.name:12} {errors}  {one.verdict}{': ' + one.because if one.because else ''}")
        lines.append(f"  {'allowed':12} " + " ".join(f"{value:>15.1e}" for value in _TOLERANCES.values()))
        return "\n".join(lines)

    def to_html(self) -> str:
        rows = [
            (one.name, *(one.errors.get(name) for name in _TOLERANCES), one.verdict, one.because)
            for one in self.backends
        ]
        caption = f"Error relative to sigma_max, {self.shape[0]} x {self.shape[1]}: {self.verdict}"
        return table_html(("backend", *_TOLERANCES, "verdict", "because"), rows, caption=caption)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryProbe(Record):
    """An array that was really written: how much the process grew by it, and how fast it is copied."""

    bytes_asked: int
    bytes_grown: int
    copy_bytes_per_second: float  # read plus written, median
    copies: int
    available_before: int
    available_after: int

    def to_text(self) -> str:
        return (
            f"{self.bytes_asked / 2**20:.0f} MiB written: the process grew by {self.bytes_grown / 2**20:.0f} MiB; copying them "
            f"moves {self.copy_bytes_per_second / 1e9:.1f} GB/s (median of {self.copies}); free before "
            f"{_gigabytes(self.available_before)}, after {_gigabytes(self.available_after)}"
        )


def machine_status(folder: str | Path = ".") -> MachineStatus:
    """What is here, without computing anything; `folder` is where free disk space is asked for (it need not exist yet).

    >>> machine_status().backends[0].name
    'numpy'
    """
    import psutil

    memory = psutil.virtual_memory()
    limit = _container_limit()
    backends = tuple(_backend_status(name, reason) for name, reason in available().items())
    torch = sys.modules.get("torch")
    return MachineStatus(
        geonb=__version__,
        python=platform.python_version(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        libraries={name: _version(name) for name in _LIBRARIES},
        backends=backends,
        processors=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        threads=torch.get_num_threads() if torch is not None else None,
        omp_num_threads=os.environ.get("OMP_NUM_THREADS"),
        memory_total=memory.total,
        memory_available=memory.available,
        memory_limit=limit if limit is not None and limit < memory.total else None,
        disk_folder=str(folder),
        disk_free=_disk_free(Path(folder)),
    )


def probe_backends(*, seed: int = 0) -> BackendProbe:
    """Decompose one matrix with every backend and compare with NumPy in float64; NumPy itself with what it was built from.

    W = (I - 2 u u^T) diag(s) (I - 2 v v^T) with s from 1 to 1e-3, so that its singular values are known without a solver.
    """
    rng = np.random.default_rng(seed)
    rows, columns = _SHAPE
    known = np.geomspace(1.0, 1e-3, rows)
    left, right = _reflection(rng, rows), _reflection(rng, columns)[:rows]
    exact = _Exact(matrix=(left * known) @ right, values=known, polar=left @ right)
    probed = tuple(_probed(name, device, reason, exact) for name, device, reason in _engines())
    failed = any(one.verdict == "failed" for one in probed)
    return BackendProbe(shape=_SHAPE, backends=probed, verdict="failed" if failed else "passed")


def probe_memory(size: int = _PROBED_BYTES) -> MemoryProbe:
    """Write `size` bytes, copy them five times, and look at what the process and the machine say of it.

    Raises `InputError` for less than 1 MiB and for more than a sixth of the free memory.
    """
    import psutil

    process = psutil.Process()
    before = psutil.virtual_memory().available
    if size < 2**20 or size > before // 6:
        raise InputError(
            f"{size:,} bytes were asked for; allowed are 1 MiB to {before // 6:,}, a sixth of what is free."
        )
    resident = process.memory_info().rss
    # ones, not zeros: pages of zeros are handed out before they exist
    array = np.ones(size // 8)
    grown = process.memory_info().rss - resident
    copy = np.ones_like(array)
    rates = []
    for _ in range(_COPIES):
        start = time.perf_counter()
        np.copyto(copy, array)
        rates.append(2 * array.nbytes / (time.perf_counter() - start))
    return MemoryProbe(
        bytes_asked=size,
        bytes_grown=grown,
        copy_bytes_per_second=float(np.median(rates)),
        copies=_COPIES,
        available_before=before,
        available_after=psutil.virtual_memory().available,
    )


def _reflection(rng: np.random.Generator, size: int) -> np.ndarray:
    direction = rng.standard_normal((size, 1))
    direction /= np.linalg.norm(direction)
    return np.eye(size) - 2 * direction @ direction.T


@dataclass(frozen=True, slots=True)
class _Exact:
    """A matrix with the singular values and the polar factor that it was built from."""

    matrix: np.ndarray
    values: np.ndarray
    polar: np.ndarray


def _engines() -> list[tuple[str, str, str | None]]:
    """Every backend on its own device, and torch on each CUDA device as well: (name, device, reason why not)."""
    found = [(name, "", reason) for name, reason in available().items()]
    try:
        import torch
    except (ImportError, OSError):  # its own row tells that
        return found
    return found + [("torch", f"cuda:{index}", None) for index in range(torch.cuda.device_count())]


def _probed(name: str, device: str, reason: str | None, exact: _Exact) -> ProbedBackend:
    shown = f"{name} {device}".strip()
    if reason is not None:
        return ProbedBackend(name=shown, errors={}, tolerances={}, verdict="absent", because=reason)
    try:
        errors = _errors(name, device, exact)
    # a broken installation fails in ways of its own, and the probe is there to tell them
    except Exception as error:
        because = f"{type(error).__name__}: {(str(error).splitlines() or ['no message'])[0][:160]}"
        return ProbedBackend(name=shown, errors={}, tolerances=_TOLERANCES, verdict="failed", because=because)
    # written so that NaN fails
    beyond = [operation for operation, error in errors.items() if not error <= _TOLERANCES[operation]]
    return ProbedBackend(
        name=shown,
        errors=errors,
        tolerances=_TOLERANCES,
        verdict="failed" if beyond else "passed",
        because=f"beyond the tolerance: {', '.join(beyond)}" if beyond else "",
    )


def _errors(name: str, device: str, exact: _Exact) -> dict[str, float]:
    reference = exact.values if name == "numpy" else np.linalg.svd(exact.matrix, compute_uv=False)
    engine = get_backend(name)
    given = engine.asarray(exact.matrix)
    given = given.to(device) if device else given
    squares = engine.eigvalsh(engine.gram(given, 0, fast=False, chunk=64))[::-1]
    left, values, right = engine.svd(given)
    polar = engine.to_numpy(engine.polar(given))
    found = engine.svdvals(given, 0)
    engine.synchronize()
    return {
        "singular values": float(np.abs(found - reference).max()),
        "by Gram matrix": float(np.abs(np.sqrt(np.maximum(squares, 0)) - reference).max()),
        "U S V^T": float(np.abs(left * values @ right - exact.matrix).max()),
        "polar factor": float(np.abs(polar - exact.polar).max()),
    }


def _backend_status(name: str, reason: str | None) -> BackendStatus:
    version = _version(REGISTRY[name][2].partition(".")[0])
    if reason is not None:
        return BackendStatus(name=name, version=version, devices=(), reason=reason)
    try:
        devices = _DEVICES[name]()
    except (GeonbError, ImportError, OSError, RuntimeError, ValueError, subprocess.SubprocessError) as error:
        first = str(error).strip().split("\n")[0][:160]
        reason = f"installed, but it cannot be used ({first or type(error).__name__})"
        return BackendStatus(name=name, version=version, devices=(), reason=reason)
    return BackendStatus(name=name, version=version, devices=tuple(devices), reason=None)


def _torch_devices() -> list[str]:
    import torch

    found = [f"cpu ({torch.backends.cpu.get_cpu_capability()})"]
    for index in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(index)
        found.append(f"cuda:{index} ({facts.name}, {_gigabytes(facts.total_memory)})")
    return [*found, "mps"] if torch.backends.mps.is_available() else found


def _jax_devices() -> list[str]:
    if "jax" in sys.modules:
        return [f"{device.platform}:{device.id}" for device in sys.modules["jax"].devices()]
    # in a process of its own: asking JAX for its devices reserves most of a GPU's memory for as long as it lives
    code = "import jax, json; print(json.dumps([f'{one.platform}:{one.id}' for one in jax.devices()]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().split("\n") or ["no message"])[-1])
    return json.loads(done.stdout.strip().split("\n")[-1])


def _mlx_devices() -> list[str]:
    import mlx.core as mlx

    return ["cpu", *(["metal"] if mlx.metal.is_available() else [])]


_DEVICES = {"numpy": lambda: ["cpu"], "torch": _torch_devices, "jax": _jax_devices, "mlx": _mlx_devices}


def _version(library: str) -> str | None:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None


def _container_limit() -> int | None:
    for path in map(Path, _MEMORY_LIMITS):
        try:
            return int(path.read_text(encoding="ascii"))
        except (OSError, ValueError):  # "max" where there is none
            continue
    return None


def _disk_free(folder: Path) -> int | None:
    there = folder.absolute()
    while not there.exists() and there != there.parent:
        there = there.parent
    try:
        return shutil.disk_usage(there).free
    except OSError:
        return None


def _gigabytes(count: int | None) -> str:
    return "?" if count is None else f"{count / 1e9:.1f} GB"
