"""What a log-in, a refresh and a log-out ask of the store: each call is a trip where the store is a network away."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from standins import Watched
from world import a_world

from dutchdoor.stores.memory import MemoryStore

ABOUT_THE_LOG = {"read_log", "node_register", "node_renew", "node_rows", "node_forget", "commit Add Log"}
"""What the follower of the log asks, independent of sign-ins, and the first signing key."""


@contextmanager
def trips(watched: Watched, expected: list[str]) -> Iterator[None]:
    watched.calls.clear()
    yield
    assert [call for call in watched.calls if call not in ABOUT_THE_LOG] == expected


@pytest.mark.parametrize("mode", ["session", "hybrid", "jwt"])
async def test_a_log_in_asks_the_store_four_times(mode: Any) -> None:
    """A browser that was never here takes four calls, two of which count the attempt, and a known one three. The cookie
    of an older session costs two look-ups more: the session, and its data.
    """
    watched = Watched(MemoryStore())
    added = "commit Expect Forgive Log" if mode == "jwt" else "commit Expect Add Forgive Log"
    async with a_world(store=watched) as world:
        await world.register()
        browser = world.browser()
        with trips(watched, ["hit", "known", "hit", added]):
            await browser.login(mode=mode)
        if mode == "jwt":
            return
        with trips(watched, ["session", "known", "hit", *_ended_and_started()]):
            await browser.login(mode=mode)


def _ended_and_started() -> list[str]:
    return ["get", "commit Expect ExpectFew Revoke End Log Add Forgive Log"]


@pytest.mark.parametrize("transport", ["cookie", "body"])
async def test_a_refresh_asks_the_store_twice(transport: str) -> None:
    """One look-up and one conditional write, whichever way the token comes."""
    watched = Watched(MemoryStore())
    async with a_world(store=watched) as world:
        await world.register()
        client = world.browser() if transport == "cookie" else world.program()
        await client.login(mode="hybrid")
        world.clock.forward(60)
        await world.auth.authority.jwks()  # the keys are read twice a minute, without any request
        proof = {"json": {"refresh_token": client.refresh}, "bearer": ""} if transport == "body" else {}
        with trips(watched, ["session", "commit Swap"]):
            assert (await client.call("POST", "/auth/refresh", **proof)).status == 200


@pytest.mark.parametrize("mode", ["session", "hybrid", "jwt"])
async def test_a_log_out_asks_the_store_twice(mode: Any) -> None:
    """One look-up and one commit, which looks itself whether the account has many revocations; a stateless token's
    account is looked up for its epoch.
    """
    watched = Watched(MemoryStore())
    async with a_world(store=watched) as world:
        await world.register()
        client = world.program() if mode == "jwt" else world.browser()
        await client.login(mode=mode)
        expected = ["session", "commit ExpectFew Revoke End Log"]
        if mode == "jwt":
            expected = ["account", "commit ExpectFew Revoke Log"]
        with trips(watched, expected):
            assert (await client.call("POST", "/auth/logout")).status == 200


async def test_the_seventeenth_log_out_of_an_hour_counts() -> None:
    """Where an account has many live revocations, one more look decides, and one entry covers them all."""
    watched = Watched(MemoryStore())
    async with a_world(store=watched) as many:
        await many.register()
        browser = many.browser()
        for _ in range(16):
            await browser.login(mode="session")
            assert (await browser.call("POST", "/auth/logout")).status == 200
        await browser.login(mode="session")
        with trips(
            watched,
            [
                "session",
                "commit ExpectFew Revoke End Log",
                "session",
                "live_revocations",
                "commit Swap Revoke End Log",
            ],
        ):
            assert (await browser.call("POST", "/auth/logout")).status == 200
