"""The picture of an export table holds a bar and a dot for each form that could be made."""

import dataclasses

import pytest

from geonb.widgets.gap_picture import gap_html, gap_picture
from geonb.workbench.export import gap_table
from tests.tiny import pictures, tiny_model, tiny_run


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return gap_table(
        tiny_model(tmp_path_factory), tiny_run(tmp_path_factory) / "adapter", ["adapter", "merged_bf16", "merged_fp32"]
    )


def test_each_form_has_its_bar_and_its_dot_in_the_order_of_the_table(table):
    svg = gap_picture(table)
    assert svg.count("<circle") == len(table.rows) == 3
    assert [svg.index(f">{row.target}<") for row in table.rows] == sorted(
        svg.index(f">{row.target}<") for row in table.rows
    )
    assert "no adapter at all" in svg and len(pictures(gap_html(table))) == 1


def test_a_form_that_could_not_be_made_says_so_and_has_no_dot(table):
    rows = tuple(
        dataclasses.replace(row, verdict="unavailable", bytes=None, kl_mean=None) if place == 1 else row
        for place, row in enumerate(table.rows)
    )
    svg = gap_picture(dataclasses.replace(table, rows=rows))
    assert svg.count("<circle") == 2 and ">unavailable<" in svg


def test_names_of_strangers_stay_text(table):
    row = dataclasses.replace(table.rows[0], target="<script>x</script>")
    assert "<script" not in gap_picture(dataclasses.replace(table, rows=(row, *table.rows[1:])))
