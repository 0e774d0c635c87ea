"""The still picture of a SpectrumExplorer: its map beside the spectrum of the chosen matrix."""

from __future__ import annotations

import math
from typing import Any

from geonb.widgets.spectrum_picture import draw_map, draw_spectrum, row_height
from geonb.widgets.svg import PALETTE, Picture, heat_colour

_WIDTH, _MAP = 920, 400


def explorer_picture(view: Any) -> str:
    """Map and spectrum of a `SpectrumExplorer`, with what has been measured so far."""
    layers, roles, grid = view.grid()
    scale = view.domain()
    height = max(360.0, 76 + row_height(len(layers)) * len(layers))
    picture = Picture(_WIDTH, round(height), title=f"{view.title}: {view.label}", hints=False)
    picture.text(12, 18, view.label, kind="t")
    shares, texts = {}, {}
    for row in range(len(layers)):
        for column in range(len(roles)):
            value = float(grid[row, column])
            if math.isfinite(value):
                shares[row, column] = scale.at(value)
                texts[row, column] = f"{value:.0%}" if scale.low == 0 and scale.high == 1 else f"{value:.3g}"
    draw_map(
        picture, shares, [f"layer {layer}" if layer != "–" else "outside" for layer in layers], roles,
        left=74, top=62, width=_MAP - 80, texts=texts,
    )  # fmt: skip
    for index in range(11):
        picture.rectangle(74 + 12 * index, 28, 12, 8, heat_colour(index / 10))
    picture.text(70, 36, _number(scale.low), anchor="end")
    picture.text(210, 36, f"{_number(scale.high)}{'  (log)' if scale.log else ''}")
    geometry = view.selected
    picture.text(_MAP + 60, 18, view.selected_title(), kind="t")
    if geometry is None:
        picture.text(_MAP + 60, 60, "not measured yet")
        return picture.svg()
    spectrum = geometry.spectrum
    facts = (
        f"{geometry.ref.shape[0]} × {geometry.ref.shape[1]} · k {spectrum.structural_rank} · σₖ {spectrum.sigma_k:.3g} · "
        f"tail {spectrum.tail_dims} of {spectrum.full_rank} · effective rank {spectrum.effective_rank:.1f}"
    )
    picture.text(_MAP + 60, 36, facts)
    picture.legend(
        _MAP + 60, 56,
        [("singular values", PALETTE["blue"]), ("random twin", PALETTE["grey"]), ("k, σₖ", PALETTE["vermilion"]),
         ("noise edge", PALETTE["green"])],
    )  # fmt: skip
    draw_spectrum(picture, geometry, _MAP + 40, 50, _WIDTH - _MAP - 50, min(height - 56, 380), log=True)
    return picture.svg()


def _number(value: float) -> str:
    return f"{value:.3g}"
