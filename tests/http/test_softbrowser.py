"""The soft browser does what a Chromium was seen to do, so that what passes with it is not passed by a browser that
forgives more. Its server here is a script: nothing of ours is in it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from tests.http.world import Answer
from tests.softbrowser import SoftBrowser
from tests.standins import Clock

ATTRIBUTES = "Path=/; Secure; HttpOnly; SameSite=Lax"
LONG, BOUND = "__Host-long", "__Host-bound"


class Script:
    """A server that offers to bind, and answers a refresh as a test says. It checks nothing."""

    def __init__(self) -> None:
        self.clock, self.life = Clock(), 600
        self.attributes = self.set = ATTRIBUTES
        self.name, self.more = BOUND, dict[str, Any]()
        self.refresh: Callable[[], Answer] = self.instructions
        self.ids, self.challenges = 0, 0
        self.seen: list[str] = []
        self.browser = SoftBrowser(self.send, "https://login.example.com", clock=self.clock)

    def instructions(self, *more: tuple[str, str]) -> Answer:
        body = {
            "session_identifier": f"s{self.ids}",
            "refresh_url": "/refresh",
            "credentials": [{"type": "cookie", "name": self.name, "attributes": self.attributes}],
            **self.more,
        }
        cookie = ("set-cookie", f"{self.name}=1; {self.set}; Max-Age={self.life}")
        return Answer(200, [cookie, *more], json.dumps(body).encode())

    async def send(self, method: str, path: str, headers: list[tuple[str, str]], body: bytes) -> Answer:
        sent = dict(headers)
        self.seen.append(f"{path}{' proved' if 'secure-session-response' in sent else ''}")
        if path == "/login":
            self.ids += 1
            offer = ("secure-session-registration", '(ES256 RS256);path="/register";challenge="first"')
            return Answer(200, [("set-cookie", f"{LONG}=1; {ATTRIBUTES}; Max-Age=9999999"), offer], b"")
        if path == "/register":
            return self.instructions()
        if path == "/refresh" and "secure-session-response" not in sent and self.refresh == self.instructions:
            self.challenges += 1
            return Answer(403, [("secure-session-challenge", f'"c{self.challenges}";id="s{self.ids}"')], b"")
        if path == "/refresh":
            return self.refresh()
        if path == "/clear":
            return Answer(200, [("clear-site-data", '"storage"')], b"")
        skipped = sent.get("secure-session-skipped", "").partition(";")[0]
        return Answer(200, [("x-cookies", sent.get("cookie", "")), ("x-skipped", skipped)], b"")

    async def signed_in(self) -> SoftBrowser[Answer]:
        await self.browser.fetch("POST", "/login")
        return self.browser

    async def has_bound(self, **more: Any) -> bool:
        answer = await self.browser.fetch("GET", "/thing", **more)
        return f"{BOUND}=" in str(answer.header("x-cookies"))


@pytest.fixture
def script() -> Script:
    return Script()


async def test_l01_a_request_waits_for_its_cookie(script: Script) -> None:
    """With the cookie there nothing is asked; shortly before its end, a refresh runs beside the request; after it, the
    request is held for the refresh.
    """
    await script.signed_in()
    assert script.seen == ["/login", "/register proved"]
    assert await script.has_bound()
    assert "/refresh" not in script.seen
    script.clock.forward(590)
    script.seen.clear()
    assert await script.has_bound()
    assert sorted(script.seen) == ["/refresh", "/refresh proved", "/thing"]
    script.clock.forward(700)
    script.seen.clear()
    assert await script.has_bound()
    assert script.seen == ["/refresh", "/refresh proved", "/thing"]


@pytest.mark.parametrize(
    ("attributes", "name", "more"),
    [
        (ATTRIBUTES + "; Max-Age=5", BOUND, {}),
        (ATTRIBUTES + "; Partitioned", BOUND, {}),
        ("Secure; HttpOnly; SameSite=Lax", BOUND, {}),
        (ATTRIBUTES, "__Host-Http-bound", {}),
        (ATTRIBUTES, BOUND, {"refresh_url": "https://other.example/refresh"}),
        (ATTRIBUTES, BOUND, {"scope": {"include_site": True}}),
        (ATTRIBUTES, BOUND, {"credentials": []}),
        (ATTRIBUTES, BOUND, {"session_identifier": ""}),
    ],
    ids=["max-age", "partitioned", "no path", "name", "elsewhere", "site", "no credentials", "no id"],
)
async def test_l02_instructions_that_chromium_refuses(
    script: Script, attributes: str, name: str, more: dict[str, Any]
) -> None:
    """The browser says nothing and has no session, while the server takes it for bound."""
    script.attributes, script.name, script.more = attributes, name, more
    browser = await script.signed_in()
    assert not browser.registered
    assert "refused" in browser.events[-1]


@pytest.mark.parametrize("what", [ATTRIBUTES.replace("Lax", "Strict"), ATTRIBUTES.replace("; HttpOnly", "")])
async def test_l02_a_cookie_that_is_not_as_described_is_refreshed_each_time(script: Script, what: str) -> None:
    """The session exists, and its cookie counts as missing, however often it is set."""
    script.set = what
    browser = await script.signed_in()
    for _ in range(2):
        await script.has_bound()
    assert script.seen.count("/refresh proved") == 2
    assert browser.registered


@pytest.mark.parametrize("status", [400, 401, 404, 429, 302])
async def test_l03_an_answer_that_ends_the_session_of_the_browser(script: Script, status: int) -> None:
    """Any 4xx, and what is not the protocol's JSON: the browser forgets its key and never asks again."""
    browser = await script.signed_in()
    script.clock.forward(700)
    script.refresh = lambda: Answer(status, [("location", "/thing")], b"")
    script.seen.clear()
    script.browser.registered["s1"].challenge = "kept"
    assert not await script.has_bound()
    if status == 302:
        assert browser.registered  # it followed, and the 200 without a body renews
    else:
        assert not browser.registered


async def test_l03_an_outage_lets_requests_go_and_ends_nothing(script: Script) -> None:
    """503, or no answer: requests go out and say why, and the next one tries again."""
    browser = await script.signed_in()
    script.clock.forward(700)
    script.refresh = lambda: Answer(503, [], b"")
    answer = await browser.fetch("GET", "/thing")
    assert answer.header("x-skipped") == "server_error"

    def no_answer() -> Answer:
        raise ConnectionResetError

    script.refresh = no_answer
    assert (await browser.fetch("GET", "/thing")).header("x-skipped") == "unreachable"
    script.refresh = script.instructions
    assert await script.has_bound()


async def test_l03_the_server_ends_it(script: Script) -> None:
    """`continue: false` ends it, and what was held goes out. So does Clear-Site-Data."""
    browser = await script.signed_in()
    script.clock.forward(700)
    ended = json.dumps({"session_identifier": "s1", "continue": False}).encode()
    script.refresh = lambda: Answer(200, [], ended)
    assert not await script.has_bound()
    assert not browser.registered
    await browser.fetch("POST", "/login")
    assert browser.registered
    await browser.fetch("POST", "/clear")
    assert not browser.registered


async def test_l04_where_a_request_began(script: Script) -> None:
    """A link on another site or a sibling host is not held, a typed address is. A fetch without credentials is not."""
    await script.signed_in()
    script.clock.forward(700)
    for began in ("cross-site", "same-site"):
        assert not await script.has_bound(began=began, mode="navigate")
    assert not await script.has_bound(mode="omit")
    assert "/refresh" not in script.seen
    assert await script.has_bound(began="typed", mode="navigate")


async def test_l04_an_offer_after_a_link_on_another_site(script: Script) -> None:
    """The registration comes without the session's cookie, and what it sets is kept."""
    answer = await script.browser.open("/login", "cross-site")
    assert answer.status == 200
    assert script.browser.registered
    assert sorted(script.browser.cookies()) == [BOUND, LONG]


async def test_l05_chromium_signs_six_times_in_nine_minutes(script: Script) -> None:
    """The registration and five refreshes; then requests go out without the cookie, and the session stays."""
    script.life, script.browser.quota = 1, True
    browser = await script.signed_in()
    for number in range(7):
        script.clock.forward(2)
        assert await script.has_bound() is (number < 5)
    assert (await browser.fetch("GET", "/thing")).header("x-skipped") == "quota_exceeded"
    script.clock.forward(541)
    assert await script.has_bound()


async def test_l06_the_scope_is_what_the_rules_say(script: Script) -> None:
    """The last rule that matches counts, by whole parts of a path."""
    rules = [("exclude", "/"), ("include", "/auth/refresh")]
    script.more["scope"] = {
        "include_site": False,
        "scope_specification": [{"type": kind, "domain": "*", "path": path} for kind, path in rules],
    }
    browser = await script.signed_in()
    script.clock.forward(700)
    for path, held in (("/", False), ("/auth/refreshed", False), ("/auth/refresh?a=1", True)):
        script.seen.clear()
        await browser.fetch("GET", path)
        assert ("/refresh proved" in script.seen) is held, path


@pytest.mark.parametrize(("algs", "chosen"), [(("ES256",), "ES256"), (("RS256",), "RS256"), (("EdDSA",), None)])
async def test_l06_the_device_signs_with_what_it_has(script: Script, algs: tuple[str, ...], chosen: str | None) -> None:
    """The first algorithm of the offer that the device has; without one, the offer is passed over."""
    script.browser.algs = algs
    browser = await script.signed_in()
    assert [each.key.alg for each in browser.registered.values()] == ([chosen] if chosen else [])
