"""What the tests of commands share: accounts, and servers that were there before them."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.running import Run

from dutchdoor.auth import Auth

PASSWORD = "a quiet heron at dusk"


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
