"""`dutchdoor import`: whose hashes are taken, which lines are refused, and that nothing is done by halves."""

from __future__ import annotations

import csv
import json
import subprocess
from pathlib import Path

import bcrypt
import pytest
from tests.server.conftest import PASSWORD, Run, asynchronously, auth_here, empty, made, sign_in
from tests.server.running import clean_environment, command

from dutchdoor.model.accounts import Credential
from dutchdoor.model.http_client import Client
from dutchdoor.services.browser import Browser

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
    reports = [run("import", "users.jsonl", "--json", *more).json for more in (["--dry-run"], [])]
    assert reports[0].pop("dry_run")
    assert not reports[1].pop("dry_run")
    assert reports[0] == reports[1]
    assert [each["line"] for each in reports[0]["refused"]] == [2, 3, 4, 5, 6, 7]
    assert BCRYPT not in json.dumps(reports)
    assert "hunter2" not in json.dumps(reports)


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
