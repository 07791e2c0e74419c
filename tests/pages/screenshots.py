"""`make screenshots`: a picture of every page in every state, in both themes and two widths; of the lab; of every mail.

They are in `build/screenshots/`, with `index.html` to look at them side by side. `ARGS="login de"` takes the pages
whose name begins with `login`, in German.
"""

from __future__ import annotations

import html
import shutil
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright
from tests.choice.test_lab import press, served
from tests.mail.samples import letters
from tests.nodejs import chromium
from tests.pages.every import HOUSES, STATES, State, Visit
from tests.pages.house import House, open_house

OUT = Path(__file__).parents[2] / "build" / "screenshots"
WIDTHS = (1200, 375)
THEMES = ("light", "dark")


def pictures(browser: Browser, house: House, state: State, language: str) -> list[str]:
    """Take the four pictures of a state, and return their names."""
    names = []
    context = house.context(browser, state.who, locale=language)
    page = context.new_page()
    page.set_viewport_size({"width": WIDTHS[0], "height": 800})
    state.steps(Visit(page, house))
    for theme in THEMES:
        page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 800})
            names.append(f"{state.name}-{theme}-{width}.png")
            page.screenshot(path=OUT / names[-1], full_page=state.name != "docs")
    context.close()
    return names


def lab(browser: Browser, language: str) -> list[tuple[str, list[str]]]:
    """Take the pictures of `/lab` before and after each of its three steps."""
    rows = []
    with served() as here:
        page = browser.new_context(locale=language).new_page()
        page.goto(here.url)
        for step in ("", "sign-in", "steal", "log-out"):
            if step:
                press(page, step)
            names = []
            for theme in THEMES:
                page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
                for width in WIDTHS:
                    page.set_viewport_size({"width": width, "height": 800})
                    names.append(f"lab-{step or 'new'}-{theme}-{width}.png")
                    page.screenshot(path=OUT / names[-1], full_page=True)
            rows.append((f"lab: {step or 'new'}", names))
        page.context.close()
    return rows


def mails(browser: Browser, language: str) -> list[tuple[str, list[str]]]:
    """Take the pictures of each letter that there is."""
    page = browser.new_page()
    rows = []
    for name, mail in letters(language=language):
        names = []
        page.set_content(mail.html)
        for theme in THEMES:
            page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
            for width in WIDTHS:
                page.set_viewport_size({"width": width, "height": 600})
                names.append(f"mail-{name}-{theme}-{width}.png")
                page.screenshot(path=OUT / names[-1], full_page=True)
        rows.append((f"mail: {mail.subject}", names))
    return rows


def main(begins: str = "", language: str = "en") -> None:
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    flags = ["--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    with (
        tempfile.TemporaryDirectory() as folder,
        sync_playwright() as driver,
        driver.chromium.launch(executable_path=chromium(), args=flags) as browser,
        ExitStack() as stack,
    ):
        houses: dict[str, House] = {}
        rows = []
        for state in STATES:
            if not state.name.startswith(begins):
                continue
            if state.house not in houses:
                place = Path(folder) / state.house
                place.mkdir()
                houses[state.house] = stack.enter_context(open_house(place, **HOUSES[state.house]))
            rows.append((state.name, pictures(browser, houses[state.house], state, language)))
        if "lab".startswith(begins):
            rows += lab(browser, language)
        rows += mails(browser, language)
    write_index(rows)
    print(f"{sum(len(names) for _, names in rows)} pictures: {OUT / 'index.html'}")


def write_index(rows: list[tuple[str, list[str]]]) -> None:
    shown = "".join(
        f"<h2>{html.escape(title)}</h2><p>" + "".join(f'<img src="{name}" alt="{name}">' for name in names)
        for title, names in rows
    )
    style = "<style>body { font: 1rem system-ui; background: #888 } img { max-height: 32rem; margin: .25rem }</style>"
    (OUT / "index.html").write_text(f'<!doctype html><meta charset="utf-8"><title>Pages</title>{style}{shown}')


if __name__ == "__main__":
    main(*sys.argv[1:])
