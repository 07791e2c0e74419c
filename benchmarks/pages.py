"""The pages that people see, beside those of Django's admin and django-allauth: `python -m benchmarks.pages [--quick]`.

What a browser fetches, cold and warm, and how long it takes until a page can be used; and how many pages a second one
core makes. That is reckoned from the processor time of the server, so that other work on the machine changes little.
The environment of the tests has all that it needs.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from playwright.sync_api import Browser, Page, sync_playwright
from tests.nodejs import chromium

from benchmarks.contenders import EMAIL, OUR_PASSWORD, Contender, _register, _uvicorn
from benchmarks.load import HOST, Request, drive, repeating
from benchmarks.servers import Server, running

GUNICORN = (
    *(sys.executable, "-m", "gunicorn", "django_pages:application", "--bind", "127.0.0.1:{port}"),
    *("--workers", "1", "--worker-class", "gthread", "--threads", "4", "--keep-alive", "60", "--log-level", "error"),
)
OURS = Contender(
    column="dutchdoor",
    name="dutchdoor embedded, on uvicorn",
    command=_uvicorn(sys.executable, "benchmarks.ours:app"),
    views=(),
    folder=None,
    environ={"PYTHONPATH": str(Path.cwd())},
    once_up=_register,
)
DJANGO = Contender(
    column="Django",
    name="django.contrib.admin and django-allauth, on gunicorn",
    command=GUNICORN,
    views=(),
    before=(sys.executable, "django_pages.py"),
)
BARE = Contender(
    column="bare", name="the template alone, on uvicorn", command=_uvicorn(sys.executable, "bare_pages:app"), views=()
)


class Seen(NamedTuple):
    """A page that is measured: where it is, and whether one must be signed in to see it."""

    title: str
    contender: Contender
    path: str
    signed_in: bool = False


PAGES = (
    Seen("dutchdoor, sign in", OURS, "/auth/login"),
    Seen("django-allauth, sign in", DJANGO, "/accounts/login/"),
    Seen("Django admin, sign in", DJANGO, "/admin/login/"),
    Seen("template alone, sign in", BARE, "/"),
    Seen("dutchdoor, devices", OURS, "/auth/devices", signed_in=True),
    Seen("django-allauth, sessions", DJANGO, "/accounts/sessions/", signed_in=True),
    Seen("Django admin, first page", DJANGO, "/admin/", signed_in=True),
)


def sign_in(page: Page, contender: Contender) -> None:
    if contender is OURS:
        page.goto("/auth/login")
        page.fill("[name=email]", EMAIL)
        page.fill("[name=password]", OUR_PASSWORD)
    else:
        page.goto("/admin/login/?next=/admin/")
        page.fill("[name=username]", "bench")
        page.fill("[name=password]", "correct horse")
    page.click("main [type=submit], #login-form [type=submit]")
    page.wait_for_load_state()


class Fetched(NamedTuple):
    requests: int
    bytes: int
    """All that came over the wire, headers included."""
    ready: float
    """Milliseconds from the navigation until its scripts have run (`domContentLoadedEventEnd`)."""


class Wire:
    """Counts what a page fetches over the wire, as the browser's own tools do."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self.requests, self.bytes = 0, 0
        self._cached: set[str] = set()
        session = page.context.new_cdp_session(page)
        session.send("Network.enable")
        session.on("Network.requestServedFromCache", lambda event: self._cached.add(event["requestId"]))
        session.on("Network.loadingFinished", self._finished)

    def _finished(self, event: dict[str, Any]) -> None:
        if event["requestId"] not in self._cached and event["encodedDataLength"] > 0:
            self.requests += 1
            self.bytes += int(event["encodedDataLength"])

    def fetch(self, path: str) -> Fetched:
        self.requests = self.bytes = 0
        self._page.goto(path, wait_until="networkidle")
        ready = self._page.evaluate("performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd")
        return Fetched(self.requests, self.bytes, ready)


def in_browser(browser: Browser, seen: Seen, server: Server, rounds: int) -> tuple[Fetched, Fetched]:
    """Open a page in new browsers, and once more in each: the medians of the first and of the second time."""
    cold, warm = [], []
    for _ in range(rounds):
        context = browser.new_context(base_url=f"http://{HOST}:{server.port}")
        page = context.new_page()
        if seen.signed_in:
            sign_in(page, seen.contender)
            state = context.storage_state()
            context.close()  # what the sign-in has fetched is not cold
            context = browser.new_context(base_url=f"http://{HOST}:{server.port}", storage_state=state)
            page = context.new_page()
        wire = Wire(page)
        cold.append(wire.fetch(seen.path))
        page.goto("about:blank")
        warm.append(wire.fetch(seen.path))
        context.close()
    return tuple(Fetched(*(statistics.median(column) for column in zip(*each, strict=True))) for each in (cold, warm))


def cookies(browser: Browser, seen: Seen, server: Server) -> str:
    if not seen.signed_in:
        return ""
    context = browser.new_context(base_url=f"http://{HOST}:{server.port}")
    sign_in(context.new_page(), seen.contender)
    line = "; ".join(f"{cookie['name']}={cookie['value']}" for cookie in context.cookies())
    context.close()
    return line


def pages_a_second(seen: Seen, server: Server, cookie: str, seconds: float) -> float:
    """Ask for a page over eight connections, and divide by the processor time that the server took."""
    headers = {"accept": "text/html", "sec-fetch-mode": "navigate", "sec-fetch-site": "none", "accept-language": "en"}
    if cookie:
        headers["cookie"] = cookie
    requests = [Request("GET", seen.path, headers)]
    asyncio.run(drive(server.port, repeating(requests, 8), 1.0))  # caches are warm
    before = server.cpu_seconds
    figures = asyncio.run(drive(server.port, repeating(requests, 8), seconds))
    assert figures.bad == 0, f"{seen.title}: {figures.bad} answers were not 200"
    return figures.good / (server.cpu_seconds - before)


@contextmanager
def a_browser() -> Iterator[Browser]:
    flags = ["--no-sandbox", "--disable-gpu", "--no-first-run"]
    with sync_playwright() as driver, driver.chromium.launch(executable_path=chromium(), args=flags) as browser:
        yield browser


def main() -> None:
    quick = "--quick" in sys.argv
    rounds, seconds, turns = (2, 1.0, 1) if quick else (5, 5.0, 3)
    fetched: dict[str, list[tuple[Fetched, Fetched]]] = {}
    rates: dict[str, list[float]] = {}
    for turn in range(turns):
        for contender in (OURS, DJANGO, BARE)[:: 1 if turn % 2 == 0 else -1]:
            with running(contender, hashing="none") as server:
                for seen in (each for each in PAGES if each.contender is contender):
                    with a_browser() as browser:
                        cookie = cookies(browser, seen, server)
                        if contender is not BARE:
                            fetched.setdefault(seen.title, []).append(in_browser(browser, seen, server, rounds))
                    rates.setdefault(seen.title, []).append(pages_a_second(seen, server, cookie, seconds))
    print(table(fetched, rates))
    print(f"\nLoad {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores.")


def table(fetched: dict[str, list[tuple[Fetched, Fetched]]], rates: dict[str, list[float]]) -> str:
    lines = [
        "| page | cold: requests | bytes | ready, ms | warm: requests | bytes | ready, ms | pages a second of a core |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for seen in PAGES:
        rate = statistics.median(rates[seen.title])
        ours = statistics.median(rates[next(each.title for each in PAGES if each.signed_in == seen.signed_in)])
        cells = [""] * 6
        if seen.title in fetched:
            cells = []
            for time in (0, 1):
                columns = zip(*(turn[time] for turn in fetched[seen.title]), strict=True)
                requests, size, ready = (statistics.median(column) for column in columns)
                cells += [f"{requests:.0f}", f"{size:,.0f}", f"{ready:.0f}"]
        times = "" if ours == rate else f" ({ours / rate:.2g} ×)"
        lines.append(f"| {' | '.join([seen.title, *cells, f'{rate:,.0f}{times}'])} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
