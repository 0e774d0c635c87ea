"""NumPy and SciPy: the float64 reference that the other backends are tested against."""

from __future__ import annotations

from typing import Any

import numpy as np

from geonb.backends.protocol import Backend

# directions below this share of the largest singular value are round-off, as in the controllers
_DROPPED = 1e-7


class NumpyBackend(Backend):
    """Plain float64 on the CPU; LAPACK through SciPy, values only where only values are asked for."""

    name = "numpy"

    def asarray(self, array: Any) -> np.ndarray:
        found = np.asarray(array)
        return found if found.dtype.kind == "f" or found.dtype.name == "bfloat16" else found.astype(np.float64)

    def to_numpy(self, array: Any) -> np.ndarray:
        return np.array(array, dtype=np.float64)

    def dtype_name(self, array: Any) -> str:
        return str(np.asarray(array).dtype.name)

    def largest_magnitude(self, array: Any) -> float:
        return float(np.abs(np.asarray(array, dtype=np.float64)).max())

    def gram(self, matrix: Any, exponent: int, *, fast: bool, chunk: int) -> np.ndarray:
        wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
        size, length = wide.shape
        total = np.zeros((size, size))
        for start in range(0, length, chunk):
            if fast:
                part = np.ldexp(np.asarray(wide[:, start : start + chunk], dtype=np.float32), exponent)
            else:
                part = np.ldexp(np.asarray(wide[:, start : start + chunk], dtype=np.float64), exponent)
            total += part @ part.T
        return total

    def eigvalsh(self, gram: np.ndarray) -> np.ndarray:
        from scipy.linalg import eigh

        return eigh(gram, eigvals_only=True, check_finite=False, driver="evr")

    def svdvals(self, matrix: Any, exponent: int) -> np.ndarray:
        from scipy.linalg import svd

        tall = np.ldexp(np.asarray(matrix, dtype=np.float64), exponent)
        tall = tall if tall.shape[0] >= tall.shape[1] else np.ascontiguousarray(tall.T)
        return np.asarray(svd(tall, compute_uv=False, check_finite=False))

    def svd(self, matrix: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return np.linalg.svd(np.asarray(matrix, dtype=np.float64), full_matrices=False)

    def polar(self, matrix: Any) -> np.ndarray:
        left, values, right = self.svd(matrix)
        kept = values > _DROPPED * values[0] if values[0] > 0 else np.zeros_like(values, dtype=bool)
        return ((left * kept) @ right).astype(np.asarray(matrix).dtype)

    def matmul(self, first: Any, second: Any) -> np.ndarray:
        return first @ second

    def synchronize(self) -> None:
        """NumPy has always finished."""
