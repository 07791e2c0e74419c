"""Whose an account is: the first administrator, addresses that are not verified, and who may register."""

from __future__ import annotations

import sqlite3
from typing import Literal

import pytest
from msgspec.structs import replace
from tests.http.ada import login
from tests.http.world import OTHER_PASSWORD, PASSWORD, World, a_world

from dutchdoor.model.http_client import Client
from dutchdoor.model.policy import STANDARD
from dutchdoor.stores.sqlite import SqliteStore

NAMES = ("admin", "administrator", "root", "test", "user", "guest", "demo", "operator", "support", "dutchdoor")
WORDS = ("admin", "password", "root", "test", "123456", "changeme", "secret", "guest", "dutchdoor", "letmein")


async def test_c12_no_one_is_there_at_the_start(tmp_path) -> None:
    """A fresh server has no account: 200 pairs that everyone tries are 401, and the database has not one user."""
    path = tmp_path / "test.db"
    async with a_world(store=SqliteStore(path)) as world:
        for name in NAMES:
            for word in WORDS:
                for domain in ("example.com", "localhost.localdomain"):
                    assert (await login(world, word, f"{name}@{domain}")).status == 401
        assert await world.store.accounts() == []
    with sqlite3.connect(path) as rows:
        assert rows.execute("SELECT count(*) FROM accounts").fetchone() == (0,)


async def test_c12_the_first_administrator_comes_by_a_link_used_once(world: World) -> None:
    """The first administrator needs the one-time link; without it, with another's, late, or a second time: 401. No one
    who registers is one.
    """
    admin = {"email": "root@example.com", "password": PASSWORD}
    for token in ("", "ddo1_" + "A" * 48, "admin"):
        assert (await world.call("POST", "/auth/setup", json={"token": token, **admin})).status in {401, 422}
    late = await world.directory.admin.offer_setup()
    assert late is not None
    world.clock.forward(STANDARD.setup_for)
    assert (await world.call("POST", "/auth/setup", json={"token": late.text(), **admin})).status == 401
    secret = await world.directory.admin.offer_setup()
    assert secret is not None
    assert (await world.call("POST", "/auth/setup", json={"token": late.text(), **admin})).status == 401
    made = await world.call("POST", "/auth/setup", json={"token": secret.text(), **admin})
    assert (made.status, made.json["user"]["roles"]) == (201, ["admin"])
    again = {"token": secret.text(), **admin, "email": "second@example.com"}
    assert (await world.call("POST", "/auth/setup", json=again)).status == 401
    assert await world.directory.admin.offer_setup() is None
    assert (await world.register())["roles"] == []


@pytest.mark.parametrize("door", ["register", "forgot", "admin"])
async def test_a02_no_door_takes_an_address_that_is_another_mailbox(door: str) -> None:
    """A02, A01: registering, asking for a reset and an administrator's draft refuse encoded words and source routes."""
    async with a_world() as world:
        root = world.browser()
        await world.make_admin()
        await root.login("root@example.com")
        for address in (
            "=?utf-8?q?x=40evil.example=2c?=@corp.example",
            "=?utf-8?q??=@corp.example",
            "a!b@corp.example",
        ):
            match door:
                case "register":
                    answer = await world.call("POST", "/auth/register", json={"email": address, "password": PASSWORD})
                case "forgot":
                    answer = await world.call("POST", "/auth/password/forgot", json={"email": address})
                case _:
                    answer = await root.call("POST", "/admin/api/accounts", json={"email": address})
            assert (answer.status, answer.json["field"]) == (422, "email")
        await world.posted()
        assert not world.mailbox.mails


async def test_a03_a_strangers_registration_gives_way_to_the_mailbox() -> None:
    """A stranger registers an address first; its owner registers, opens the link, chooses a password and gets in, and
    the stranger's password is nothing. No answer says that anyone came before.
    """
    async with a_world(policy=replace(STANDARD, require_verified_email=True)) as world:
        mallory, ada = world.browser(), world.browser()
        answers = [
            await mallory.call("POST", "/auth/register", json={"email": "ada@example.com", "password": PASSWORD}),
            await ada.call("POST", "/auth/register", json={"email": "Ada@example.com", "password": OTHER_PASSWORD}),
        ]
        await world.posted()
        assert answers[0].status == answers[1].status == 202
        assert answers[0].body == answers[1].body
        shapes = [[line.partition("=")[0] + line[line.index(";") :] for line in each.set_cookies()] for each in answers]
        assert shapes[0] == shapes[1] != []
        token = world.mailbox.token()
        asked = await ada.call("POST", "/auth/email/verify", json={"token": token})
        assert (asked.status, asked.code) == (403, "another_browser")
        taken = await ada.call("POST", "/auth/email/verify", json={"token": token, "password": OTHER_PASSWORD})
        assert taken.json["user"]["email_verified"] is True
        await ada.login("ada@example.com", OTHER_PASSWORD)
        refused = await mallory.call("POST", "/auth/login", json={"email": "ada@example.com", "password": PASSWORD})
        assert refused.status == 401
        again = await mallory.call("POST", "/auth/email/verify", json={"token": token})
        assert again.status == 401


async def test_a03_an_address_that_is_not_verified_blocks_no_one() -> None:
    """Where anyone registers without mail, an owner whose address is taken gets a link, and the stranger is out."""
    async with a_world() as world:
        mallory, ada = world.browser(), world.browser()
        await world.register()
        await mallory.login()
        answer = await ada.call("POST", "/auth/register", json={"email": "ada@example.com", "password": OTHER_PASSWORD})
        assert answer.status == 202
        await world.posted()
        proof = {"token": world.mailbox.token(), "password": OTHER_PASSWORD}
        assert (await ada.call("POST", "/auth/email/verify", json=proof)).status == 200
        assert (await mallory.me()).status == 401
        await ada.login("ada@example.com", OTHER_PASSWORD)
        answer = await ada.call("POST", "/auth/register", json={"email": "ada@example.com", "password": PASSWORD})
        assert (answer.status, answer.code) == (409, "email_taken")


@pytest.mark.parametrize("registration", ["invite", "closed"])
async def test_a06_no_one_registers_where_people_are_invited(registration: Literal["invite", "closed"]) -> None:
    """A closed registration is 403 with a code of its own, before the address or the password is looked at."""
    async with a_world(policy=replace(STANDARD, registration=registration)) as world:
        answer = await world.call("POST", "/auth/register", json={"email": "no address", "password": "x"})
        assert (answer.status, answer.code) == (403, "registration_closed")
        made = await world.directory.admin.create(
            "root@example.com", password=PASSWORD, roles=("admin",), client=Client(), actor="cli"
        )
        root = world.browser()
        await root.login(made.email or "")
        invited = await root.call("POST", "/admin/api/accounts", json={"email": "ada@example.com"})
        assert invited.status == (201 if registration == "invite" else 403)


@pytest.mark.parametrize("name", ["x\0y", "x\x1b[2J", "x\u202ey"])
async def test_a05_the_api_refuses_the_names_that_an_import_refuses(world: World, name: str) -> None:
    """Registering with a control or bidirectional character in the name is 422, and names the field."""
    body = {"email": "ada@example.com", "password": PASSWORD, "name": name}
    answer = await world.call("POST", "/auth/register", json=body)
    assert (answer.status, answer.json["field"]) == (422, "name")
