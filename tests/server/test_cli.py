"""The command line: what it prints, what it writes into the store, and how it ends."""

from __future__ import annotations

import asyncio
import csv
import hashlib
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bcrypt
import click
import pytest
from msgspec.structs import replace
from tests.server.conftest import PASSWORD, Run, asynchronously, auth_here, empty, made, served
from tests.server.running import clean_environment, command, running
from tests.stores.test_new_kind import WITH_BADGES

from dutchdoor.auth import Auth
from dutchdoor.credentials.strength import BreachedList
from dutchdoor.errors import InvalidToken, Misconfigured, NotAuthenticated, WrongCredentials
from dutchdoor.model.accounts import Credential
from dutchdoor.model.audit_events import AuditCursor, AuditEvent
from dutchdoor.model.http_client import Client, Device
from dutchdoor.model.ids import new_id
from dutchdoor.model.master_key import MasterKey
from dutchdoor.revocation.node_messages import NodeRow
from dutchdoor.server import cli as cli_module
from dutchdoor.server import options
from dutchdoor.server.cli import cli
from dutchdoor.server.commands import session as session_commands
from dutchdoor.server.commands.audit import audit
from dutchdoor.server.commands.serve import serve
from dutchdoor.server.options import say_fence
from dutchdoor.server.settings import SETTINGS
from dutchdoor.services import endings
from dutchdoor.services.browser import Browser
from dutchdoor.stores.base import Store, Swap
from dutchdoor.stores.postgres import PostgresStore
from dutchdoor.stores.sqlite import SqliteStore
from dutchdoor.stores.urls import make_store
from dutchdoor.web.schemas import Fence


def test_c12_the_first_administrator_by_command(run: Run) -> None:
    """C12: there is no account until a command creates one, and the role is given by name."""
    account = made(run, "Ada@Example.com", "--role", "admin", "--name", "Ada")
    assert account["roles"] == ["admin"]
    listed = run("user", "list", "--json").json
    assert [(each["email"], each["name"], each["status"]) for each in listed] == [("Ada@example.com", "Ada", "active")]
    table = run("user", "list").out.splitlines()
    assert table[0].split() == ["EMAIL", "NAME", "ROLES", "STATUS", "VERIFIED", "CREATED", "ID"]
    assert "Ada@example.com" in table[1]
    shown = run("user", "show", "ADA@example.com", "--json").json
    assert (shown["id"], shown["password"], shown["sessions"]) == (account["id"], True, [])
    assert "No session is live." in run("user", "show", account["id"]).out


def test_p50_events_are_followed_as_they_are_committed(run: Run) -> None:
    """`audit --follow --json` prints one object a line: what was committed after the cursor that it was given, and what
    is committed meanwhile, each with a cursor to continue from.
    """
    made(run)
    ((first, _),) = asynchronously(_followed(limit=1))
    following = command("audit", "--follow", "--json", "--after", first.text())
    with subprocess.Popen(following, stdout=subprocess.PIPE, text=True, env=clean_environment()) as program:
        assert program.stdout is not None
        asynchronously(_sign_in("ada@example.com", "session"))
        told = []
        while "session_started" not in (names := [each["name"] for each in told]):
            told.append(json.loads(program.stdout.readline()))
        program.terminate()
    assert names[0] == "key_created", "account_created is the event of the cursor"
    begin = AuditCursor.parse(told[-2]["cursor"])
    assert [event.name for _, event in asynchronously(_followed(begin))] == ["session_started"]
    for wrong in (("--after", first.text()), ("--follow", "--limit", "3"), ("--follow", "--before", "x")):
        assert run("audit", *wrong).code == 2
    assert "no cursor" in run("audit", "--follow", "--after", "x").err


async def _followed(cursor: AuditCursor | None = None, limit: int = 100) -> list[tuple[AuditCursor, AuditEvent]]:
    async with auth_here() as auth:
        return await auth.store.events_after(cursor, limit=limit)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("key", "revoke", "nope"), "There is no key 'nope'."),
        (("session", "end", "--all", "--database", "sqlite:///none.db"), "There is no database none.db"),
        (("restored", "--database", "sqlite:///none.db"), "There is no database none.db"),
        (("restored", "--database", "postgresql://door@127.0.0.1:1/door"), "PostgreSQL at 127.0.0.1:1"),
        (("session", "end", "--all", "--database", "postgresql://door@127.0.0.1:1/door"), "PostgreSQL at 127.0.0.1:1"),
    ],
)
def test_p16_a_command_looks_before_it_asks(run: Run, arguments: tuple[str, ...], says: str) -> None:
    """Where there is nothing that a command could do anything to, it says so and asks nothing."""
    empty()
    ran = run(*arguments)
    assert ran.code != 0
    assert says in ran.err
    assert "?" not in ran.err
    assert not Path("none.db").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("user", "create", "ada@example.com"), "already an account"),
        (("user", "create", "ADA@example.com", "--role", "admin"), "already an account"),
        (("user", "create", "ada"), "address"),
        (("user", "create", "new@example.com", "--role", "two words"), "A role is"),
        (("user", "create", "new@example.com", "--database", "postgresql://door@127.0.0.1:1/door"), "127.0.0.1:1"),
        (("token", "verify", "--database", "sqlite:///none.db"), "There is no database none.db"),
    ],
)
def test_p16_a_command_looks_before_it_asks_for_a_secret(
    run: Run, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], says: str
) -> None:
    """An address that is taken or not valid, a role that is not valid, or a database that is not there is reported
    before a person types a password or a token.
    """

    def asked(*_: object, **__: object) -> str:
        raise AssertionError("the command asked before it looked")

    made(run)
    monkeypatch.setattr(click, "prompt", asked)
    ran = run(*arguments, terminal=True)
    assert ran.code != 0
    assert says in ran.err


def test_p16_the_examples_of_audit_find_something(run: Run) -> None:
    """The event that the help of `audit` names as an example is there after a person has signed in."""
    made(run)
    asynchronously(_sign_in("ada@example.com", "session"))
    (name,) = re.findall(r"--name (\w+)", audit.epilog or "")
    assert [each["name"] for each in run("audit", "--name", name, "--since", "1d", "--json").json] == [name]
    assert run("audit", "--user", "ada@example.com", "--json").json


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


@pytest.mark.parametrize(
    ("arguments", "text", "says"),
    [
        (("user", "create", "no address", "--password-stdin"), PASSWORD, "@"),
        (("user", "create", "a@example.com", "--password-stdin"), "password1", "password"),
        (("user", "create", "a@example.com", "--password-stdin", "--role", "two words"), PASSWORD, "role"),
        (("user", "show", "nobody@example.com"), "", "nobody@example.com"),
        (("user", "disable", "nobody"), "", "no account"),
        (("session", "list", "nobody@example.com"), "", "no account"),
        (("session", "end", "abc"), "", "no session"),
        (("key", "revoke", "abc", "--yes"), "", "no key"),
        (("key", "revoke", "-6ig2oXh0mUeYq2k7dPr1tVbNc4sLw8zJf5xGa9oRiE", "--yes"), "", "no key"),
        (("key", "export"), "", "never leaves"),
        (("key", "export", "abc"), "", "no key"),
        (("client", "remove", "abc"), "", "no client"),
        (("client", "rotate", "abc"), "", "no client"),
        (("client", "add", " "), "", "empty"),
        (("verifier", "remove", "abc"), "", "no verifier"),
        (("verifier", "rotate", "abc"), "", "no verifier"),
        (("import", "nothing.csv"), "", "cannot be read"),
        (("token", "inspect", "--jwks", "nothing.json", "a.b.c"), "", "cannot be read"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(run: Run, arguments: tuple[str, ...], text: str, says: str) -> None:
    """A mistake ends with exit code 1 and one line that names it; never with a traceback."""
    served()
    ran = run(*arguments, text=text)
    assert ran.code == 1
    assert says in ran.err
    assert len(ran.err.splitlines()) == 1
    assert ran.out == ""


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("user", "list"), "There is no database dutchdoor.db"),
        (("user", "list", "--database", "memory:"), "memory:"),
        (("user", "list", "--database", "mysql://u@h/d"), "no store"),
        (("user", "list", "--database", "postgresql://u:canary@h/d"), "DUTCHDOOR_DATABASE"),
        (("user", "role", "ada@example.com"), "--none"),
        (("session", "end"), "--user"),
        (("session", "end", "abc", "--all", "--yes"), "--all"),
        (("audit", "--name", "nonsense"), "no event"),
        (("audit", "--since", "yesterday"), "duration"),
        (("migrate", "--to", "postgresql://u@h/d"), "--from"),
        (("migrate", "--to", "postgresql://u:canary@h/d"), "DUTCHDOOR_MOVE_TO"),
        (("migrate", "--from", "postgresql://u:canary@h/d", "--to", "sqlite:///x.db"), "DUTCHDOOR_MOVE_FROM"),
        (("serve", "--config", "none.toml"), "none.toml"),
        (("serve", "--nonsense"), "--nonsense"),
        (("nonsense",), "nonsense"),
    ],
)
def test_wrong_usage_and_refused_configuration_end_with_2(run: Run, arguments: tuple[str, ...], says: str) -> None:
    """Exit code 2: nothing was done, and what to change is named. No password of an address is repeated."""
    ran = run(*arguments)
    assert ran.code == 2
    assert says in ran.err
    assert "canary" not in ran.err
    assert not Path("dutchdoor.db").exists()


def test_another_master_key_is_refused_in_words(run: Run) -> None:
    """A database opened with a master key that is not its own says so, and is left as it was."""
    served()
    other = MasterKey.generate().text()
    before = run("key", "list", "--json").out
    ran = run("key", "rotate", environment={"DUTCHDOOR_MASTER_KEY": other})
    assert ran.code == 2
    assert "All nodes need the same master key" in ran.err
    assert run("key", "list", "--json", environment={"DUTCHDOOR_MASTER_KEY": other}).out == before
    assert other not in ran.err


def test_a_database_without_its_master_key_gets_no_new_one(run: Run) -> None:
    """From another directory the key file is not found: that is said, and no useless key is left there, not even by a
    command or a server that may create one.
    """
    served()
    Path("dutchdoor.keys").rename("elsewhere.keys")
    for words in (("user", "list"), ("user", "create", "a@example.com", "--password-stdin")):
        ran = run(*words, text=f"{PASSWORD}\n")
        assert ran.code == 2
        assert "no master key file dutchdoor.keys" in ran.err
        assert not Path("dutchdoor.keys").exists()
    with pytest.raises(Misconfigured, match=r"no master key file dutchdoor\.keys"):
        served()
    assert not Path("dutchdoor.keys").exists()
    assert run("user", "list", "--master-key-file", "elsewhere.keys").code == 0


FOX = Client(devices=Device(name="Fox\x9b2J\r\x07"))


async def _sign_in(email: str, mode: Any = "session") -> str:
    async with auth_here() as auth:
        signed_in, _ = await auth.directory.sign_in.by_password(email, PASSWORD, Browser(FOX), mode=mode)
        return signed_in.session_token or signed_in.access_token


async def _is_live(token: str) -> bool:
    async with auth_here() as auth:
        try:
            await auth.authority.resume(token)
        except NotAuthenticated:
            return False
        return True


def test_sessions_are_listed_and_ended(run: Run) -> None:
    """A session ended by command is dead, by its id or with all of its account's; a mistyped id ends none."""
    made(run)
    tokens = [asynchronously(_sign_in("ada@example.com")) for _ in range(3)]
    listed = run("session", "list", "ada@example.com", "--json").json
    assert len(listed) == 3
    first = listed[-1]["id"]
    assert run("session", "end", first, "mistyped").code == 1
    assert asynchronously(_is_live(tokens[0]))
    assert run("session", "end", first, "--json").json == {"ended": 1, "fenced": True, "fenced_in_ms": 0}
    assert not asynchronously(_is_live(tokens[0]))
    fenced = "Fenced: every server, and every verifier that follows the revocation log, refuses it now.\n"
    assert run("session", "end", first).out == "Revoked 0 sessions.\n" + fenced
    assert run("session", "end", "--user", "ada@example.com").out == "Revoked 2 sessions.\n" + fenced
    assert not asynchronously(_is_live(tokens[2]))
    events = run("audit", "--user", "ada@example.com", "--name", "session_ended", "--json").json
    assert {event["actor"] for event in events} == {"cli"}


def test_c05_a_breached_password_is_refused_by_setting(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a list of breached passwords named by a setting, none of them is taken; without one, the same one is. A list
    that is not there stops the start.
    """
    leaked = "tuba glow mango 5"
    listed = tmp_path / "breached.txt"
    listed.write_text(hashlib.sha1(leaked.encode()).hexdigest().upper() + ":7\n")
    monkeypatch.setenv("DUTCHDOOR_BREACHED", str(listed))
    refused = run("user", "create", "ada@example.com", "--password-stdin", text=leaked)
    assert (refused.code, "leak" in refused.err) == (1, True)
    monkeypatch.delenv("DUTCHDOOR_BREACHED")
    assert run("user", "create", "ada@example.com", "--password-stdin", text=leaked).code == 0
    served(breached=BreachedList(listed))
    beside = run("user", "create", "bob@example.com", "--password-stdin", text=leaked)
    assert (beside.code, "leak" in beside.err) == (1, True), "a command has the list of the servers"
    listed.rename(tmp_path / "away.txt")
    away = run("user", "create", "bob@example.com", "--password-stdin", text=leaked)
    assert (away.code, str(listed) in away.err, "--breached FILE" in away.err) == (2, True, True)
    assert run("user", "list").code == 0, "only a command that takes a password needs the list"
    monkeypatch.setenv("DUTCHDOOR_BREACHED", str(tmp_path / "none.txt"))
    stopped = run("user", "list")
    assert (stopped.code, "breached" in stopped.err) == (2, True)


def test_s29_everything_is_ended_after_a_yes(run: Run) -> None:
    """Everything of every account is ended by one command, which asks first: without a yes nothing is."""
    made(run)
    tokens = [asynchronously(_sign_in("ada@example.com")) for _ in range(2)]
    refused = run("session", "end", "--all")
    assert refused.code == 1
    assert "--yes" in refused.err
    assert asynchronously(_is_live(tokens[0]))
    fenced = "Fenced: every server, and every verifier that follows the revocation log, refuses it now.\n"
    assert run("session", "end", "--all", "--yes").out == "Revoked 2 sessions.\n" + fenced
    assert not any(asynchronously(_is_live(token)) for token in tokens)


def test_s29_ending_everything_says_how_far_it_is(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command that ends everything of many accounts says on standard error how many are done, while it runs."""
    for name in ("ada", "bob", "cleo"):
        made(run, f"{name}@example.com")
    monkeypatch.setattr(endings, "ENDED_AT_ONCE", 2)
    assert "so far" not in run("session", "end", "--all", "--yes").err
    monkeypatch.setattr(session_commands, "REPORT_EVERY", 0.0)
    assert run("session", "end", "--all", "--yes").err == "2 accounts so far\n3 accounts so far\n"


def test_every_revoking_command_says_whether_it_is_fenced(run: Run) -> None:
    """Without a follower, each is fenced when it returns, in words and in JSON; --no-wait does not ask twice."""
    made(run)
    served()
    kid = run("key", "list", "--json").json[0]["kid"]
    for arguments in (
        ("session", "end", "--user", "ada@example.com"),
        ("session", "end", "--all", "--yes"),
        ("user", "role", "ada@example.com", "editor"),
        ("user", "disable", "ada@example.com"),
        ("key", "revoke", kid, "--yes"),
    ):
        ran = run(*arguments, "--json")
        assert (ran.code, ran.json["fenced"], ran.json["fenced_in_ms"]) == (0, True, 0), arguments
        assert run(*arguments, "--no-wait").out.splitlines()[-1].startswith("Fenced: "), arguments


def test_a_fence_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    """Fenced; not yet, with the time; and lost, with what to do."""

    def said(**fenced: Any) -> str:
        say_fence(Fence(**fenced))
        return capsys.readouterr().out

    assert said(fenced=True, fenced_in_ms=0).startswith("Fenced: every server, and every verifier")
    assert said(fenced=False, fenced_in_ms=9871) == "Not fenced yet: it takes at most 9.9 s.\n"
    assert "Run the command again" in said(fenced=False, fenced_in_ms=None)


def test_verifier_keys_are_made_listed_and_removed(run: Run) -> None:
    """A key is printed once and stored as a hash; its name is unique and is what metrics call it; removed, it is gone,
    and the log says so.
    """
    ran = run("verifier", "add", "orders", "--json")
    assert "Created the database dutchdoor.db" in ran.err, "in a wrong directory that is worth knowing"
    key = ran.json["key"]
    assert key.startswith("ddv1_")
    told = run("verifier", "add", "billing").err
    assert "shown only once" in told
    assert "no database" not in told
    for path in Path().iterdir():
        assert key.encode() not in path.read_bytes()
    again = run("verifier", "add", "orders")
    assert (again.code, "already" in again.err) == (1, True)
    listed = run("verifier", "list", "--json").json
    assert [each["name"] for each in listed["verifiers"]] == ["billing", "orders"]
    assert (listed["log"], listed["nodes"]) == ({"epoch": 1, "seq": 0}, [])
    table = run("verifier", "list").out
    assert table.split()[:3] == ["NAME", "CREATED", "ID"]
    assert "There are no server processes with rows" in table
    anew = run("verifier", "rotate", "billing", "--json").json
    assert (anew["name"], anew["key"][:5], anew["fenced"]) == ("billing", "ddv1_", True)
    assert run("verifier", "list", "--json").json["log"]["seq"] == 1
    removed = run("verifier", "remove", "orders", "--json").json
    assert removed == {"name": "orders", "removed": True, "fenced": True, "fenced_in_ms": 0}
    assert [each["name"] for each in run("verifier", "list", "--json").json["verifiers"]] == ["billing"]
    assert run("verifier", "list", "--json").json["log"]["seq"] == 2
    assert run("verifier", "remove", "orders").code == 1
    assert run("verifier", "add", "orders").code == 0
    names = [event["name"] for event in run("audit", "--json").json]
    assert names.count("verifier_added") == 3
    assert names.count("verifier_removed") == 1


@pytest.mark.parametrize("name", ["two words", "", "x" * 65, "naïve", 'a"b', "a\n"])
def test_a_verifiers_name_is_a_word(run: Run, name: str) -> None:
    """It stands in metrics and in the rows of nodes."""
    ran = run("verifier", "add", name)
    assert (ran.code, "letters, digits" in ran.err) == (1, True)
    assert not Path("dutchdoor.db").exists()


def test_nodes_are_listed_with_how_far_they_are(run: Run) -> None:
    """The rows of the server's processes: how far behind, and which lease."""
    made(run)
    assert run("session", "end", "--user", "ada@example.com").code == 0

    async def register() -> None:
        async with auth_here() as auth:
            for number, (epoch, acked) in enumerate(((1, 0), (7, 1))):
                row = NodeRow(id=f"{number}" * 22, stamp="A" * 22, log_epoch=epoch, acked_seq=acked, lease_for=10.0)
                await auth.store.node_register(row)

    asynchronously(register())
    nodes = run("verifier", "list", "--json").json["nodes"]
    assert [(node["behind"], node["lease_s"]) for node in nodes] == [(1, 10.0), (None, 10.0)]
    table = run("verifier", "list").out.splitlines()
    assert table[-2].split() == ["0" * 22, "1", "10", "s"]
    assert table[-1].split()[1:] == ["in", "another", "log", "10", "s"]


def test_after_a_restore_a_new_log_begins(run: Run) -> None:
    """It is done when the administrator agrees, and says what it means; the log is another, and every account's epoch
    is above any that was given out.
    """
    made(run)
    asked = run("restored")
    assert (asked.code, "Was this database restored?" in asked.err) == (1, True)
    assert run("verifier", "list", "--json").json["log"]["epoch"] == 1
    epoch = run("restored", "--yes", "--json").json["log_epoch"]
    assert epoch > 1_700_000_000_000
    assert run("verifier", "list", "--json").json["log"]["epoch"] == epoch
    assert "Revoke again everything that was revoked" in run("restored", "--yes").out

    async def epochs() -> list[int]:
        async with auth_here() as auth:
            return [account.epoch for account in await auth.store.accounts()]

    assert min(asynchronously(epochs())) >= epoch
    assert run("audit", "--name", "log_begun", "--json").json[0]["actor"] == "cli"


@pytest.mark.parametrize("told", ["by the operator", "by a row in the backup", "by the settings of the servers"])
def test_after_a_restore_every_command_waits_for_the_leases_from_before(run: Run, told: str) -> None:
    """Verifiers may hold leases that the lost servers granted. A command waits for them, though its own setting has
    another lease: what it calls fenced is refused by every verifier.
    """
    made(run)

    async def register() -> None:
        async with auth_here() as auth:
            await auth.store.node_register(
                NodeRow(id="0" * 22, stamp="A" * 22, log_epoch=1, acked_seq=0, lease_for=60.0)
            )

    if told == "by a row in the backup":
        asynchronously(register())
    if told == "by the settings of the servers":
        served(lease=60.0)
    options = ("--lease", "60s") if told == "by the operator" else ()
    assert run("restored", "--yes", *options).code == 0
    ended = run("session", "end", "--user", "ada@example.com", "--no-wait", "--json").json
    assert not ended["fenced"]
    assert ended["fenced_in_ms"] > 60_000
    (row,) = run("verifier", "list", "--json").json["nodes"]
    assert row["lease_s"] == 60.0


def test_no_stranger_writes_on_the_terminal(run: Run) -> None:
    """A User-Agent or a name with escape sequences is printed without them."""
    made(run)
    asynchronously(_sign_in("ada@example.com"))
    for ran in (run("session", "list", "ada@example.com"), run("audit"), run("user", "show", "ada@example.com")):
        # click drops complete escape sequences where it does not write to a terminal, so others are sent here.
        assert not set(ran.out) & {"\x9b", "\r", "\x07", "\x1b"}
        assert ran.code == 0


def test_disabling_ends_everything_and_enabling_brings_nothing_back(run: Run) -> None:
    """S07: a disabled account is out at once; enabled again, it has to sign in again."""
    made(run)
    token = asynchronously(_sign_in("ada@example.com"))
    assert "1 session revoked" in run("user", "disable", "ada@example.com").out
    assert not asynchronously(_is_live(token))
    with pytest.raises(WrongCredentials):
        asynchronously(_sign_in("ada@example.com"))
    assert run("user", "enable", "ada@example.com").code == 0
    assert not asynchronously(_is_live(token))
    assert asynchronously(_sign_in("ada@example.com"))


def test_a22_an_account_is_erased_by_a_command(run: Run) -> None:
    """A22: `user delete` asks first, and erases the account at once; `user show` says when one is to be erased."""
    made(run)
    token = asynchronously(_sign_in("ada@example.com"))
    asked = run("user", "delete", "ada@example.com")
    assert asked.code == 2 and "--yes" in asked.err
    assert run("user", "show", "ada@example.com", "--json").json["erased_at"] is None
    ran = run("user", "delete", "ada@example.com", "--yes")
    assert ran.code == 0 and "ada@example.com is erased; 1 session revoked" in ran.out
    assert not asynchronously(_is_live(token))
    assert run("user", "show", "ada@example.com").code != 0
    made(run)
    asynchronously(_delete("ada@example.com"))
    assert "deleted, to be erased at 20" in run("user", "show", "ada@example.com").out
    assert run("user", "enable", "ada@example.com").code == 0
    assert run("user", "show", "ada@example.com", "--json").json["erased_at"] is None


async def _delete(email: str) -> None:
    async with auth_here() as auth:
        account = await auth.store.account_by_email(email)
        assert account is not None
        await auth.directory.deletion.ask(account.subject, client=FOX)


def test_a04_no_command_removes_the_last_administrator(run: Run) -> None:
    """`user role`, `user disable` and `user delete` refuse what would leave no administrator, and name the reason."""
    made(run, "ada@example.com", "--role", "admin")
    for arguments in (
        ("user", "role", "ada@example.com", "--none"),
        ("user", "disable", "ada@example.com"),
        ("user", "delete", "ada@example.com", "--yes"),
    ):
        ran = run(*arguments)
        assert ran.code != 0
        assert "last administrator" in ran.err
    assert run("user", "show", "ada@example.com", "--json").json["roles"] == ["admin"]


def test_roles_are_set_and_not_added(run: Run) -> None:
    """`user role` gives exactly the roles it names."""
    made(run, "root@example.com", "--role", "admin")
    made(run, "ada@example.com", "--role", "admin")
    assert run("user", "role", "ada@example.com", "editor", "author", "--json").json["roles"] == ["author", "editor"]
    assert "none" in run("user", "role", "ada@example.com", "--none").out


def test_a_reset_goes_to_the_mailbox_and_to_no_one_else(run: Run) -> None:
    """C17: the command starts a reset; the link is in the mail, not in what the command prints."""
    made(run)
    ran = run("user", "reset", "ada@example.com", "--mail", "file:outbox")
    assert ran.code == 0
    assert "ddo1_" not in ran.out + ran.err
    (letter,) = Path("outbox").glob("*.eml")
    assert "auth/reset#ddo1_" in letter.read_text().replace("=\n", "").replace("=5F", "_")


def test_a_clients_secret_is_printed_once(run: Run) -> None:
    """What is kept of it is a hash; removed, the client is gone."""
    added = run("client", "add", "orders", "--json").json
    assert added["client_secret"].startswith("ddc1_")
    listed = run("client", "list", "--json").json
    assert [(each["client_id"], each["confidential"]) for each in listed] == [(added["client_id"], True)]
    assert added["client_secret"].encode() not in Path("dutchdoor.db").read_bytes()
    assert run("client", "add", "app", "--public", "--json").json["client_secret"] is None
    anew = run("client", "rotate", added["client_id"])
    assert (added["client_id"] in anew.out, "ddc1_" in anew.out, "shown only once" in anew.err) == (True, True, True)
    assert added["client_secret"] not in anew.out
    removed = run("client", "remove", added["client_id"], "--json").json
    assert removed == {"client_id": added["client_id"], "removed": True, "fenced": True, "fenced_in_ms": 0}
    told = [event["name"] for event in run("audit", "--json").json]
    assert [told.count(name) for name in ("client_added", "client_secret_changed", "client_removed")] == [2, 1, 1]


def test_keys_rotate_and_die(run: Run) -> None:
    """A new key is published before it signs; a killed one is refused, and only after a question."""
    made(run)
    served()
    assert run("key", "rotate", "--json").json["state"] == "upcoming"
    first, second = run("key", "list", "--json").json
    assert (first["state"], second["state"]) == ("signing", "upcoming")
    token = asynchronously(_sign_in("ada@example.com", "jwt"))
    assert run("token", "verify", token).code == 0
    refused = run("key", "revoke", first["kid"])
    assert (refused.code, "nothing was changed" in refused.err, "--yes" in refused.err) == (1, True, True)
    assert run("key", "revoke", first["kid"], "--yes").code == 0
    assert run("token", "verify", text=token).code == 1
    states = {each["kid"]: each["state"] for each in run("key", "list", "--json").json}
    assert states[first["kid"]] == "revoked"


def test_an_hs256_secret_is_handed_out_once_and_is_then_no_longer_ours(run: Run) -> None:
    """A service that verifies with it could issue tokens for an administrator, so this server's API accepts nothing
    signed with it.
    """
    made(run, "ada@example.com")
    settings = {"DUTCHDOOR_ALG": "HS256", "DUTCHDOOR_DATABASE": "sqlite:///hs.db"}
    assert run("user", "create", "ada@example.com", "--password-stdin", text=PASSWORD, environment=settings).code == 0

    async def token() -> str:
        async with Auth("sqlite:///hs.db", master_key="dutchdoor.keys", alg="HS256") as auth:
            signed_in, _ = await auth.directory.sign_in.by_password(
                "ada@example.com", PASSWORD, Browser(Client()), mode="jwt"
            )
            await auth.authority.verify(signed_in.access_token)
            return signed_in.access_token

    minted = asynchronously(token())
    exported = run("key", "export", "--json", environment=settings)
    assert exported.json["kty"] == "oct"
    assert len(exported.json["k"]) >= 43

    async def refused() -> None:
        async with Auth("sqlite:///hs.db", master_key="dutchdoor.keys", alg="HS256") as auth:
            await auth.authority.verify(minted)

    with pytest.raises(InvalidToken):
        asynchronously(refused())
    again = run("key", "export", environment=settings)
    assert again.code == 1
    assert "was exported" in again.err
    assert run("audit", "--name", "key_exported", "--json", environment=settings).json[0]["actor"] == "cli"


def test_a_fresh_master_key_is_one(run: Run) -> None:
    """`key master` prints what `--master-key-file` reads, and another each time."""
    first, second = run("key", "master").out, run("key", "master").out
    assert first != second
    assert MasterKey.parse(first).id != MasterKey.parse(second).id


def test_migrate_says_what_is_there(run: Run) -> None:
    """The schema is made or brought up to date, and the rows are counted."""
    empty()
    assert run("migrate", "--json").json["up_to_date"] is True
    made(run)
    assert run("migrate", "--json").json["rows"]["accounts"] == 1
    assert "The schema is up to date." in run("migrate").out


def changing(command: click.Command, *path: str) -> Iterator[tuple[tuple[str, ...], list[str]]]:
    """Every command with a database, each with as many arguments as it needs."""
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from changing(inner, *path, name)
    elif path != ("serve",) and any(each.name == "database" for each in command.params):
        needed = [each for each in command.params if isinstance(each, click.Argument) and each.required]
        yield (
            path,
            [each.type.choices[0] if isinstance(each.type, click.Choice) else "x@example.com" for each in needed],
        )


MAKING = {("user", "create"), ("client", "add"), ("verifier", "add"), ("import",)}
"""Commands that may come before the first server."""
ASKING_NONE = {("check",), ("estimate",)}
"""Commands that are given the name of a database, and open none."""


def test_p40_no_command_creates_a_database_by_a_wrong_path(run: Run) -> None:
    """Without --database, a command in the wrong directory finds no database. It says so, and creates none."""
    for path, arguments in changing(cli):
        if path in MAKING or path in ASKING_NONE:
            continue
        more = {
            ("session", "end"): ["--all"],
            ("user", "role"): ["admin"],
            ("webhook", "replay"): ["--since", "1h"],
        }.get(path, ())
        ran = run(*path, *arguments, *more, text="a.b.c\n")
        assert ran.code == 2, path
        assert "There is no database dutchdoor.db (the default). Name that of the servers with --config" in ran.err, (
            path
        )
        assert list(Path().iterdir()) == [], path


def test_p40_a_command_says_what_it_creates(run: Run) -> None:
    """The commands that may come before the first server create the database and the master key, and say both, also if
    what they were asked for is refused then.
    """
    weak = run("user", "create", "a@example.com", "--password-stdin", text="password1\n")
    assert weak.code == 1
    assert weak.err.startswith(
        "Created the database dutchdoor.db (the default).\nCreated the master key file dutchdoor.keys"
    )
    assert "Created" not in run("client", "add", "orders").err
    elsewhere = ("--database", "sqlite:///other.db", "--master-key-file", "other.keys")
    told = run("verifier", "add", "orders", *elsewhere).err
    assert "Created the database other.db (--database)." in told
    assert "Created the master key file other.keys (--master-key-file). The servers need the same file." in told


@pytest.mark.parametrize("place", ["sqlite", "postgres"])
def test_p40_a_newer_program_lists_nothing_and_writes_nothing(
    run: Run, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, place: str
) -> None:
    """A command of a newer version does not migrate the database beside older servers: it says what to do, and
    `migrate` does it. In an empty database a command that lists creates no table.
    """
    if place == "postgres":
        monkeypatch.setenv("DUTCHDOOR_DATABASE", request.getfixturevalue("postgres_url"))
        nothing = run("user", "list")
        assert (nothing.code, "there is nothing of dutchdoor here" in nothing.err) == (2, True)
        assert run("user", "list").err == nothing.err, "it created no table"
        assert "Created the tables of dutchdoor in the database (DUTCHDOOR_DATABASE)." in run("client", "add", "a").err
    made(run)
    monkeypatch.setattr(options, "make_store", _of_a_newer_program)
    for words in (("user", "list"), ("key", "list"), ("audit",), ("user", "show", "ada@example.com"), ("purge",)):
        told = run(*words)
        assert told.code == 2, words
        assert "is older than this program: it has not had" in told.err
        assert "run `dutchdoor migrate`" in told.err
    assert run("user", "create", "b@example.com", "--password-stdin", text=PASSWORD).code == 2
    monkeypatch.setattr(options, "make_store", make_store)
    assert run("user", "list").code == 0, "the older program goes on"
    monkeypatch.setattr(options, "make_store", _of_a_newer_program)
    assert run("migrate", "--json").json["rows"]["badges"] == 0
    assert run("user", "list").code == 0


def _of_a_newer_program(url: str) -> Store:
    if url.startswith("sqlite"):
        return SqliteStore(url.removeprefix("sqlite:///"), kinds=WITH_BADGES)
    return PostgresStore(url, kinds=WITH_BADGES)


def test_a12_restored_says_that_a_server_runs(run: Run, tmp_path: Path) -> None:
    """`restored` beside a running server says so, and says nothing where no other process has the database open."""
    with running(tmp_path):
        told = run("restored", "--yes")
        assert (told.code, "Another process has this database open, perhaps a server." in told.err) == (0, True)
    assert run("restored", "--yes").err == ""


def test_p40_a_rehearsed_import_creates_nothing(run: Run) -> None:
    """`import --dry-run` takes and refuses the same lines as the import, says what that would create, and creates
    nothing; the import then says that it created it.
    """
    Path("users.csv").write_text("email\nada@example.com\nno address\n")
    before = set(Path().iterdir())
    dry = run("import", "users.csv", "--dry-run")
    assert (dry.code, "1 would be imported, 0 already existed, 1 refused" in dry.out) == (1, True)
    assert (
        "This would create the database dutchdoor.db (the default), and the master key file dutchdoor.keys." in dry.err
    )
    assert set(Path().iterdir()) == before
    real = run("import", "users.csv")
    assert (real.code, "1 imported, 0 already existed, 1 refused" in real.out) == (1, True)
    assert "Created the database dutchdoor.db" in real.err
    assert "Created the master key file dutchdoor.keys" in real.err
    assert "create" not in run("import", "users.csv", "--dry-run").err


def test_token_inspect_needs_no_server(run: Run) -> None:
    """A token is looked into where there is nothing but the token; rubbish is refused with exit code 1."""
    made(run)
    token = asynchronously(_sign_in("ada@example.com", "jwt"))
    assert run("token", "inspect", token).code == 0
    assert token.rpartition(".")[2] not in run("token", "inspect", token).out
    assert run("token", "inspect", text="not.a.token").code == 1
    assert run("token", "inspect", text="").code == 2


# --- import ----------------------------------------------------------------------------------------------------------

BCRYPT = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()


def test_import_takes_hashes_and_the_first_log_in_upgrades_them(run: Run, tmp_path: Path) -> None:
    """C08: an account comes with the hash it had, signs in with the password it had, and has our hash after."""
    with (tmp_path / "users.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["email", "password_hash", "name", "roles", "verified"])
        rows.writerow(["Ada@Example.com", BCRYPT, "Ada, Countess", "editor author", "true"])
        rows.writerow(["grace@example.com", "", "Grace", "", ""])
    ran = run("import", "users.csv", "--json")
    assert ran.code == 0
    assert (ran.json["imported"], ran.json["without_password"], ran.json["refused"]) == (2, 1, [])
    shown = run("user", "show", "ada@example.com", "--json").json
    assert (shown["name"], shown["roles"]) == ("Ada, Countess", ["author", "editor"])
    assert shown["email_verified_at"]
    assert asynchronously(_sign_in("ada@example.com"))

    async def proof() -> str:
        async with auth_here() as auth:
            credential = await auth.store.get(Credential, shown["id"], "password", "")
            assert credential is not None
            return credential.proof

    assert asynchronously(proof()).startswith("$argon2id$")


def test_import_can_be_run_again(run: Run, tmp_path: Path) -> None:
    """Accounts that exist are left as they are and counted, so an interrupted import is simply repeated."""
    lines = [json.dumps({"email": f"user{number}@example.com", "password_hash": BCRYPT}) for number in range(1200)]
    (tmp_path / "users.jsonl").write_text("\n".join(lines[:700]))
    assert run("import", "users.jsonl", "--json").json["imported"] == 700
    (tmp_path / "users.jsonl").write_text("\n".join(lines))
    ran = run("import", "users.jsonl", "--json").json
    assert (ran["imported"], ran["already_there"]) == (500, 700)
    assert run("migrate", "--json").json["rows"]["accounts"] == 1200


def test_import_refuses_line_by_line_with_reasons(run: Run, tmp_path: Path) -> None:
    """What is wrong is named with its line; the rest is imported; the exit code says that something was refused."""
    rows = [
        {"email": "a@example.com", "password_hash": BCRYPT},
        {"email": "no address", "password_hash": BCRYPT},
        {"email": "md5@example.com", "password_hash": "5f4dcc3b5aa765d61d8327deb882cf99"},
        {"email": "sha1@example.com", "password_hash": "sha1$salt$" + "a" * 40},
        {"email": "A@EXAMPLE.COM", "password_hash": BCRYPT},
        {"email": "b@example.com", "password-hash": BCRYPT},
        {"email": "c@example.com", "verified": "perhaps"},
        {"email": "d@example.com", "roles": "admin;<script>"},
        {"email": "e@example.com\nBcc: f@example.com"},
        {"email": "g@example.com", "name": "x\x1b[2J"},
        ["h@example.com"],
    ]
    text = "\n".join(json.dumps(row) for row in rows) + "\n{broken\n"
    (tmp_path / "users.jsonl").write_text(text)
    ran = run("import", "users.jsonl", "--refused", "refused.jsonl")
    assert ran.code == 1
    assert ran.out.startswith("1 imported, 0 already existed, 11 refused")
    refused = [json.loads(line) for line in (tmp_path / "refused.jsonl").read_text().splitlines()]
    assert sorted(each["line"] for each in refused) == list(range(2, 13))
    assert all(each["reason"] for each in refused)
    assert BCRYPT not in ran.out + ran.err
    assert "\x1b" not in ran.err
    assert "line 3:" in ran.err


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("\u017fam@example.com", "LATIN SMALL LETTER LONG S"),
        ("sam\uff20example.com", "FULLWIDTH COMMERCIAL AT"),
        ("=?utf-8?q?sam?=@example.com", "encoded word"),
        ("a%evil.example@example.com", "route"),
    ],
)
def test_a01_commands_refuse_what_only_looks_like_an_address(run: Run, tmp_path: Path, address: str, says: str) -> None:
    """No command makes, finds or imports an account by an address that stands for another mailbox."""
    made(run, "Sam@Example.com")
    (tmp_path / "users.jsonl").write_text(json.dumps({"email": address}))
    for arguments in (
        ("user", "create", address, "--password-stdin"),
        ("user", "role", address, "admin"),
        ("user", "show", address),
        ("import", "users.jsonl"),
    ):
        ran = run(*arguments, text=f"{PASSWORD}\n")
        assert ran.code in {1, 2}, arguments
        # A full-width @ is no @: `user role` takes it for an id, and finds none.
        assert says in ran.err or "There is no account" in ran.err
    (account,) = run("user", "list", "--json").json
    assert (account["email"], account["roles"]) == ("Sam@example.com", [])


def test_a02_a_sender_in_letters_is_converted_and_one_that_is_no_address_stops_the_start(run: Run) -> None:
    """A sender at a domain in letters sends from the A-label; one that is no address is named with its setting."""
    made(run)
    sent = run("user", "reset", "ada@example.com", "--mail", "file:out", "--mail-from", "login@müller.example")
    assert sent.code == 0, sent.err
    (mail,) = Path("out").glob("*.eml")
    assert "From: login@xn--mller-kva.example" in mail.read_text()
    wrong = run("user", "reset", "ada@example.com", environment={"DUTCHDOOR_MAIL_FROM": "a@example.com, b@example.com"})
    assert wrong.code != 0
    assert "DUTCHDOOR_MAIL_FROM" in wrong.err


def test_a_dry_run_writes_nothing(run: Run, tmp_path: Path) -> None:
    """The dry run judges as the import does, and leaves the database as it was."""
    empty()
    (tmp_path / "users.csv").write_text(f"email,password_hash\na@example.com,{BCRYPT}\nbad,{BCRYPT}\n")
    ran = run("import", "users.csv", "--dry-run")
    assert ran.code == 1
    assert "1 would be imported" in ran.out
    assert run("user", "list", "--json").json == []


def test_a_dry_run_refuses_what_the_import_refuses(run: Run, tmp_path: Path) -> None:
    """Roles, hashes, names and addresses are judged the same with and without `--dry-run`."""
    rows = [
        {"email": "a@example.com", "password_hash": BCRYPT},
        {"email": "b@example.com", "roles": ["admin", "no role"]},
        {"email": "c@example.com", "roles": [f"role{number}" for number in range(33)]},
        {"email": "d@example.com", "name": BCRYPT},
        {"email": BCRYPT, "password_hash": "e@example.com"},
        {"email": "f@example.com", "password_hash": "{noop}hunter2"},
        {"email": "a@example.com."},
    ]
    (tmp_path / "users.jsonl").write_text("\n".join(map(json.dumps, rows)))
    empty()
    told = [run("import", "users.jsonl", "--json", *more).json for more in (["--dry-run"], [])]
    assert told[0].pop("dry_run")
    assert not told[1].pop("dry_run")
    assert told[0] == told[1]
    assert [each["line"] for each in told[0]["refused"]] == [2, 3, 4, 5, 6, 7]
    assert BCRYPT not in json.dumps(told)
    assert "hunter2" not in json.dumps(told)


def test_an_import_that_stops_says_how_far_it_came(run: Run, tmp_path: Path) -> None:
    """Where the rest of a file cannot be read, the message has the line and the accounts that are imported."""
    lines = [f"user{number}@example.com,{BCRYPT}" for number in range(600)]
    (tmp_path / "users.csv").write_text("\n".join(["email,password_hash", *lines, "x" * 70_000, "last@example.com,"]))
    ran = run("import", "users.csv")
    assert ran.code == 1
    assert "Line 602 " in ran.err
    assert "500 accounts before it were imported" in ran.err
    (tmp_path / "users.csv").write_text("\n".join(["email,password_hash", *lines]))
    ran = run("import", "users.csv", "--json").json
    assert (ran["imported"], ran["already_there"]) == (100, 500)


def test_an_address_that_another_person_registered_is_not_passed_over(run: Run, tmp_path: Path) -> None:
    """An import of verified addresses refuses the line of one that an unverified account has, and does so again."""

    async def register() -> None:
        async with auth_here() as auth:
            await auth.directory.registration.register(
                "ada@example.com", "another person's phrase", "", client=Client()
            )

    asynchronously(register())
    rows = [{"email": f"{name}@example.com", "password_hash": BCRYPT} for name in ("ada", "bob")]
    (tmp_path / "users.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for imported in (1, 0):
        ran = run("import", "users.jsonl", "--verified", "--json")
        assert (ran.code, ran.json["imported"]) == (1, imported)
        [refused] = ran.json["refused"]
        assert (refused["line"], refused["email"]) == (1, "ada@example.com")
        assert "dutchdoor user reset ada@example.com" in refused["reason"]
    ran = run("import", "users.jsonl", "--json")
    assert (ran.code, ran.json["already_there"]) == (0, 2)


@pytest.mark.parametrize(
    "encoded",
    [
        "{bcrypt}" + BCRYPT,
        "{pbkdf2}5d923b44a6d129f3ddf3e3c8d29412723dcbde72445e8ef6bf3b508fbf17fa4ed4d6b99ca763d8dc",
        "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHRzYWx0c2FsdA$lMPgVYwd4ZAQkOipZGNRk1H0ZPrbAaRuGKXEIUYK9t8",
    ],
    ids=["bcrypt", "pbkdf2", "argon2id"],  # the first has another salt in each process that collects the tests
)
def test_an_imported_hash_opens_once_and_is_replaced(run: Run, tmp_path: Path, encoded: str) -> None:
    """C08: hashes of other systems are stored in a form that signs in, and become ours at the first log-in."""
    (tmp_path / "users.jsonl").write_text(json.dumps({"email": "ada@example.com", "password_hash": encoded}))
    assert run("import", "users.jsonl").code == 0
    password = PASSWORD if encoded.startswith("{bcrypt}") else "password"

    async def proofs() -> list[str]:
        async with auth_here() as auth:
            account = await auth.store.account_by_email("ada@example.com")
            assert account is not None
            found = []
            for _ in range(2):
                credential = await auth.store.get(Credential, account.subject, "password", "")
                assert credential is not None
                found.append(credential.proof)
                await auth.directory.sign_in.by_password("ada@example.com", password, Browser(Client()), mode="jwt")
            return found

    before, after = asynchronously(proofs())
    assert encoded.partition("$")[2] in before or before == encoded
    assert after.startswith("$argon2id$v=19$m=19456,t=2,p=1$")


@pytest.mark.parametrize(
    "text", ["", "\n\n", "name,password\nx,y\n", "email,passwordhash\na@example.com,x\n", "[1, 2", 'email\n"unclosed\n']
)
def test_a_file_that_is_no_import_is_refused_whole(run: Run, tmp_path: Path, text: str) -> None:
    """A misspelt column would import all accounts without a password: nothing is imported then."""
    empty()
    (tmp_path / "users.csv").write_text(text)
    ran = run("import", "users.csv")
    assert ran.code == 1
    assert "Traceback" not in ran.err
    assert run("user", "list", "--json").json == []


def test_django_and_fastapi_users_are_read_as_they_are(run: Run, tmp_path: Path) -> None:
    """Their dumps need no rewriting; rights are never guessed, and who was disabled there is disabled here."""
    django = [
        {
            "model": "auth.user",
            "pk": 1,
            "fields": {
                "password": "pbkdf2_sha256$1000000$salt$" + "A" * 43 + "=",
                "last_login": None,
                "is_superuser": True,
                "username": "ada",
                "first_name": "Ada",
                "last_name": "L",
                "email": "ada@example.com",
                "is_staff": True,
                "is_active": True,
                "date_joined": "2024-01-01T00:00:00Z",
                "groups": [],
                "user_permissions": [],
            },
        },
        {
            "model": "auth.user",
            "pk": 2,
            "fields": {
                "password": "!x" * 20,
                "is_superuser": False,
                "username": "bob",
                "first_name": "",
                "last_name": "",
                "email": "bob@example.com",
                "is_staff": False,
                "is_active": False,
                "date_joined": "2024-01-01T00:00:00Z",
            },
        },
    ]
    (tmp_path / "django.json").write_text(json.dumps(django))
    ran = run("import", "django.json", "--json").json
    assert (ran["imported"], ran["privileged"], ran["disabled"], ran["without_password"]) == (2, 1, 1, 1)
    assert run("user", "show", "ada@example.com", "--json").json["roles"] == []
    assert run("user", "show", "bob@example.com", "--json").json["status"] == "disabled"
    (tmp_path / "fu.csv").write_text(
        "id,email,hashed_password,is_active,is_superuser,is_verified\n"
        f"8f14e45f-0000-4000-8000-000000000000,eve@example.com,{BCRYPT},True,False,True\n"
        f"8f14e45f-0000-4000-8000-000000000001,mal@example.com,{BCRYPT},False,False,True\n"
    )
    ran = run("import", "fu.csv", "--json").json
    assert (ran["imported"], ran["disabled"]) == (2, 1)
    assert run("user", "show", "eve@example.com", "--json").json["email_verified_at"]


def test_import_from_a_pipe(tmp_path: Path) -> None:
    """`-` is standard input, so that no dump lies on a disk; the byte-order mark of a spreadsheet is no letter."""
    text = f"\ufeffemail,password_hash\na@example.com,{BCRYPT}\n\xff"
    ran = subprocess.run(
        command("import", "-", "--json"),
        input=text.encode("utf-8")[:-2] + b"b\xff@example.com,\n",
        cwd=tmp_path,
        env=clean_environment(),
        capture_output=True,
        check=False,
        timeout=60,
    )
    said = json.loads(ran.stdout)
    assert (said["imported"], [each["line"] for each in said["refused"]]) == (1, [3])
    assert ran.returncode == 1


@pytest.mark.parametrize("name", cli.list_commands(click.Context(cli)))
def test_every_command_has_help(run: Run, name: str) -> None:
    """`--help` says what a command does and how it ends, for each of them."""
    ran = run(name, "--help")
    assert ran.code == 0
    assert "Usage: dutchdoor" in ran.out
    group = cli.get_command(click.Context(cli), name)
    for inner in getattr(group, "commands", {}):
        assert run(name, inner, "--help").code == 0


def test_version(run: Run) -> None:
    """`--version` says it."""
    assert run("--version").out.startswith("dutchdoor, version ")


def with_arguments(command: click.Command, *path: str) -> Iterator[tuple[str, ...]]:
    """The commands that take an argument."""
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from with_arguments(inner, *path, name)
    elif any(isinstance(each, click.Argument) for each in command.params):
        yield path


@pytest.mark.parametrize("dashed", ["-h" + "A" * 20, "--" + "a" * 20, "-" + "yes" * 14])
def test_p16_an_id_that_begins_with_a_dash_is_no_option(run: Run, dashed: str) -> None:
    """Every command that takes an argument takes an id that begins with a dash, before and behind its options. A
    misspelt option is still one.
    """
    made(run)
    found = list(with_arguments(cli))
    assert {("user", "show"), ("session", "end"), ("key", "revoke"), ("client", "remove")} <= set(found)
    for path in found:
        for words in ((*path, dashed, "--json"), (*path, "--json", dashed)):
            ran = run(*words, text="x\n")
            assert "o such option" not in ran.err, words
            assert "Usage: dutchdoor" not in ran.out, words
    for path in (("user", "show"), ("session", "end"), ("key", "revoke")):
        assert dashed in run(*path, dashed, *([] if path[0] == "user" else ["--no-wait"])).err
    assert dashed in run("user", "role", "--database", "sqlite:///dutchdoor.db", dashed, "admin").err
    assert "of an earlier page" in run("user", "list", "--after", dashed).err
    for typing_error in ("--yess", "-y", "--no-waits"):
        assert "No such option" in run("session", "end", "AZqp0cM0t2iWk1yqj3xF9A", typing_error).err


def test_no_id_is_taken_for_an_option() -> None:
    """An id may be an argument of any command, and one in 64 would begin with a dash."""
    assert {new_id()[0] for _ in range(2000)} == set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdef")
