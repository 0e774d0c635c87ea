"""RFL-005: the gap s1 / s2 of attention maps, and what a matrix of pure noise would show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from geonb.errors import InputError
from geonb.geometry.marchenko_pastur import gaussian_singular_values
from geonb.models.runtime import TorchRuntime


def attention_maps(runtime: TorchRuntime, windows: np.ndarray) -> np.ndarray:
    """Softmax weights of every head, (texts, layers, heads, T, T), float64; `windows`: token ids (texts, T).

    The model is asked for its eager attention, the only one that tells its weights. Raises `InputError` for a model that
    gives none, or maps of another shape.
    """
    model, kept = runtime.model, runtime.model.config._attn_implementation
    model.set_attn_implementation("eager")
    rows = []
    try:
        with torch.no_grad():
            for start in range(0, len(windows), 16):
                ids = torch.as_tensor(windows[start : start + 16], dtype=torch.long, device=runtime.device)
                found = model(input_ids=ids, use_cache=False, output_attentions=True).attentions
                maps = [one for one in found or () if one is not None]
                if not maps or any(one.shape[-2:] != (ids.shape[1],) * 2 for one in maps):
                    raise InputError(
                        f"{runtime.checkpoint.source} tells no full attention maps; needed is a model whose layers attend "
                        "to all tokens before."
                    )
                rows.append(torch.stack(maps, 1).double().cpu().numpy())
    finally:
        model.set_attn_implementation(kept)
    return np.concatenate(rows)


def gaps(maps: np.ndarray) -> np.ndarray:
    """s1 / s2 of each matrix of (..., T, T)."""
    values = np.linalg.svd(maps, compute_uv=False)
    return values[..., 0] / np.maximum(values[..., 1], 1e-300)


def causal_average(tokens: int) -> np.ndarray:
    """The map that attends to all earlier tokens alike: 1 / t in row t, up to the diagonal."""
    return np.tril(np.ones((tokens, tokens))) / np.arange(1, tokens + 1)[:, None]


@dataclass(frozen=True, slots=True)
class NoiseGap:
    """s1 / s2 of Gaussian matrices of one shape: the middle 95 %, and the mean, which is the law's prediction."""

    low: float
    high: float
    mean: float

    def holds(self, values: np.ndarray) -> np.ndarray:
        """Whether each value lies inside the 95 %."""
        return (values >= self.low) & (values <= self.high)


def noise_gap(tokens: int, *, draws: int = 4000, seed: int = 0) -> NoiseGap:
    """Drawn exactly (see `gaussian_singular_values`); the gap does not depend on the variance.

    >>> noise_gap(32).high < 1.5
    True
    """
    rng = np.random.default_rng(seed)
    drawn = np.array([gaussian_singular_values((tokens, tokens), rng)[:2] for _ in range(draws)])
    ratio = drawn[:, 0] / drawn[:, 1]
    low, high = np.quantile(ratio, [0.025, 0.975])
    return NoiseGap(float(low), float(high), float(ratio.mean()))


def spiked_gap(maps: np.ndarray) -> np.ndarray:
    """The prediction for a mean plus noise: (mean entry) x T over the noise's edge 2 sd sqrt(T).

    The reading that lets a head's own entries into the law: sd is that of the map's entries. Below 1 the mean drowns.
    """
    tokens = maps.shape[-1]
    mean, spread = maps.mean((-2, -1)), maps.std((-2, -1))
    return mean * tokens / np.maximum(2 * spread * np.sqrt(tokens), 1e-300)


def share_inside(inside: np.ndarray, *, resamples: int = 2000, seed: int = 0) -> tuple[float, tuple[float, float]]:
    """Share of True over everything, and its 95 % interval by a bootstrap over texts; `inside`: (texts, ...)."""
    each = inside.reshape(len(inside), -1).mean(1)
    rng = np.random.default_rng(seed)
    drawn = each[rng.integers(len(each), size=(resamples, len(each)))].mean(1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(each.mean()), (float(low), float(high))


def per_head(values: np.ndarray) -> Sequence[float]:
    """The median over texts of each (layer, head)."""
    return np.median(values, axis=0).ravel().tolist()
