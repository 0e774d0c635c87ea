"""The dashboard's model and plan pages and its theme, in a real browser."""

import re

import pytest
from playwright.sync_api import expect

from tests.browser import runs


@pytest.fixture(scope="session")
def planned(tmp_path_factory):
    """A shelf with one run of the embedded model that was planned and not begun."""
    root = tmp_path_factory.mktemp("planned")
    return runs.plan_only(root / "planned", runs.write_data(root / "data.jsonl"))


@pytest.fixture(scope="session")
def plan(planned):
    from geonb.train.run_folder import RunFolder

    return RunFolder(planned).plan()


@pytest.fixture(scope="session")
def site(dashboard, planned):
    return dashboard("embedded", planned.parent)


@pytest.fixture(scope="session")
def explorer(own_cache):
    """What the model page should show, measured here."""
    from geonb.widgets import SpectrumExplorer

    return SpectrumExplorer("embedded").complete()


def open_model(page, address):
    page.goto(address)
    expect(page.locator(".gn-spectrum-explorer")).to_have_attribute("data-done", "29")
    return page.locator(".gn-spectrum-explorer svg[role=grid]"), page.locator(".gn-spectrum-explorer svg[role=img]")


def texts(locator):
    return [text.strip() for text in locator.all_inner_texts()] or [
        text.strip() for text in locator.all_text_contents()
    ]


def drawn(page, series):
    """How many points a curve of the page has."""
    path = page.locator(f'path[data-series="{series}"]').get_attribute("d")
    return len(re.findall("[ML]", path))


# -- the model page -----------------------------------------------------------------------------------------------------


def test_the_map_has_one_cell_for_every_layer_and_role_of_the_model(watched, site, explorer):
    grid, _ = open_model(watched, f"{site}/model")
    wanted = {f"{'-' if ref.layer is None else ref.layer}|{ref.role}" for ref in explorer.refs}
    cells = grid.locator("[data-cell]")
    assert sorted(cell.get_attribute("data-cell") for cell in cells.all()) == sorted(wanted)
    _, roles, values = explorer.grid()
    shown = {cell.get_attribute("data-cell"): cell.get_attribute("aria-label") for cell in cells.all()}
    for row in range(4):
        for column, role in enumerate(roles):
            if f"{row}|{role}" in wanted:
                share = int(re.search(r"(\d+) %$", shown[f"{row}|{role}"])[1])
                assert share == pytest.approx(100 * values[row, column], abs=0.51)


def test_a_click_and_the_arrow_keys_choose_a_matrix(watched, site):
    grid, plot = open_model(watched, f"{site}/model")
    name = watched.locator(".gn-chosen-name")
    expect(name).to_have_text("model.layers.0.self_attn.q_proj.weight")
    before = plot.locator("path[data-series=values]").get_attribute("d")
    grid.locator('[data-cell="1|up"]').click()
    expect(name).to_have_text("model.layers.1.mlp.up_proj.weight")
    assert plot.locator("path[data-series=values]").get_attribute("d") != before
    watched.keyboard.press("ArrowDown")
    expect(name).to_have_text("model.layers.2.mlp.up_proj.weight")
    watched.keyboard.press("ArrowLeft")
    expect(name).to_have_text("model.layers.2.mlp.gate_proj.weight")


def test_a_link_opens_the_matrix_and_the_quantity_that_it_names(watched, site):
    open_model(watched, f"{site}/model?matrix=model.layers.2.mlp.gate_proj.weight&scalar=sigma_max")
    expect(watched.locator(".gn-chosen-name")).to_have_text("model.layers.2.mlp.gate_proj.weight")
    expect(watched.locator(".gn-spectrum-explorer select")).to_have_value("sigma_max")


def test_what_is_chosen_stands_in_the_address_and_opens_again_in_a_new_page(watched, site, context):
    grid, _ = open_model(watched, f"{site}/model")
    grid.locator('[data-cell="1|up"]').click()
    expect(watched).to_have_url(re.compile(r"matrix=model\.layers\.1\.mlp\.up_proj\.weight"), timeout=4000)
    watched.keyboard.press("ArrowDown")
    expect(watched).to_have_url(re.compile(r"matrix=model\.layers\.2\.mlp\.up_proj\.weight"))
    watched.locator(".gn-spectrum-explorer select").select_option("sigma_max")
    expect(watched).to_have_url(re.compile(r"scalar=sigma_max"))
    other = context.new_page()
    open_model(other, watched.url)
    expect(other.locator(".gn-chosen-name")).to_have_text("model.layers.2.mlp.up_proj.weight")
    expect(other.locator(".gn-spectrum-explorer select")).to_have_value("sigma_max")


def test_another_quantity_changes_the_texts_of_the_cells_and_the_legend(watched, site):
    grid, _ = open_model(watched, f"{site}/model")
    cells, ends = grid.locator("text.gn-cell"), grid.locator("text.gn-tick")
    expect(ends.nth(0)).to_have_text("0")
    expect(ends.nth(1)).to_have_text("1")
    before = cells.all_text_contents()
    assert len(before) == 29
    assert all(text.endswith(" %") for text in before)
    watched.locator(".gn-spectrum-explorer select").select_option("structural_rank")
    expect(ends.nth(1)).not_to_have_text("1")
    after = [float(text) for text in cells.all_text_contents()]
    # rank and share are two different numbers, and the legend ends at the least and the largest of the cells
    assert (float(ends.nth(0).text_content()), float(ends.nth(1).text_content())) == (min(after), max(after))


def test_the_spectrum_has_its_values_its_twin_the_noise_edge_and_the_mark_of_k(watched, site, explorer):
    _, plot = open_model(watched, f"{site}/model")
    values, twin = drawn(watched, "values"), drawn(watched, "twin")
    assert values == twin > 50
    assert drawn(watched, "noise edge") == 2
    expect(plot.locator("circle.gn-k")).to_have_count(1)
    expect(plot.locator("rect.gn-tail")).to_have_count(1)
    k = explorer.selected.spectrum.structural_rank
    expect(plot).to_contain_text(f"k = {k}, σₖ =")
    expect(watched.locator(".gn-scalars")).to_contain_text(f"k {k} ·")


def test_the_horizontal_axis_goes_from_logarithmic_to_linear_and_back(watched, site):
    _, plot = open_model(watched, f"{site}/model")
    ticks, axis = plot.locator("text.gn-tick"), watched.locator(".gn-spectrum-explorer button")
    expect(axis).to_have_text("index: log")
    before = ticks.all_text_contents()
    assert {"1", "10", "100"} <= set(before)
    axis.click()
    expect(axis).to_have_text("index: linear")
    assert {"50", "100", "150", "200", "250"} <= set(ticks.all_text_contents())
    axis.click()
    expect(axis).to_have_text("index: log")
    assert ticks.all_text_contents() == before


# -- the plan page ------------------------------------------------------------------------------------------------------


@pytest.fixture
def table(watched, site):
    watched.goto(f"{site}/plan?run=planned")
    found = watched.locator(".gn-target-table")
    expect(found).to_have_attribute("data-rows", "29")
    return found


def column(table, number):
    return [text.strip() for text in table.locator(f"tbody tr td:nth-child({number})").all_text_contents()]


def as_number(text):
    return 0 if text == "–" else int(text.replace(",", ""))


def test_every_matrix_of_the_plan_has_a_row_and_ranks_sort_from_the_largest(table, plan):
    expect(table.locator("tbody tr")).to_have_count(len(plan.targets))
    rank = table.locator("th[data-sort=rank]")
    rank.click()
    expect(rank).to_have_text("rank ▾")
    shown = [as_number(text) for text in column(table, 5)]
    assert shown == sorted((target.rank or 0 for target in plan.targets), reverse=True)
    assert len(set(shown)) > 5
    rank.click()
    expect(rank).to_have_text("rank ▴")
    assert [as_number(text) for text in column(table, 5)] == shown[::-1]


def test_search_and_role_chips_leave_the_rows_they_name(table):
    table.get_by_label("Search").fill("MLP.DOWN")
    expect(table).to_have_attribute("data-rows", "4")
    assert column(table, 2) == ["down"] * 4
    expect(table.locator(".gn-count")).to_have_text("4 of 29 matrices")
    table.get_by_label("Search").fill("")
    expect(table).to_have_attribute("data-rows", "29")
    for role in ("q", "embed"):
        table.get_by_title(f"Show or hide the role {role}", exact=True).click()
    expect(table).to_have_attribute("data-rows", "24")
    assert not {"q", "embed"} & set(column(table, 2))
    table.get_by_title("Show or hide the role q", exact=True).click()
    expect(table).to_have_attribute("data-rows", "28")


def test_what_if_strikes_out_the_old_values_and_goes_back_to_the_derived_plan(table, plan):
    from geonb.plan.override import what_if

    result = what_if(plan, rank_rule="customary")
    before, after = (f"{value:,}" for value in result.parameters)
    note, totals = table.locator(".gn-note"), table.locator(".gn-totals")
    expect(note).to_be_hidden()
    expect(totals.locator(".gn-was")).to_have_count(0)
    table.get_by_label("Rank rule").select_option("customary")
    expect(note).to_be_visible()
    expect(note).to_contain_text("rank-rule customary in place of tail")
    expect(totals.locator(".gn-chip").nth(1)).to_have_text(f"trained parameters {before}{after}")
    expect(totals.locator(".gn-was").first).to_have_text(before)
    assert as_number(after) < as_number(before)
    changed = {change.name for change in result.changes}
    expect(table.locator("tbody tr.gn-changed")).to_have_count(len(changed))
    struck = table.locator("tbody td:nth-child(5) .gn-was")
    expect(struck).to_have_count(len({change.name for change in result.changes if change.quantity == "rank"}))
    assert struck.first.evaluate("node => getComputedStyle(node).textDecorationLine") == "line-through"
    table.get_by_role("button", name="Back to the derived plan").click()
    expect(note).to_be_hidden()
    expect(table.locator(".gn-was")).to_have_count(0)
    expect(table.get_by_label("Rank rule")).to_have_value("tail")


def test_a_bad_memory_budget_gets_a_sentence_and_the_derived_plan_stays(table):
    error, totals = table.locator(".gn-error"), table.locator(".gn-totals")
    before = totals.inner_text()
    table.get_by_label("Memory budget").fill("lots")
    expect(error).to_be_visible()
    expect(error).to_have_text(re.compile(r"memory-budget was given 'lots'; allowed is .*: correct it\.$"))
    expect(table.locator(".gn-note")).to_be_hidden()
    assert totals.inner_text() == before
    table.get_by_role("button", name="Back to the derived plan").click()
    expect(error).to_be_hidden()
    expect(table.get_by_label("Memory budget")).to_have_value("")
    assert totals.inner_text() == before


def test_the_fifteen_numbers_have_a_card_each(table, plan):
    table.get_by_role("tab", name="The fifteen numbers").click()
    cards = table.locator(".gn-card")
    expect(cards.first).to_be_visible()
    assert [card.get_attribute("data-number") for card in cards.all()] == [str(n) for n in range(1, 16)]
    for card, found in zip(cards.all(), plan.derivations, strict=True):
        expect(card).to_contain_text(found.because)
        expect(card).to_contain_text(found.replaces)
    expect(table.locator("tbody")).to_be_hidden()


def test_a_plan_that_is_not_there_is_told_in_a_sentence(watched, site):
    watched.goto(f"{site}/plan?run=never")
    expect(watched.locator(".gn-target-table")).to_be_visible()
    expect(watched.get_by_text("never is not among the runs")).to_be_visible(timeout=3000)


# -- dark and light -----------------------------------------------------------------------------------------------------


def colour(page, selector):
    return page.locator(selector).first.evaluate("node => getComputedStyle(node).color")


def switch_theme(page, address):
    """The themes before and after a click on the button."""
    page.goto(address)
    root = page.locator("html")
    expect(page.locator(".gn-name")).to_be_visible()
    first = root.get_attribute("data-theme")
    second = {"light": "dark", "dark": "light"}[first]
    before = colour(page, "body")
    page.get_by_role("button", name="dark / light").click()
    expect(root).to_have_attribute("data-theme", second)
    assert colour(page, "body") != before
    return first, second


def test_the_theme_changes_the_colour_of_the_page_and_survives_a_reload(watched, site):
    _, second = switch_theme(watched, f"{site}/plan")
    after = colour(watched, "body")
    watched.reload()
    expect(watched.locator(".gn-name")).to_be_visible()
    expect(watched.locator("html")).to_have_attribute("data-theme", second)
    assert colour(watched, "body") == after


def test_the_text_of_a_view_has_the_colour_of_the_page_in_both_themes(watched, site):
    switch_theme(watched, f"{site}/plan")
    for _ in range(2):
        assert colour(watched, ".gn-name") == colour(watched, "tbody td") == colour(watched, "body")
        watched.get_by_role("button", name="dark / light").click()
