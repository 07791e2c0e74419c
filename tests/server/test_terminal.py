"""What a terminal is shown and a process list has: no secret, and nothing that steers it."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from msgspec.structs import replace
from tests.server.conftest import Run, asynchronously, auth_here, made, sign_in

from dutchdoor.server import cli as cli_module
from dutchdoor.server.commands.serve import serve
from dutchdoor.server.settings import SETTINGS
from dutchdoor.stores.base import Swap

STEERS = "Ada\x9b2J\u202egnp.exe\x1b[2J\N{LANGUAGE TAG}\u2028"


def test_p12_no_name_steers_a_terminal(run: Run) -> None:
    """A name with 7-bit or 8-bit control characters, or characters that reverse the text after them, is printed without
    them: escaped in JSON, so that a program reads the name as it is, and replaced in a table.
    """
    account = made(run)

    async def rename() -> None:
        async with auth_here() as auth:
            found = await auth.store.account(account["id"])
            assert found is not None
            await auth.store.commit(Swap(replace(found, name=STEERS, address=f"{STEERS}@example.com")))

    asyncio.run(rename())
    for words in (
        ("list",),
        ("show", account["id"]),
        ("disable", account["id"], "--no-wait"),
        ("enable", account["id"]),
    ):
        ran = run("user", *words)
        assert ran.code == 0, ran.err
        assert "Ada?2J?gnp.exe?[2J??" in ran.out
        assert all(line.isprintable() for line in ran.out.split("\n"))
    for words in (("list",), ("show", account["id"]), ("enable", account["id"])):
        ran = run("user", *words, "--json")
        assert all(line.isprintable() for line in ran.out.split("\n"))
        (row,) = ran.json if words == ("list",) else (ran.json,)
        assert row["name"] == STEERS


def test_p12_every_command_prints_through_one_place() -> None:
    """No command writes to the terminal but by the functions that take out what steers it."""
    folder = Path(cli_module.__file__).parent
    printing = [
        path.name
        for path in folder.rglob("*.py")
        if re.search(r"click\.s?echo|click\.secho|\bprint\(", path.read_text()) and path.name != "terminal.py"
    ]
    assert printing == []


def test_a_password_is_never_an_argument(run: Run) -> None:
    """No command takes a password or another secret by value: every user of the machine could read it."""
    assert run("user", "create", "a@example.com", "--password", "x" * 20).code == 2
    assert "--password-stdin" in run("user", "create", "a@example.com").err
    assert run("user", "create", "a@example.com", "--password-stdin").code == 2
    options = {option for each in serve.params for option in each.opts}
    assert not options & {setting.option for setting in SETTINGS if setting.kind == "secret"}
    assert {f"{setting.option}-file" for setting in SETTINGS if setting.kind == "secret"} <= options


def test_no_stranger_writes_on_the_terminal(run: Run) -> None:
    """A User-Agent or a name with escape sequences is printed without them."""
    made(run)
    asynchronously(sign_in("ada@example.com"))
    for ran in (run("session", "list", "ada@example.com"), run("audit"), run("user", "show", "ada@example.com")):
        # click drops complete escape sequences where it does not write to a terminal, so others are sent here.
        assert not set(ran.out) & {"\x9b", "\r", "\x07", "\x1b"}
        assert ran.code == 0
