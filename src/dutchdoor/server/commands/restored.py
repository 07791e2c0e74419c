"""`dutchdoor restored`: a new revocation log, after the database was restored or promoted."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

import click

from dutchdoor.auth import Auth
from dutchdoor.errors import Conflict
from dutchdoor.model.audit_events import event
from dutchdoor.revocation.lease import GUARD
from dutchdoor.revocation.node_messages import row_of_the_gone
from dutchdoor.server.options import ACTOR, NOBODY, as_json, must_be_there, settings_from, with_auth, with_settings
from dutchdoor.server.terminal import agree, print_json, write
from dutchdoor.stores.base import Log
from dutchdoor.stores.transfer import Movable
from dutchdoor.stores.urls import make_store, naming

__all__ = ["restored"]


@click.command(epilog="Example: dutchdoor restored --database postgresql://door@db/door --yes")
@click.option("--yes", is_flag=True, help="Do not ask.")
@as_json
@with_settings("database", "master_key", "lease")
def restored(*, yes: bool, as_json: bool, **options: Any) -> None:
    """Say that the database was restored from a backup, or promoted from a copy that may lack its last commits.

    Run it once, before servers are started on the restored database, with the --lease that they had. What was revoked
    since the backup is not in it: sessions that ended since live again, and passwords and roles are those of then. A
    new revocation log begins, so that every server and every verifier reads it anew and trusts nothing that it knew by
    number; and every account's epoch is raised above any that was ever given out.
    """
    settings = settings_from(options)
    url = settings.database.reveal()
    must_be_there(settings)
    if not yes:
        asyncio.run(_look(url))
        agree(
            "A new revocation log begins. Fences that are pending answer false, verifiers have no lease until they "
            f"have read it, and for {settings.lease * GUARD:.0f} s no fence is early. Was this database restored?"
        )

    asyncio.run(_take_back(url))

    async def work(auth: Auth) -> int:
        now = auth.authority.clock()
        # Those of the backup, or of nodes that still run over a copy that was promoted.
        before = (await auth.store.node_rows()).rows
        epoch = await auth.store.begin_log_epoch(now)
        await auth.store.node_register(row_of_the_gone(before, epoch, settings.lease))
        await auth.store.commit(Log(event("log_begun", now=now, client=NOBODY, actor=ACTOR, detail=f"epoch {epoch}")))
        return epoch

    epoch = with_auth(settings, work)
    if as_json:
        print_json({"log_epoch": epoch})
    else:
        write(f"A new revocation log begins: epoch {epoch}.")
        write("End again whatever was ended since the backup was made.")


async def _look(url: str) -> None:
    """Open the database before anything is asked, also one that was moved elsewhere."""
    with naming(url), contextlib.suppress(Conflict):  # somebody has it open: it is there
        store = make_store(url)
        if isinstance(store, Movable):
            await store.open(to_move=True)
            await store.close()


async def _take_back(url: str) -> None:
    """Have a database open again that was moved elsewhere, when what it was moved to is lost. It is a backup then."""
    store = make_store(url)
    if not isinstance(store, Movable):
        return
    with naming(url):
        try:
            await store.open(to_move=True)
        except Conflict:
            return  # somebody has it open, so that it was not left
        try:
            if await store.is_left():
                # In this order: killed in between, it still opens for nobody.
                await store.begin_log_epoch(time.time())
                await store.take_back()
        finally:
            await store.close()
