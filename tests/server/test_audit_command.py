"""`dutchdoor audit`: the log of what happened, and what is added to it."""

from __future__ import annotations

import json
import re
import subprocess
import time

import pytest
from tests.server.conftest import Run, asynchronously, auth_here, made, sign_in
from tests.server.running import clean_environment, command

from dutchdoor.model.audit_events import AuditCursor, AuditEvent, event
from dutchdoor.model.http_client import Client
from dutchdoor.server.commands.audit import audit
from dutchdoor.stores.base import Log


def test_p50_events_are_followed_as_they_are_committed(run: Run) -> None:
    """`audit --follow --json` prints one object a line: what was committed after the cursor that it was given, and what
    is committed meanwhile, each with a cursor to continue from.
    """
    made(run)
    ((first, _),) = asynchronously(_followed(limit=1))
    following = command("audit", "--follow", "--json", "--after", first.text())
    with subprocess.Popen(following, stdout=subprocess.PIPE, text=True, env=clean_environment()) as program:
        assert program.stdout is not None
        asynchronously(sign_in("ada@example.com", "session"))
        events = []
        while "session_started" not in (names := [each["name"] for each in events]):
            events.append(json.loads(program.stdout.readline()))
        program.terminate()
    assert names[0] == "key_created", "account_created is the event of the cursor"
    begin = AuditCursor.parse(events[-2]["cursor"])
    assert [event.name for _, event in asynchronously(_followed(begin))] == ["session_started"]
    for wrong in (("--after", first.text()), ("--follow", "--limit", "3"), ("--follow", "--before", "x")):
        assert run("audit", *wrong).code == 2
    assert "no cursor" in run("audit", "--follow", "--after", "x").err


async def _followed(cursor: AuditCursor | None = None, limit: int = 100) -> list[tuple[AuditCursor, AuditEvent]]:
    async with auth_here() as auth:
        return await auth.store.events_after(cursor, limit=limit)


def test_p16_the_examples_of_audit_find_something(run: Run) -> None:
    """The event that the help of `audit` names as an example is there after a person has signed in."""
    made(run)
    asynchronously(sign_in("ada@example.com", "session"))
    (name,) = re.findall(r"--name (\w+)", audit.epilog or "")
    assert [each["name"] for each in run("audit", "--name", name, "--since", "1d", "--json").json] == [name]
    assert run("audit", "--user", "ada@example.com", "--json").json


def test_p50_every_event_is_exported_page_by_page(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """`audit --all` prints every event that matches, one a line, from however many pages, and a list that is not whole
    says that there may be more.
    """
    monkeypatch.setattr("dutchdoor.server.commands.audit.PAGE", 3)
    made(run)
    events = [event("login", now=time.time(), client=Client(), subject=f"s{number}") for number in range(8)]
    asynchronously(_committed(*events))
    whole = [json.loads(line) for line in run("audit", "--all", "--json").out.splitlines()]
    assert [each["id"] for each in whole] == [each["id"] for each in run("audit", "--json").json]
    assert len(whole) > len(events)
    assert len(run("audit", "--all", "--name", "login", "--since", "1h").out.splitlines()) == len(events)
    rest = run("audit", "--all", "--json", "--before", whole[4]["id"]).out.splitlines()
    assert [json.loads(line) for line in rest] == whole[5:]
    for form in ((), ("--json",)):
        assert "--all" in run("audit", "--limit", "4", *form).err
    assert not run("audit", *form).err
    for wrong in (("--limit", "4"), ("--follow",)):
        assert run("audit", "--all", *wrong).code == 2
    assert "'sesion_started'. Did you mean session_started?" in run("audit", "--name", "sesion_started").err
    assert "It takes account_created, " in run("audit", "--name", "xyzzy").err
    assert "'x' is none" in run("audit", "--before", "x").err


async def _committed(*events: AuditEvent) -> None:
    async with auth_here() as auth:
        await auth.store.commit(*map(Log, events))
