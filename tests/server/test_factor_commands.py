"""`dutchdoor user factors`."""

from __future__ import annotations

import json
import time

import pyotp
from tests.running import Run
from tests.server.conftest import asynchronously, auth_here, made
from tests.softkey import SoftKey
from tests.standins import HOME

from dutchdoor.services.passkeys import Ceremony
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


def with_passkeys(email: str, *names: str) -> None:
    async def register() -> None:
        async with auth_here() as auth:
            account = await auth.store.account_by_email(email)
            assert account is not None
            here, factors = Ceremony("", "", "http://localhost:8000"), auth.directory.factors
            for name in names:
                answer = SoftKey(here.own).create(await factors.passkeys.creation_options(account, here))
                made = await factors.confirm_passkey(account, json.dumps(answer), name, here, client=HOME)
                await auth.store.commit(*made.changes)

    asynchronously(register())


def test_an_operator_removes_a_passkey_by_its_name(run: Run) -> None:
    """Passkeys are listed by name; of several, the command wants to know which."""
    made(run)
    with_passkeys("ada@example.com", "Phone", "Blue key", "Phone")
    listed = run("user", "factors", "list", "ada@example.com").out
    assert listed.count("Phone") == 2 and "Blue key" in listed
    remove = ("user", "factors", "remove", "ada@example.com", "passkey")
    assert "Name one by its id" in run(*remove).err
    assert "Name one by its id" in run(*remove, "Phone").err
    assert run(*remove, "Yellow key").code == 1
    assert run(*remove, "Blue key").code == 0
    left = run("user", "factors", "list", "ada@example.com", "--json").json["factors"]
    assert [each["name"] for each in left] == ["Phone", "Phone"]
    assert [run(*remove, each["id"]).code for each in left] == [0, 0]


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
