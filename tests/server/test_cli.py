"""The command line: what is true of every command, what it prints, and how it ends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from tests.server.conftest import PASSWORD, Run, asynchronously, empty, made, served, sign_in

from dutchdoor.model.ids import new_id
from dutchdoor.server.cli import cli


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


@pytest.mark.parametrize(
    ("code", "arguments", "text", "says"),
    [
        (2, ("user", "create", "no address", "--password-stdin"), PASSWORD, "@"),
        (2, ("user", "create", "a@example.com", "--password-stdin"), "password1", "password"),
        (2, ("user", "create", "a@example.com", "--password-stdin", "--role", "two words"), PASSWORD, "role"),
        (1, ("user", "show", "nobody@example.com"), "", "nobody@example.com"),
        (1, ("user", "disable", "nobody"), "", "no account"),
        (1, ("session", "list", "nobody@example.com"), "", "no account"),
        (1, ("session", "end", "abc"), "", "no session"),
        (1, ("key", "revoke", "abc", "--yes"), "", "no key"),
        (1, ("key", "revoke", "-6ig2oXh0mUeYq2k7dPr1tVbNc4sLw8zJf5xGa9oRiE", "--yes"), "", "no key"),
        (2, ("key", "export"), "", "never leaves"),
        (1, ("key", "export", "abc"), "", "no key"),
        (1, ("client", "remove", "abc"), "", "no client"),
        (1, ("client", "rotate", "abc"), "", "no client"),
        (2, ("client", "add", " "), "", "empty"),
        (1, ("verifier", "remove", "abc"), "", "no verifier"),
        (1, ("verifier", "rotate", "abc"), "", "no verifier"),
        (2, ("import", "nothing.csv"), "", "cannot be read"),
        (2, ("token", "inspect", "--jwks", "nothing.json", "a.b.c"), "", "cannot be read"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    run: Run, code: int, arguments: tuple[str, ...], text: str, says: str
) -> None:
    """A mistake ends with one line that names it; never with a traceback. The exit code is 2 if an argument, or what it
    names, cannot be right, and 1 if there is no such thing in the database.
    """
    served()
    ran = run(*arguments, text=text)
    assert ran.code == code
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


def test_migrate_says_what_is_there(run: Run) -> None:
    """The schema is made or brought up to date, and the rows are counted."""
    empty()
    assert run("migrate", "--json").json["up_to_date"] is True
    made(run)
    assert run("migrate", "--json").json["rows"]["accounts"] == 1
    assert "The schema is up to date." in run("migrate").out


def test_token_inspect_needs_no_server(run: Run) -> None:
    """A token is looked into where there is nothing but the token; rubbish is refused with exit code 1."""
    made(run)
    token = asynchronously(sign_in("ada@example.com", "jwt"))
    assert run("token", "inspect", token).code == 0
    assert token.rpartition(".")[2] not in run("token", "inspect", token).out
    assert run("token", "inspect", text="not.a.token").code == 1
    assert run("token", "inspect", text="").code == 2


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
