"""JAX: float64 is switched on for the duration of each call only, because the switch is the user's elsewhere."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from geonb.backends.protocol import Backend

_DROPPED = 1e-7


class JaxBackend(Backend):
    """XLA on whatever device JAX chose; decompositions in float64."""

    name = "jax"

    def asarray(self, array: Any) -> jax.Array:
        if isinstance(array, jax.Array):
            return array if jnp.issubdtype(array.dtype, jnp.floating) else array.astype(jnp.float32)
        with jax.enable_x64(True):
            found = np.asarray(array)
            return jnp.asarray(found if found.dtype.kind == "f" or found.dtype.name == "bfloat16" else found * 1.0)

    def to_numpy(self, array: Any) -> np.ndarray:
        return np.array(array, dtype=np.float64)

    def dtype_name(self, array: Any) -> str:
        return str(array.dtype.name)

    def largest_magnitude(self, array: Any) -> float:
        with jax.enable_x64(True):
            return float(jnp.abs(array).max())

    def gram(self, matrix: Any, exponent: int, *, fast: bool, chunk: int) -> np.ndarray:
        with jax.enable_x64(True):
            wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
            size, length = wide.shape
            total = jnp.zeros((size, size), dtype=jnp.float64)
            dtype = jnp.float32 if fast else jnp.float64
            for start in range(0, length, chunk):
                part = wide[:, start : start + chunk].astype(dtype) * jnp.asarray(2.0**exponent, dtype)
                total = total + jnp.matmul(part, part.T, precision="highest").astype(jnp.float64)
            return np.array(total)

    def eigvalsh(self, gram: np.ndarray) -> np.ndarray:
        with jax.enable_x64(True):
            return np.array(jnp.linalg.eigvalsh(jnp.asarray(gram)))

    def svdvals(self, matrix: Any, exponent: int) -> np.ndarray:
        with jax.enable_x64(True):
            tall = matrix.astype(jnp.float64) * 2.0**exponent
            tall = tall if tall.shape[0] >= tall.shape[1] else tall.T
            return np.array(jnp.linalg.svd(tall, compute_uv=False))

    def svd(self, matrix: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        with jax.enable_x64(True):
            left, values, right = jnp.linalg.svd(matrix.astype(jnp.float64), full_matrices=False)
            return np.array(left), np.array(values), np.array(right)

    def polar(self, matrix: Any) -> jax.Array:
        left, values, right = self.svd(matrix)
        kept = (values > _DROPPED * values[0]) & (values > 0)
        with jax.enable_x64(True):
            return jnp.asarray((left * kept) @ right).astype(matrix.dtype)

    def matmul(self, first: Any, second: Any) -> jax.Array:
        with jax.enable_x64(True):
            return jnp.matmul(first, second, precision="highest")

    def synchronize(self) -> None:
        jax.effects_barrier()
