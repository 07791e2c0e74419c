"""The poll over HTTP: who may follow the revocation log, what it costs this server, and what it does not allow."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace
from tests.http.world import LISTED, Answer, World, a_world, basic
from tests.standins import Wrapped

from dutchdoor.errors import Unavailable
from dutchdoor.model.rate_limits import DEFAULT_LIMITS, Limit
from dutchdoor.model.service_credentials import VerifierKey
from dutchdoor.revocation import messages
from dutchdoor.services.service_credentials import removal_of
from dutchdoor.stores.base import Remove, Revoke
from dutchdoor.stores.memory import MemoryStore
from dutchdoor.web import verifiers

POLL = "/auth/revocations/poll"


class Follower:
    """One process that polls: it applies what it gets, and acknowledges it with its next poll."""

    def __init__(self, world: World, key: str | None, holder: str = "A" * 22, **more: Any) -> None:
        self.world, self.key, self.holder, self.more = world, key, holder, more
        self.epoch = self.seq = 0
        self.lease_ms = 0

    async def poll(self, wait_ms: int = 1, **more: Any) -> messages.Answer:
        answer = await self.ask(wait_ms, **more)
        assert answer.status == 200, answer
        said = msgspec.json.decode(answer.body, type=messages.Answer)
        self.epoch, self.seq, self.lease_ms = said.log_epoch, said.upto_seq, said.lease_ms
        return said

    async def begin(self) -> messages.Answer:
        """Poll until there is a lease: the first poll of all makes the node one that can grant any."""
        for _ in range(5):
            answer = await self.poll()
            if answer.lease_ms:
                return answer
        raise AssertionError("no lease")

    async def ask(self, wait_ms: int = 1, **more: Any) -> Answer:
        body = {
            "holder": self.holder, "log_epoch": self.epoch, "applied_seq": self.seq, "wait_ms": wait_ms, **self.more,
        }  # fmt: skip
        return await self.world.call("POST", POLL, json=body, bearer=self.key, **more)


async def until(condition: Any) -> None:
    """Wait until something is so, a minute at most."""
    for _ in range(6000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never was so")


def hanging(world: World) -> int:
    return sum(world.auth.api.verifiers._hanging.values())


# --- following -------------------------------------------------------------------------------------------------------


async def test_a_poll_brings_what_ended_and_a_lease(world: World) -> None:
    """A verifier polls from nothing and gets the whole log with a lease; polling again it waits for news, and gets the
    log-out that happens then at once.
    """
    await world.register()
    program = world.program()
    await program.login(mode="hybrid")
    assert (await program.call("POST", "/auth/logout")).json["fenced"] is True
    follower = Follower(world, await world.add_verifier())
    first = await follower.begin()
    assert (len(world.auth.authority.fencing.log), first.reaches_head) == (1, True)
    assert 1000 < first.lease_ms <= 10_000

    await program.login(mode="hybrid")
    waiting = asyncio.create_task(follower.poll(wait_ms=60_000))
    await until(lambda: hanging(world) == 1)
    leaving = asyncio.create_task(program.call("POST", "/auth/logout", headers=[("prefer", "wait=20")]))
    news = await asyncio.wait_for(waiting, 60)
    assert (len(news.entries), news.after_seq) == (1, first.upto_seq)
    acknowledging = asyncio.create_task(follower.poll(wait_ms=60_000))
    answer = await leaving
    assert (answer.status, answer.json) == (200, {"fenced": True, "fenced_in_ms": 0, "ended": 1})
    acknowledging.cancel()


async def test_a_poll_waits_a_quarter_of_a_lease_at_most() -> None:
    """Whatever a verifier asks for, its poll hangs for a quarter of a lease, so that proxies never tire of it."""
    async with a_world(lease=1.0) as world:
        follower = Follower(world, await world.add_verifier())
        await follower.begin()
        assert (await asyncio.wait_for(follower.poll(wait_ms=600_000), 60)).entries == []


async def test_the_log_names_no_one(world: World) -> None:
    """What verifiers get are hashes: no id of the session that ended, and nothing of its account, is in the answer."""
    user = await world.register()
    program = world.program()
    await program.login(mode="hybrid")
    await program.call("POST", "/auth/logout")
    body = (await Follower(world, await world.add_verifier()).ask()).body
    for name in (program.session_id, user["id"], "ada@example.com"):
        assert name.encode() not in body


# --- who may ---------------------------------------------------------------------------------------------------------


async def test_only_a_verifier_key_follows(world: World) -> None:
    """No proof, an access token, a cookie, a client's secret, another's secret under a good id, an unknown id: 401, and
    the answer says what to send.
    """
    await world.register()
    await world.make_admin()
    root, browser = world.program(), world.browser()
    await root.login("root@example.com", mode="hybrid")
    await browser.login(mode="session")
    key, service = await world.add_verifier(), await world.add_client()
    body = {"holder": "A" * 22}
    for proof in (
        {},
        {"cookie": browser.cookie()},
        {"headers": [("authorization", f"Basic {key}")]},
        {"headers": [basic(service)]},
    ):
        answer = await world.call("POST", POLL, json=body, **proof)
        assert (answer.status, answer.code) == (401, "not_authenticated")
        assert answer.header("www-authenticate") == 'Bearer realm="dutchdoor"'
        assert "dutchdoor verifier add" in answer.json["detail"]
    wrong = key[:-2] + ("AA" if key[-2:] != "AA" else "BB")
    for bearer in (root.access, root.refresh, service[1], wrong, "ddv1_" + "A" * 48, key[:-1], key + "A"):
        answer = await world.call("POST", POLL, json=body, bearer=bearer)
        assert (answer.status, answer.code) == (401, "unknown_verifier"), bearer
        assert answer.header("www-authenticate") == 'Bearer realm="dutchdoor", error="invalid_token"'
    assert world.auth.authority.fencing.followers() == []


async def test_a_verifier_key_opens_nothing_else(world: World) -> None:
    """C20: a verifier key signs no one in and reads nothing of the administration."""
    key = await world.add_verifier()
    for method, path in (("GET", "/auth/me"), ("GET", "/admin/api/verifiers"), ("POST", "/auth/logout")):
        assert (await world.call(method, path, bearer=key)).status == 401
    assert (await world.call("POST", "/oauth2/revoke", form={"token": "x"}, bearer=key)).status == 401


async def test_this_machine_alone_needs_no_key() -> None:
    """On plain-HTTP loopback without a public URL a verifier needs no key; one that is sent has to be right, and what
    comes through a proxy is refused.
    """
    async with a_world(public_url=None) as world:
        assert (await Follower(world, None).begin()).lease_ms > 0
        assert (await Follower(world, "ddv1_" + "A" * 48).ask()).code == "unknown_verifier"
        assert (await Follower(world, await world.add_verifier()).poll()).reaches_head
        through = await world.call("POST", POLL, json={"holder": "A" * 22}, headers=[("x-forwarded-for", "192.0.2.1")])
        assert (through.status, through.code) == (400, "proxy_not_configured")
        assert {each.credential for each in world.auth.authority.fencing.followers()} == {"", "orders"}


async def test_s20_no_page_of_another_origin_polls() -> None:
    """S20: a listed origin gets CORS headers elsewhere, and never here."""
    async with a_world(origins=[LISTED]) as world:
        key = await world.add_verifier()
        asked = [("origin", LISTED), ("access-control-request-method", "POST")]
        assert (await world.call("OPTIONS", POLL, headers=asked)).status == 403
        answer = await Follower(world, key).ask(headers=[("origin", LISTED), ("sec-fetch-site", "cross-site")])
        assert answer.header("access-control-allow-origin") is None
        evil = await Follower(world, key).ask(headers=[("origin", "https://evil.example.net")])
        assert (evil.status, evil.code) == (403, "cross_site")


@pytest.mark.parametrize(
    ("body", "status", "code", "field"),
    [
        (b'{"holder": "%s"}' % (b"A" * 22), 200, "None", None),
        (b'{"holder": "%s", "holder": "%s"}' % (b"A" * 22, b"B" * 22), 400, "repeated_field", None),
        (b'{"holder": "%s", "lease_ms": 1}' % (b"A" * 22), 422, "invalid_input", "lease_ms"),
        (b"{}", 422, "invalid_input", "holder"),
        (b'{"holder": "short"}', 422, "invalid_input", "holder"),
        (b'{"holder": "%s"}' % (b"A" * 65), 422, "invalid_input", "holder"),
        (b'{"holder": "%s\\n"}' % (b"A" * 22), 422, "invalid_input", "holder"),
        (b'{"holder": "%s", "applied_seq": -1}' % (b"A" * 22), 422, "invalid_input", "applied_seq"),
        (b'{"holder": "%s", "applied_seq": 1e3}' % (b"A" * 22), 422, "invalid_input", "applied_seq"),
        (b'{"holder": "%s", "applied_seq": 9007199254740993}' % (b"A" * 22), 422, "invalid_input", "applied_seq"),
        (b'{"holder": "%s", "wait_ms": 600001}' % (b"A" * 22), 422, "invalid_input", "wait_ms"),
        (b'{"holder": "%s", "stale_policy": "accept"}' % (b"A" * 22), 422, "invalid_input", "stale_policy"),
        (b"[]", 422, "invalid_input", None),
        (b"", 400, "malformed_json", None),
        (b"{", 400, "malformed_json", None),
        (b'{"holder": "%s"}' % (b"A" * 22) + b" " * 16_384, 413, "too_large", None),
    ],
)
async def test_polls_are_read_strictly(world: World, body: bytes, status: int, code: str, field: str | None) -> None:
    """A poll is a kilobyte of JSON at most, of exactly the members there are; what is wrong is named."""
    answer = await world.call(
        "POST", POLL, body=body, headers=[("content-type", "application/json")], bearer=await world.add_verifier()
    )
    assert (answer.status, answer.code, answer.json.get("field")) == (status, code, field), answer


# --- what it costs ---------------------------------------------------------------------------------------------------


class Counting(Wrapped):
    """Counts look-ups of verifier keys."""

    looked_up = 0

    async def get(self, kind: Any, *key: str) -> Any:
        self.looked_up += kind is VerifierKey
        return await self.inner.get(kind, *key)


async def test_a_poll_costs_no_look_up() -> None:
    """A key that was found is remembered for a minute: a thousand polls of many processes look it up once."""
    store = Counting(MemoryStore())
    async with a_world(store=store) as world:
        key = await world.add_verifier()
        for number in range(100):
            await Follower(world, key, holder=f"{number:022}").poll(wait_ms=0)
        assert store.looked_up == 1
        world.clock.forward(61)
        await Follower(world, key).poll()
        assert store.looked_up == 2


async def remove(world: World, name: str) -> None:
    (row,) = [row for row in await world.store.select(VerifierKey) if row.name == name]
    await world.store.commit(Remove(row), Revoke(removal_of(row, world.clock())))


async def test_a_removed_key_is_refused_at_once(world: World) -> None:
    """Removing a key ends the poll that hangs with it, refuses the next, though the key was remembered, and is fenced
    when its lease has run out. Other keys are not touched.
    """
    follower, other = Follower(world, await world.add_verifier()), Follower(world, await world.add_verifier("billing"))
    other.holder = "B" * 22
    for each in (follower, other):
        await each.begin()
    waiting = asyncio.create_task(follower.ask(wait_ms=60_000))
    await until(lambda: hanging(world) == 1)
    await remove(world, "orders")
    answer = await asyncio.wait_for(waiting, 60)
    assert (answer.status, answer.code) == (401, "unknown_verifier")
    assert (await follower.ask()).code == "unknown_verifier"
    assert (await other.poll()).lease_ms > 0

    program = world.program()
    await world.register()
    await program.login(mode="hybrid")
    leaving = asyncio.create_task(program.call("POST", "/auth/logout"))
    await other.poll(wait_ms=1000)
    await other.poll()
    assert (await leaving).json["fenced"] is False, "it still holds a lease"
    world.elapsed.ahead += 12.3
    await other.poll()
    assert (await program.call("POST", "/auth/logout")).json["fenced"] is True


async def test_polling_without_end_is_slowed_down() -> None:
    """A process that asks again and again and acknowledges nothing gets 429 with Retry-After after 20 polls; another of
    the same service does not, and neither does one that acknowledges what it was sent.
    """
    async with a_world(limits=DEFAULT_LIMITS) as world:
        key = await world.add_verifier()
        await world.register()
        flooding, honest = Follower(world, key), Follower(world, key, holder="B" * 22)
        statuses = [(await flooding.ask(wait_ms=0)).status for _ in range(40)]
        assert statuses[:20] == [200] * 20
        assert set(statuses[20:]) == {429}
        refused = await flooding.ask()
        assert (refused.code, refused.header("retry-after")) == ("rate_limited", "1")
        flooding.seq = 10**15  # a place that this log has not reached is no news
        assert (await flooding.ask()).status == 429
        world.clock.forward(1)
        assert (await flooding.ask(wait_ms=0)).status == 200
        await honest.begin()
        program = world.program()
        for _ in range(40):
            await program.login(mode="jwt")
            leaving = asyncio.create_task(program.call("POST", "/auth/logout"))
            await honest.poll(wait_ms=1000)
            leaving.cancel()


async def test_a_service_has_its_share_and_no_more() -> None:
    """All processes of one key share a bound, however many names they invent; another key has its own."""
    few = Limit(name="ask_by_verifier_key", count=1, per_seconds=10.0, burst=30)
    async with a_world(limits=replace(DEFAULT_LIMITS, ask_by_verifier_key=few)) as world:
        stolen, other = await world.add_verifier(), await world.add_verifier("billing")
        statuses = [(await Follower(world, stolen, holder=f"{n:022}").ask(wait_ms=0)).status for n in range(60)]
        assert statuses == [200] * 30 + [429] * 30
        assert (await Follower(world, other).ask()).status == 200
        body = {"token": "x"}
        assert (await world.call("POST", "/oauth2/introspect", form=body, bearer=stolen)).status == 429
        assert (await world.call("POST", "/oauth2/introspect", form=body, bearer=other)).json == {"active": False}


async def test_hanging_polls_of_a_key_are_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """More polls than a key may have hanging are 429; when one has hung up, there is room again."""
    monkeypatch.setattr(verifiers, "HANGING_AT_MOST", 3)
    key, gone = await world.add_verifier(), asyncio.Event()
    followers = [Follower(world, key, holder=f"{n:022}") for n in range(4)]
    for follower in followers:
        await follower.begin()
    waiting = [asyncio.create_task(follower.ask(60_000, gone=gone)) for follower in followers[:3]]
    await until(lambda: hanging(world) == 3)
    assert (await followers[3].ask(60_000)).status == 429
    gone.set()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert (await followers[3].ask()).status == 200


async def test_who_hangs_up_leaves_nothing(world: World) -> None:
    """When a verifier hangs up, its poll ends here: nothing waits for it, and nothing is remembered but its lease."""
    follower, gone = Follower(world, await world.add_verifier()), asyncio.Event()
    await follower.begin()
    tasks = len(asyncio.all_tasks())
    waiting = asyncio.create_task(follower.ask(60_000, gone=gone))
    await until(lambda: hanging(world) == 1)
    gone.set()
    await asyncio.wait_for(asyncio.gather(waiting, return_exceptions=True), 60)
    assert hanging(world) == 0
    fencing = world.auth.authority.fencing
    assert not fencing._polls
    assert not fencing.node._hanging
    assert len(asyncio.all_tasks()) <= tasks


async def test_a_flood_of_names_fills_no_memory(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stolen key a thief invents a name for each poll: the places and limits that are remembered are bounded,
    and so are the leases that the node counts.
    """
    monkeypatch.setattr(verifiers, "PLACES_AT_MOST", 64)
    monkeypatch.setattr("dutchdoor.web.rate._AT_MOST", 64)
    node = world.auth.authority.fencing.node
    node.terms = replace(node.terms, leases=50)
    node._holders._terms = node.terms
    key = await world.add_verifier()
    for number in range(300):
        await Follower(world, key, holder=f"{number:022}").ask(wait_ms=0)
    desk = world.auth.api.verifiers
    assert len(desk._places) <= 64
    assert len(desk._buckets._tats) <= 64
    assert len(world.auth.authority.fencing.followers()) == 50
    assert len(desk._keys) == 1


async def test_a_server_that_stops_answers_who_hangs(world: World) -> None:
    """Asked to stop, a server answers the polls that hang at once and grants no lease any more."""
    follower = Follower(world, await world.add_verifier())
    await follower.begin()
    waiting = asyncio.create_task(follower.poll(wait_ms=60_000))
    await until(lambda: hanging(world) == 1)
    world.auth.authority.fencing.dismiss()
    assert (await asyncio.wait_for(waiting, 60)).lease_ms == 0
    assert (await follower.poll()).lease_ms == 0
    await world.register()
    assert (await world.program().login(mode="hybrid")).status == 200, "requests are still answered"


async def test_a_store_out_of_reach_is_503_for_a_new_key() -> None:
    """P02: a key that cannot be looked up is not a wrong one."""

    class Gone(Wrapped):
        async def get(self, kind: Any, *key: str) -> Any:
            raise Unavailable("down")

    async with a_world(store=Gone(MemoryStore())) as world:
        assert (await Follower(world, await world.add_verifier()).ask()).status == 503


# --- asking about tokens ---------------------------------------------------------------------------------------------


async def test_o07_a_stale_verifier_asks_about_a_token(world: World) -> None:
    """With its key a verifier asks about an access token and learns what a client would; what is revoked, foreign or a
    refresh token is not active, in the same bytes.
    """
    user = await world.register()
    key = await world.add_verifier()
    program = world.program()
    await program.login(mode="hybrid")

    async def ask(token: str) -> Any:
        answer = await world.call("POST", "/oauth2/introspect", form={"token": token}, bearer=key)
        assert answer.status == 200
        return answer.json

    said = await ask(program.access)
    assert (said["active"], said["sub"], said["sid"]) == (True, user["id"], program.session_id)
    inactive = {"active": False}
    assert await ask(program.refresh) == await ask("x") == await ask(key) == inactive
    refresh = program.refresh
    await program.call("POST", "/auth/logout")
    assert await ask(program.access) == await ask(refresh) == inactive
    wrong = await world.call("POST", "/oauth2/introspect", form={"token": "x"}, bearer="ddv1_" + "A" * 48)
    assert (wrong.status, wrong.json["error"]) == (401, "invalid_client")
    assert wrong.header("www-authenticate") == 'Bearer realm="dutchdoor"'
    none = await world.call("POST", "/oauth2/introspect", form={"token": "x"})
    assert (none.status, none.header("www-authenticate")) == (401, 'Basic realm="dutchdoor"')
    await remove(world, "orders")
    assert (await world.call("POST", "/oauth2/introspect", form={"token": "x"}, bearer=key)).status in {200, 401}
    await world.auth.authority.fencing.follow()
    assert (await world.call("POST", "/oauth2/introspect", form={"token": "x"}, bearer=key)).status == 401


# --- seeing it -------------------------------------------------------------------------------------------------------


async def test_administrators_see_who_follows(world: World) -> None:
    """Each key with the processes that follow here, how far the slowest is behind, and the longest lease."""
    await world.make_admin()
    root = world.program()
    await root.login("root@example.com", mode="hybrid")
    key = await world.add_verifier()
    await world.add_verifier("billing")
    for number in range(3):
        await Follower(world, key, holder=f"{number:022}").begin()
    program = world.program()
    await program.login("root@example.com", mode="jwt")
    await program.call("POST", "/auth/logout", headers=[("prefer", "wait=0")])
    said = (await root.call("GET", "/admin/api/verifiers")).json
    assert (said["seq"], said["entries"]) == (2, 2)  # a role, and the log-out
    billing, orders = said["verifiers"]
    assert billing == {"name": "billing", "following": 0, "behind": 0, "lease_left_ms": 0}
    assert (orders["name"], orders["following"], orders["behind"]) == ("orders", 3, 2)
    assert 1000 < orders["lease_left_ms"] <= 12_300
