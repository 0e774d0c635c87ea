"""What the geometry asks of a numerical library: eleven operations, all of them with float64 results in NumPy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np


class Backend(ABC):
    """One library. Matrices stay the library's own; what comes back from a solver is float64 NumPy.

    A backend that cannot compute in float64 says so in `precision`, and every record carries the backend's name.
    """

    name: ClassVar[str]
    precision: ClassVar[str] = "float64"

    @abstractmethod
    def asarray(self, array: Any) -> Any:
        """This library's array of `array`, in its own dtype and without copying where possible."""

    @abstractmethod
    def to_numpy(self, array: Any) -> np.ndarray:
        """A float64 NumPy copy of `array`."""

    @abstractmethod
    def dtype_name(self, array: Any) -> str:
        """The dtype's plain name: "float64", "float32", "float16" or "bfloat16"."""

    @abstractmethod
    def largest_magnitude(self, array: Any) -> float:
        """max |a_ij|; nan or inf when an entry is not finite."""

    @abstractmethod
    def gram(self, matrix: Any, exponent: int, *, fast: bool, chunk: int) -> np.ndarray:
        """The Gram matrix of the smaller side of 2^exponent W: (q, q), float64.

        With `fast` (bfloat16 input) each chunk of the long side is multiplied in float32, where the products of
        bfloat16 numbers are exact, and the chunks are summed in float64.
        """

    def has_fast_bfloat16(self) -> bool:
        """Whether the fast Gram matrix is worth its lower accuracy here: only where hardware multiplies bfloat16 tiles.

        Elsewhere a float32 Gram matrix costs 0.85 of the float64 one (88 ms against 103 ms at 1024 x 4608) and is good
        to 2e-4 at 1 % of sigma_max, the float64 one to 1e-10.
        """
        return False

    @abstractmethod
    def eigvalsh(self, gram: np.ndarray) -> np.ndarray:
        """Eigenvalues of a symmetric float64 matrix, ascending."""

    @abstractmethod
    def svdvals(self, matrix: Any, exponent: int) -> np.ndarray:
        """Singular values of 2^exponent W by a full float64 decomposition of the tall orientation, descending."""

    @abstractmethod
    def svd(self, matrix: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Thin U, s, V^T in float64."""

    @abstractmethod
    def polar(self, matrix: Any) -> Any:
        """U V^T of the thin SVD as this library's array in the input's dtype; zero for zero."""

    @abstractmethod
    def matmul(self, first: Any, second: Any) -> Any:
        """first @ second."""

    @abstractmethod
    def synchronize(self) -> None:
        """Wait until everything asked of the device is done."""
