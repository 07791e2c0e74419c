"""`dutchdoor vacuum`: give the space of deleted records back to the disk."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import click

from dutchdoor.errors import Misconfigured
from dutchdoor.server.factory import sqlite_file
from dutchdoor.server.options import as_json, must_be_there, settings_from, with_settings
from dutchdoor.server.terminal import print_json, write
from dutchdoor.stores.sqlite import SqliteStore
from dutchdoor.stores.sqlite.file import vacuum as write_anew

__all__ = ["vacuum"]


@click.command(epilog="Example: dutchdoor vacuum --database sqlite:////var/lib/dutchdoor/dutchdoor.db")
@as_json
@with_settings("database")
def vacuum(*, as_json: bool, **options: Any) -> None:
    """Give the space of deleted records back to the disk (SQLite). Stop all servers first.

    Without this command, SQLite uses that space for new records: the file does not grow before it is full. The disk
    needs room for a second copy of the file meanwhile.
    """
    settings = settings_from(options)
    must_be_there(settings)
    file = sqlite_file(settings)
    if file is None:
        raise Misconfigured("Only a SQLite file needs this: PostgreSQL gives space back by itself (autovacuum).")
    before = file.stat().st_size
    asyncio.run(_vacuum(file))
    after = file.stat().st_size
    if as_json:
        print_json({"bytes_before": before, "bytes_after": after})
    else:
        write(f"{file}: {before / 2**20:.1f} MiB before, {after / 2**20:.1f} MiB now.")


async def _vacuum(file: Path) -> None:
    store = SqliteStore(file)
    await store.open(to_move=True, as_is=True)  # finds out that it is ours, and that no other process has it open
    await store.close()
    await asyncio.to_thread(write_anew, file)
