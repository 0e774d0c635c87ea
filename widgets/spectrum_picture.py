"""Spectra as pictures: one curve a matrix with sigma_k and the tail, and the model's layers x roles as a heat map."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from geonb.models.geometry import MatrixGeometry
from geonb.widgets.svg import PALETTE, Axis, Picture, heat_colour

_CELL_WIDTH, _CELL_HEIGHT = 212, 150


def spectra_picture(geometries: Sequence[MatrixGeometry], *, limit: int = 28) -> str:
    """Small multiples: singular values on a log axis, the tail shaded, k marked, and a random twin for comparison.

    The twin has the same shape and Frobenius norm and Gaussian entries: what lies above it is structure. At most
    `limit` matrices, evenly spread over the model.
    """
    shown = list(geometries)
    if len(shown) > limit:
        shown = [shown[index] for index in np.linspace(0, len(shown) - 1, limit).astype(int)]
    columns = 4
    rows = -(-len(shown) // columns)
    picture = Picture(columns * _CELL_WIDTH + 12, rows * _CELL_HEIGHT + 40, title="Singular values of the matrices")
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
    spectrum, ref = geometry.spectrum, geometry.ref
    where = f"layer {ref.layer} " if ref.layer is not None else ""
    picture.text(left + 30, top + 10, f"{where}{ref.role}  {ref.shape[0]}×{ref.shape[1]}", kind="t")
    if spectrum.is_zero:
        picture.text(left + 40, top + 70, "all zero")
        return
    values = spectrum.values
    twin = random_twin(spectrum.shape, float(np.sqrt((values**2).sum())))
    low = max(min(float(values[-1]), float(twin[-1])), 1e-3 * spectrum.sigma_max)
    x = Axis(1, max(2, len(values)), left + 34, left + _CELL_WIDTH - 14)
    y = Axis(low, spectrum.sigma_max * 1.2, top + _CELL_HEIGHT - 34, top + 18, log=True)
    picture.axes(x, y)
    k = spectrum.structural_rank
    picture.rectangle(x.at(k), y.end, x.end - x.at(k), y.start - y.end, PALETTE["sky"], opacity=0.2)
    places = np.unique(np.linspace(0, len(values) - 1, 120).astype(int))
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
    size, longest = min(shape), max(shape)
    ratio = size / longest
    low, high = (1 - ratio**0.5) ** 2, (1 + ratio**0.5) ** 2
    angle = np.linspace(0, np.pi / 2, 2001)[1:-1]
    points = low + (high - low) * np.sin(angle) ** 2
    weight = (np.sin(angle) * np.cos(angle)) ** 2 / points
    mass = np.cumsum(weight) / weight.sum()
    quantiles = np.interp(1 - (np.arange(size) + 0.5) / size, mass, points)
    values = np.sqrt(quantiles)
    return values * norm / np.sqrt((values**2).sum())


def tail_map(geometries: Sequence[MatrixGeometry]) -> str:
    """Layers x roles: the tail's share of all directions, tail_dims / q, as colour and number."""
    inside = [geometry for geometry in geometries if geometry.ref.layer is not None and geometry.ref.expert is None]
    roles = list(dict.fromkeys(geometry.ref.role for geometry in inside))
    layers = sorted({geometry.ref.layer for geometry in inside if geometry.ref.layer is not None})
    if not inside:
        return ""
    width, height = 64, max(14, min(26, 560 // len(layers)))
    picture = Picture(
        90 + width * len(roles) + 20, 54 + height * len(layers), title="tail_dims share by layer and role"
    )
    picture.text(8, 16, "Share of directions in the tail, tail_dims / q", kind="t")
    for column, role in enumerate(roles):
        picture.text(90 + width * (column + 0.5), 40, role, anchor="middle")
    for row, layer in enumerate(layers):
        picture.text(82, 48 + height * row + height / 2 + 4, f"layer {layer}", anchor="end")
    for geometry in inside:
        share = geometry.spectrum.tail_dims / geometry.spectrum.full_rank
        column, row = roles.index(geometry.ref.role), layers.index(geometry.ref.layer or 0)
        left, top = 90 + width * column, 46 + height * row
        spectrum = geometry.spectrum
        picture.rectangle(
            left + 1, top + 1, width - 2, height - 2, heat_colour(share),
            hint=f"{geometry.ref.name}: tail {spectrum.tail_dims} of {spectrum.full_rank}, sigma_k {spectrum.sigma_k:.4g}",
        )  # fmt: skip
        colour = "#fff" if share > 0.6 else "#222"
        picture.parts.append(
            f'<text x="{left + width / 2:.1f}" y="{top + height / 2 + 4:.1f}" text-anchor="middle" '
            f'style="fill:{colour}">{share:.0%}</text>'
        )
    return picture.svg()
