"""Accounts as a file: what `export` writes, `import` reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import bcrypt
import pytest
from tests.server.conftest import PASSWORD, Run, asynchronously, auth_here, made, served
from tests.standins import HOME

from dutchdoor.auth import Auth
from dutchdoor.errors import WrongCredentials
from dutchdoor.model.accounts import external_account
from dutchdoor.services.browser import Browser
from dutchdoor.stores.base import Add

PEPPER = {"DUTCHDOOR_PEPPER": "an entirely random pepper"}


def lines(file: str) -> dict[str, dict[str, Any]]:
    found = map(json.loads, Path(file).read_text().splitlines())
    return {each["email"]: each for each in found}


def signs_in(email: str, database: str, password: str = PASSWORD) -> bool:
    async def sign_in() -> None:
        async with Auth(database, master_key="dutchdoor.keys") as auth:
            await auth.directory.sign_in.by_password(email, password, Browser(HOME), mode="session")

    try:
        asynchronously(sign_in())
    except WrongCredentials:
        return False
    return True


def test_p45_an_import_reads_what_an_export_wrote(run: Run) -> None:
    """Addresses, names, roles, the password hashes of any format, and who is disabled or never verified an address are
    the same after an export and an import; the passwords are good.
    """
    made(run, "ada@example.com", "--role", "admin", "--role", "editor", "--name", 'Ada "the" Countess, ü')
    made(run, "eve@example.com")
    run("user", "disable", "eve@example.com")
    old = bcrypt.hashpw(b"a password from elsewhere", bcrypt.gensalt(4)).decode()
    rows = [
        {"email": "bob@example.com", "password_hash": old},
        {"email": "none@example.com", "verified": True},
    ]
    Path("users.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run("import", "users.jsonl").code == 0
    exported = run("export", "accounts.jsonl")
    assert exported.code == 0
    assert "Exported 4 accounts, 1 of them without a password." in exported.err
    assert "Delete it when it was imported." in exported.err
    assert run("import", "accounts.jsonl", "--database", "sqlite:///other.db").code == 0
    assert run("export", "again.jsonl", "--database", "sqlite:///other.db").code == 0
    before, after = lines("accounts.jsonl"), lines("again.jsonl")
    for line in before.values():
        if line.get("password_hash", "").startswith("$argon2id$"):
            # An Argon2 hash does not say who made it: the import marks it, and the first log-in replaces it.
            line["password_hash"] = "argon2" + line["password_hash"]
    assert after == before
    assert before["bob@example.com"]["password_hash"] == old
    assert signs_in("ada@example.com", "sqlite:///other.db")
    assert signs_in("bob@example.com", "sqlite:///other.db", "a password from elsewhere")
    assert not signs_in("eve@example.com", "sqlite:///other.db")


def test_p45_hashes_with_a_pepper_go_where_the_pepper_is(run: Run) -> None:
    """An export says how many hashes have the pepper. An import with the same pepper takes them as they are, and one
    without it refuses them by name.
    """
    made_one = run("user", "create", "ada@example.com", "--password-stdin", text=PASSWORD, environment=PEPPER)
    assert made_one.code == 0
    assert "1 hashes have the pepper" in run("export", "accounts.jsonl").err
    assert run("import", "accounts.jsonl", "--database", "sqlite:///a.db", environment=PEPPER).code == 0
    assert run("export", "again.jsonl", "--database", "sqlite:///a.db").code == 0
    assert lines("again.jsonl") == lines("accounts.jsonl")
    refused = run("import", "accounts.jsonl", "--database", "sqlite:///b.db")
    assert (refused.code, "needs a pepper" in refused.err) == (1, True)


def test_p45_an_export_is_its_owners_alone(run: Run, tmp_path: Path) -> None:
    """Only the owner can read the file, no file is overwritten and no link followed, and the audit log has the export.
    Accounts without an address are counted and left out.
    """
    made(run)
    served()

    async def add() -> None:
        async with auth_here() as auth:
            await auth.store.commit(Add(external_account("service", 0.0)))

    asynchronously(add())
    exported = run("export", "accounts.jsonl", "--json")
    assert (exported.json["exported"], exported.json["without_address"]) == (1, 1)
    assert Path("accounts.jsonl").stat().st_mode & 0o777 == 0o600
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for taken in ("accounts.jsonl", "link"):
        ran = run("export", taken)
        assert (ran.code, "cannot be created" in ran.err) == (2, True)
    (record,) = run("audit", "--name", "accounts_exported", "--json").json
    assert (record["actor"], record["detail"]) == ("cli", "1 with their hashes")


@pytest.mark.parametrize("words", [("export", "accounts.jsonl"), ("import", "accounts.jsonl", "--dry-run")])
def test_p45_no_hash_is_printed(run: Run, words: tuple[str, ...]) -> None:
    """Neither command prints a hash."""
    made(run)
    if words[0] == "import":
        run("export", "accounts.jsonl")
    ran = run(*words)
    assert "argon2" not in ran.out + ran.err
