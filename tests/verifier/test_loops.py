"""In asyncio: nothing keeps the loop waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from tests.verifier.standin import ASK, JWKS, POLL, Standin, hangs, hangs_up, response, says

from dutchdoor import Verifier
from dutchdoor.errors import InvalidToken, Unavailable
from dutchdoor.model.ids import new_id
from dutchdoor.verifier import poller as following_module

Make = Callable[..., Verifier]
Later = Callable[[float], None]


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A verifier that waits as long as it takes. Where it kept the loop waiting, a test would not end."""
    monkeypatch.setattr("dutchdoor.verifier.WAITS_FOR", 60.0)
    monkeypatch.setattr(following_module, "ANSWERED_WITHIN", 60.0)
    monkeypatch.setattr(following_module, "ASK_AGAIN", 60.0)


async def turning(condition: Callable[[], object]) -> None:
    """Let the loop turn until a condition comes true."""
    while not condition():
        await asyncio.sleep(0.005)


async def turned(authority: Standin, verifier: Verifier, state: str) -> None:
    await turning(lambda: verifier.state == state)


async def made_stale(authority: Standin, verifier: Verifier, later: Later) -> None:
    authority.misbehave(POLL, says(response(b"", 500)))
    later(authority.lease_for)
    assert verifier.state == "stale"


async def test_checking_in_a_loop(authority: Standin) -> None:
    """`check` gives what calling gives, from the first use on; and once there is a lease, calling does too."""
    async with Verifier(authority.issuer, audience="api") as verifier:
        sid = new_id()
        token = authority.token(session_id=sid)
        assert (await verifier.check(token)).session_id == sid
        assert verifier(token).session_id == sid
        await asyncio.to_thread(authority.revoke, "session", sid)
        for _ in range(2):
            with pytest.raises(InvalidToken):
                await verifier.check(token)
            with pytest.raises(InvalidToken):
                verifier(token)


@pytest.mark.parametrize("path", [JWKS, POLL])
@pytest.mark.parametrize("follow", ["background", "on demand"])
@pytest.mark.usefixtures("patient")
async def test_a_first_check_does_not_keep_the_loop_waiting(authority: Standin, path: str, follow: str) -> None:
    """An authority that hangs when the first request comes: the loop turns while the request waits for it."""
    authority.misbehave(path, hangs)
    verifier = Verifier(authority.issuer, audience="api", stale="refuse", follow=follow)  # type: ignore[arg-type]
    try:
        waiting = asyncio.create_task(verifier.check(authority.token()))
        await turning(lambda: authority.asked[path])
        assert not waiting.done()
        authority.misbehave(path, hangs_up)
        with pytest.raises(Unavailable):
            await waiting
    finally:
        await verifier.aclose()


@pytest.mark.usefixtures("patient")
async def test_asking_about_tokens_does_not_keep_the_loop_waiting(authority: Standin, later: Later) -> None:
    """Stale, and the authority hangs: of a hundred requests 28 get 503 at once, eight are asked about, the others wait,
    and the loop turns. When the eight fail, none of the others is asked about.
    """
    async with Verifier(authority.issuer, audience="api") as verifier:
        await made_stale(authority, verifier, later)
        authority.misbehave(ASK, hangs)
        waiting = [asyncio.create_task(verifier.check(authority.token())) for _ in range(100)]
        await turning(lambda: authority.asked[ASK] == 8)
        assert sum(task.done() for task in waiting) == 36
        authority.cut()
        found = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(each, Unavailable) for each in found)
        assert authority.asked[ASK] == 8


async def test_calling_in_a_loop_never_waits(authority: Standin, later: Later) -> None:
    """What would have to wait is 503 at once, and says what to do: a blocked loop serves no request."""
    verifier = Verifier(authority.issuer, audience="api")
    try:
        with pytest.raises(Unavailable) as caught:
            verifier(authority.token())
        assert "check" in caught.value.reason
        await turned(authority, verifier, "fresh")
        assert verifier(authority.token())
        await made_stale(authority, verifier, later)
        with pytest.raises(Unavailable):
            verifier(authority.token())
        assert await verifier.check(authority.token())
        assert await asyncio.to_thread(verifier, authority.token())
    finally:
        await verifier.aclose()


@pytest.mark.usefixtures("standing_still")
async def test_following_on_demand_in_a_loop(authority: Standin, later: Later) -> None:
    """The poll that a request needs is made beside the loop, once for all of the same moment."""
    async with Verifier(authority.issuer, audience="api", follow="on demand") as verifier:
        for _ in range(3):
            later(authority.lease_for)
            polls = authority.asked[POLL]
            await asyncio.gather(*(verifier.check(authority.token()) for _ in range(8)))
            assert authority.asked[POLL] == polls + 1
        assert authority.asked[ASK] == 0


async def test_a_request_that_is_given_up_spoils_nothing(authority: Standin, later: Later) -> None:
    """A caller that hangs up during a question leaves a verifier that works."""
    async with Verifier(authority.issuer, audience="api") as verifier:
        await made_stale(authority, verifier, later)
        authority.misbehave(ASK, hangs)
        given_up = asyncio.create_task(verifier.check(authority.token()))
        await turning(lambda: authority.asked[ASK])
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        authority.misbehave(ASK, None)
        authority.misbehave(POLL, None)
        await turned(authority, verifier, "fresh")
        assert await verifier.check(authority.token())


def test_one_verifier_in_several_loops(authority: Standin, following: Make, later: Later) -> None:
    """It belongs to no loop: each may come and go."""
    verifier = following(follow="on demand")
    for _ in range(3):
        assert asyncio.run(verifier.check(authority.token()))
        later(authority.lease_for)
        assert not verifier.lease_left
