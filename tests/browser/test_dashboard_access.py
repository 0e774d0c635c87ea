"""Who may see the dashboard: its origins, its address and its password, in a real browser."""

import re
import socket
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect

from tests.browser import runs

PASSWORD = "correct horse"


@pytest.fixture(scope="session")
def shelf(tmp_path_factory):
    """What is shown does not matter here."""
    return runs.unreadable(tmp_path_factory.mktemp("access") / "secret").parent


@pytest.fixture(scope="session")
def site(dashboard, shelf):
    return dashboard(shelf)


@pytest.fixture(scope="session")
def guarded(dashboard, shelf):
    return dashboard(shelf, environment={"GEONB_DASHBOARD_PASSWORD": PASSWORD})


@pytest.fixture
def elsewhere(page):
    """The requests of the page to other machines, which none of them reaches."""
    asked = []

    def refuse(route):
        asked.append(route.request.url)
        route.abort()

    page.route(re.compile(r"^(https?|wss?)://(?!127\.0\.0\.1:)"), refuse)
    return asked


def log_in(page, password):
    page.locator("[name=username]").fill("anyone")
    page.locator("[name=password]").fill(password)
    page.locator("[type=submit]").click()


def test_a_wrong_password_is_refused_and_the_right_one_shows_the_page(page, guarded, elsewhere):
    page.goto(f"{guarded}/runs")
    expect(page.locator("[name=password]")).to_be_visible()
    for wrong in ("wrong", "", PASSWORD.upper()):
        log_in(page, wrong)
        expect(page.get_by_text("Invalid username or password!")).to_be_visible()
        assert urlsplit(page.url).path == "/login"
        expect(page.get_by_text("secret")).to_have_count(0)
    page.goto(f"{guarded}/runs?run=secret")
    elsewhere.clear()
    log_in(page, PASSWORD)
    expect(page.locator('tr[data-run="secret"]')).to_be_visible()
    assert page.url == f"{guarded}/runs?run=secret"
    page.goto(f"{guarded}/plan")
    expect(page.get_by_text("The plan of secret cannot be read")).to_be_visible()
    assert elsewhere == []


def test_the_login_page_asks_no_other_machine_for_anything(page, guarded, elsewhere):
    page.goto(f"{guarded}/model")
    expect(page.locator("[name=password]")).to_be_visible()
    page.wait_for_load_state("load")
    assert elsewhere == []


def test_a_mistyped_password_does_not_lose_the_link_that_was_followed(page, guarded, elsewhere):
    page.goto(f"{guarded}/plan")
    log_in(page, "wrong")
    expect(page.get_by_text("Invalid username or password!")).to_be_visible()
    log_in(page, PASSWORD)
    expect(page.locator("header.geonb-head")).to_be_visible()
    assert urlsplit(page.url).path == "/plan"


def test_without_the_password_no_websocket_is_opened_from_the_right_origin_either(guarded):
    port = urlsplit(guarded).port
    assert runs.handshake(port, f"http://127.0.0.1:{port}") == 403


@pytest.mark.parametrize("subprotocol", [None, "bokeh, a-token"])
def test_a_websocket_of_another_origin_is_refused(site, subprotocol):
    port = urlsplit(site).port
    for origin in (f"http://127.0.0.1:{port}", f"http://localhost:{port}"):
        assert runs.handshake(port, origin, subprotocol=subprotocol) == 101
    for origin in ("http://evil.example", f"http://evil.example:{port}", f"http://127.0.0.1:{port + 1}", "null"):
        assert runs.handshake(port, origin, subprotocol=subprotocol) == 403


def test_nobody_is_answered_on_another_address_of_this_machine(site):
    address = runs.other_address()
    if address is None:
        pytest.skip("this machine has no address but the loopback")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((address, urlsplit(site).port), timeout=10)
