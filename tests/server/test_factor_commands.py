"""`dutchdoor user factors`."""

from __future__ import annotations

import time

import pyotp
from tests.running import Run
from tests.server.conftest import asynchronously, auth_here, made
from tests.standins import HOME

from dutchdoor.stores.base import Change


def with_an_app(email: str) -> None:
    async def enrol() -> None:
        async with auth_here() as auth:
            account = await auth.store.account_by_email(email)
            assert account is not None
            factors = auth.directory.factors
            given = await factors.begin_totp(account, amr=None)
            code = pyotp.TOTP(given.secret).at(int(time.time()))
            confirmed = await factors.confirm_totp(account, given.token, code, client=HOME)
            changes: list[Change] = list(confirmed.changes)
            await auth.store.commit(*changes)

    asynchronously(enrol())


def test_an_operator_removes_what_an_owner_has_lost(run: Run) -> None:
    """The command lists the app, removes it together with the recovery codes, and says when there is none."""
    made(run)
    assert "no second factor" in run("user", "factors", "list", "ada@example.com").out
    with_an_app("ada@example.com")
    listed = run("user", "factors", "list", "ada@example.com", "--json")
    assert ([each["method"] for each in listed.json["factors"]], listed.json["recovery_codes_left"]) == (["totp"], 10)
    shown = run("user", "factors", "list", "ada@example.com")
    assert "totp" in shown.out and "Recovery codes left: 10" in shown.err
    removed = run("user", "factors", "remove", "ada@example.com", "totp")
    assert (removed.code, removed.out) == (0, "Removed totp of ada@example.com.\n")
    listed = run("user", "factors", "list", "ada@example.com", "--json")
    assert (listed.json["factors"], listed.json["recovery_codes_left"]) == ([], 0)
    again = run("user", "factors", "remove", "ada@example.com", "totp")
    assert again.code == 1 and "no such second factor" in again.err
    assert run("user", "factors", "remove", "ada@example.com", "password").code == 2
