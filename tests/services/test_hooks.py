"""Hooks: what listens to the verbs is declared in one place, and cannot undo them."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any, get_args

import pytest
from fastapi import FastAPI
from flask import Flask, current_app
from msgspec.structs import replace
from standins import HOME, PASSWORD, THIEF, Clock, opened, proof_of
from starlette.applications import Starlette

import dutchdoor.fastapi
import dutchdoor.flask
import dutchdoor.litestar
import dutchdoor.starlette
from dutchdoor import AuditEvent, Auth
from dutchdoor.credentials.password import CHEAPEST, PasswordHasher
from dutchdoor.errors import Conflict, InvalidToken, Misconfigured, NotAuthenticated
from dutchdoor.model.accounts import Account
from dutchdoor.model.audit_events import EventName, account_event
from dutchdoor.model.http_client import Client
from dutchdoor.services import announcing
from dutchdoor.services.browser import Browser
from dutchdoor.services.hooks import Hooks, notify
from dutchdoor.stores.base import Log, Swap


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
    """A listener of one authority gets no event of another."""
    one, other = Hooks(), Hooks()
    heard: list[str] = []
    one.unavailable.append(heard.append)
    notify(other.unavailable, "redis")
    notify(one.unavailable, "sqlite")
    assert heard == ["sqlite"]


# Listeners of audit events


def engine(**named: Any) -> Auth:
    return Auth("memory:", hasher=PasswordHasher(CHEAPEST), **named)


async def register(auth: Auth, email: str = "ada@example.com") -> Account:
    account = await auth.directory.registration.register(email, PASSWORD, "", client=HOME)
    assert account is not None
    return account


async def test_a_listener_is_called_after_the_commit() -> None:
    """Coroutines and plain functions get the event, which can be read back by then; a plain one runs in a thread."""
    auth, seen, threads = engine(), list[AuditEvent](), list[str]()

    @auth.on("account_created")
    async def read_back(event: AuditEvent) -> None:
        assert await auth.store.account(event.subject) is not None
        seen.append(event)

    @auth.on("account_created", "session_started")
    def plain(event: AuditEvent) -> None:
        threads.append(threading.current_thread().name)

    async with auth:
        account = await register(auth)
        await auth.directory.sign_in.by_password("ada@example.com", PASSWORD, Browser(HOME), mode="session")
    (event,) = seen
    assert (event.name, event.subject, event.actor, event.outcome) == (
        "account_created", account.subject, account.subject, "ok",
    )  # fmt: skip
    assert len(threads) == 2 and all(name.startswith("dutchdoor-application") for name in threads)


async def test_a_lost_race_announces_nothing() -> None:
    """A commit that conflicts wrote no event, and no listener gets one."""
    auth, seen = engine(), list[AuditEvent]()
    auth.on("account_enabled")(seen.append)
    async with auth:
        account = await register(auth)
        record = account_event("account_enabled", account, HOME, 1.0)
        with pytest.raises(Conflict):
            await auth.authority.store.commit(Log(record), Swap(replace(account, revision=9)))
        await auth.authority.store.commit(Log(record))
    assert seen == [record]


async def test_a_failing_or_slow_listener_undoes_and_delays_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """An exception is logged; the verb returns before its listeners do."""
    auth, go = engine(), asyncio.Event()

    @auth.on("account_created")
    async def slow(event: AuditEvent) -> None:
        await go.wait()
        raise RuntimeError("their own mistake")

    async with auth:
        account = await register(auth)
        assert await auth.store.account(account.subject) is not None
        assert "their own mistake" not in caplog.text
        go.set()
    assert "a listener of account_created failed" in caplog.text and "their own mistake" in caplog.text


async def test_listeners_behind_a_slow_one_are_bounded(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calls that pile up are dropped, with a line in the log, before memory fills."""
    monkeypatch.setattr(announcing, "WAITING_AT_MOST", 2)
    auth, go, seen = engine(), asyncio.Event(), list[str]()

    @auth.on("account_created")
    async def slow(event: AuditEvent) -> None:
        await go.wait()
        seen.append(event.subject)

    async with auth:
        for number in range(3):
            await register(auth, f"someone{number}@example.com")
        go.set()
    assert len(seen) == 2
    assert "listeners are too slow: account_created" in caplog.text


def test_every_audit_event_can_be_listened_to() -> None:
    """Each name of the audit log is a name of a hook."""
    auth = engine()
    for name in get_args(EventName):
        auth.on(name)(lambda event: None)
    assert len(auth.authority.hooks.listeners) == len(get_args(EventName))


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (("account_create",), r"auth.on: 'account_create' is not an audit event. Did you mean .account_created.\?"),
        (("log_in",), r"Did you mean .login.\?"),
        ((), r'@auth.on\("account_created"\)'),
        ((print,), r'@auth.on\("account_created"\)'),
    ],
)
def test_a_wrong_event_is_refused_with_the_nearest(names: Any, says: str) -> None:
    """A hook that would never be called is an error when it is written."""
    with pytest.raises(Misconfigured, match=says):
        engine().on(*names)


def test_each_adapter_listens(tmp_path: Path) -> None:
    """`@auth.on` is the same in each adapter; in Flask, it runs in the application's context, after a fork too."""
    seen: list[str] = []
    for made in (
        dutchdoor.fastapi.Auth(FastAPI(), "memory:"),
        dutchdoor.starlette.Auth(Starlette(), "memory:"),
        dutchdoor.litestar.Auth("memory:"),
    ):
        made.on("logout")(lambda event: None)
        assert "logout" in made.engine.authority.hooks.listeners
    app = Flask("shop")
    auth = dutchdoor.flask.Auth(app, "memory:", hasher=PasswordHasher(CHEAPEST))
    auth.on("account_created")(lambda event: seen.append(current_app.name))
    for _ in range(2):
        app.test_client().post("/auth/register", json={"email": "ada@example.com", "password": PASSWORD})
        auth._gate._forked()  # the next process begins here
    auth.close()
    verifying = dutchdoor.starlette.Auth(Starlette(), issuer="http://localhost:1")
    with pytest.raises(Misconfigured, match="only verifies"):
        verifying.on("logout")
    until = time.monotonic() + 60
    while len(seen) < 2 and time.monotonic() < until:
        time.sleep(0.01)
    assert seen == ["shop", "shop"]
