"""The page of a run in headless Chromium: no request, no error, filters, keyboard, any width.

Runs where the Python package ``playwright`` and a Chromium are there: the browser of
``playwright install chromium``, one named by ``MECHTESTS_CHROMIUM``, or a ``chromium`` or
``chromium-headless-shell`` on the PATH (Debian's packages of those names).
"""

from __future__ import annotations

import os
import shutil

import pytest

from mechtests.reporting import html
from mechtests.reporting.records import correct
from tests.many_records import HEADER, many, one_of_each, record_of

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
WIDTHS = {"wide": 1280, "narrow": 390}


@pytest.fixture(scope="module")
def browser():
    named = os.environ.get("MECHTESTS_CHROMIUM") or next(
        filter(None, map(shutil.which, NAMES)), None
    )
    with sync_api.sync_playwright() as playwright:
        try:
            opened = playwright.chromium.launch(executable_path=named, args=["--no-sandbox"])
        except sync_api.Error as error:
            pytest.skip(f"no Chromium can be started: {str(error).splitlines()[0]}")
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    records = {"each": one_of_each(), "largest": correct(many())}
    for name, found in records.items():
        (folder / f"{name}.html").write_text(html.render(HEADER, found), "utf-8")
    return folder


@pytest.fixture
def visit(browser, pages):
    """Opens a page, and collects what a page must never do."""
    contexts, heard = [], []

    def opened(name="each", hash="", width=1280, **how):
        context = browser.new_context(viewport={"width": width, "height": 900}, **how)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: heard.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: heard.append(f"error: {error}"))
        page.on("request", lambda request: heard.append(f"request: {request.url}"))
        page.goto((pages / f"{name}.html").as_uri() + hash)
        return page

    yield opened
    for context in contexts:
        context.close()
    others = [each for each in heard if not each.startswith(("request: file:", "request: data:"))]
    assert others == []


def eventually(page, what: str) -> None:
    """Wait until an expression is true; the page's own policy forbids playwright's way to."""
    for _ in range(200):
        if page.evaluate(what):
            return
        page.wait_for_timeout(20)
    raise AssertionError(what)


def shown(page) -> list[str]:
    """The claims that are not filtered away."""
    return page.eval_on_selector_all("article:not([hidden])", "all => all.map(one => one.id)")


def visible(page) -> int:
    return page.locator("details.r:not([hidden])").count()


@pytest.mark.parametrize("name", ["each", "largest"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
def test_a_page_loads_alone_without_an_error_and_never_scrolls_sideways(visit, name, scheme, width):
    page = visit(name, width=width, color_scheme=scheme)
    if name == "each":
        page.locator("#open").click()
        page.locator("details.o").evaluate_all("all => all.forEach(one => { one.open = true })")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    light = sum(map(int, ground[4:-1].split(","))) > 3 * 128
    assert light == (scheme == "light")


def test_each_filter_shows_what_fits_alone_and_says_how_many(visit):
    page = visit()
    assert page.locator("#status").text_content() == "all 8 verdicts"
    page.select_option("select[name=verdict]", "R")
    assert shown(page) == ["c-tigges2024.refuted"]
    assert page.locator("#status").text_content() == "1 of 8 verdicts"
    assert page.locator("tr[data-q]:not([hidden])").count() == 1
    page.select_option("select[name=verdict]", "")
    page.select_option("select[name=paper]", "mine2030")
    assert shown(page) == ["c-mine2030.another"]
    assert page.locator("section.paper:not([hidden])").count() == 1
    page.locator("button[type=reset]").click()
    eventually(page, "document.getElementById('status').textContent == 'all 8 verdicts'")
    page.select_option("select[name=task]", "ioi")
    assert visible(page) == 7
    page.locator("input[name=q]").fill("ERROR tigges")
    assert shown(page) == ["c-tigges2024.error"]


def test_a_models_filter_leaves_its_columns_alone(visit):
    page = visit("largest")
    page.select_option("select[name=model]", "pythia-160m")
    assert page.locator("#status").text_content() == f"{49 * 20} of {49 * 60} verdicts"
    row = page.locator("tr[data-q]").first
    assert row.locator("td:not([hidden])").count() == 20
    assert page.locator("thead tr:last-child th[data-m]:not([hidden])").count() == 20
    page.select_option("select[name=verdict]", "H")
    assert page.locator("td.H:not(.off):not([hidden])").count() == visible(page)
    assert page.locator("td.R:not(.off):not([hidden])").count() == 0


def test_a_verdict_of_the_matrix_opens_its_record_by_the_keyboard_alone(visit):
    page = visit()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    link = page.locator("td.X a")
    link.focus()
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    page.keyboard.press("Enter")
    record = page.locator("details.r[open]", has_text="a refutation is expected")
    record.wait_for()
    eventually(page, "document.activeElement.tagName == 'SUMMARY'")
    page.keyboard.press("Enter")
    assert page.locator("details.r[open]", has_text="a refutation is expected").count() == 0


def test_a_link_to_a_record_opens_it_even_where_a_filter_hides_it(visit):
    page = visit(hash="#r1")
    assert page.locator("#r1").is_visible()
    page.select_option("select[name=verdict]", "N")
    page.evaluate("location.hash = '#r0'")
    eventually(page, "document.getElementById('r0').closest('details').open")
    assert page.locator("#r0").is_visible()


def test_the_theme_is_changed_by_its_button_and_kept(visit):
    page = visit(color_scheme="light")
    button = page.locator("#theme")
    assert button.text_content() == "Dark"
    button.click()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.reload()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    button.click()
    assert page.evaluate("document.documentElement.dataset.theme") == "light"


def test_without_a_script_everything_but_the_filters_is_there(visit):
    page = visit(java_script_enabled=False)
    assert not page.locator("#filters").is_visible()
    assert page.locator("td.R a").is_visible()
    said = page.locator("p.lead", has_text="the gate failed")
    assert not said.is_visible()
    page.locator("summary", has_text="the gate failed").click()
    assert said.is_visible()


def test_all_are_opened_and_closed_at_once(visit):
    page = visit()
    page.locator("#open").click()
    assert page.locator("details.r[open]").count() == 8
    page.locator("#open").click()
    assert page.locator("details.r[open]").count() == 0


def test_a_filter_of_the_largest_report_takes_less_than_a_second(visit):
    page = visit("largest")
    took = page.evaluate(
        """() => {
            const select = document.querySelector("select[name=verdict]");
            const start = performance.now();
            select.value = "R";
            select.dispatchEvent(new Event("input", { bubbles: true }));
            document.body.offsetHeight;
            return performance.now() - start;
        }"""
    )
    assert visible(page) == 49 * 60 // 4
    assert took < 1000


def test_text_of_others_runs_nothing(visit, pages):
    evil = "\"'><img src=x onerror=console.log(1)><script>console.log(2)</script>"
    record = record_of(one_of_each()[0].verdict, f"a.{evil}", evil, task=evil, says=evil)
    (pages / "evil.html").write_text(html.render({**HEADER, "run": evil}, [record]), "utf-8")
    page = visit("evil")
    page.locator("input[name=q]").fill("console")
    assert visible(page) == 1
