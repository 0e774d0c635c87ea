"""The geometry of a checkpoint's matrices, streamed: one matrix a worker in memory, cached by content."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from geonb.geometry.spectrum import SCALARS, Spectrum
from geonb.models import cache
from geonb.models.checkpoint import Checkpoint
from geonb.models.matrix_ref import MatrixRef
from geonb.records import Record

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixGeometry(Record):
    """One matrix of a model with its spectrum; every scalar of MATH.md section 1 is an attribute."""

    ref: MatrixRef
    spectrum: Spectrum

    def __getattr__(self, name: str):
        if name in SCALARS or name == "is_zero":
            return getattr(self.spectrum, name)
        raise AttributeError(f"MatrixGeometry has no attribute {name!r}")

    def summary(self) -> str:
        spectrum = self.spectrum
        return (
            f"MatrixGeometry({self.ref.name!r}, {self.ref.role}, sigma_max={spectrum.sigma_max:.4g}, "
            f"k={spectrum.structural_rank}, sigma_k={spectrum.sigma_k:.4g}, tail_dims={spectrum.tail_dims})"
        )


def matrix_geometry(checkpoint: Checkpoint, ref: MatrixRef, *, use_cache: bool = True) -> MatrixGeometry:
    """The spectrum of one matrix, from the cache where its bytes have been seen before."""
    import torch

    from geonb.geometry.singular_values import spectrum

    weight = checkpoint.read(ref)
    key = None
    if use_cache:
        # the bytes as they lie in memory, whatever their dtype
        content = weight.contiguous().view(torch.uint8).numpy().data
        key = cache.spectrum_key(content, tuple(weight.shape), ref.dtype)
        found = cache.load_spectrum(key)
        if found is not None:
            return MatrixGeometry(ref=ref, spectrum=found)
    result = spectrum(weight, name=f"{ref.name} of {checkpoint.source}")
    if key is not None:
        cache.store_spectrum(key, result)
    return MatrixGeometry(ref=ref, spectrum=result)


def _cost(ref: MatrixRef) -> float:
    """Flops of the Gram route: m n^2 + 4/3 n^3 of the smaller side n."""
    small, large = sorted(ref.shape)
    return large * small**2 + 4 / 3 * small**3


def stream_geometry(
    checkpoint: Checkpoint,
    *,
    refs: tuple[MatrixRef, ...] | None = None,
    workers: int = 2,
    use_cache: bool = True,
    progress: Progress | None = None,
) -> Iterator[MatrixGeometry]:
    """Yield the geometry of every matrix in the checkpoint's order, computing `workers` at a time.

    Each worker solves one matrix with one BLAS thread (the two-stage eigensolver parallelises worse than matrices do),
    so at most `workers` matrices and their Gram matrices are in memory. `progress(done, total, name)` is called
    after each.
    """
    import torch

    wanted = checkpoint.refs if refs is None else refs
    threads = torch.get_num_threads()
    if workers > 1:
        torch.set_num_threads(1)
    pool = ThreadPoolExecutor(workers)
    try:
        pending: list = []
        queue = iter(wanted)
        done = 0
        # a short look-ahead keeps the workers busy without reading the whole model
        for ref in queue:
            pending.append(pool.submit(matrix_geometry, checkpoint, ref, use_cache=use_cache))
            if len(pending) > workers:
                yield _next(pending, done := done + 1, len(wanted), progress)
        while pending:
            yield _next(pending, done := done + 1, len(wanted), progress)
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)


def _next(pending: list, done: int, total: int, progress: Progress | None) -> MatrixGeometry:
    geometry = pending.pop(0).result()
    if progress is not None:
        progress(done, total, geometry.ref.name)
    return geometry


def checkpoint_geometry(checkpoint: Checkpoint, **options) -> list[MatrixGeometry]:
    """All of `stream_geometry` as a list."""
    return list(stream_geometry(checkpoint, **options))
