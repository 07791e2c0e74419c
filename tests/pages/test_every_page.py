"""The laws that every page obeys, in every state of it, in a real browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Response, expect
from tests.pages import laws
from tests.pages.every import STATES, State, Visit, page_routes
from tests.pages.house import House, Watch

pytestmark = pytest.mark.browser

Houses = Callable[..., House]

IN_FOCUS = ":is([role=alert], [aria-invalid=true]):focus"


class Tab:
    """A page that shows one state after the other, at one server and with one set of options. Half of what a state
    costs would be a browser of its own: it is emptied instead.
    """

    def __init__(self, browser: Browser, house: House, options: dict[str, Any]) -> None:
        self.of = house, options
        self.house, self.context = house, house.context(browser, **options)
        self.page = self.context.new_page()
        self.watch = Watch(self.page)
        self.statuses: list[int] = []
        self.page.on("response", self._note)
        self._devtools = self.context.new_cdp_session(self.page)

    def _note(self, answer: Response) -> None:
        if answer.request.is_navigation_request():
            self.statuses.append(answer.status)

    def empty(self) -> None:
        """Leave nothing of what was there: no document, no cookie, nothing that a script stored, no size."""
        self.page.goto("about:blank")
        self.page.unroute_all()
        self.context.clear_cookies()
        self._devtools.send("Storage.clearDataForOrigin", {"origin": self.house.url, "storageTypes": "all"})
        self.page.set_viewport_size({"width": 1280, "height": 720})
        self.statuses.clear()
        self.watch.said.clear()


class Tabs:
    """Gives an empty tab: the one from before, where it is at the same server with the same options."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._tab: Tab | None = None

    def at(self, house: House, **options: Any) -> Tab:
        if self._tab is None or self._tab.of != (house, options):
            self.close()
            self._tab = Tab(self._browser, house, options)
        self._tab.empty()
        return self._tab

    def close(self) -> None:
        if self._tab is not None:
            self._tab.context.close()
            self._tab = None


@pytest.fixture(scope="module")
def tabs(browser: Browser) -> Iterator[Tabs]:
    made = Tabs(browser)
    yield made
    made.close()


@contextmanager
def shown(tabs: Tabs, houses: Houses, state: State, **options: Any) -> Iterator[tuple[Page, Watch]]:
    """Go to a page, and see that the server answered as it should."""
    house = houses(state.house)
    tab = tabs.at(house, **options)
    if state.who is not None:
        house.admit(tab.context, state.who)
    try:
        state.steps(Visit(tab.page, house))
        assert tab.statuses[-1] == state.status
        yield tab.page, tab.watch
    except BaseException:
        tabs.close()  # the next one must not suffer from what was wrong here
        raise


every = pytest.mark.parametrize("state", STATES, ids=str)


def each_page_once() -> Any:
    """All states, of which the first of each page is short."""
    firsts = {state.route: state for state in reversed(STATES)}.values()
    long = pytest.mark.long
    return pytest.mark.parametrize(
        "state", [pytest.param(state, id=state.name, marks=[] if state in firsts else long) for state in STATES]
    )


def test_w80_every_page_of_the_server_is_in_the_list() -> None:
    """Each route that answers with a page is in `STATES`, and nothing else is."""
    assert {state.route for state in STATES} - {""} == {route.path for route in page_routes()}
    assert len({state.name for state in STATES}) == len(STATES)


@each_page_once()
def test_w80_a_page_is_usable_by_everyone(
    tabs: Tabs, houses: Houses, state: State, subtests: pytest.Subtests, long_form: bool
) -> None:
    """By WCAG 2.2 AA and axe's best practices nothing is wrong; the page breaks no policy, throws nothing, and nothing
    of it is wider than a screen of 320 pixels, which is 400 % of zoom on one of 1280.

    The long form: in dark colours nothing is wrong either. The tab key reaches everything that a mouse can press, in
    the order of the page, and each place is visible while it has the focus; in each field of text, Enter sends the
    form. The page fits a phone.
    """
    with shown(tabs, houses, state) as (page, watch):
        with subtests.test("title and language"):
            assert page.title() not in {"", "owned"}
            assert page.locator("html").get_attribute("lang") == "en"
        if state.refused:
            with subtests.test("the focus is at what was wrong or at its field"):
                expect(page.locator(IN_FOCUS)).to_have_count(1)  # it comes with the first picture, after the load
        laws.bring_axe(page)
        with subtests.test("axe"):
            assert laws.faults(page) == []
        if long_form:
            with subtests.test("axe in dark colours"), laws.in_the_dark(page):
                assert laws.faults_of_colour(page) == []
            with subtests.test("the tab key"):
                assert laws.out_of_reach_by_tab(page) == []
            with subtests.test("Enter sends a form"):
                assert laws.not_sent_by_enter(page) == []
            with subtests.test("a phone"):
                assert laws.too_wide(page, 375) == []
        with subtests.test("320 pixels"):
            assert laws.too_wide(page, 320) == []
        with subtests.test("its policy, and no error in the console"):
            assert watch.said == []


@pytest.mark.long
@every
def test_w80_a_page_is_usable_in_german_in_the_dark_on_a_phone(
    tabs: Tabs, houses: Houses, state: State, subtests: pytest.Subtests
) -> None:
    """In German, whose words are longer, on a phone and in dark colours nothing is wrong; the page fits from either
    side.
    """
    with shown(tabs, houses, state, locale="de", color_scheme="dark") as (page, watch):
        with subtests.test("language"):
            assert page.locator("html").get_attribute("lang") == "de"
        with subtests.test("a phone"):
            assert laws.too_wide(page, 375) == []
        laws.bring_axe(page)
        with subtests.test("axe in dark colours on a phone"):
            assert laws.faults(page) == []
        page.evaluate("document.documentElement.dir = 'rtl'")
        for width in (320, 375, 1200):
            with subtests.test("from right to left", width=width):
                assert laws.too_wide(page, width) == []
        with subtests.test("its policy, and no error in the console"):
            assert watch.said == []


@pytest.mark.long
@every
def test_w80_a_page_works_without_a_script(tabs: Tabs, houses: Houses, state: State, subtests: pytest.Subtests) -> None:
    """With scripts off a page comes with the same status and heading, and each form has what sends it."""
    with shown(tabs, houses, state, java_script_enabled=False) as (page, _):
        with subtests.test("a heading"):
            assert page.locator("h1:visible").count() == 1
        with subtests.test("asks for no script in words"):
            assert "".join(page.locator("noscript").all_inner_texts()).strip() == ""
        with subtests.test("each form has what sends it"):
            assert laws.not_sent_without_a_script(page) == []
