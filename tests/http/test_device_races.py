"""Browsers that bind their sessions, over two nodes of one database and at one moment."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.devicekey import DeviceKey, challenge_in
from tests.http.test_device_binding import OFFER, Bound, recorded
from tests.http.test_factor_races import store_of
from tests.http.world import PASSWORD, Answer, World, a_world
from tests.standins import ISSUER, MASTER, Clock

from dutchdoor.model.bindings import Binding
from dutchdoor.model.device_binding import AGAIN_AFTER, ON_THE_WAY, REGISTERED_WITHIN
from dutchdoor.services.sessions import Authority

Nodes = tuple[World, World]


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.long)])
async def nodes(request: pytest.FixtureRequest, tmp_path: Path, patience: None) -> AsyncIterator[Nodes]:
    """Two nodes over one database, with an account."""
    where = str(tmp_path / "nodes.db")
    if request.param == "postgres":
        where = request.getfixturevalue("postgres_url")
    clock = Clock()
    async with (
        a_world(store=store_of(request.param, where), clock=clock) as one,
        a_world(store=store_of(request.param, where), clock=clock) as two,
    ):
        await one.register()
        yield one, two


def beside(browser: Bound, world: World) -> Bound:
    """The same browser as it asks another node."""
    other = Bound(world, browser.key)
    other.jar, other.session_id, other.csrf, other.offer = browser.jar, browser.session_id, browser.csrf, browser.offer
    return other


async def test_k12_of_registrations_at_one_moment_the_last_counts(nodes: Nodes) -> None:
    """Eight keys for one session arrive at two nodes in one moment. Each is taken or refused, the session goes on, and
    one of the keys can be confirmed.
    """
    browser = Bound(nodes[0])
    await browser.signed_in()
    keys = [DeviceKey() for _ in range(8)]
    asked = [beside(browser, nodes[n % 2]).register(browser.offer, key) for n, key in enumerate(keys)]
    answers = await asyncio.gather(*asked)
    assert {answer.status for answer in answers} == {200}
    kept = Binding.parse((await nodes[0].row(browser)).binding or "")
    (key,) = [key for key in keys if key.key.kid == kept.thumbprint]
    assert (await browser.prove(key)).status == 200
    assert (await browser.me()).status == 200


async def test_k12_a_confirmation_at_one_node_holds_at_the_other(nodes: Nodes) -> None:
    """The key that one node has taken is confirmed at the other, by eight proofs at once: one event, one key. The other
    node, which has read the session before, demands the cookie when that one does, and never offers again to a
    browser that has it.
    """
    browser = Bound(nodes[0])
    await browser.signed_in()
    there = beside(browser, nodes[1])
    assert (await there.me()).status == 200
    assert (await browser.register()).status == 200
    challenges = [await there.challenge() for _ in range(4)] + [await browser.challenge() for _ in range(4)]
    places = [browser, there] * 4
    answers = await asyncio.gather(
        *(
            place.sends("/auth/device-binding/refresh", browser.key.proof(challenge))
            for place, challenge in zip(places, challenges, strict=True)
        )
    )
    assert {answer.status for answer in answers} == {200}
    assert len(await recorded(nodes[0], "session_bound")) == 1
    nodes[0].clock.forward(AGAIN_AFTER)
    remembered = await there.me()
    assert (remembered.status, remembered.header(OFFER)) == (200, None)
    del browser.jar[browser.bound()]
    assert (await there.me()).code == "device_proof_required"
    assert (await browser.me()).code == "device_proof_required"


@pytest.mark.parametrize("age", [0.0, REGISTERED_WITHIN - 1])
async def test_k12_no_node_takes_the_cookie_alone_longer_than_another(nodes: Nodes, age: float) -> None:
    """A node has read the session a moment before its key is confirmed at another one, right after the sign-in or
    as late as a key is taken. Both demand the key ten seconds after the confirmation.
    """
    browser = Bound(nodes[0])
    await browser.signed_in()
    nodes[0].clock.forward(age)
    browser.offer = nodes[0].auth.api.bindings.challenge_for(await nodes[0].row(browser), anew=True)
    assert (await browser.register()).status == 200
    there = beside(browser, nodes[1])
    there.jar = {name: value for name, value in browser.jar.items() if not name.endswith("bound")}
    assert (await there.me()).status == 200
    assert (await browser.prove()).status == 200
    nodes[0].clock.forward(ON_THE_WAY - 1)
    assert (await there.me()).status == 200
    nodes[0].clock.forward(1)
    assert (await there.me()).code == "device_proof_required"
    assert (await browser.me()).status == 200


@pytest.mark.long
async def test_k12_a_machine_that_is_behind_takes_the_cookie_alone_no_later(
    postgres_url: str, patience: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nodes over PostgreSQL have its clock, whatever their machines say. By a clock of its own that is five minutes
    behind, a node would count the ten seconds from a confirmation five minutes later than the others.
    """
    right, behind = time.time, 300.0
    monkeypatch.setattr(time, "time", lambda: right() - behind)
    node = Authority(store_of("postgres", postgres_url), master=MASTER, issuer=ISSUER)
    await node.open()
    try:
        assert abs(node.clock() - right()) < behind / 2
    finally:
        await node.close()


async def test_k12_a_proof_at_a_node_that_remembers_the_session_as_unbound(nodes: Nodes) -> None:
    """A fresh proof at a node that read the session before its key was confirmed starts one that needs the key, too."""
    browser = Bound(nodes[0])
    await browser.signed_in()
    there = beside(browser, nodes[1])
    assert (await there.me()).status == 200
    assert (await browser.register()).status == 200
    assert (await browser.prove()).status == 200
    again = await there.call("POST", "/auth/reauthenticate", json={"password": PASSWORD})
    assert (again.status, again.json["session"]["bound"]) == (200, True)
    nodes[0].clock.forward(ON_THE_WAY)
    del there.jar[there.bound()]
    for world in nodes:
        assert (await beside(there, world).me()).code == "device_proof_required"


async def test_k12_a_log_out_and_a_refresh_at_one_moment(nodes: Nodes) -> None:
    """A refresh that confirms and a log-out meet: the log-out holds, and no bound cookie brings the session back."""
    for _ in range(6):
        browser = Bound(nodes[0])
        await browser.signed_in()
        assert (await browser.register()).status == 200
        there = beside(browser, nodes[1])
        proof = browser.key.proof(await browser.challenge())
        line = browser.cookie()
        left, refreshed = await asyncio.gather(
            browser.call("POST", "/auth/logout"), there.sends("/auth/device-binding/refresh", proof)
        )
        assert left.status == 200
        assert refreshed.status == 200, "a cookie, or the end: never a refusal"
        for world in nodes:
            assert (await world.call("GET", "/auth/me", cookie=line)).status == 401


async def test_k12_a_rival_key_at_one_moment_with_the_confirmation(nodes: Nodes) -> None:
    """The owner's browser confirms its key in the moment in which a thief registers another: either the thief's key is
    never confirmed, or the session ends. The thief is served by no node.
    """
    for _ in range(6):
        browser = Bound(nodes[0])
        await browser.signed_in()
        assert (await browser.register()).status == 200
        nodes[0].clock.forward(45)
        thief = beside(browser, nodes[1])
        thief.jar = {name: value for name, value in browser.jar.items() if not name.endswith("bound")}
        thief.key = DeviceKey()
        offer = challenge_in((await thief.me()).header(OFFER))
        proof = browser.key.proof(await browser.challenge())
        owner: Answer
        owner, _ = await asyncio.gather(browser.sends("/auth/device-binding/refresh", proof), thief.register(offer))
        assert owner.status == 200
        binding = Binding.parse((await nodes[0].row(browser)).binding or "")
        if binding.thumbprint == browser.key.key.kid:
            assert (await nodes[0].row(browser)).ended_at is not None
        else:
            assert binding.state == "offered", "the owner's browser was asked to forget its key: it registers anew"
            assert owner.json.get("continue") is False
