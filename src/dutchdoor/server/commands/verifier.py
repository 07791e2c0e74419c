"""`dutchdoor verifier`: the keys of services that follow the revocation log."""

from __future__ import annotations

import re
import time
from typing import Any

import click
from msgspec import to_builtins

from dutchdoor.auth import Auth
from dutchdoor.errors import Conflict, NotFound
from dutchdoor.model.audit_events import event
from dutchdoor.model.ids import new_id
from dutchdoor.model.service_credentials import VerifierKey, VerifierSecret
from dutchdoor.revocation.messages import MAX_SEQ
from dutchdoor.revocation.node_messages import LogHead, Rows
from dutchdoor.server.options import (
    ACTOR,
    NO_CLIENT,
    as_json,
    no_wait,
    say_fence,
    settings_from,
    wait_for,
    with_auth,
    with_settings,
)
from dutchdoor.server.terminal import instant, print_json, print_pairs, print_table, say, write
from dutchdoor.stores.base import Add, Log, Remove, Revoke
from dutchdoor.web.schemas import Fence
from dutchdoor.web.verifiers import removal_of

__all__ = ["verifier"]

_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,64}")


@click.group()
def verifier() -> None:
    """Create, list and remove the keys of services that follow the revocation log."""


@verifier.command(epilog="Example: dutchdoor verifier add orders")
@click.argument("name")
@as_json
@with_settings("database", "master_key")
def add(name: str, *, as_json: bool, **options: Any) -> None:
    """Create a verifier key for a service. All processes of the service share the key. It is printed once, not stored.

    The service passes the key to Verifier(..., key=...), or reads it from DUTCHDOOR_VERIFIER_KEY.
    """
    if not _NAME.fullmatch(name):
        raise click.UsageError("The name of a verifier has 1 to 64 letters, digits or characters of - _ . :")
    secret = VerifierSecret.mint(new_id())
    row = VerifierKey(id=secret.id, name=name, secret_hash=secret.hash(), created_at=time.time())

    async def work(auth: Auth) -> None:
        now = auth.authority.clock()
        record = event("verifier_added", now=now, client=NO_CLIENT, actor=ACTOR, client_id=row.id, detail=name)
        try:
            await auth.store.commit(Add(row), Log(record))
        except Conflict:
            text = f"Verifier {name!r} already exists. Remove it first, or choose another name."
            raise Conflict(text, message=text) from None

    with_auth(settings_from(options), work, make=True)
    if as_json:
        print_json({"name": name, "id": row.id, "key": secret.text()})
        return
    print_pairs([("name", name), ("key", secret.text())])
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


@verifier.command(epilog="Example: dutchdoor verifier remove orders")
@click.argument("name")
@no_wait
@as_json
@with_settings("database", "master_key")
def remove(name: str, *, no_wait: bool, as_json: bool, **options: Any) -> None:
    """Remove a verifier key. Its polls are refused from then on. When this prints "Fenced", its leases have expired."""

    async def work(auth: Auth) -> Fence:
        row = await auth.store.find(VerifierKey, name=name)
        if row is None:
            text = f"There is no verifier {name[:64]!a}."
            raise NotFound(text, message=text)
        now = auth.authority.clock()
        record = event("verifier_removed", now=now, client=NO_CLIENT, actor=ACTOR, client_id=row.id, detail=row.name)
        done = await auth.store.commit(Remove(row), Revoke(removal_of(row, now)), Log(record))
        return await wait_for(auth, done, no_wait=no_wait)

    fenced = with_auth(settings_from(options), work)
    if as_json:
        print_json({"name": name, "removed": True, **to_builtins(fenced)})
    else:
        write("Removed.")
        say_fence(fenced)
