"""Commands that delete expired records and give their space back."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from msgspec.structs import replace
from tests.server.conftest import Run, asynchronously, made, served

from dutchdoor import auth as auths
from dutchdoor.auth import Auth
from dutchdoor.model.audit_events import event
from dutchdoor.model.http_client import Client
from dutchdoor.model.master_key import MasterKey, MasterKeys
from dutchdoor.model.policy import DAY, STANDARD
from dutchdoor.services.delivering import LOOK_EVERY
from dutchdoor.stores.base import Log
from dutchdoor.stores.sqlite import SqliteStore


def with_old_events(count: int, age: float) -> None:
    async def write() -> None:
        store = SqliteStore("dutchdoor.db")
        await store.open()
        old = event("login", now=time.time() - age, client=Client(), detail="x" * 500)
        for first in range(0, count, 100):
            logged = [Log(replace(old, id=f"{number}")) for number in range(first, min(first + 100, count))]
            await store.commit(*logged)
        await store.close()

    asynchronously(write())


def test_p42_a_purge_by_command_keeps_what_the_servers_keep(run: Run) -> None:
    """`purge` deletes audit events by the age that the servers were given, not by a default of its own; it says how
    many, and where no server was it asks for the age.
    """
    made(run)
    with_old_events(3, age=400 * DAY)
    refused = run("purge")
    assert (refused.code, "--max-audit-for" in refused.err) == (2, True)
    served(policy=replace(STANDARD, max_audit_for=1000 * DAY))
    assert run("purge", "--json").json == {"deleted": 0}
    slip = run("purge", "--max-audit-for", "90")
    assert (slip.code, "has no unit, so it counts 90 seconds" in slip.err, "add --yes" in slip.err) == (1, True, True)
    assert "Deleted 3 expired records." in run("purge", "--max-audit-for", "365d").out


def test_p42_a_vacuum_gives_the_space_back(run: Run) -> None:
    """After a purge the file has the size of what is in it, and everything in it is there."""
    account = made(run)
    served()
    with_old_events(2000, age=400 * DAY)
    assert run("purge", "--json").json == {"deleted": 2000}
    sizes = run("vacuum", "--json").json
    assert sizes["bytes_before"] > 500_000
    assert sizes["bytes_after"] == Path("dutchdoor.db").stat().st_size < sizes["bytes_before"] / 3
    assert run("user", "show", "ada@example.com", "--json").json["id"] == account["id"]


def test_p42_a_vacuum_does_not_stop_a_server(run: Run) -> None:
    """Another process that has the file open would have to wait: the command refuses, as it does for PostgreSQL."""
    made(run)

    async def beside() -> None:
        store = SqliteStore("dutchdoor.db")
        await store.open()
        await store.account("somebody")
        ran = await asyncio.to_thread(run, "vacuum")
        assert (ran.code, "Stop all servers" in ran.err) == (1, True)
        await store.close()

    asynchronously(beside())
    ran = run("vacuum", "--database", "postgresql://door@127.0.0.1:1/door")
    assert (ran.code, "autovacuum" in ran.err) == (2, True)


async def test_p42_the_first_purge_is_soon_after_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that lives for less than an hour deletes expired records too: it first does so after a minute. A
    command beside a server never does so by itself.
    """
    waits: list[float] = []
    waited = asyncio.Event()

    async def sleep(seconds: float) -> None:
        if seconds != LOOK_EVERY:  # of webhooks
            waits.append(seconds)
            waited.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(auths.asyncio, "sleep", sleep)
    auth = Auth("memory:", master_key=MasterKeys(MasterKey.generate()))
    async with auth:
        await asyncio.wait_for(waited.wait(), 60)
    assert waits == [60.0]
    await auth.open(upkeep=False)
    for _ in range(3):
        await _turn()
    assert waits == [60.0]
    await auth.close()


async def _turn() -> None:
    loop = asyncio.get_running_loop()
    turned = loop.create_future()
    loop.call_soon(turned.set_result, None)
    await turned
