"""No caller is ever taken for another one, however many ask at once."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest
from tests.services.lives import begin, beside, broken
from tests.standins import HOME, Clock, Interleaved, opened

from dutchdoor.errors import Unavailable
from dutchdoor.model import sessions
from dutchdoor.model.refresh_tokens import RefreshToken
from dutchdoor.model.sessions import Session
from dutchdoor.services import session_cache
from dutchdoor.services.sessions import Authority

PEOPLE = 40


async def crowd(over: Authority, requests: int, seed: int) -> int:
    """Requests of many people in between one another, some hung up on; gives how many were answered."""
    lots = random.Random(seed)
    for n in range(PEOPLE):
        await over.provide(f"person {n}")
    held: list[dict[str, str]] = []
    for n in range(PEOPLE):
        hybrid = await begin(over, "hybrid", f"person {n}")
        held.append({
            "session": (await begin(over, "session", f"person {n}")).session_token,
            "access": hybrid.access_token,
            "refresh": hybrid.refresh_token,
        })  # fmt: skip
    crowded = beside(over, Interleaved(over.store, seed=seed))
    answered = 0
    limit = asyncio.Semaphore(100)

    async def one(person: int, kind: str) -> None:
        nonlocal answered
        expected = f"person {person}"
        async with limit:
            if kind == "session":
                found = await crowded.resume(held[person]["session"])
                assert (found.principal.subject, found.session.subject, found.account.subject) == (expected,) * 3
            elif kind == "access":
                assert (await crowded.verify(held[person]["access"])).subject == expected
            else:
                answer = await crowded.refresh(held[person]["refresh"], HOME)
                assert answer.account.subject == expected
                claims = await crowded.claims(answer.access_token)
                assert answer.session is not None
                assert (claims.sub, claims.sid) == (expected, answer.session.id)
                assert RefreshToken.parse(answer.refresh_token).session_id == answer.session.id
                held[person]["refresh"] = answer.refresh_token
            answered += 1

    tasks: list[asyncio.Task[None]] = []
    for n in range(requests):
        tasks.append(asyncio.create_task(one(lots.randrange(PEOPLE), lots.choice(["session", "access", "refresh"]))))
        if lots.random() < 0.1:
            lots.choice(tasks[-50:]).cancel()
        if n % 100 == 99:
            await asyncio.sleep(0)
            if isinstance(over.clock, Clock):
                over.clock.forward(0.5)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    # A machine that is too busy for a second answers 503 to some, and crosses no one with another.
    wrong = [each for each in results if isinstance(each, Exception) and not isinstance(each, Unavailable)]
    assert wrong == []
    return answered


@pytest.mark.parametrize("requests", [1_000, pytest.param(5_000, marks=pytest.mark.long)])
async def test_identity_never_crosses(over: Authority, tmp_path: Path, requests: int) -> None:
    """I-25: thousands of requests of forty people among one another, some cancelled: each is answered as its own."""
    assert await crowd(over, requests, 7) > 0.8 * requests
    if (tmp_path / "test.db").exists():
        # A commit that a cancelled request began may end a moment after it; a transaction left open would not.
        with sqlite3.connect(tmp_path / "test.db", timeout=60) as free:
            free.execute("BEGIN IMMEDIATE")  # no cancelled request left a transaction open
            free.execute("ROLLBACK")
        free.close()


@pytest.mark.soak
async def test_identity_never_crosses_in_a_million(over: Authority) -> None:
    """I-25: a million of them."""
    for seed in range(25):
        assert await crowd(over, 20_000, seed) > 16_000


async def test_crossed_identities_are_noticed(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """I-25 can fail: one value kept between requests instead of in each is found among a thousand."""
    real = sessions.principal_of
    last: list[Any] = []

    def confused(session: Session, account: Any) -> Any:
        last.append(real(session, account))
        return last[max(0, len(last) - 2)]

    monkeypatch.setattr(session_cache, "principal_of", confused)
    async with opened("memory", tmp_path, clock) as over:
        await broken(_counted(crowd(over, 500, 1)))


async def _counted(work: Awaitable[int]) -> None:
    await work
