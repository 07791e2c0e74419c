"""`dutchdoor client`: services that may introspect tokens, and applications that sign users in under a client id."""

from __future__ import annotations

import time
from typing import Any

import click

from dutchdoor.auth import Auth
from dutchdoor.errors import NotFound
from dutchdoor.model.audit_events import event
from dutchdoor.model.ids import new_id
from dutchdoor.model.service_credentials import ClientSecret, RegisteredClient
from dutchdoor.model.unicode_text import check_name
from dutchdoor.server.options import ACTOR, NO_CLIENT, as_json, settings_from, with_auth, with_settings
from dutchdoor.server.terminal import instant, print_json, print_pairs, print_table, say, write
from dutchdoor.stores.base import Add, Log, Remove

__all__ = ["client"]

NAME_AT_MOST = 100


@click.group()
def client() -> None:
    """Register and remove clients."""


@client.command(epilog="Example: dutchdoor client add 'orders service'")
@click.argument("name")
@click.option("--public", is_flag=True, help="No secret: for applications that run on users' machines.")
@as_json
@with_settings("database", "master_key")
def add(name: str, *, public: bool, as_json: bool, **options: Any) -> None:
    """Register a client. The secret is printed once and not stored."""
    name = check_name(name, at_most=NAME_AT_MOST)
    if not name:
        raise click.UsageError("The name of the client is empty.")
    secret = ClientSecret.mint(new_id())
    hashed = b"" if public else secret.hash()
    row = RegisteredClient(id=secret.id, name=name, secret_hash=hashed, created_at=time.time())

    async def work(auth: Auth) -> None:
        now = auth.authority.clock()
        record = event("client_added", now=now, client=NO_CLIENT, actor=ACTOR, client_id=row.id, detail=row.name)
        await auth.store.commit(Add(row), Log(record))

    with_auth(settings_from(options), work, make=True)
    shown = None if public else secret.text()
    if as_json:
        print_json({"client_id": row.id, "client_secret": shown, "name": row.name})
        return
    print_pairs([("client_id", row.id), *([("client_secret", shown)] if shown else [])])
    if shown:
        say("The secret is shown only once.")


@client.command("list")
@as_json
@with_settings("database", "master_key")
def list_(*, as_json: bool, **options: Any) -> None:
    """List clients."""

    async def work(auth: Auth) -> list[RegisteredClient]:
        return await auth.store.select(RegisteredClient)

    found = with_auth(settings_from(options), work)
    if as_json:
        print_json(
            [
                {
                    "client_id": row.id,
                    "name": row.name,
                    "confidential": row.confidential,
                    "created_at": instant(row.created_at),
                }
                for row in found
            ]
        )
        return
    print_table(
        ("client_id", "name", "kind", "created"),
        (
            (row.id, row.name, "confidential" if row.confidential else "public", instant(row.created_at))
            for row in found
        ),
        empty="There are no clients.",
    )


@client.command(epilog="Example: dutchdoor client remove 5o0JgG0QmHvYk2C7w1pXzA")
@click.argument("client_id")
@as_json
@with_settings("database", "master_key")
def remove(client_id: str, *, as_json: bool, **options: Any) -> None:
    """Remove a client. The server refuses its secret from then on."""

    async def work(auth: Auth) -> None:
        row = await auth.store.get(RegisteredClient, client_id)
        if row is None:
            text = f"There is no client {client_id[:64]!a}."
            raise NotFound(text, message=text)
        record = event(
            "client_removed", now=time.time(), client=NO_CLIENT, actor=ACTOR, client_id=row.id, detail=row.name
        )
        await auth.store.commit(Remove(row), Log(record))

    with_auth(settings_from(options), work)
    if as_json:
        print_json({"client_id": client_id, "removed": True})
    else:
        write("Removed.")
