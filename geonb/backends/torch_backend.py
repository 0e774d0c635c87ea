"""PyTorch on CPU, CUDA or MPS; decompositions of what MPS cannot do in float64 happen on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from geonb.backends.protocol import Backend

_DROPPED = 1e-7


# rows of the Gram matrix computed at a time: only the blocks on and below the diagonal are, which saves 35 % of a
# 1024 x 4608 matrix's time (159 ms to 103 ms, one core)
_BLOCK = 256


def _add_lower(total: Tensor, part: Tensor) -> None:
    """Add the lower triangle of part @ part^T to `total`, block row by block row."""
    for start in range(0, part.shape[0], _BLOCK):
        rows = part[start : start + _BLOCK]
        total[start : start + _BLOCK, : start + _BLOCK] += (rows @ part[: start + _BLOCK].mT).to(total)


class TorchBackend(Backend):
    """Tensors stay on their device for the Gram matrix and come to the CPU for LAPACK where that is the sound place."""

    name = "torch"

    def asarray(self, array: Any) -> Tensor:
        found = array.detach() if isinstance(array, Tensor) else torch.as_tensor(np.asarray(array))
        return found if found.is_floating_point() else found.double()

    def to_numpy(self, array: Any) -> np.ndarray:
        return array.detach().to("cpu", torch.float64).numpy().copy()

    def dtype_name(self, array: Any) -> str:
        return str(array.dtype).removeprefix("torch.")

    def largest_magnitude(self, array: Any) -> float:
        return float(array.abs().amax())

    @torch.no_grad()
    def gram(self, matrix: Any, exponent: int, *, fast: bool, chunk: int) -> np.ndarray:
        wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.mT
        size, length = wide.shape
        # Metal has no float64: its chunks are summed on the CPU
        home = "cpu" if wide.device.type == "mps" else wide.device
        dtype = torch.float32 if fast or wide.device.type == "mps" else torch.float64
        total = torch.zeros((size, size), dtype=torch.float64, device=home)
        scale = 2.0**exponent
        for start in range(0, length, chunk):
            part = wide[:, start : start + chunk].to(dtype) * scale
            _add_lower(total, part)
        return (total.tril() + total.tril(-1).mT).cpu().numpy()

    def has_fast_bfloat16(self) -> bool:
        tiles = getattr(torch.cpu, "_is_amx_tile_supported", None)
        return bool(tiles and tiles())

    def eigvalsh(self, gram: np.ndarray) -> np.ndarray:
        return torch.linalg.eigvalsh(torch.from_numpy(gram)).numpy()

    @torch.no_grad()
    def svdvals(self, matrix: Any, exponent: int) -> np.ndarray:
        tall = matrix.to("cpu", torch.float64) * 2.0**exponent
        tall = tall if tall.shape[0] >= tall.shape[1] else tall.mT.contiguous()
        return torch.linalg.svdvals(tall).numpy()

    @torch.no_grad()
    def svd(self, matrix: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        parts = torch.linalg.svd(matrix.to("cpu", torch.float64), full_matrices=False)
        return parts[0].numpy(), parts[1].numpy(), parts[2].numpy()

    @torch.no_grad()
    def polar(self, matrix: Any) -> Tensor:
        left, values, right = torch.linalg.svd(matrix.to("cpu", torch.float64), full_matrices=False)
        kept = (values > _DROPPED * values[0]) & (values > 0)
        return ((left * kept) @ right).to(matrix.device, matrix.dtype)

    def matmul(self, first: Any, second: Any) -> Tensor:
        return first @ second

    def synchronize(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
