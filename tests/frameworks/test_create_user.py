"""Accounts that the application's own code creates."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from flask import Flask

import dutchdoor.fastapi
import dutchdoor.flask
from dutchdoor import Auth, ExternalUsers, Policy
from dutchdoor.errors import Misconfigured, Taken, WeakPassword

ADA = "ada@example.com"
PASSWORD = "a door in two halves"


def test_u11_an_async_application_creates_an_account() -> None:
    """It signs in with the password and the roles that it was given, also where registration is closed."""
    app = FastAPI()
    auth = dutchdoor.fastapi.Auth(app, "memory:", policy=Policy(registration="closed"))
    with TestClient(app) as client:
        made = client.portal.call(lambda: auth.create_user(ADA, password=PASSWORD, name="Ada", roles=["admin"]))  # type: ignore[union-attr]
        user = client.post("/auth/login", json={"email": ADA, "password": PASSWORD}).json()["user"]
    assert user == {"id": made, "email": ADA, "name": "Ada", "roles": ["admin"], "email_verified": True}


def test_u11_a_sync_application_creates_an_account() -> None:
    """In Flask it is an ordinary call, before the first request."""
    app = Flask("shop")
    auth = dutchdoor.flask.Auth(app, "memory:")
    made = auth.create_user(ADA, password=PASSWORD)
    answer = app.test_client().post("/auth/login", json={"email": ADA, "password": PASSWORD})
    assert answer.get_json()["user"]["id"] == made


def test_u11_without_a_password_the_owner_chooses_one() -> None:
    """The owner is mailed a link, and no password signs in before."""
    sent: list[Any] = []

    class Box:
        async def send(self, mail: Any) -> None:
            sent.append(mail)

    async def scenario() -> None:
        async with Auth("memory:", mail=Box()) as auth:
            await auth.create_user(ADA)

    asyncio.run(scenario())
    assert [mail.to for mail in sent] == [ADA]


def test_u11_a_wrong_account_is_refused() -> None:
    """An address that is taken, a weak password, and an application that has users of its own."""

    async def scenario() -> None:
        async with Auth("memory:") as auth:
            with pytest.raises(WeakPassword):
                await auth.create_user(ADA, password="password")
            await auth.create_user(ADA, password=PASSWORD)
            with pytest.raises(Taken):
                await auth.create_user(ADA.upper(), password=PASSWORD)
        users = ExternalUsers(authenticate=lambda _login, _password: None, load=lambda _subject: None)
        async with Auth("memory:", users=users) as auth:
            with pytest.raises(Misconfigured, match="application's own"):
                await auth.create_user(ADA, password=PASSWORD)

    asyncio.run(scenario())
