"""`dutchdoor restored`: begin a new revocation log after the database was restored or promoted."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import click

from dutchdoor.auth import Auth
from dutchdoor.errors import Conflict
from dutchdoor.model.acting import BY_COMMAND
from dutchdoor.model.audit_events import event
from dutchdoor.revocation.node_messages import row_of_the_gone
from dutchdoor.server.options import as_json, must_be_there, settings_from, with_auth, with_settings
from dutchdoor.server.terminal import agree, print_json, say, write
from dutchdoor.stores.base import Log
from dutchdoor.stores.migrations import OlderSchema
from dutchdoor.stores.transfer import Movable
from dutchdoor.stores.urls import make_store, naming

__all__ = ["restored"]


@click.command(epilog="Example: dutchdoor restored --database postgresql://dutchdoor@db/dutchdoor --yes")
@click.option("--yes", is_flag=True, help="Do not ask.")
@as_json
@with_settings("database", "master_key", "lease")
def restored(*, yes: bool, as_json: bool, **options: Any) -> None:
    """Record that the database was restored from a backup, or promoted from a replica that may lack the last commits.

    Run this once, before you start servers on the restored database, with the longest --lease that they had since the
    backup, if they changed it. Revocations since the backup are lost: sessions that were revoked since are live again,
    and passwords and roles are those of the backup. A new revocation log begins, so every server and every verifier
    reads the log again from the start. The epoch of every account is raised above every epoch that was ever issued.
    """
    settings = settings_from(options)
    url = settings.database.reveal()
    must_be_there(settings)
    if asyncio.run(_is_in_use(url)):
        say(
            "Another process has this database open, perhaps a server. Stop all servers before a restore, and start "
            "them after this command: one that runs meanwhile may answer for some seconds from what it read before."
        )
    if not yes:
        agree(
            "This begins a new revocation log. Pending fences answer false, verifiers have no lease until they have "
            "read the new log, and every fence takes the maximum wait while a lease of an old server may be valid. "
            "Was this database restored?"
        )

    asyncio.run(_take_back(url))

    async def work(auth: Auth) -> int:
        now = auth.authority.clock()
        # Rows from the backup, or of nodes that still run on a promoted replica.
        before = (await auth.store.node_rows()).rows
        epoch = await auth.store.begin_log_epoch(now)
        await auth.store.node_register(row_of_the_gone(before, epoch, auth.authority.fencing.terms.lease_for))
        await auth.store.commit(Log(event("log_begun", now=now, **BY_COMMAND, detail=f"epoch {epoch}")))
        return epoch

    epoch = with_auth(settings, work, update=True)
    if as_json:
        print_json({"log_epoch": epoch})
    else:
        write(f"A new revocation log begins: epoch {epoch}.")
        write("Revoke again everything that was revoked since the backup.")


async def _is_in_use(url: str) -> bool:
    """Whether another process has the database open, as far as the store can tell. It may have been moved elsewhere."""
    store = make_store(url)
    if not isinstance(store, Movable):
        return False
    with naming(url):
        try:
            await store.open(to_move=True, as_is=True)
        except OlderSchema:
            return False
        except Conflict:
            return True
        await store.close()
    return False


async def _take_back(url: str) -> None:
    """Reopen a database that was moved elsewhere, if the new database is lost. The old one then serves as a backup."""
    store = make_store(url)
    if not isinstance(store, Movable):
        return
    with naming(url):
        try:
            await store.open(to_move=True)
        except Conflict:
            return  # another process has it open, so it was not moved elsewhere
        try:
            if await store.is_left():
                # In this order: if the process is killed in between, no server can open the database.
                await store.begin_log_epoch(time.time())
                await store.take_back()
        finally:
            await store.close()
