"""Hooks: what listens to the verbs is declared in one place, and cannot undo them."""

from __future__ import annotations

from pathlib import Path

import pytest
from standins import HOME, THIEF, Clock, opened, proof_of

from dutchdoor.errors import InvalidToken, NotAuthenticated
from dutchdoor.model.accounts import Account
from dutchdoor.model.http_client import Client
from dutchdoor.services.hooks import Hooks, notify


async def test_a_listener_that_fails_undoes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A theft revokes its session and reaches every listener, though the first one raises; the log says so."""
    clock = Clock()
    seen: list[tuple[str, Client]] = []

    async def failing(_account: Account, _client: Client) -> None:
        raise RuntimeError("a listener's own mistake")

    async def listening(account: Account, client: Client) -> None:
        seen.append((account.subject, client))

    async with opened("memory", tmp_path, clock) as over:
        over.hooks.refresh_theft += [failing, listening]
        started = await over.start(await proof_of(over), mode="hybrid", client=HOME)
        token = started.refresh_token
        for _ in range(3):
            token = (await over.refresh(token, HOME)).refresh_token
            clock.forward(60)
        with pytest.raises(InvalidToken):
            await over.refresh(started.refresh_token, THIEF)
        with pytest.raises(NotAuthenticated):
            await over.refresh(token, HOME)
    assert seen == [("alice", THIEF)]
    assert "a hook failed" in caplog.text


def test_hooks_belong_to_one_authority() -> None:
    """A listener of one authority hears nothing of another."""
    one, other = Hooks(), Hooks()
    heard: list[str] = []
    one.unavailable.append(heard.append)
    notify(other.unavailable, "redis")
    notify(one.unavailable, "sqlite")
    assert heard == ["sqlite"]
