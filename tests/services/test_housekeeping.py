"""Tidying up, as every process does now and then."""

from __future__ import annotations

import asyncio

import pytest

from dutchdoor.auth import Auth, upkeep
from dutchdoor.credentials.password import CHEAPEST, PasswordHasher
from dutchdoor.errors import Conflict, Unavailable
from dutchdoor.model.master_key import MasterKey, MasterKeys


@pytest.mark.parametrize(
    "failure",
    [Unavailable("away"), Conflict("40P01"), RuntimeError("a mistake of ours")],
    ids=["away", "conflict", "mistake"],
)
async def test_whatever_goes_wrong_it_is_tried_again(failure, monkeypatch) -> None:
    """A look for what expired that failed, for whatever reason, is not the last one of the process's life."""
    monkeypatch.setattr(upkeep, "TIDY_FIRST", 0.0)
    monkeypatch.setattr(upkeep, "TIDY_EVERY", 0.01)
    looks, again = 0, asyncio.Event()

    async def purge(**_instants: float) -> int:
        nonlocal looks
        looks += 1
        if looks == 1:
            raise failure
        again.set()
        return 0

    auth = Auth("memory:", master_key=MasterKeys.parse(MasterKey.generate().text()), hasher=PasswordHasher(CHEAPEST))
    monkeypatch.setattr(auth.authority.store, "purge", purge)
    async with auth:
        await asyncio.wait_for(again.wait(), 60)
