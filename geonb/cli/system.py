"""`geonb system`: what this machine has, whether it computes, what geonb keeps on it, and how fast it is."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

from geonb.cli import options
from geonb.cli.output import answer, prints
from geonb.cli.progress import StageLine
from geonb.errors import InputError

if TYPE_CHECKING:
    import geonb.backends.status
    import geonb.workbench.system

app = typer.Typer(
    help="This machine: libraries and devices, a real check, the cache, a benchmark.", no_args_is_help=True
)


@app.command()
@prints
def status(json: bool = options.AS_JSON) -> geonb.backends.status.MachineStatus:
    """Versions, backends with their devices (or why not), processors, memory, free disk space at the cache."""
    from geonb.backends.status import machine_status
    from geonb.models.cache import cache_folder

    return answer(machine_status(cache_folder()), as_json=json)


@app.command()
@prints
def probe(
    what: str = typer.Argument("backends", metavar="[backends|memory]", help="backends (default) or memory."),
    json: bool = options.AS_JSON,
) -> geonb.backends.status.BackendProbe | geonb.backends.status.MemoryProbe:
    """Really do it: decompose a matrix with every backend and report the error, or write and copy 256 MiB.

    Exit code 1 when a backend that is installed computes wrongly or not at all.
    """
    from geonb.backends.status import probe_backends, probe_memory

    if what not in ("backends", "memory"):
        raise InputError(f"probe was given {what!r}; allowed are backends and memory.")
    return answer(probe_backends() if what == "backends" else probe_memory(), as_json=json)


@app.command()
@prints
def cache(
    clear: bool = typer.Option(False, "--clear", help="Delete what can be computed again: singular values, digests."),
    yes: bool = typer.Option(False, "--yes", help="Do not ask."),
    json: bool = options.AS_JSON,
) -> geonb.workbench.system.CacheStatus:
    """Where geonb's cache lies ($GEONB_CACHE), its entries by kind and their size.

    --clear deletes only files that geonb named; model names and the data of notebook cells stay, links are not followed.
    """
    from geonb.workbench.system import cache_status

    if clear and not yes:
        found = cache_status()
        if json or not sys.stdin.isatty():
            raise InputError(f"--clear empties the cache at {found.folder} and nobody can be asked here: add --yes.")
        count = sum(kind.entries for kind in found.kinds if kind.clearable)
        typer.confirm(f"Delete {count:,} entries of {found.folder!r}?", abort=True, err=True)
    return answer(cache_status(clear=clear), as_json=json)


@app.command()
@prints
def benchmark(
    backend: str = typer.Option("torch", "--backend", help="numpy, torch, jax or mlx."),
    repeats: int = typer.Option(7, "--repeats", help="Paired runs of each tier at each shape, at least 3."),
    seed: int = typer.Option(0, "--seed", help="Of the random matrices."),
    json: bool = options.AS_JSON,
) -> geonb.workbench.system.Benchmark:
    """Time the tiers of singular values at a few shapes: medians of paired runs, with the error of each. A few seconds."""
    from geonb.workbench.system import benchmark as timed

    with StageLine(enabled=not json) as line:
        record = timed(backend=backend, repeats=repeats, seed=seed, progress=line)
    return answer(record, as_json=json)
