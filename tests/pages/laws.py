"""What can be wrong with a page, as a browser shows it. Each function names all that breaks its law: none is `[]`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from itertools import pairwise

from playwright.sync_api import Page
from tests.nodejs import needed, node_modules

STANDARDS = {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
COLOURS = {"type": "rule", "values": ["color-contrast", "link-in-text-block"]}
BROKEN = """async rules => {
  const {violations} = await axe.run({runOnly: rules, resultTypes: ["violations"]});
  const why = node => node.any.concat(node.all, node.none).map(check => check.message).join("; ");
  return violations.flatMap(rule => rule.nodes.map(node => `${rule.id}: ${node.html.slice(0, 200)} ${why(node)}`));
}"""

TOO_WIDE = """() => document.documentElement.scrollWidth <= innerWidth ? [] :
  [...document.querySelectorAll("body *")].filter(each => {
    const {left, right} = each.getBoundingClientRect();
    return left < 0 || right > innerWidth;
  }).map(each => each.outerHTML.slice(0, 120))"""

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
FIELDS = """() => {
  for (const event of ["submit", "invalid"])
    addEventListener(event, happened => {
      happened.preventDefault(); happened.stopImmediatePropagation(); globalThis.sent = true;
    }, true);
  const text = "input:is([type=text], [type=email], [type=password], [type=search], :not([type]))";
  return [...document.querySelectorAll(`form ${text}`)].map(each => each.dataset.number).filter(each => each);
}"""
SENT = """() => {
  const sent = globalThis.sent === true;
  globalThis.sent = false;
  return sent;
}"""

# Passkeys are there with a script alone.
NOT_TO_BE_SENT = """() => [...document.querySelectorAll("form:not([data-passkey])")].filter(form => {
  for (const details of document.querySelectorAll("details")) details.open = true;
  const [button] = form.querySelectorAll("button[type=submit]");
  const sent = form.getAttribute("action") && ["get", "post"].includes(form.getAttribute("method"));
  return !(sent && button?.checkVisibility());
}).map(form => form.outerHTML.slice(0, 120))"""


@cache
def _axe() -> str:
    return (needed(node_modules) / "axe-core" / "axe.min.js").read_text()


def bring_axe(page: Page) -> None:
    """Give a page the script that looks for faults."""
    devtools = page.context.new_cdp_session(page)  # `evaluate` would read half a megabyte twice
    devtools.send("Runtime.evaluate", {"expression": _axe()})
    devtools.detach()


def faults(page: Page) -> list[str]:
    """What is wrong by WCAG 2.2 AA and axe's best practices, on a page that has axe."""
    found: list[str] = page.evaluate(BROKEN, STANDARDS)
    return found


def faults_of_colour(page: Page) -> list[str]:
    """What is wrong with its colours, which is all that differs between two themes."""
    found: list[str] = page.evaluate(BROKEN, COLOURS)
    return found


@contextmanager
def in_the_dark(page: Page) -> Iterator[None]:
    page.emulate_media(color_scheme="dark")
    yield
    page.emulate_media(color_scheme="light")


def too_wide(page: Page, width: int) -> list[str]:
    """What is wider than a screen of this width."""
    page.set_viewport_size({"width": width, "height": 700})
    found: list[str] = page.evaluate(TOO_WIDE)
    return found


def out_of_reach_by_tab(page: Page) -> list[str]:
    """What the tab key does not reach in the order of the page, or what does not show that it has the focus."""
    expected: list[str] = page.evaluate(CONTROLS)
    reached: list[int] = []
    found = []
    for _ in range(2 * len(expected) + 10):
        page.keyboard.press("Tab")
        number, visible = page.evaluate(FOCUSED)
        if not visible:
            found.append(f"shows no focus: {expected[number]}")
        if reached and number == reached[0]:
            break  # once around
        if number >= 0 and number not in reached:
            reached.append(number)
    found += [f"not reached: {each}" for number, each in enumerate(expected) if number not in reached]
    first = reached.index(min(reached)) if reached else 0
    in_order = reached[first:] + reached[:first]
    turned = [after for before, after in pairwise(in_order) if after < before]
    return found + [f"reached in another order than the page has: {expected[number]}" for number in turned]


def not_sent_by_enter(page: Page) -> list[str]:
    """The fields of text, of those that `out_of_reach_by_tab` saw, in which Enter does not send the form."""
    found = []
    for number in page.evaluate(FIELDS):
        field = page.locator(f"[data-number='{number}']")
        field.focus()
        page.keyboard.press("Enter")
        if not page.evaluate(SENT):
            found.append(field.evaluate("each => each.outerHTML.slice(0, 120)"))
    return found


def not_sent_without_a_script(page: Page) -> list[str]:
    """The forms that only a script could send."""
    found: list[str] = page.evaluate(NOT_TO_BE_SENT)
    return found
