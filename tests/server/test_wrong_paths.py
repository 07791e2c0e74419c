"""No command creates a database or a key by a wrong path, or writes what a newer program wrote."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from tests.server.conftest import PASSWORD, Run, made, served
from tests.stores.test_new_kind import WITH_BADGES

from dutchdoor.errors import Misconfigured
from dutchdoor.model.master_key import MasterKey
from dutchdoor.server import factory
from dutchdoor.server.cli import cli
from dutchdoor.stores.base import Store
from dutchdoor.stores.postgres import PostgresStore
from dutchdoor.stores.sqlite import SqliteStore
from dutchdoor.stores.urls import make_store


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
    assert weak.code == 2
    assert weak.err.startswith(
        "Created the database dutchdoor.db (the default).\nCreated the master key file dutchdoor.keys"
    )
    assert "Created" not in run("client", "add", "orders").err
    elsewhere = ("--database", "sqlite:///other.db", "--master-key-file", "other.keys")
    printed = run("verifier", "add", "orders", *elsewhere).err
    assert "Created the database other.db (--database)." in printed
    assert "Created the master key file other.keys (--master-key-file). The servers need the same file." in printed


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
    monkeypatch.setattr(factory, "make_store", _of_a_newer_program)
    for words in (("user", "list"), ("key", "list"), ("audit",), ("user", "show", "ada@example.com"), ("purge",)):
        ran = run(*words)
        assert ran.code == 2, words
        assert "is older than this program: it has not had" in ran.err
        assert "run `dutchdoor migrate`" in ran.err
    assert run("user", "create", "b@example.com", "--password-stdin", text=PASSWORD).code == 2
    monkeypatch.setattr(factory, "make_store", make_store)
    assert run("user", "list").code == 0, "the older program goes on"
    monkeypatch.setattr(factory, "make_store", _of_a_newer_program)
    assert run("migrate", "--json").json["rows"]["badges"] == 0
    assert run("user", "list").code == 0


def _of_a_newer_program(url: str) -> Store:
    if url.startswith("sqlite"):
        return SqliteStore(url.removeprefix("sqlite:///"), kinds=WITH_BADGES)
    return PostgresStore(url, kinds=WITH_BADGES)


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
