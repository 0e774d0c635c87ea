"""What a run was made with: the versions and the machine that its figures may depend on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from dataclasses import dataclass
from typing import Self

from geonb.records import Record

LIBRARIES = ("torch", "numpy", "scipy", "transformers", "peft")


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment(Record):
    """Versions and machine, without a name or a path that would tell whose machine it is."""

    python: str
    geonb: str
    libraries: dict[str, str]  # those of LIBRARIES that are installed
    platform: str  # system and processor family
    cores: int  # that the process may use
    threads: str  # OMP_NUM_THREADS, "" where it is not set

    @classmethod
    def here(cls, *, threads: str | None = None) -> Self:
        """That of this process, read from the installed packages without importing one of them.

        >>> Environment.here().python.startswith("3.")
        True
        """
        from geonb._version import __version__

        found = {}
        for name in LIBRARIES:
            try:
                found[name] = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                continue
        # a container may be given fewer than the machine has
        allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        return cls(
            python=platform.python_version(),
            geonb=__version__,
            libraries=found,
            platform=f"{platform.system()} {platform.machine()}",
            cores=allowed or 1,
            threads=os.environ.get("OMP_NUM_THREADS", "") if threads is None else threads,
        )

    def summary(self) -> str:
        told = ", ".join(f"{name} {version}" for name, version in self.libraries.items())
        return f"Environment(geonb {self.geonb}, Python {self.python}, {told}; {self.platform}, {self.cores} cores)"
