"""The dashboard's ledger in a real browser: filtered, searched, opened by mouse and keyboard, and never running its text."""

import re

import pytest
from playwright.sync_api import expect

from tests.ledgers import EVIL, write_papers


@pytest.fixture(scope="session")
def site(dashboard, tmp_path_factory):
    papers = write_papers(tmp_path_factory.mktemp("repository"))
    return dashboard("embedded", environment={"GEONB_PAPERS": str(papers)})


def test_claims_are_filtered_searched_and_opened_and_hostile_text_stays_text(watched, site):
    watched.goto(f"{site}/ledger")
    view = watched.locator(".gn-ledger")
    heads = view.locator(".gn-claim-head")
    expect(heads).to_have_count(3)
    expect(watched.locator("header a[aria-current=page]")).to_have_text("Ledger")

    # published hollow, ours full with its interval, the rule dashed, each at its place on one axis
    first = view.locator('[data-claim="flat-weights"]')
    at = {kind: first.locator(f'[data-mark="{kind}"]') for kind in ("published", "measured", "threshold")}
    expect(at["published"]).to_have_attribute("fill", "none")
    middle = [
        float(at[kind].get_attribute(name))
        for kind, name in (("threshold", "x1"), ("measured", "cx"), ("published", "cx"))
    ]
    assert middle == sorted(middle) and first.locator('[data-mark="measured-interval"]').count() == 1

    # by verdict
    view.locator('[data-decision="fails"]').click()
    expect(heads).to_have_count(2)
    expect(view.locator(".gn-count")).to_have_text("2 of 3 claims")
    expect(watched).to_have_url(re.compile("decision=fails"))
    view.locator('[data-decision="fails"]').click()
    expect(heads).to_have_count(3)
    view.get_by_label("Group by").select_option("decision")
    expect(view.locator(".gn-group")).to_have_text(["holds 1", "fails 2"])

    # by words
    view.get_by_label("Search").fill("PROFILE FALLS")
    expect(heads).to_have_count(1)
    expect(heads.first).to_contain_text("deep-valley")
    view.get_by_label("Search").fill("")
    expect(heads).to_have_count(3)

    # opened by the keyboard, which stays where it was
    view.locator('[data-claim="hostile"]').focus()
    watched.keyboard.press("Enter")
    opened = view.locator(".gn-open")
    expect(opened.locator(".gn-claim-head")).to_have_attribute("aria-expanded", "true")
    expect(opened.locator(".gn-claim-head")).to_be_focused()
    expect(opened).to_contain_text(f"Rule. holds above one half. {EVIL}")
    expect(opened).to_contain_text(f"Controls. {EVIL}")
    expect(opened.locator(".gn-checks li")).to_contain_text("✓")
    expect(watched).to_have_url(re.compile("opened=hostile"))
    watched.reload()
    expect(view.locator(".gn-open")).to_contain_text(EVIL)

    # its notebook, in a frame in which nothing runs
    view.locator(".gn-open .gn-notebook").click()
    frame = watched.frame_locator("iframe")
    expect(frame.locator("h1")).to_have_text("hostile")
    expect(frame.locator("p", has_text="drawn")).to_be_visible()
    expect(frame.locator("pre.out").first).to_have_text(EVIL)
    assert watched.evaluate("window.pwned") is None
    watched.get_by_role("link", name="back to the ledger").click()
    expect(view.locator(".gn-open")).to_contain_text("hostile")
    assert watched.evaluate("window.pwned") is None
    expect(watched.locator("script", has_text="pwned")).to_have_count(0)


def test_an_address_that_names_nothing_shows_the_whole_ledger(watched, site):
    watched.goto(f"{site}/ledger?of=elsewhere&opened=none&decision=maybe")
    expect(watched.locator(".gn-claim-head")).to_have_count(3)
    watched.goto(f"{site}/notebook?of=papers&claim=none")
    expect(watched.locator("p", has_text="the ledger has no such claim")).to_be_visible()
