"""`dutchdoor verifier`: the keys of services that follow the revocation log."""

from __future__ import annotations

from typing import Any

import click
from msgspec import to_builtins

from dutchdoor.auth import Auth
from dutchdoor.model.acting import BY_COMMAND
from dutchdoor.model.service_credentials import VerifierKey
from dutchdoor.revocation.messages import MAX_SEQ
from dutchdoor.revocation.node_messages import LogHead, Rows
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
    NewVerifier,
    add_verifier,
    check_verifier_name,
    remove_verifier,
    rotate_verifier,
)
from dutchdoor.web.schemas import Fence

__all__ = ["verifier"]


@click.group()
def verifier() -> None:
    """Create, list, replace and remove the keys of services that follow the revocation log."""


@verifier.command(epilog="Example: dutchdoor verifier add orders")
@click.argument("name")
@as_json
@with_settings("database", "master_key")
def add(name: str, *, as_json: bool, **options: Any) -> None:
    """Create a verifier key for a service. All processes of the service share the key. It is printed once, not stored.

    The service passes the key to Verifier(..., key=...), or reads it from DUTCHDOOR_VERIFIER_KEY.
    """
    check_verifier_name(name)  # before a database is created

    made = with_auth(settings_from(options), lambda auth: add_verifier(auth.authority, name, **BY_COMMAND), make=True)
    if as_json:
        print_json({"name": name, "id": made.key.id, "key": made.secret})
        return
    _print_key(made)


def _print_key(made: NewVerifier) -> None:
    print_pairs([("name", made.key.name), ("key", made.secret)])
    say("The key is shown only once.")


@verifier.command("list", epilog="Example: dutchdoor verifier list --json")
@as_json
@with_settings("database", "master_key")
def list_(*, as_json: bool, **options: Any) -> None:
    """List verifier keys, and the server processes that have rows in the store.

    Only the server process that a verifier polls knows the position and the lease of that verifier. Read them from
    the /admin/api/verifiers and the metrics of that process.
    """

    async def work(auth: Auth) -> tuple[list[VerifierKey], Rows, LogHead]:
        rows = await auth.store.node_rows()
        read = await auth.store.read_log(rows.log_epoch, MAX_SEQ)  # the head, without entries
        return await auth.store.select(VerifierKey), rows, LogHead(read.log_epoch, read.head)

    keys, found, head = with_auth(settings_from(options), work)
    # The acknowledged sequence of a row is valid only in the log of that row.
    nodes = [
        (row, head.seq - row.acked_seq if row.log_epoch == head.log_epoch else None)
        for row in sorted(found.rows, key=lambda row: row.id)
    ]
    if as_json:
        print_json(
            {
                "verifiers": [{"name": key.name, "id": key.id, "created_at": instant(key.created_at)} for key in keys],
                "log": {"epoch": head.log_epoch, "seq": head.seq},
                "nodes": [{"id": row.id, "behind": behind, "lease_s": row.lease_for} for row, behind in nodes],
            }
        )
        return
    print_table(
        ("name", "created", "id"),
        ((key.name, instant(key.created_at), key.id) for key in keys),
        empty="There are no verifiers.",
    )
    write()
    print_table(
        ("node", "behind", "lease"),
        ((row.id, "in another log" if behind is None else behind, f"{row.lease_for:g} s") for row, behind in nodes),
        empty="There are no server processes with rows: no verifier has polled yet.",
    )


@verifier.command(epilog="Example: dutchdoor verifier rotate orders")
@click.argument("name")
@no_wait
@as_json
@with_settings("database", "master_key")
def rotate(name: str, *, no_wait: bool, as_json: bool, **options: Any) -> None:
    """Replace a verifier key, and print the new one. Polls with the old key are refused from then on.

    The service refuses all tokens until it has the new key. For a change without a gap, add a key under another name,
    give it to the service, and remove the first.
    """

    async def work(auth: Auth) -> tuple[NewVerifier, Fence]:
        made = await rotate_verifier(auth.authority, name, **BY_COMMAND)
        return made, await wait_for(auth, made.done, no_wait=no_wait)

    made, fenced = with_auth(settings_from(options), work)
    if as_json:
        print_json({"name": name, "id": made.key.id, "key": made.secret, **to_builtins(fenced)})
        return
    _print_key(made)
    say_fence(fenced)


@verifier.command(epilog="Example: dutchdoor verifier remove orders")
@click.argument("name")
@no_wait
@as_json
@with_settings("database", "master_key")
def remove(name: str, *, no_wait: bool, as_json: bool, **options: Any) -> None:
    """Remove a verifier key. Its polls are refused from then on. When this prints "Fenced", its leases have expired."""

    async def work(auth: Auth) -> Fence:
        done = await remove_verifier(auth.authority, name, **BY_COMMAND)
        return await wait_for(auth, done, no_wait=no_wait)

    fenced = with_auth(settings_from(options), work)
    if as_json:
        print_json({"name": name, "removed": True, **to_builtins(fenced)})
    else:
        write("Removed.")
        say_fence(fenced)
