"""In asyncio: nothing keeps the loop waiting."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Self

import pytest
from tests.verifier.standin import ASK, JWKS, POLL, Standin, hangs, response, says, until

from dutchdoor import Verifier
from dutchdoor.errors import InvalidToken, Unavailable
from dutchdoor.model.ids import new_id

Make = Callable[..., Verifier]


class Pulse:
    """Measures the longest time a loop did not turn."""

    async def __aenter__(self) -> Self:
        self.longest = 0.0
        self.task = asyncio.create_task(self.beat())
        return self

    async def beat(self) -> None:
        before = time.monotonic()
        while True:
            await asyncio.sleep(0.005)
            now = time.monotonic()
            self.longest, before = max(self.longest, now - before), now

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()


async def turned(authority: Standin, verifier: Verifier, state: str) -> None:
    while verifier.state != state:
        await asyncio.sleep(0.01)


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
async def test_a_first_check_does_not_keep_the_loop_waiting(authority: Standin, path: str, follow: str) -> None:
    """An authority that hangs when the first request comes: the loop goes on, and the request is answered in time."""
    authority.misbehave(path, hangs)
    verifier = Verifier(authority.issuer, audience="api", stale="refuse", follow=follow)  # type: ignore[arg-type]
    try:
        async with Pulse() as pulse:
            began = time.monotonic()
            with pytest.raises(Unavailable):
                await verifier.check(authority.token())
            assert time.monotonic() - began < 20
    finally:
        await verifier.aclose()
    assert pulse.longest < 0.5


async def test_asking_about_tokens_does_not_keep_the_loop_waiting(hasty: Standin) -> None:
    """Stale, and the authority hangs: a hundred requests wait or get 503, and the loop turns."""
    async with Verifier(hasty.issuer, audience="api") as verifier:
        hasty.misbehave(POLL, says(response(b"", 500)))
        hasty.misbehave(ASK, hangs)
        await turned(hasty, verifier, "stale")
        tokens = [hasty.token() for _ in range(100)]
        async with Pulse() as pulse:
            found = await asyncio.gather(*map(verifier.check, tokens), return_exceptions=True)
        assert all(isinstance(each, Unavailable) for each in found)
        assert pulse.longest < 0.5
        assert hasty.asked[ASK] <= 8


async def test_calling_in_a_loop_never_waits(hasty: Standin) -> None:
    """What would have to wait is 503 at once, and says what to do: a blocked loop serves no request."""
    verifier = Verifier(hasty.issuer, audience="api")
    try:
        with pytest.raises(Unavailable) as caught:
            verifier(hasty.token())
        assert "check" in caught.value.reason
        await turned(hasty, verifier, "fresh")
        assert verifier(hasty.token())
        hasty.misbehave(POLL, says(response(b"", 500)))
        await turned(hasty, verifier, "stale")
        with pytest.raises(Unavailable):
            verifier(hasty.token())
        assert await verifier.check(hasty.token())
        assert await asyncio.to_thread(verifier, hasty.token())
    finally:
        await verifier.aclose()


async def test_following_on_demand_in_a_loop(authority: Standin) -> None:
    """The poll that a request needs is made beside the loop, once for all of the same moment."""
    async with Verifier(authority.issuer, audience="api", follow="on demand") as verifier:
        for _ in range(3):
            await turned(authority, verifier, "stale")
            polls = authority.asked[POLL]
            await asyncio.gather(*(verifier.check(authority.token()) for _ in range(8)))
            assert authority.asked[POLL] == polls + 1
        assert authority.asked[ASK] == 0


async def test_a_request_that_is_given_up_spoils_nothing(hasty: Standin) -> None:
    """A caller that hangs up during a question leaves a verifier that works."""
    async with Verifier(hasty.issuer, audience="api") as verifier:
        hasty.misbehave(POLL, says(response(b"", 500)))
        await turned(hasty, verifier, "stale")
        hasty.misbehave(ASK, hangs)
        given_up = asyncio.create_task(verifier.check(hasty.token()))
        while not hasty.asked[ASK]:
            await asyncio.sleep(0.01)
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        hasty.misbehave(ASK, None)
        hasty.misbehave(POLL, None)
        await turned(hasty, verifier, "fresh")
        assert await verifier.check(hasty.token())


def test_one_verifier_in_several_loops(authority: Standin, following: Make) -> None:
    """It belongs to no loop: each may come and go."""
    verifier = following(follow="on demand")
    for _ in range(3):
        assert asyncio.run(verifier.check(authority.token()))
        until(lambda: not verifier.lease_left)
