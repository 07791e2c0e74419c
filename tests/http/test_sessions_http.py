"""Sessions over HTTP: where they come from, how long they live, what ends them, and what a cookie may look like."""

from __future__ import annotations

import asyncio
import math
import sqlite3
from collections import Counter
from pathlib import Path

import pytest
from msgspec.structs import replace
from tests.http.world import (
    AWAY,
    OTHER_PASSWORD,
    OWN,
    PASSWORD,
    RECORDER,
    REFRESH,
    SESSION,
    Answer,
    Browser,
    Recorder,
    World,
    a_world,
)

from dutchdoor.model.http_client import Client
from dutchdoor.model.ids import decode, encode, new_id, new_ordered_id
from dutchdoor.model.policy import DAY, HIGH, HOUR, RELAXED, STANDARD
from dutchdoor.model.sessions import SessionToken
from dutchdoor.stores.memory import MemoryStore
from dutchdoor.stores.sqlite import SqliteStore
from dutchdoor.web.cookies import Cookies

ADA, BEN = "ada@example.com", "ben@example.com"
CLEARED = Cookies(secure=True).session.cleared[1].decode()
SOURCES = Path(__file__).parents[2] / "src" / "dutchdoor"


async def signed_in(world: World, mode: str = "session", email: str = ADA) -> Browser:
    browser = world.browser()
    await browser.login(email, mode=mode)
    return browser


async def with_cookie(world: World, cookie: str) -> Answer:
    return await world.call("GET", "/auth/me", cookie=cookie)


def session_cookie(browser: Browser) -> str:
    return browser.jar[browser.world.prefix + SESSION]


# --- S01 to S03: where an id comes from ------------------------------------------------------------------------------


async def test_s01_session_tokens_are_long_random_and_never_repeat(world: World) -> None:
    """100,000 tokens are all different; each carries 160 random bits, evenly spread, in 53 URL-safe characters."""
    await world.register()
    value = session_cookie(await signed_in(world))
    assert len(value) == 53
    assert SessionToken.parse(value).text() == value

    raw = [decode(SessionToken.mint(new_id()).text().removeprefix("dds1_")) for _ in range(100_000)]
    assert len(set(raw)) == len(raw)
    secrets = [token[16:] for token in raw]
    assert {len(secret) * 8 for secret in secrets} == {160}
    bits = b"".join(secrets)
    ones = sum(byte.bit_count() for byte in bits)
    assert abs(ones - len(bits) * 4) < 5 * math.sqrt(len(bits) * 8) / 2, "monobit"
    counted = Counter(bits)
    expected = len(bits) / 256
    chi = sum((counted[byte] - expected) ** 2 / expected for byte in range(256))
    assert chi < 255 + 6 * math.sqrt(2 * 255), "chi-squared over bytes"


def test_s01_nothing_random_comes_from_a_predictable_source() -> None:
    """No file that makes an id, a token or a key draws lots from `random` or makes a UUID. What only spreads retries
    over time may, and what reads the keys of an application's own users.
    """
    wrong = [
        f"{path.relative_to(SOURCES)}: {line.strip()}"
        for path in SOURCES.rglob("*.py")
        if not {"testing", "revocation", "verifier"} & set(path.parts)
        for line in path.read_text().splitlines()
        if line.strip().startswith(("import random", "from random", "import uuid", "from uuid"))
        and line.strip() != "from uuid import UUID"
    ]
    assert wrong == []


async def test_s02_a_planted_cookie_is_dead_after_the_log_in(world: World) -> None:
    """An attacker who planted their own session or refresh cookie in a browser holds nothing after its owner signed in
    there: the id is new, and the planted one is dead.
    """
    await world.register(ADA)
    await world.register(BEN)
    for mode, name in (("session", SESSION), ("hybrid", REFRESH)):
        attacker = await signed_in(world, mode, BEN)
        victim = world.browser()
        victim.jar[world.prefix + name] = attacker.jar[world.prefix + name]
        await victim.login(mode=mode)
        assert victim.jar[world.prefix + name] != attacker.jar[world.prefix + name]
        assert victim.session_id != attacker.session_id
        assert (await attacker.call("GET", "/auth/me", by_token=mode == "hybrid")).status == 401
        assert (await victim.call("GET", "/auth/me", by_token=mode == "hybrid")).json["user"]["email"] == ADA


async def test_s02_a_second_log_in_ends_the_first(world: World) -> None:
    """Signing in again in the same browser gives another id and another secret, and the first cookie is dead."""
    await world.register()
    browser = await signed_in(world)
    first = session_cookie(browser)
    await browser.login(mode="session")
    assert (await with_cookie(world, f"__Host-dd_session={first}")).status == 401
    assert (await browser.me()).status == 200


@pytest.mark.parametrize("mode", ["session", "hybrid"])
async def test_s02_proving_it_again_replaces_what_was_held(world: World, mode: str) -> None:
    """After a step-up, cookies and refresh tokens from before it are worth nothing, and auth_time is fresh."""
    await world.register()
    browser = await signed_in(world, mode)
    before = dict(browser.jar)
    name = world.prefix + (SESSION if mode == "session" else REFRESH)
    world.clock.forward(120.0)
    answer = await browser.call("POST", "/auth/reauthenticate", json={"password": PASSWORD}, by_token=mode == "hybrid")
    assert answer.status == 200, answer
    assert browser.jar[name] != before[name]
    assert (await browser.call("GET", "/auth/me", by_token=mode == "hybrid")).status == 200
    thief = world.browser()
    thief.jar = before
    thief.csrf = browser.csrf
    path, method = ("/auth/me", "GET") if mode == "session" else ("/auth/refresh", "POST")
    assert (await thief.call(method, path)).status in {401, 403}


async def test_s02_changing_the_mode_leaves_no_dead_proof_behind(world: World) -> None:
    """A browser that signs in under another mode than before is signed in: the cookie of the sign-in that ended is
    cleared, for it would make every request with it 401.
    """
    await world.register()
    browser = world.browser()
    for mode in ("session", "hybrid", "session", "jwt", "hybrid", "jwt", "session"):
        await browser.login(mode=mode)
        kept = {"session": [SESSION], "hybrid": [REFRESH], "jwt": []}[mode]
        assert sorted(browser.jar) == sorted(f"__Host-{name}" for name in [*kept, "dd_mark"])
        assert (await browser.call("GET", "/auth/me", by_token=mode != "session")).status == 200, mode


async def test_s03_an_id_we_did_not_make_is_never_adopted(world: World) -> None:
    """A session token that the client chose itself is 401 and not stored; a log-in that carries it sets another."""
    await world.register()
    for chosen in (
        SessionToken.mint(new_id()).text(),
        SessionToken.mint(new_ordered_id(world.clock())).text(),
        "dds1_" + "A" * 48,
        "chosen-by-me",
    ):
        cookie = f"__Host-dd_session={chosen}"
        answer = await with_cookie(world, cookie)
        assert answer.status == 401
        assert chosen not in answer.body.decode() + str(answer.headers)
        done = await world.call(
            "POST", "/auth/login", json={"email": ADA, "password": PASSWORD, "mode": "session"}, cookie=cookie
        )
        assert done.status == 200
        assert done.cookie("__Host-dd_session") not in {None, chosen}
        assert (await with_cookie(world, cookie)).status == 401
    counts = await world.store.counts()
    assert counts["sessions"] == 4, "one for each log-in, and none for an invented id"


async def test_s03_half_a_token_is_none(world: World) -> None:
    """The public id with an invented secret, another session's secret, or none, is 401."""
    await world.register()
    one, other = await signed_in(world), await signed_in(world)
    mine, theirs = (decode(session_cookie(b).removeprefix("dds1_")) for b in (one, other))
    for forged in (mine[:16] + bytes(20), mine[:16] + theirs[16:], mine[:16]):
        assert (await with_cookie(world, f"__Host-dd_session=dds1_{encode(forged)}")).status == 401
    assert (await with_cookie(world, f"__Host-dd_session={one.session_id}")).status == 401


# --- S04, S05: how long -----------------------------------------------------------------------------------------------


async def test_s04_an_idle_session_ends_to_the_second(world: World) -> None:
    """One second before the idle time the cookie holds, at it the cookie is 401, whatever the browser kept."""
    await world.register()
    for early, status in ((1.0, 200), (0.0, 401)):
        browser = await signed_in(world)
        world.clock.forward(STANDARD.idle_for - early)
        assert (await browser.me()).status == status


async def test_s04_no_traffic_outlives_the_absolute_time(world: World) -> None:
    """With a request an hour a session lives its absolute time and no second longer."""
    await world.register()
    browser = await signed_in(world)
    steps = int(STANDARD.absolute_for // HOUR)
    for _ in range(steps - 1):
        world.clock.forward(HOUR)
        assert (await browser.me()).status == 200
    world.clock.forward(HOUR - 1)
    assert (await browser.me()).status == 200
    world.clock.forward(1.0)
    assert (await browser.me()).status == 401


async def test_s04_an_edited_cookie_lives_no_longer(world: World) -> None:
    """A browser that edits Max-Age keeps the cookie and nothing else: the server decides."""
    await world.register()
    browser = await signed_in(world)
    value = session_cookie(browser)
    world.clock.forward(STANDARD.absolute_for + 1)
    assert (await with_cookie(world, f"__Host-dd_session={value}")).status == 401


def test_s05_the_defaults_stay_inside_nist() -> None:
    """The standard profile stays within 30 days, `high` within 24 hours and one hour idle, and the docs say so."""
    assert STANDARD.absolute_for <= 30 * DAY
    assert HIGH.absolute_for <= 24 * HOUR
    assert HIGH.idle_for <= HOUR
    assert RELAXED.idle_for <= RELAXED.absolute_for
    text = (SOURCES / "model" / "policy.py").read_text() + (SOURCES / "server" / "settings.py").read_text()
    assert "NIST SP 800-63B allows 30 days" in text


# --- S06 to S10: what ends it ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["session", "hybrid"])
async def test_s06_log_out_kills_what_the_server_holds_and_clears_the_cookie(world: World, mode: str) -> None:
    """After the log-out a copy of the cookie is 401, and the answer clears the cookie with the attributes it was set
    with.
    """
    await world.register()
    browser = world.browser()
    set_by = (await browser.login(mode=mode)).set_cookies()
    copy = world.browser()
    copy.jar, copy.csrf, copy.access = dict(browser.jar), browser.csrf, browser.access
    answer = await browser.call("POST", "/auth/logout")
    assert answer.json == {"fenced": True, "fenced_in_ms": 0, "ended": 1}
    name = world.prefix + (SESSION if mode == "session" else REFRESH)
    assert name not in browser.jar

    def attributes(lines: list[str]) -> set[str]:
        (line,) = [line for line in lines if line.startswith(name + "=")]
        return {part for part in line.split("; ")[1:] if not part.startswith(("Max-Age", "Expires"))}

    assert attributes(set_by) == attributes(answer.set_cookies())
    if mode == "session":
        assert (await copy.me()).status == 401
    else:
        assert (await copy.call("GET", "/auth/me", by_token=True)).status == 401
        assert (await copy.call("POST", "/auth/refresh")).status == 401
    assert (await copy.call("POST", "/auth/logout")).json["ended"] == 0, "a repeat is success and ends nothing"


@pytest.mark.parametrize("asked_for", [False, True])
@pytest.mark.parametrize("path", ["/auth/logout", "/auth/logout/all"])
async def test_s06_a_log_out_clears_what_the_browser_kept_where_it_is_asked_for(path: str, asked_for: bool) -> None:
    """By default a log-out leaves the browser's storage alone, which other pages of the origin use. Where the operator
    asked for it, a log-out by cookie clears it, and one by bearer token never does.
    """
    expected = '"cache", "storage"' if asked_for else None
    async with a_world(clear_site_data=asked_for) as world:
        await world.register()
        browser = world.browser()
        await browser.login(mode="session")
        assert (await browser.call("POST", path)).header("clear-site-data") == expected
        program = world.program()
        await program.login(mode="jwt")
        answer = await program.call("POST", path)
        assert (answer.status, answer.header("clear-site-data")) == (200, None)


EMPTY_BODIES = (
    "application/json; charset=utf-8",
    "Application/JSON",
    "application/json;",
    "text/plain;charset=UTF-8",
    "application/x-www-form-urlencoded",
    "",
)


@pytest.mark.parametrize("kind", EMPTY_BODIES)
async def test_p21_a_log_out_without_a_body_ends_the_session_whatever_its_type(world: World, kind: str) -> None:
    """P21: libraries declare a type for an empty body. The log-out is carried out, and so is a refresh: the session of
    a person who signed out is dead.
    """
    await world.register()
    browser, other = world.browser(), world.browser()
    await browser.login(mode="session")
    await other.login(mode="hybrid")
    typed = [("content-type", kind)]
    assert (await other.call("POST", "/auth/refresh", body=b"", headers=typed)).status == 200
    for each in (browser, other):
        copy = each.cookie()
        assert (await each.call("POST", "/auth/logout", body=b"", headers=typed)).json["ended"] == 1
        assert (await world.call("GET", "/auth/csrf", cookie=copy)).status == 401


@pytest.mark.parametrize("mode", ["session", "hybrid", "jwt"])
async def test_s07_a_disabled_account_is_out_at_the_next_request(world: World, mode: str) -> None:
    """Disabling ends cookie, access token, refresh token and stateless token alike, and no log-in follows; enabling
    brings nothing back.
    """
    user = await world.register()
    browser, program = await signed_in(world, mode), world.program()
    if mode == "hybrid":
        await program.login(mode=mode)
    await world.directory.admin.disable(user["id"], client=Client(), actor="cli")
    for _ in range(2):
        assert (await browser.call("GET", "/auth/me", by_token=mode != "session")).status == 401
        if mode == "hybrid":
            assert (await browser.call("POST", "/auth/refresh")).status == 401
            assert (await program.me()).status == 401
            refreshing = {"refresh_token": program.refresh}
            assert (await program.call("POST", "/auth/refresh", json=refreshing)).status == 401
        tried = await world.call("POST", "/auth/login", json={"email": ADA, "password": PASSWORD})
        if (await world.store.account(user["id"])).status == "disabled":  # type: ignore[union-attr]
            assert tried.status == 401
        await world.directory.admin.enable(user["id"], client=Client(), actor="cli")


async def test_s08_a_changed_password_ends_the_other_sessions(world: World) -> None:
    """Changing the password keeps this browser and ends every other sign-in; a reset ends them all."""
    await world.register()
    here, there, phone = await signed_in(world), await signed_in(world), world.program()
    await phone.login(mode="hybrid")
    change = {"current_password": PASSWORD, "new_password": OTHER_PASSWORD}
    assert (await here.call("POST", "/auth/password", json=change)).status == 200
    assert (await here.me()).status == 200
    assert (await there.me()).status == 401
    assert (await phone.me()).status == 401
    assert (await phone.call("POST", "/auth/refresh", json={"refresh_token": phone.refresh})).status == 401

    await here.call("POST", "/auth/password/forgot", json={"email": ADA})
    await world.posted()
    reset = {"token": world.mailbox.token(), "new_password": PASSWORD}
    assert (await world.call("POST", "/auth/password/reset", json=reset)).status == 200
    assert (await here.me()).status == 401


async def test_s09_the_owner_lists_and_ends_sessions_and_no_one_else_does(world: World) -> None:
    """Everyone sees and ends their own sessions only: another's is 404 exactly as one that never was, and lives on."""
    await world.register(ADA)
    await world.register(BEN)
    ada, phone, ben = await signed_in(world), world.program(), await signed_in(world, email=BEN)
    await phone.login(mode="hybrid")
    listed = (await ada.call("GET", "/auth/sessions")).json["sessions"]
    assert {row["id"] for row in listed} == {ada.session_id, phone.session_id}
    assert [row["id"] for row in listed if row["current"]] == [ada.session_id]
    assert [row["device"] for row in listed if row["current"]] == ["Firefox on Linux"]
    assert {row["id"] for row in (await ben.call("GET", "/auth/sessions")).json["sessions"]} == {ben.session_id}

    refused = [
        (await ben.call("DELETE", f"/auth/sessions/{named}")).sees()
        for named in (ada.session_id, phone.session_id, new_ordered_id(world.clock()), "nonsense", "%00", "a" * 5000)
    ]
    assert refused == refused[:1] * len(refused)
    assert refused[0][0] == 404
    assert (await ada.me()).status == 200

    assert (await ada.call("DELETE", f"/auth/sessions/{phone.session_id}")).json["ended"] == 1
    assert (await phone.me()).status == 401
    other = await signed_in(world)
    assert (await ada.call("DELETE", "/auth/sessions")).status == 400
    assert (await ada.call("DELETE", "/auth/sessions?except=current")).json["ended"] == 1
    assert (await other.me()).status == 401
    assert (await ada.me()).status == 200
    assert (await ben.me()).status == 200


@pytest.mark.parametrize(("at_limit", "alive"), [("end_oldest", [401, 200, 200]), ("refuse", [200, 200, None])])
async def test_s10_one_more_session_than_allowed(at_limit: str, alive: list[int | None]) -> None:
    """With two sessions allowed, a third ends the least recently used, or is refused, as the operator chose."""
    async with a_world(policy=replace(STANDARD, max_sessions=2, at_limit=at_limit)) as world:
        await world.register()
        browsers = []
        for n in range(3):
            world.clock.forward(61.0)
            browser = world.browser()
            body = {"email": ADA, "password": PASSWORD, "mode": "session"}
            answer = await browser.call("POST", "/auth/login", json=body)
            if alive[n] is None:
                assert (answer.status, answer.code, answer.set_cookies()) == (409, "session_limit_reached", [])
            else:
                assert answer.status == 200
                browsers.append((browser, alive[n]))
        for browser, status in browsers:
            assert (await browser.me()).status == status


@pytest.mark.parametrize("most", [1, 3])
async def test_s10_the_limit_holds_under_races(tmp_path: Path, most: int) -> None:
    """Of 12 log-ins at once no more sessions live than are allowed."""
    for at_limit in ("end_oldest", "refuse"):
        policy = replace(STANDARD, max_sessions=most, at_limit=at_limit)
        async with a_world(store=SqliteStore(tmp_path / f"{at_limit}.db"), policy=policy) as world:
            user = await world.register()
            body = {"email": ADA, "password": PASSWORD, "mode": "session"}
            answers = await asyncio.gather(*(world.call("POST", "/auth/login", json=body) for _ in range(12)))
            assert {answer.status for answer in answers} <= {200, 409, 503}
            assert len(await world.auth.authority.sessions(user["id"])) <= most
            lives = [
                (await with_cookie(world, f"__Host-dd_session={answer.cookie('__Host-dd_session')}")).status
                for answer in answers
                if answer.status == 200
            ]
            assert 1 <= lives.count(200) <= most


# --- S11 to S14: cookies and tokens on the wire -----------------------------------------------------------------------


async def test_s11_every_cookie_of_this_suite_is_host_bound(world: World) -> None:
    """Over TLS each cookie is `__Host-`, Secure, HttpOnly, Path=/ and SameSite, without Domain and short. The recorder
    holds that for every answer of these tests; here it sees all three cookies set, and two cleared.
    """
    before = dict(RECORDER.seen)
    await world.register()
    for mode in ("session", "hybrid"):
        browser = await signed_in(world, mode)
        expected = {"session": SESSION, "hybrid": REFRESH}[mode]
        assert set(browser.jar) == {f"__Host-{expected}", "__Host-dd_mark"}
        await browser.call("POST", "/auth/logout")
    assert RECORDER.seen["cookies"] - before.get("cookies", 0) == 8
    assert RECORDER.seen["cookies cleared"] - before.get("cookies cleared", 0) == 4


@pytest.mark.parametrize(
    "line",
    [
        "__Host-dd_session=dds1_x; Path=/; HttpOnly; Secure",
        "__Host-dd_session=dds1_x; Path=/; HttpOnly; SameSite=Lax; Max-Age=9",
        "__Host-dd_session=dds1_x; Path=/; Secure; SameSite=Lax; Max-Age=9",
        "__Host-dd_session=dds1_x; Path=/auth; HttpOnly; Secure; SameSite=Lax; Max-Age=9",
        "__Host-dd_session=dds1_x; Path=/; HttpOnly; Secure; SameSite=None; Max-Age=9",
        "__Host-dd_session=dds1_x; Path=/; HttpOnly; Secure; SameSite=Lax; Max-Age=9; Domain=example.com",
        "dd_session=dds1_x; Path=/; HttpOnly; Secure; SameSite=Lax; Max-Age=9",
        "__Host-dd_refresh=ddr1_x; Path=/; HttpOnly; Secure; SameSite=Lax; Max-Age=9",
        "__Host-other=x; Path=/; HttpOnly; Secure; SameSite=Lax; Max-Age=9",
        "__Host-dd_session=" + "x" * 101 + "; Path=/; HttpOnly; Secure; SameSite=Lax; Max-Age=9",
    ],
)
def test_s11_the_recorder_refuses_a_weaker_cookie(line: str) -> None:
    """The recorder itself fails a test for a cookie that lacks one of these, or has one attribute too many."""
    with pytest.raises(AssertionError):
        Recorder()._cookie(line, secure=True)


async def test_s11_a_password_change_gives_the_same_kind_of_cookie() -> None:
    """Cookies that a change of password or a step-up sets are as strict as those of a log-in, on plain loopback too."""
    for url in ("https://login.example.com", None):
        async with a_world(public_url=url) as world:
            await world.register()
            browser = world.browser()
            for mode in ("session", "hybrid"):
                await browser.login(mode=mode)
                token = mode == "hybrid"
                body = {"password": PASSWORD}
                answer = await browser.call("POST", "/auth/reauthenticate", json=body, by_token=token)
                assert len(answer.set_cookies()) == 1


def ambiguous(value: str) -> list[str]:
    name = "__Host-dd_session"
    return [
        f"{name}={value}; {name}={value}",
        f"{name}=dds1_{'A' * 48}; {name}={value}",
        f"{name}={value}; __host-dd_session={value}",
        f"__HOST-DD_SESSION={value}",
        f"={name}={value}",
        f"{name}={value}; ={name}=x",
        f'$Version=1; {name}="{value}"',
        f"{name} ={value}",
        f"x=y;  {name}={value}",
        f"{name}= {value}",
        f'{name}="{value}"',
        f"{name}={value}, {name}={value}",
        f"x=y; \t{name}={value}",
        f"{name}={value}\u00a0",
        f"{name}",
        f"{name}=",
        f"{name}={value}{'x' * 600}",
        f"{name}={value}ä",
    ]


DOUBTFUL = range(len(ambiguous("x")))


@pytest.mark.parametrize("n", DOUBTFUL)
async def test_s12_an_ambiguous_cookie_never_signs_anyone_in(world: World, n: int) -> None:
    """Two cookies of one name, other case, no name, spaces, quotes, an empty value, a long one and one that is not
    ASCII: 401 wherever a cookie is the proof, though the value in it is good.
    """
    await world.register()
    browser = await signed_in(world)
    line = ambiguous(session_cookie(browser))[n]
    for method, path in (("GET", "/auth/me"), ("GET", "/auth/check"), ("GET", "/auth/sessions"), ("GET", "/auth/csrf")):
        assert (await world.call(method, path, cookie=line)).status == 401, line
    csrf = [("x-csrf-token", browser.csrf)]
    for path in ("/auth/refresh", "/auth/logout/all"):
        assert (await world.call("POST", path, cookie=line, headers=csrf)).status == 401
    assert (await browser.me()).status == 200, "and it is still signed in"


@pytest.mark.parametrize("n", DOUBTFUL)
async def test_s40_another_proof_gets_in_beside_a_bad_cookie(world: World, n: int) -> None:
    """A request that proves itself by a password, an access token or a refresh token gets in beside a cookie of ours
    that is in doubt, and the answer clears that cookie, unless it sets it anew.
    """
    await world.register()
    browser, program = await signed_in(world), world.program()
    await program.login(mode="hybrid")
    line = ambiguous(session_cookie(browser))[n]
    for method, path in (("GET", "/auth/me"), ("GET", "/auth/me"), ("GET", "/auth/csrf"), ("DELETE", "/auth/sessions")):
        query = "?except=current" if method == "DELETE" else ""
        answer = await world.call(method, path + query, cookie=line, bearer=program.access)
        assert (answer.status, answer.set_cookies()) == (200, [CLEARED]), path
    assert (await program.me()).set_cookies() == [], "nobody else's answer"
    for mode in ("session", "hybrid", "jwt"):
        body = {"email": ADA, "password": PASSWORD, "mode": mode}
        answer = await world.call("POST", "/auth/login", json=body, cookie=line)
        assert answer.status == 200
        lines = [line for line in answer.set_cookies() if line.startswith(f"__Host-{SESSION}=")]
        assert len(lines) == 1
        assert (lines == [CLEARED]) == (mode != "session")
    body = {"refresh_token": program.refresh}
    answer = await world.call("POST", "/auth/refresh", json=body, cookie=line)
    assert (answer.status, answer.set_cookies()) == (200, [CLEARED])


@pytest.mark.parametrize("n", DOUBTFUL)
async def test_s40_log_out_clears_a_bad_cookie(world: World, n: int) -> None:
    """Log-out with a cookie in doubt clears it, and ends each session that stands beside it as name=value, once the
    page shows its token; the answer says how many. A refresh cookie in order beside it is ended, too.
    """
    await world.register()
    browser, cookied = await signed_in(world), world.browser()
    line = ambiguous(session_cookie(browser))[n]
    stands = f"__Host-{SESSION}={session_cookie(browser)}" in line.split("; ")
    assert (await world.call("POST", "/auth/logout")).status == 401, "without any cookie nothing was cleared"

    await cookied.login(mode="hybrid")
    cookied.jar = {f"__Host-{REFRESH}": cookied.jar[f"__Host-{REFRESH}"]}
    both = f"{line}; {cookied.cookie()}"
    refused = await world.call("POST", "/auth/logout", cookie=both, headers=[("origin", OWN)])
    assert (refused.status, refused.code) == (403, "csrf_token")
    assert (await browser.me()).status == 200
    csrf = [("origin", OWN), ("x-csrf-token", cookied.csrf)]
    answer = await world.call("POST", "/auth/logout", cookie=both, headers=csrf)
    assert (answer.status, answer.json["ended"], CLEARED in answer.set_cookies()) == (200, 1 + stands, True)
    assert (await browser.me()).status == (401 if stands else 200)

    again = await signed_in(world)
    line = ambiguous(session_cookie(again))[n]
    headers = [("origin", OWN), ("x-csrf-token", again.csrf)]
    answer = await world.call("POST", "/auth/logout", cookie=line, headers=headers)
    assert (answer.status, answer.json["ended"], CLEARED in answer.set_cookies()) == (200, int(stands), True)
    assert (await again.me()).status == (401 if stands else 200)


@pytest.mark.parametrize("path", ["/auth/logout", "/auth/logout/all", "/auth/login"])
async def test_s06_what_a_browser_gives_up_is_dead(world: World, path: str) -> None:
    """Each session and refresh token that stands in a request's cookies ends where the answer clears or replaces the
    cookies, also beside another of its name, and beside another proof. Without one, nothing in doubt is a proof.
    """
    for email in (ADA, "ben@example.com"):
        await world.register(email)
    program, browser, cookied = world.program(), world.browser(), world.browser()
    await program.login(mode="hybrid")
    await browser.login("ben@example.com", mode="session")
    await cookied.login("ben@example.com", mode="hybrid")
    refresh = cookied.jar[f"__Host-{REFRESH}"]
    line = f"__Host-{SESSION}=x; {browser.cookie()}; __Host-{REFRESH}={refresh}; __Host-{REFRESH}=x"
    if path == "/auth/logout/all":
        assert (await world.call("POST", path, cookie=line, headers=[("x-csrf-token", browser.csrf)])).status == 401
    elif path == "/auth/logout":
        assert (await world.call("POST", path, cookie=line)).status == 403
    for still in (browser, program):
        assert (await still.me()).status == 200
    body = {"email": ADA, "password": PASSWORD, "mode": "jwt"} if path == "/auth/login" else None
    answer = await world.call("POST", path, cookie=line, json=body, bearer=None if body else program.access)
    assert answer.status == 200
    if body is None:
        assert answer.json["ended"] == 3
        assert (await program.me()).status == 401
    assert len(answer.set_cookies()) == 2 + (body is not None and any("mark" in each for each in answer.set_cookies()))
    assert (await browser.me()).status == 401
    assert (await world.call("POST", "/auth/refresh", json={"refresh_token": refresh})).status == 401


async def test_s06_a_crowd_of_cookies_is_no_log_out(world: World) -> None:
    """More cookies of ours than any browser has are refused, and not looked up; a log-in gets in beside them."""
    await world.register()
    browser = await signed_in(world)
    line = "; ".join([f"__Host-{SESSION}=x{n}" for n in range(8)] + [browser.cookie() or ""])
    headers = [("origin", OWN), ("x-csrf-token", browser.csrf)]
    answer = await world.call("POST", "/auth/logout", cookie=line, headers=headers)
    assert (answer.status, answer.set_cookies()) == (401, [])
    assert (await browser.me()).status == 200
    assert (
        await world.call("POST", "/auth/login", json={"email": ADA, "password": PASSWORD}, cookie=line)
    ).status == 200


async def test_s40_a_refusal_clears_nothing(world: World) -> None:
    """A request that is refused leaves the bad cookie where it is: an error never changes what a browser holds."""
    await world.register()
    line = f"__Host-{SESSION}=; __Host-{REFRESH}="
    wrong = {"email": ADA, "password": "another one altogether"}
    assert (await world.call("POST", "/auth/login", json=wrong, cookie=line)).set_cookies() == []
    assert (await world.call("GET", "/auth/me", cookie=line, bearer="x")).set_cookies() == []


@pytest.mark.parametrize(
    "other",
    [
        *(f"theme=__Host-{SESSION}", f"theme=__Host-{REFRESH}", 'prefs="a', f'prefs="; theme=__Host-{SESSION}; x="'),
        *("$dirty=1", f"next=/?__Host-{SESSION}=1", "\u00e4=\u00f6", "$Version=1", "$Path=/"),
        *(f"x=a __Host-{SESSION}=x", f"x=a,__Host-{REFRESH}=x", f'"__Host-{SESSION}=x'),
    ],
)
async def test_s40_other_applications_cookies_never_hurt(world: World, other: str) -> None:
    """Signing in, asking, refreshing and signing out work beside whatever cookie another application set."""
    await world.register()
    for mode in ("session", "hybrid"):
        browser = world.browser()
        name, _, browser.jar[name] = other.partition("=")
        await browser.login(mode=mode)
        assert (await browser.call("GET", "/auth/me", by_token=mode == "hybrid")).status == 200
        if mode == "hybrid":
            assert (await browser.call("POST", "/auth/refresh")).status == 200
        answer = await browser.call("POST", "/auth/logout")
        assert (answer.status, answer.json["ended"]) == (200, 1)


async def test_s40_two_applications_on_localhost_leave_each_other_signed_in() -> None:
    """With a cookie prefix of its own, an application signs no one out of another one on the same host name."""
    async with a_world(public_url=None) as one, a_world(public_url=None, cookie_prefix="shop_") as two:
        for world in (one, two):
            await world.register()
        here, there = one.browser(), two.browser()
        there.jar = here.jar
        await here.login(mode="session")
        await there.login(mode="session")
        assert {name for name in here.jar if name.endswith("session")} == {"dd_session", "shop_session"}
        for browser in (here, there):
            assert (await browser.me()).status == 200
        assert (await there.call("POST", "/auth/logout")).status == 200
        assert ((await here.me()).status, (await there.me()).status) == (200, 401)
        described = (await two.call("GET", "/openapi.json")).json["components"]["securitySchemes"]
        assert described["session"]["name"] == "shop_session"


async def test_s12_a_header_of_cookies_sent_twice_is_one_line(world: World) -> None:
    """Two Cookie headers with one of ours each are as ambiguous as one header with both."""
    await world.register()
    value = session_cookie(await signed_in(world))
    twice = [("cookie", f"__Host-dd_session={value}"), ("cookie", f"__Host-dd_session={value}")]
    assert (await world.call("GET", "/auth/me", headers=twice)).status == 401
    apart = [("cookie", "theme=dark"), ("cookie", f"__Host-dd_session={value}")]
    assert (await world.call("GET", "/auth/me", headers=apart)).status == 200


async def test_s13_no_token_is_taken_from_a_url(world: World) -> None:
    """A token in the query is never proof: 4xx at every endpoint, under every usual name, though it is good."""
    await world.register()
    program, browser = world.program(), await signed_in(world)
    await program.login(mode="hybrid")
    for name in ("access_token", "token", "session", "dd_session", "bearer", "authorization"):
        for value in (program.access, program.refresh, session_cookie(browser)):
            assert (await world.call("GET", f"/auth/me?{name}={value}")).status in {401, 422}
    assert (await world.call("POST", f"/auth/refresh?refresh_token={program.refresh}")).status in {401, 422}
    assert (await world.call("POST", f"/oauth2/revoke?token={program.refresh}", form={})).status == 400
    assert (await program.me()).status == 200


async def test_s14_nothing_with_a_token_may_be_stored(world: World) -> None:
    """Every answer that carries a token is `no-store`; the recorder holds that for this whole suite, and fails for one
    that is not.
    """
    await world.register()
    for mode in ("session", "hybrid", "jwt"):
        answer = await world.program().login(mode=mode)
        assert answer.header("cache-control") == "no-store"
        kept = answer._replace(
            headers=[("cache-control", "public") if k == "cache-control" else (k, v) for k, v in answer.headers]
        )
        with pytest.raises(AssertionError):
            Recorder().judge(kept, "/auth/login", secure=True, listed=())


# --- S15, S16: what is stored -----------------------------------------------------------------------------------------


async def test_s15_a_stolen_database_signs_no_one_in(tmp_path: Path) -> None:
    """Whatever a copy of the database holds, in any column and any spelling, none of it is a session or a refresh
    token, nor makes one.
    """
    path = tmp_path / "test.db"
    async with a_world(store=SqliteStore(path)) as world:
        await world.register()
        browser, phone = await signed_in(world), world.program()
        await phone.login(mode="hybrid")
        held = [session_cookie(browser), phone.refresh, phone.access]
        stolen: set[bytes] = set()
        with sqlite3.connect(path) as rows:
            for (table,) in rows.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
                for row in rows.execute(f"SELECT * FROM {table}"):
                    stolen.update(v.encode() if isinstance(v, str) else v for v in row if isinstance(v, str | bytes))
        everything = b"".join(p.read_bytes() for p in tmp_path.glob("test.db*"))
        for token in held:
            assert token.encode() not in everything
            assert decode(token.split("_", 1)[1])[-20:] not in everything if token[:2] == "dd" else True
        ids = [browser.session_id, phone.session_id]
        for value in stolen:
            for named in ids:
                raw = decode(named)
                for secret in (value[:20], value[-20:], value):
                    if not secret:
                        continue
                    cookie = f"__Host-dd_session=dds1_{encode(raw + secret)}"
                    if len(cookie) < 512:
                        assert (await with_cookie(world, cookie)).status == 401
        kinds = [value.decode("latin-1") for value in stolen if value.isascii() and len(value) < 300]
        for text in kinds:
            assert (await world.call("GET", "/auth/me", bearer=text.replace(" ", "") or "x")).status == 401


class Untouched(MemoryStore):
    """A store in which each call fails."""

    armed = False

    def __getattribute__(self, name: str) -> object:
        if name in {
            "session",
            "account",
            "commit",
            "account_by_email",
            "known",
            "hit",
            "get",
            "find",
            "select",
            "events",
        }:
            assert not object.__getattribute__(self, "armed"), f"the store was asked for {name}"
        return super().__getattribute__(name)


async def test_s16_an_anonymous_visitor_leaves_no_row() -> None:
    """1,000 requests without a cookie, a third with an invented one, write no row; those without do not even ask the
    store.
    """
    store = Untouched()
    async with a_world(store=store) as world:
        before = await store.counts()
        store.armed = True
        for n in range(1000):
            path = ("/auth/me", "/", "/auth/check", "/docs", "/auth/sessions")[n % 5]
            answer = await world.call("GET", path, peer=AWAY)
            assert answer.status in {200, 401}
            assert answer.set_cookies() == []
        store.armed = False
        for n in range(300):
            await with_cookie(world, f"__Host-dd_session=dds1_{encode(n.to_bytes(36, 'big'))}")
        assert await store.counts() == before
