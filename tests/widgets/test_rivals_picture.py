"""The picture of the rivals holds a dot for every cell where its ratio puts it, and says what it cannot draw."""

import math
import re
import xml.etree.ElementTree as ET

import pytest

from geonb.widgets.rivals_picture import rivals_picture
from geonb.widgets.svg import PALETTE
from geonb.workbench.benchmark.arm import DEFAULT, adamw
from geonb.workbench.benchmark.design import Cell
from geonb.workbench.benchmark.rivals import TUNED, rival_results
from tests.workbench.benchmark.small import row_of

SVG = "{http://www.w3.org/2000/svg}"
CELLS = [Cell("m", name, 60) for name in ("kjv", "chat", "code")]
FULL, MUON = TUNED[0], TUNED[1]


def found(muon=(4.0, 2.0, None), full=(None, None, None)):
    """geonb at 3.0 in three cells, plain AdamW at 3.0, Muon and full fine-tuning at the losses given, each at one rate."""
    rows = []
    for cell, *losses in zip(CELLS, muon, full, strict=True):
        rows += [row_of(cell.job(DEFAULT), 3.0, retention=3.25), row_of(cell.job(adamw(3e-3)), 3.0)]
        rows += [row_of(cell.job(one.arm), loss) for one, loss in zip((MUON, FULL), losses, strict=True)]
    return rival_results({row.key: row for row in rows}, DEFAULT.key, seeds=3)


def dots(svg):
    return [
        (float(one.get("cx")), float(one.get("cy")), one.get("fill")) for one in ET.fromstring(svg).iter(f"{SVG}circle")
    ]


def texts(svg):
    return [one.text for one in ET.fromstring(svg).iter(f"{SVG}text")]


def ticks(svg):
    """Pixel of each tick of the ratios."""
    pattern = r'<text x="([\d.]+)" y="[\d.]+" text-anchor="middle" class="m">([\d.]+)</text>'
    return {float(label): float(x) for x, label in re.findall(pattern, svg)}


def test_every_cell_is_a_dot_where_its_ratio_is():
    svg = rivals_picture(found())
    at = ticks(svg)
    pixels_a_unit = (at[1.2] - at[0.85]) / math.log(1.2 / 0.85)
    drawn = sorted(x for x, *_ in dots(svg))
    # 3/4 and 3/2 of Muon; three cells of AdamW at 1
    expected = sorted(at[1.0] + pixels_a_unit * math.log(ratio) for ratio in (0.75, 1.5, 1.0, 1.0, 1.0))
    assert drawn == pytest.approx(expected, abs=0.15)


def test_a_best_rate_without_worse_neighbours_is_a_hollow_dot():
    assert {fill for *_, fill in dots(rivals_picture(found()))} == {"none"}
    cell = CELLS[0]
    tried = [row_of(cell.job(MUON.at(rate)), loss) for rate, loss in zip(MUON.start, (3.2, 3.1, 3.3), strict=True)]
    tried += [row_of(cell.job(adamw(rate)), loss) for rate, loss in ((1e-3, 3.3), (3e-3, 3.2), (1e-2, 3.3))]
    full = rival_results({row.key: row for row in [row_of(cell.job(DEFAULT), 3.0), *tried]}, DEFAULT.key, seeds=3)
    assert {fill for *_, fill in dots(rivals_picture(full))} == {PALETTE["blue"]}


def test_a_rival_that_always_diverged_is_named_and_has_no_dot():
    svg = rivals_picture(found())
    assert "diverged in every cell" in texts(svg) and "full fine-tuning" in texts(svg)
    assert len(dots(svg)) == 5


def test_a_ratio_beyond_the_picture_stays_inside_it():
    svg = rivals_picture(found(muon=(300.0, 3.0, 3.0)))
    left = min(x for x, *_ in dots(svg))
    assert left >= 330


def test_without_a_row_it_says_so():
    assert "No cell has geonb and another rival yet." in texts(rivals_picture(()))
