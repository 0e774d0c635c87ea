"""The pictures of the benchmark hold every run as a mark where its numbers put it."""

import dataclasses
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from geonb.errors import InputError
from geonb.widgets.benchmark_picture import frontier_picture, rate_picture, regret_picture, setting_name, slices
from geonb.widgets.svg import PALETTE
from geonb.workbench.benchmark.arm import OPEN, STRICT, THREE, adamw
from geonb.workbench.benchmark.job import Job
from geonb.workbench.benchmark.queue import read_rows
from geonb.workbench.benchmark.tables import Regret, results
from tests.workbench.benchmark.small import row_of

SVG = "{http://www.w3.org/2000/svg}"


def job(arm, domain="kjv", seed=0, model="m", **changes):
    return Job(model=model, domain=domain, horizon=200, batch=16, seed=seed, arm=arm, **changes)


def rows(*made):
    return {row.key: row for row in made}


def panel(domain="kjv", losses=(3.4, 3.2, 3.3), ours=(3.1, 3.3, 3.15)):
    made = [
        row_of(job(arm, domain), loss, retention=3.4) for arm, loss in zip((OPEN, STRICT, THREE), ours, strict=True)
    ]
    for rate, loss in zip((1e-3, 3e-3, 1e-2), losses, strict=True):
        lost = [[0.5, 3.6, 3.2]]
        made.append(row_of(job(adamw(rate), domain), loss, retention=3.6, frontier=[] if loss is None else lost))
    return made


def marks(svg, kind="circle"):
    return ET.fromstring(svg).iter(f"{SVG}{kind}")


def dots(svg, colour):
    found = [(float(one.get("cx")), float(one.get("cy"))) for one in marks(svg) if one.get("stroke") == PALETTE[colour]]
    return sorted(found)


def levels(svg):
    """Colour and height of every level line."""
    found = {}
    for one in marks(svg, "path"):
        ends = re.fullmatch(r"M(\S+) (\S+)L(\S+) (\S+)", one.get("d"))
        if ends and ends[2] == ends[4]:
            found[one.get("stroke")] = float(ends[2])
    return found


def texts(svg):
    return [one.text for one in marks(svg, "text")]


def test_rates_go_from_left_to_right_losses_upwards_and_the_lowest_has_a_ring():
    svg = rate_picture(rows(*panel()), "m")
    (x1, y1), (x2, y2), (x3, y3) = dots(svg, "blue")
    assert x1 < x2 < x3 and y2 > y3 > y1
    # half decades are nearly equal steps, and losses are to scale
    assert (x2 - x1) / (x3 - x2) == pytest.approx(0.477 / 0.523, abs=0.01)
    assert (y2 - y1) / (y3 - y1) == pytest.approx(0.2 / 0.1, abs=0.02)
    (ring,) = [one for one in marks(svg) if one.get("fill") == "none"]
    assert (float(ring.get("cx")), float(ring.get("cy"))) == (x2, y2)


def test_geonb_is_a_level_line_at_its_loss_for_each_radius():
    svg = rate_picture(rows(*panel()), "m")
    height = levels(svg)
    (_, y1), (_, y2), (_, y3) = dots(svg, "blue")
    assert height[PALETTE["green"]] == pytest.approx(y3, abs=0.11), "3.3 is the loss of the third rate too"
    per_nat = (y2 - y1) / 0.2
    assert height[PALETTE["vermilion"]] - y2 == pytest.approx(0.1 * per_nat, abs=0.2)
    assert height[PALETTE["orange"]] - y2 == pytest.approx(0.05 * per_nat, abs=0.2)


def test_what_is_far_above_is_an_arrow_and_what_diverged_a_cross():
    svg = rate_picture(rows(*panel(losses=(50.0, 3.2, None))), "m")
    assert len(dots(svg, "blue")) == 1 and texts(svg).count("↑") == 1 and texts(svg).count("✕") == 1
    top = min(float(one.get("y2")) for one in marks(svg, "line") if one.get("x1") == one.get("x2"))
    for one in marks(svg, "path"):
        assert all(float(y) >= top - 0.1 for y in re.findall(r"[ML]\S+ (\S+?)(?=[ML]|$)", one.get("d")))


def test_the_best_rival_is_inside_its_panel_however_far_behind_it_is():
    svg = rate_picture(rows(*panel(losses=(9.0, 7.0, 8.0), ours=(3.1, 3.3, 3.15))), "m")
    (dot,) = dots(svg, "blue")
    (ring,) = [one for one in marks(svg) if one.get("fill") == "none"]
    top = min(float(one.get("y2")) for one in marks(svg, "line") if one.get("x1") == one.get("x2"))
    assert (float(ring.get("cx")), float(ring.get("cy"))) == dot and dot[1] > top


def test_there_is_a_panel_for_each_domain_in_their_order():
    found = rows(*panel("chat"), *panel("kjv"), *panel("names"), *panel("code"))
    titles = [one.text for one in marks(rate_picture(found, "m"), "text") if one.get("class") == "t"]
    assert titles[1:] == ["kjv", "code", "chat", "names"]
    titles = [one.text for one in marks(frontier_picture(found, "m"), "text") if one.get("class") == "t"]
    assert titles[1:] == ["kjv", "code", "chat", "names"]


def test_fit_stands_against_the_rise_above_the_untouched_model():
    svg = frontier_picture(rows(*panel()), "m")
    (best,) = dots(svg, "blue")
    others = dots(svg, "sky")
    assert len(others) == 2 and all(x == best[0] and y < best[1] for x, y in others)
    ours = [dots(svg, colour)[0] for colour in ("vermilion", "orange", "green")]
    # the rise of 0.4 where the rivals have 0.6, and losses downwards
    assert len({x for x, _ in ours}) == 1 and ours[0][0] < best[0]
    assert ours[0][1] > ours[1][1] > best[1] > ours[2][1]


def test_a_scaled_adapter_that_betters_the_base_text_is_left_of_zero():
    made = panel()
    made[4] = row_of(made[4].job, 3.2, retention=3.6, frontier=[[0.5, 3.3, 2.9]])
    svg = frontier_picture(rows(*made), "m")
    bold = [one.get("d") for one in marks(svg, "path") if one.get("stroke") == PALETTE["blue"]]
    zero = next(float(one.get("x")) for one in marks(svg, "text") if one.text == "0")
    assert any(float(x) < zero - 1 for x in re.findall(r"[ML](\S+)", bold[0]))


def test_other_seeds_conditions_and_forms_are_not_in_the_picture():
    plain = rate_picture(rows(*panel()), "m")
    more = [
        row_of(job(adamw(1e-3), seed=1), 3.0),
        row_of(job(OPEN, loss_scale=9.0), 3.0),
        row_of(job(adamw(1e-3, form="dora")), 3.0),
    ]
    assert rate_picture(rows(*panel(), *more), "m") == plain
    assert slices(rows(*panel(), *more)) == [("m", 200, 16)]


def test_the_slices_with_most_domains_come_first():
    found = rows(*panel(), row_of(job(OPEN, model="n"), 3.0), row_of(job(OPEN, "chat", model="n"), 3.0))
    assert slices(found) == [("n", 200, 16), ("m", 200, 16)]


def test_a_slice_without_rows_is_a_sentence_that_lists_those_that_are_there():
    for picture in (rate_picture, frontier_picture):
        with pytest.raises(InputError, match=r"x T = 60 batch 4 was given, .* there are m T = 200 batch 16"):
            picture(rows(*panel()), "x", horizon=60, batch=4)
        with pytest.raises(InputError, match="there are none"):
            picture({}, "m")


def test_a_panel_without_a_rival_still_shows_the_radii():
    found = rows(*panel()[:3])
    assert len(levels(rate_picture(found, "m"))) == 3 and len(dots(frontier_picture(found, "m"), "orange")) == 1


def test_bars_of_regret_are_as_long_as_their_numbers_and_the_safest_is_first():
    svg = regret_picture(results(rows(*panel(), *panel("code", losses=(4.4, 4.0, None)))))
    bars = [one for one in marks(svg, "rect") if one.get("height") == "16.0"]
    names = [text for text in texts(svg) if text.startswith(("geonb,", "AdamW,"))]
    assert names[0] == "geonb, R = σ_max" and "AdamW, rate 0.01, rank tail" in names and "diverged" in texts(svg)
    pale = [float(one.get("width")) for one in bars if one.get("fill-opacity")]
    assert pale == sorted(pale) and len(pale) == 6
    worst = {name: 4.0 / 3.1 - 1 if "0.003" in name else 4.4 / 3.1 - 1 for name in names if "rate" in name}
    assert pale[names.index("AdamW, rate 0.003, rank tail")] / pale[
        names.index("AdamW, rate 0.001, rank tail")
    ] == pytest.approx(worst["AdamW, rate 0.003, rank tail"] / worst["AdamW, rate 0.001, rank tail"], rel=0.01)


def test_many_settings_are_cut_but_never_geonb():
    found = results(rows(*panel()))
    others = tuple(
        Regret(arm=f"adamw rate={n}", cells=1, mean=n, worst=n, worst_cell="m/kjv/T200/b16") for n in range(1, 30)
    )
    last = Regret(arm=STRICT.key, cells=1, mean=90.0, worst=90.0, worst_cell="m/kjv/T200/b16")
    svg = regret_picture(dataclasses.replace(found, regrets=(*others, last)), most=5)
    assert sum(text.startswith("AdamW, rate") for text in texts(svg)) == 5 and "geonb, R = σₖ" in texts(svg)


def test_without_a_cell_the_picture_says_so():
    assert "No cell to compare yet." in texts(regret_picture(results({})))


def test_names_of_strangers_stay_text():
    found = rows(*panel("<script>x</script>"))
    assert "<script" not in rate_picture(found, "m") and "<script" not in frontier_picture(found, "m")
    assert "<script" not in regret_picture(results(found)) and setting_name("muon rate=0.01") == "muon, rate 0.01"


@pytest.mark.parametrize("picture", [rate_picture, frontier_picture])
def test_the_committed_rows_make_well_formed_pictures_that_a_notebook_can_hold(picture):
    committed = read_rows(Path(__file__).parents[2] / "papers" / "zero-knob" / "results.jsonl")
    for model, horizon, batch in slices(committed):
        svg = picture(committed, model, horizon=horizon, batch=batch)
        ET.fromstring(svg)
        assert "nan" not in svg and len(svg) < 60_000


def test_a_line_that_leaves_the_panel_and_comes_back_is_two_lines():
    from geonb.widgets.benchmark_picture import _line
    from geonb.widgets.svg import Axis, Picture

    picture = Picture(100, 100)
    x, y = Axis(0, 10, 0, 100), Axis(0, 10, 100, 0)
    _line(picture, x, y, [(0, 5), (1, 5), (2, 15), (3, 15), (4, 5), (6, 0), (20, 7)], "#000", width=1.0)
    (path,) = re.findall(r' d="([^"]*)"', picture.svg())
    # cut half way up at (1.5, 10), back at (3.5, 10), and cut at x = 10 on the way to (20, 7)
    assert path == "M0.0 50.0L10.0 50.0L15.0 0.0M35.0 0.0L40.0 50.0L60.0 100.0L100.0 80.0"
