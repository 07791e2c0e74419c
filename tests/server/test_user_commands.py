"""Commands about accounts: who is created, disabled, erased and reset, and which passwords are refused."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from tests.server.conftest import FOX, Run, asynchronously, auth_here, is_live, made, served, sign_in

from dutchdoor.credentials.strength import BreachedList
from dutchdoor.errors import WrongCredentials


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
    assert (refused.code, "leak" in refused.err) == (2, True)
    monkeypatch.delenv("DUTCHDOOR_BREACHED")
    assert run("user", "create", "ada@example.com", "--password-stdin", text=leaked).code == 0
    served(breached=BreachedList(listed))
    beside = run("user", "create", "bob@example.com", "--password-stdin", text=leaked)
    assert (beside.code, "leak" in beside.err) == (2, True), "a command has the list of the servers"
    listed.rename(tmp_path / "away.txt")
    away = run("user", "create", "bob@example.com", "--password-stdin", text=leaked)
    assert (away.code, str(listed) in away.err, "--breached FILE" in away.err) == (2, True, True)
    assert run("user", "list").code == 0, "only a command that takes a password needs the list"
    monkeypatch.setenv("DUTCHDOOR_BREACHED", str(tmp_path / "none.txt"))
    stopped = run("user", "list")
    assert (stopped.code, "breached" in stopped.err) == (2, True)


def test_disabling_ends_everything_and_enabling_brings_nothing_back(run: Run) -> None:
    """S07: a disabled account is out at once; enabled again, it has to sign in again."""
    made(run)
    token = asynchronously(sign_in("ada@example.com"))
    assert "1 session revoked" in run("user", "disable", "ada@example.com").out
    assert not asynchronously(is_live(token))
    with pytest.raises(WrongCredentials):
        asynchronously(sign_in("ada@example.com"))
    assert run("user", "enable", "ada@example.com").code == 0
    assert not asynchronously(is_live(token))
    assert asynchronously(sign_in("ada@example.com"))


def test_a22_an_account_is_erased_by_a_command(run: Run) -> None:
    """A22: `user delete` asks first, and erases the account at once; `user show` says when one is to be erased."""
    made(run)
    token = asynchronously(sign_in("ada@example.com"))
    asked = run("user", "delete", "ada@example.com")
    assert asked.code == 2 and "--yes" in asked.err
    assert run("user", "show", "ada@example.com", "--json").json["erased_at"] is None
    ran = run("user", "delete", "ada@example.com", "--yes")
    assert ran.code == 0 and "ada@example.com is erased; 1 session revoked" in ran.out
    assert not asynchronously(is_live(token))
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
