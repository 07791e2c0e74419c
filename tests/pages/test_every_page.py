"""The laws that every page obeys, in every state of it, in a real browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Response
from tests.nodejs import needed, node_modules
from tests.pages.every import STATES, State, Visit, page_routes
from tests.pages.house import House, Watch

pytestmark = pytest.mark.browser

Houses = Callable[..., House]

STANDARDS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
BROKEN = """async tags => {
  const {violations} = await axe.run({runOnly: {type: "tag", values: tags}, resultTypes: ["violations"]});
  const why = node => node.any.concat(node.all, node.none).map(check => check.message).join("; ");
  return violations.flatMap(rule => rule.nodes.map(node => `${rule.id}: ${node.html.slice(0, 200)} ${why(node)}`));
}"""

TOO_WIDE = """() => document.documentElement.scrollWidth <= innerWidth ? [] :
  [...document.querySelectorAll("body *")].filter(each => {
    const {left, right} = each.getBoundingClientRect();
    return left < 0 || right > innerWidth;
  }).map(each => each.outerHTML.slice(0, 120))"""
IN_FOCUS = """() => document.activeElement.matches("[role=alert], [aria-invalid=true]")"""
CONTROLS = """() => {
  const controls = "a[href], button, input:not([type=hidden]), select, textarea, summary, [tabindex='0']";
  const usable = each => each.checkVisibility({visibilityProperty: true}) && !each.disabled
    && (each.type !== "radio" || each.checked || !document.querySelector(`input[name="${each.name}"]:checked`));
  const found = [...document.querySelectorAll(controls)].filter(usable);
  found.forEach((each, number) => each.dataset.number = number);
  return found.map(each => each.outerHTML.slice(0, 120));
}"""
FOCUSED = """() => {
  const here = document.activeElement;
  const {outlineStyle, outlineWidth} = getComputedStyle(here);
  return here.dataset.number === undefined ? [-1, true] :
    [Number(here.dataset.number), outlineStyle !== "none" && parseFloat(outlineWidth) >= 2];
}"""
# Passkeys are there with a script alone.
NOT_TO_BE_SENT = """() => [...document.querySelectorAll("form:not([data-passkey])")].filter(form => {
  for (const details of document.querySelectorAll("details")) details.open = true;
  const [button] = form.querySelectorAll("button[type=submit]");
  const sent = form.getAttribute("action") && ["get", "post"].includes(form.getAttribute("method"));
  return !(sent && button?.checkVisibility());
}).map(form => form.outerHTML.slice(0, 120))"""
FIELDS = """() => {
  for (const event of ["submit", "invalid"])
    addEventListener(event, happened => {
      happened.preventDefault(); happened.stopImmediatePropagation(); globalThis.sent = true;
    }, true);
  const text = "input:is([type=text], [type=email], [type=password], [type=search], :not([type]))";
  return [...document.querySelectorAll(`form ${text}`)].map(each => each.dataset.number).filter(each => each);
}"""


@cache
def axe() -> str:
    return (needed(node_modules) / "axe-core" / "axe.min.js").read_text()


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


def too_wide(page: Page, width: int) -> list[str]:
    """Look at a page at this width, and name what is wider than the screen."""
    page.set_viewport_size({"width": width, "height": 700})
    found: list[str] = page.evaluate(TOO_WIDE)
    return found


@each_page_once()
def test_w80_a_page_is_usable_by_everyone(tabs: Tabs, houses: Houses, state: State) -> None:
    """By WCAG 2.2 AA and axe's best practices nothing is wrong; the page breaks no policy, throws nothing, and nothing
    of it is wider than a screen of 320 pixels, which is 400 % of zoom on one of 1280.
    """
    with shown(tabs, houses, state) as (page, watch):
        assert watch.said == []
        assert page.title() not in {"", "owned"}
        assert page.locator("html").get_attribute("lang") == "en"
        page.evaluate(axe())
        assert page.evaluate(BROKEN, STANDARDS) == []
        assert too_wide(page, 320) == []
        if state.refused:
            assert page.evaluate(IN_FOCUS), "the focus is neither at what was wrong nor at its field"


@pytest.mark.long
@every
@pytest.mark.parametrize("language", ["en", "de"])
def test_w80_a_page_is_usable_in_the_dark_and_on_a_phone(
    tabs: Tabs, houses: Houses, state: State, language: str
) -> None:
    """In dark colours too nothing is wrong, in English on a wide screen and in German on a phone; in each language, a
    page fits a phone, from either side.
    """
    with shown(tabs, houses, state, locale=language, color_scheme="dark") as (page, watch):
        assert page.locator("html").get_attribute("lang") == language
        page.evaluate(axe())
        if language == "en":
            assert page.evaluate(BROKEN, STANDARDS) == []
        assert too_wide(page, 375) == []
        if language == "de":
            assert page.evaluate(BROKEN, STANDARDS) == [], "on a phone"
        page.evaluate("document.documentElement.dir = 'rtl'")
        for width in (320, 375, 1200):
            assert too_wide(page, width) == [], "from right to left"
        assert watch.said == []


@pytest.mark.long
@every
def test_w80_a_page_is_usable_by_keyboard(tabs: Tabs, houses: Houses, state: State) -> None:
    """The tab key reaches everything that a mouse can press, in the order of the page, and each place is visible while
    it has the focus; in each field of text, Enter sends the form.
    """
    with shown(tabs, houses, state) as (page, _):
        expected = page.evaluate(CONTROLS)
        reached: list[int] = []
        for _ in range(2 * len(expected) + 10):
            page.keyboard.press("Tab")
            number, visible = page.evaluate(FOCUSED)
            assert visible, expected[number]
            if number >= 0 and number not in reached:
                reached.append(number)
        assert [expected[number] for number in sorted(reached)] == expected
        first = reached.index(min(reached, default=0)) if reached else 0
        assert reached[first:] + reached[:first] == sorted(reached), "in another order than the page has"
        for number in page.evaluate(FIELDS):
            page.locator(f"[data-number='{number}']").focus()
            page.keyboard.press("Enter")
            assert page.evaluate("globalThis.sent === true"), expected[int(number)]
            page.evaluate("globalThis.sent = false")


@pytest.mark.long
@every
def test_w80_a_page_works_without_a_script(tabs: Tabs, houses: Houses, state: State) -> None:
    """With scripts off a page comes with the same status and heading, and each form has what sends it."""
    with shown(tabs, houses, state, java_script_enabled=False) as (page, _):
        assert page.locator("h1:visible").count() == 1
        assert "".join(page.locator("noscript").all_inner_texts()).strip() == "", "asks for a script in words"
        assert page.evaluate(NOT_TO_BE_SENT) == []
