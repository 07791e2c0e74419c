"""`dutchdoor client`: services that may introspect tokens, and applications that sign users in under a client id."""

from __future__ import annotations

from typing import Any

import click
from msgspec import to_builtins

from dutchdoor.auth import Auth
from dutchdoor.model.acting import BY_COMMAND
from dutchdoor.model.service_credentials import RegisteredClient
from dutchdoor.server.options import (
    as_json,
    no_wait,
    say_fence,
    settings_from,
    wait_for,
    with_auth,
    with_settings,
)
from dutchdoor.server.terminal import instant, print_json, print_pairs, print_table, say, write
from dutchdoor.services.service_credentials import (
    NewClient,
    add_client,
    check_client_name,
    remove_client,
    rotate_client,
)
from dutchdoor.web.schemas import Fence

__all__ = ["client"]


@click.group()
def client() -> None:
    """Register, list and remove clients, and change their secrets."""


@client.command(epilog="Example: dutchdoor client add 'orders service'")
@click.argument("name")
@click.option("--public", is_flag=True, help="No secret: for applications that run on users' machines.")
@as_json
@with_settings("database", "master_key")
def add(name: str, *, public: bool, as_json: bool, **options: Any) -> None:
    """Register a client. The secret is printed once and not stored."""
    check_client_name(name)  # before a database is created

    made = with_auth(
        settings_from(options), lambda auth: add_client(auth.authority, name, public=public, **BY_COMMAND), make=True
    )
    _print(made, as_json=as_json)


def _print(made: NewClient, *, as_json: bool) -> None:
    row = made.client
    if as_json:
        print_json({"client_id": row.id, "client_secret": made.secret or None, "name": row.name})
        return
    print_pairs([("client_id", row.id), *([("client_secret", made.secret)] if made.secret else [])])
    if made.secret:
        say("The secret is shown only once.")


@client.command("list")
@as_json
@with_settings("database", "master_key")
def list_(*, as_json: bool, **options: Any) -> None:
    """List clients."""
    found = with_auth(settings_from(options), lambda auth: auth.store.select(RegisteredClient))
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


@client.command(epilog="Example: dutchdoor client rotate 5o0JgG0QmHvYk2C7w1pXzA")
@click.argument("client_id")
@as_json
@with_settings("database", "master_key")
def rotate(client_id: str, *, as_json: bool, **options: Any) -> None:
    """Give a client a new secret, and print it. The server refuses the old one from then on."""
    made = with_auth(settings_from(options), lambda auth: rotate_client(auth.authority, client_id, **BY_COMMAND))
    _print(made, as_json=as_json)


@client.command(epilog="Example: dutchdoor client remove 5o0JgG0QmHvYk2C7w1pXzA")
@click.argument("client_id")
@no_wait
@as_json
@with_settings("database", "master_key")
def remove(client_id: str, *, no_wait: bool, as_json: bool, **options: Any) -> None:
    """Remove a client. It is refused from then on, and its access tokens are revoked.

    Browser sessions that began under its name go on: end them with `dutchdoor session end`.
    """

    async def work(auth: Auth) -> Fence:
        done = await remove_client(auth.authority, client_id, **BY_COMMAND)
        return await wait_for(auth, done, no_wait=no_wait)

    fenced = with_auth(settings_from(options), work)
    if as_json:
        print_json({"client_id": client_id, "removed": True, **to_builtins(fenced)})
    else:
        write("Removed.")
        say_fence(fenced)
