"""`dutchdoor migrate`: update the schema of the database, or move all data to another database.

`dutchdoor.stores.transfer` explains how a move works, and why it begins a new log epoch.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from msgspec import Struct

from dutchdoor.errors import Conflict, Misconfigured
from dutchdoor.model.acting import BY_COMMAND
from dutchdoor.model.audit_events import event
from dutchdoor.model.policy import HOUR
from dutchdoor.revocation.lease import GUARD
from dutchdoor.server.config import Secret, refuse_argument
from dutchdoor.server.options import as_json, settings_from, with_auth, with_settings
from dutchdoor.server.terminal import print_json, print_pairs, say, write
from dutchdoor.services.fencing import elapsed
from dutchdoor.stores.transfer import LogState, Movable, Tally
from dutchdoor.stores.urls import is_in_memory, make_store, naming

__all__ = ["Moved", "migrate", "move"]

REPORT_EVERY = 1.0
LEASES_LONG_OVER = HOUR
"""Seconds before now at which the log of the target begins: longer than any lease, and than clocks may differ."""
LOOK_AT_MOST = 30.0
"""Longest wait for a sign of a running server, in seconds: nodes renew their rows every sixth of a lease."""


@click.command(
    epilog="Examples: dutchdoor migrate --database sqlite:////srv/dutchdoor.db; "
    "dutchdoor migrate --from sqlite:////srv/dutchdoor.db --to postgresql://dutchdoor@db/dutchdoor"
)
@click.option("--from", "source", metavar="URL", envvar="DUTCHDOOR_MOVE_FROM", help="Move all data from this database.")
@click.option("--to", "target", metavar="URL", envvar="DUTCHDOOR_MOVE_TO", help="Move it to this empty database.")
@as_json
@with_settings("database", "master_key")
def migrate(source: str | None, target: str | None, *, as_json: bool, **options: Any) -> None:
    """Update the schema and count the records; or, with --from and --to, move all data to another database.

    `serve` updates the schema by itself. Other commands refuse the database of an older version. A move copies all
    records, so users stay signed in. Before a move, stop all servers; after it, start servers on the new database with
    the same master key. Both can be interrupted and run again. Pass a URL with a password in DUTCHDOOR_MOVE_FROM or
    DUTCHDOOR_MOVE_TO, so that other users do not see it.
    """
    context = click.get_current_context()
    for name, option, variable in (
        ("source", "--from", "DUTCHDOOR_MOVE_FROM"),
        ("target", "--to", "DUTCHDOOR_MOVE_TO"),
    ):
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            refuse_argument(Secret(context.params[name]), option, variable)
    if source is not None or target is not None:
        if source is None or target is None or source == target:
            raise Misconfigured("A move needs both --from and --to, and two different databases. Nothing was changed.")
        _print_moved(asyncio.run(_move(source, target)), as_json=as_json)
        return

    counts = with_auth(settings_from(options), lambda auth: auth.store.counts(), update=True)
    if as_json:
        print_json({"up_to_date": True, "rows": counts})
        return
    write("The schema is up to date.")
    print_pairs(sorted(counts.items()))


class Moved(Struct, frozen=True, kw_only=True):
    """What a move did."""

    log_epoch: int
    """Epoch of the new log in the target."""
    rows: dict[str, int]
    digests: dict[str, str]
    already: bool = False
    """Whether an earlier run had finished the move already."""


async def move(
    source: Movable, target: Movable, *, clock: Callable[[], float] = time.time, report: Callable[[str], None] = say
) -> Moved:
    """Move all records from one open store to another, or continue an interrupted move.

    Raises:
        Misconfigured: the target has its own records, or those of another move; the source is an unfinished target,
            was moved elsewhere before, or is empty; or source and target are the same database.
        Conflict: another process writes to the source.
    """
    if source.kinds.tables != target.kinds.tables:
        raise Misconfigured("The two stores do not have the same kinds of record. Nothing was changed.")
    if await source.unfinished() is not None:
        raise Misconfigured("The source database is the target of another move that is not finished.")
    over_at = await _refuse_servers(source, report)
    log, there = await _log_of(source), await _log_of(target)
    done = await target.unfinished()
    if done is None:
        counts = await target.counts()
        if there == log:
            raise Misconfigured("Source and target are the same database, or copies of it. Nothing was changed.")
        if not any((await source.counts()).values()):
            raise Misconfigured("The source database is empty. Check that --from is right. Nothing was changed.")
        if there.salt == log.salt and there.log_epoch > log.log_epoch:
            report("This database was moved to the target before. Nothing was changed.")
            return Moved(log_epoch=there.log_epoch, rows=counts, digests={}, already=True)
        if await source.is_left():
            raise Misconfigured(
                "The source database was moved to another database before. Move from that database instead. If it is "
                "lost, run `dutchdoor restored` first. Nothing was changed."
            )
        try:
            await target.begin_move(log)
        except Conflict:
            found = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count) or "a log with entries"
            raise Misconfigured(f"The target database is not empty: {found}. Nothing was changed.") from None
        done = {}
    elif there.salt != log.salt:
        raise Misconfigured("The target database has an unfinished move from another source. Nothing was changed.")
    elif there != log:
        report("The source database has changed since the last run. The move starts again.")
        await target.begin_move(log)
        done = {}
    else:
        report("Continuing the interrupted move.")
    try:
        for kind in source.kinds.tables:
            if kind not in done or done[kind] is not None:
                await _copy(source, target, kind, done.get(kind), report)
    except Conflict:
        # Two records conflict in the target, so they were not read at the same moment.
        await _begin_again(target, log, "")
    tallies = await _compared(source, target, log, report)
    await source.leave()
    await _wait_for_leases(over_at, report)
    now = clock()
    record = event("log_begun", now=now, **BY_COMMAND, detail=f"moved from epoch {log.log_epoch}")
    # No lease is left, so no node of the target has to wait for one: its log may have begun long ago. Unless another
    # one began since: an epoch must be above each that an account was given.
    began = now - LEASES_LONG_OVER
    log_epoch = await target.end_move(began if began * 1000 > log.log_epoch else now, record)
    return Moved(
        log_epoch=log_epoch,
        rows={kind: tally.count for kind, tally in tallies.items()},
        digests={kind: tally.digest for kind, tally in tallies.items()},
    )


async def _refuse_servers(store: Movable, report: Callable[[str], None]) -> float:
    """Refuse if the row of a node changes: a running process renews it. Return the elapsed time from which no verifier
    has a lease of those nodes.
    """
    looked_at = elapsed()
    rows = (await store.node_rows()).rows
    if not rows:
        return looked_at
    wait = min(LOOK_AT_MOST, max(row.lease_for for row in rows) / 6 * 1.5 + 1.0)
    report(f"Waiting {wait:.0f} s to see whether a server still runs on the source database.")
    stamps = {row.stamp for row in rows}
    deadline = time.monotonic() + wait
    while time.monotonic() < deadline:
        await asyncio.sleep(0.25)
        if any(row.stamp not in stamps for row in (await store.node_rows()).rows):
            text = "A server runs on the source database. Stop all servers, and run this again."
            raise Conflict(text, message=text)
    return looked_at + GUARD * max(row.lease_for for row in rows)


async def _wait_for_leases(over_at: float, report: Callable[[str], None]) -> None:
    """Wait until no verifier has a lease of a server of the source: then the target need not know of those servers."""
    left = over_at - elapsed()
    if left > 0:
        report(f"Waiting {left:.0f} s until the last lease of a server of the source is over.")
        await asyncio.sleep(left)


async def _log_of(store: Movable) -> LogState:
    read = await store.read_log(0, 0)
    return LogState(read.log_epoch, read.salt, read.head)


async def _copy(source: Movable, target: Movable, kind: str, after: str | None, report: Callable[[str], None]) -> None:
    copied, reported_at = 0, time.monotonic()
    while True:
        page = await source.export(kind, after)
        await target.take_in(kind, page)
        copied += len(page.records)
        if time.monotonic() - reported_at > REPORT_EVERY:
            reported_at = time.monotonic()
            report(f"{kind}: {copied} copied")
        after = page.after
        if after is None:
            report(f"{kind}: {copied} copied, done")
            return


async def _compared(source: Movable, target: Movable, log: LogState, report: Callable[[str], None]) -> dict[str, Tally]:
    """Read both stores again and compare them, one after the other: reading is limited by the disk."""
    tallies: dict[str, Tally] = {}
    differ: list[str] = []
    for kind in source.kinds.tables:
        report(f"{kind}: comparing")
        ours, theirs = await _tally(source, kind), await _tally(target, kind)
        tallies[kind] = theirs
        if (ours.count, ours.digest) != (theirs.count, theirs.digest):
            differ.append(kind)
    if await _log_of(source) != log or await _log_of(target) != log:
        differ.append("the log")
    if differ:
        await _begin_again(target, log, f" ({', '.join(differ)})")
    return tallies


async def _tally(store: Movable, kind: str) -> Tally:
    tally, after = Tally(), None
    while True:
        page = await store.export(kind, after)
        tally.add(page.records)
        if (after := page.after) is None:
            return tally


async def _begin_again(target: Movable, log: LogState, what: str) -> None:
    await target.begin_move(log)
    text = (
        f"The source database changed during the move{what}. Stop all servers and commands that use it, and run this "
        "again. The move starts again."
    )
    raise Conflict(text, message=text)


def _store(url: str) -> Movable:
    store = make_store(url)
    if is_in_memory(url) or not isinstance(store, Movable):
        raise Misconfigured(f"A move from or to a {url.partition(':')[0]} store is not possible.")
    return store


def _there(url: str) -> Movable:
    if url.startswith("sqlite:///") and not Path(url.removeprefix("sqlite:///")).exists():
        raise Misconfigured(f"The source database {url.removeprefix('sqlite:///')} does not exist.")
    return _store(url)


async def _move(source_url: str, target_url: str) -> Moved:
    source, target = _there(source_url), _store(target_url)
    async with contextlib.AsyncExitStack() as stack:
        for store, url in ((source, source_url), (target, target_url)):
            stack.push_async_callback(store.close)
            with naming(url):
                await store.open(to_move=True)
        return await move(source, target)


def _print_moved(moved: Moved, *, as_json: bool) -> None:
    if as_json:
        print_json({"moved": True, **{name: getattr(moved, name) for name in moved.__struct_fields__}})
        return
    if not moved.already:
        write(f"All data was moved and compared. A new revocation log begins: epoch {moved.log_epoch}.")
    print_pairs(sorted(moved.rows.items()))
    write("Start the servers on the new database, with the same master key. Never start them on the old one again.")
