"""What the tests of commands share: accounts, and servers that were there before them."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.running import Run

from dutchdoor.auth import Auth
from dutchdoor.errors import NotAuthenticated
from dutchdoor.model.http_client import Client, Device
from dutchdoor.services.browser import Browser

PASSWORD = "a quiet heron at dusk"
FOX = Client(devices=Device(name="Fox\x9b2J\r\x07"))


def made(run: Run, email: str = "ada@example.com", *more: str) -> dict[str, Any]:
    ran = run("user", "create", email, "--password-stdin", "--json", *more, text=f"{PASSWORD}\n")
    assert ran.code == 0, ran.err
    account: dict[str, Any] = ran.json
    return account


def auth_here() -> Auth:
    return Auth("sqlite:///dutchdoor.db", master_key="dutchdoor.keys")


def asynchronously(work: Any) -> Any:
    return asyncio.run(work)


def served(database: str = "sqlite:///dutchdoor.db", **settings: Any) -> None:
    """Let a server with these settings start on a database, and stop."""

    async def start() -> None:
        async with Auth(database, master_key="dutchdoor.keys", **settings):
            pass

    asynchronously(start())


def empty() -> None:
    """Create the database without a server: it knows no settings and has no key."""

    async def open_and_close() -> None:
        auth = auth_here()
        await auth.open(upkeep=False)
        await auth.close()

    asynchronously(open_and_close())


async def sign_in(email: str, mode: Any = "session") -> str:
    async with auth_here() as auth:
        signed_in, _ = await auth.directory.sign_in.by_password(email, PASSWORD, Browser(FOX), mode=mode)
        return signed_in.session_token or signed_in.access_token


async def is_live(token: str) -> bool:
    async with auth_here() as auth:
        try:
            await auth.authority.resume(token)
        except NotAuthenticated:
            return False
        return True
