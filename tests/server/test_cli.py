"""The command line: what it prints, what it writes into the store, and how it ends."""

from __future__ import annotations

import csv
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import bcrypt
import click
import pytest
from tests.server.conftest import PASSWORD, Run, asynchronously, auth_here, empty, made, served, sign_in
from tests.server.running import clean_environment, command

from dutchdoor.model.accounts import Credential
from dutchdoor.model.http_client import Client
from dutchdoor.model.ids import new_id
from dutchdoor.server.cli import cli
from dutchdoor.services.browser import Browser


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
    assert asynchronously(sign_in("ada@example.com"))

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
    assert ran.code == 2
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
            "model": "shop.person",
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
