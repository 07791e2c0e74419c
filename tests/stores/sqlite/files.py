"""What the tests of the store in a file share."""

from __future__ import annotations

import multiprocessing
import sqlite3

FORK = multiprocessing.get_context("forkserver")


async def in_writer(store, work):
    """Run something with the writer's connection, in the writer's transaction."""
    return await store._write(lambda transaction: work(transaction.connection), atomic=True)


def intact(path):
    with sqlite3.connect(path) as connection:
        return connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
