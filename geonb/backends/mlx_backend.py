"""MLX: linear algebra on its CPU stream in float64, which Metal does not have."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np

from geonb.backends.protocol import Backend

_DROPPED = 1e-7


class MlxBackend(Backend):
    """Apple's array library (also on Linux as mlx[cpu]); every solver runs on the CPU stream."""

    name = "mlx"

    def asarray(self, array: Any) -> mx.array:
        if isinstance(array, mx.array):
            return array if mx.issubdtype(array.dtype, mx.floating) else array.astype(mx.float32)
        found = np.asarray(array)
        with mx.stream(mx.cpu):
            if found.dtype == np.float64 or found.dtype.kind in "iub":
                return mx.array(found.astype(np.float64), dtype=mx.float64)
            return mx.array(found)

    def to_numpy(self, array: Any) -> np.ndarray:
        with mx.stream(mx.cpu):
            return np.array(array.astype(mx.float64), dtype=np.float64)

    def dtype_name(self, array: Any) -> str:
        return str(array.dtype).removeprefix("mlx.core.")

    def largest_magnitude(self, array: Any) -> float:
        with mx.stream(mx.cpu):
            return float(mx.abs(array).astype(mx.float64).max())

    def gram(self, matrix: Any, exponent: int, *, fast: bool, chunk: int) -> np.ndarray:
        with mx.stream(mx.cpu):
            wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
            size, length = wide.shape
            total = np.zeros((size, size))
            for start in range(0, length, chunk):
                part = wide[:, start : start + chunk].astype(mx.float32 if fast else mx.float64)
                part = part * mx.array(2.0**exponent, dtype=part.dtype)
                total += np.array((part @ part.T).astype(mx.float64), dtype=np.float64)
            return total

    def eigvalsh(self, gram: np.ndarray) -> np.ndarray:
        with mx.stream(mx.cpu):
            return np.array(mx.linalg.eigvalsh(mx.array(gram, dtype=mx.float64), stream=mx.cpu), dtype=np.float64)

    def svdvals(self, matrix: Any, exponent: int) -> np.ndarray:
        with mx.stream(mx.cpu):
            tall = matrix.astype(mx.float64) * mx.array(2.0**exponent, dtype=mx.float64)
            tall = tall if tall.shape[0] >= tall.shape[1] else mx.contiguous(tall.T)
            return np.array(mx.linalg.svd(tall, compute_uv=False, stream=mx.cpu), dtype=np.float64)

    def svd(self, matrix: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        with mx.stream(mx.cpu):
            left, values, right = mx.linalg.svd(matrix.astype(mx.float64), stream=mx.cpu)
            count = min(matrix.shape)
            return (
                np.array(left, dtype=np.float64)[:, :count],
                np.array(values, dtype=np.float64),
                np.array(right, dtype=np.float64)[:count],
            )

    def polar(self, matrix: Any) -> mx.array:
        left, values, right = self.svd(matrix)
        kept = (values > _DROPPED * values[0]) & (values > 0)
        with mx.stream(mx.cpu):
            return mx.array((left * kept) @ right, dtype=mx.float64).astype(matrix.dtype)

    def matmul(self, first: Any, second: Any) -> mx.array:
        with mx.stream(mx.cpu):
            return first @ second

    def synchronize(self) -> None:
        mx.synchronize()
