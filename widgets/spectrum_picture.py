"""Spectra as pictures: one curve a matrix with sigma_k and the tail, and the model's layers x roles as a heat map."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from geonb.models.geometry import MatrixGeometry
from geonb.widgets.svg import PALETTE, Axis, Picture, escape, heat_colour, on_heat

_CELL_WIDTH, _CELL_HEIGHT = 212, 150


def spectra_picture(geometries: Sequence[MatrixGeometry], *, limit: int = 28, hints: bool = True) -> str:
    """Small multiples: singular values on a log axis, the tail shaded, k marked, and a random twin for comparison.

    The twin has the same shape and Frobenius norm and Gaussian entries: what lies above it is structure. At most
    `limit` matrices, evenly spread over the model.
    """
    shown = list(geometries)
    if len(shown) > limit:
        shown = [shown[index] for index in np.linspace(0, len(shown) - 1, limit).astype(int)]
    columns = 4
    rows = -(-len(shown) // columns)
    picture = Picture(
        columns * _CELL_WIDTH + 12, rows * _CELL_HEIGHT + 40, title="Singular values of the matrices", hints=hints
    )
    picture.legend(
        12,
        18,
        [("singular values", PALETTE["blue"]), ("random twin", PALETTE["grey"]), ("k, sigma_k", PALETTE["vermilion"])],
    )
    picture.rectangle(400, 8, 16, 10, PALETTE["sky"], opacity=0.3)
    picture.text(420, 18, "tail: the directions left free")
    for index, geometry in enumerate(shown):
        _cell(picture, geometry, 12 + (index % columns) * _CELL_WIDTH, 34 + (index // columns) * _CELL_HEIGHT)
    return picture.svg()


def _cell(picture: Picture, geometry: MatrixGeometry, left: float, top: float) -> None:
    where = f"layer {geometry.ref.layer} " if geometry.ref.layer is not None else ""
    shape = f"{geometry.ref.shape[0]}×{geometry.ref.shape[1]}"
    picture.text(left + 30, top + 10, f"{where}{geometry.ref.role}  {shape}", kind="t")
    draw_spectrum(picture, geometry, left, top, _CELL_WIDTH, _CELL_HEIGHT)


def draw_spectrum(
    picture: Picture, geometry: MatrixGeometry, left: float, top: float, width: float, height: float, *, log=False
) -> None:
    """One spectrum into the box at (left, top): values, twin, noise edge, the tail shaded, k marked."""
    spectrum = geometry.spectrum
    if spectrum.is_zero:
        picture.text(left + 40, top + 70, "all zero")
        return
    values = spectrum.values
    twin = random_twin(spectrum.shape, float(np.sqrt((values**2).sum())))
    low = max(min(float(values[-1]), float(twin[-1])), 1e-3 * spectrum.sigma_max)
    x = Axis(1, max(2, len(values)), left + 34, left + width - 14, log=log)
    y = Axis(low, spectrum.sigma_max * 1.2, top + height - 34, top + 18, log=True)
    picture.axes(x, y, x_label="index" if log else "")
    edge = y.at(spectrum.noise_edge)
    picture.line([x.start, x.end], [edge, edge], PALETTE["green"], width=1, dash="1 3")
    k = spectrum.structural_rank
    picture.rectangle(x.at(k), y.end, x.end - x.at(k), y.start - y.end, PALETTE["sky"], opacity=0.2)
    places = np.unique(
        (np.geomspace(1, len(values), 90) - 1 if log else np.linspace(0, len(values) - 1, 90)).astype(int)
    )
    xs = [x.at(place + 1) for place in places]
    picture.line(xs, [y.at(float(twin[place])) for place in places], PALETTE["grey"], width=1.2, dash="3 2")
    picture.line(xs, [y.at(float(values[place])) for place in places], PALETTE["blue"], width=2)
    picture.dot(
        x.at(k), y.at(spectrum.sigma_k), PALETTE["vermilion"],
        f"k = {k}, sigma_k = {spectrum.sigma_k:.4g}, tail {spectrum.tail_dims} of {spectrum.full_rank}",
    )  # fmt: skip


def random_twin(shape: tuple[int, int], norm: float) -> np.ndarray:
    """The expected singular values of a Gaussian matrix of this shape and Frobenius norm, by Marchenko-Pastur quantiles.

    The quantiles are those of the law itself, so the twin needs no random numbers and no decomposition.
    """
    return unit_twin((min(shape), max(shape))) * norm


@functools.lru_cache(maxsize=256)
def unit_twin(shape: tuple[int, int]) -> np.ndarray:
    """The random twin of Frobenius norm 1, descending."""
    size, longest = min(shape), max(shape)
    ratio = size / longest
    low, high = (1 - ratio**0.5) ** 2, (1 + ratio**0.5) ** 2
    angle = np.linspace(0, np.pi / 2, 2001)[1:-1]
    points = low + (high - low) * np.sin(angle) ** 2
    weight = (np.sin(angle) * np.cos(angle)) ** 2 / points
    mass = np.cumsum(weight) / weight.sum()
    values = np.sqrt(np.interp(1 - (np.arange(size) + 0.5) / size, mass, points))
    return values / np.sqrt((values**2).sum())


def tail_map(geometries: Sequence[MatrixGeometry]) -> str:
    """Layers x roles: the tail's share of all directions, tail_dims / q, as colour and number."""
    inside = [geometry for geometry in geometries if geometry.ref.layer is not None and geometry.ref.expert is None]
    if not inside:
        return ""
    roles = list(dict.fromkeys(geometry.ref.role for geometry in inside))
    layers = sorted({geometry.ref.layer for geometry in inside if geometry.ref.layer is not None})
    cells, hints = {}, {}
    for geometry in inside:
        place = layers.index(geometry.ref.layer or 0), roles.index(geometry.ref.role)
        spectrum = geometry.spectrum
        cells[place] = spectrum.tail_dims / spectrum.full_rank
        tail = f"tail {spectrum.tail_dims} of {spectrum.full_rank}, sigma_k {spectrum.sigma_k:.4g}"
        hints[place] = f"{geometry.ref.name}: {tail}"
    picture = Picture(110 + 64 * len(roles), 54 + row_height(len(layers)) * len(layers), title="tail_dims share")
    picture.text(8, 16, "Share of directions in the tail, tail_dims / q", kind="t")
    draw_map(
        picture, cells, [f"layer {layer}" for layer in layers], roles, left=90, top=46, width=64 * len(roles),
        text=lambda share: f"{share:.0%}", hints=hints,
    )  # fmt: skip
    return picture.svg()


def row_height(rows: int) -> float:
    """Pixels of one row, so that 4 layers and 80 both fit a page."""
    return max(9.0, min(34.0, 560 / max(1, rows)))


def draw_map(
    picture: Picture,
    shares: Mapping[tuple[int, int], float],
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    left: float,
    top: float,
    width: float,
    text: Callable[[float], str] | None = None,
    texts: Mapping[tuple[int, int], str] | None = None,
    hints: Mapping[tuple[int, int], str] | None = None,
) -> None:
    """Cells coloured by their share of the scale (0..1), by (row, column); nan is left empty."""
    wide, high = width / max(1, len(columns)), row_height(len(rows))
    for column, name in enumerate(columns):
        picture.text(left + wide * (column + 0.5), top - 6, name, anchor="middle")
    every = max(1, round(14 / high))
    for row, name in enumerate(rows):
        if row % every == 0:
            picture.text(left - 8, top + 2 + high * (row + 0.5) + 2, name, anchor="end")
    for (row, column), share in shares.items():
        if not math.isfinite(share):
            continue
        x, y = left + wide * column, top + high * row
        hint = (hints or {}).get((row, column), "")
        picture.rectangle(x + 1, y + 1, wide - 2, high - 2, heat_colour(share), hint=hint)
        shown = texts.get((row, column), "") if texts is not None else text(share) if text is not None else ""
        if shown and high >= 13 and wide >= 6.5 * len(shown):
            picture.parts.append(
                f'<text x="{x + wide / 2:.1f}" y="{y + high / 2 + 4:.1f}" text-anchor="middle" '
                f'style="fill:{on_heat(share)}">{escape(shown)}</text>'
            )
