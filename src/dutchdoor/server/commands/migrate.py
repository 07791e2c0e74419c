"""`dutchdoor migrate`: the database's schema, brought up to date; or all that is in it, moved to another database.

How a move works, and why it ends with another log epoch, is in `dutchdoor.moving`.
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

from dutchdoor.auth import Auth
from dutchdoor.errors import Conflict, Misconfigured
from dutchdoor.model.audit_events import event
from dutchdoor.revocation.node_messages import row_of_the_gone
from dutchdoor.server.config import Secret, refuse_argument
from dutchdoor.server.options import ACTOR, NOBODY, as_json, settings_from, with_auth, with_settings
from dutchdoor.server.terminal import print_json, print_pairs, say, write
from dutchdoor.stores.transfer import LogState, Movable, Tally
from dutchdoor.stores.urls import make_store, naming

__all__ = ["Moved", "migrate", "move"]

TELL_EVERY = 1.0
LOOK_AT_MOST = 30.0
"""Seconds that a look for servers takes at most: nodes renew their rows every sixth of a lease."""


@click.command(
    epilog="Examples: dutchdoor migrate --database sqlite:////srv/door.db; "
    "dutchdoor migrate --from sqlite:////srv/door.db --to postgresql://door@db/door"
)
@click.option("--from", "source", metavar="URL", envvar="DUTCHDOOR_MOVE_FROM", help="Move everything from here,")
@click.option("--to", "target", metavar="URL", envvar="DUTCHDOOR_MOVE_TO", help="to this empty database.")
@as_json
@with_settings("database", "master_key")
def migrate(source: str | None, target: str | None, *, as_json: bool, **options: Any) -> None:
    """Bring the schema up to date, and say what is in the database; or, with --from and --to, move to another database.

    `serve` brings the schema up to date by itself. A move copies everything as it stands, so that people stay signed
    in: stop all servers first, give the new ones the same master key. Both can be interrupted at any moment and run
    again. A URL with a password is given in DUTCHDOOR_MOVE_FROM or DUTCHDOOR_MOVE_TO, where no other user sees it.
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
            raise Misconfigured("A move needs --from and --to, two databases. Nothing was done.")
        _print_moved(asyncio.run(_move(source, target)), as_json=as_json)
        return

    async def work(auth: Auth) -> dict[str, int]:
        return await auth.store.counts()

    counts = with_auth(settings_from(options), work, make=True)
    if as_json:
        print_json({"up_to_date": True, "rows": counts})
        return
    write("The schema is up to date.")
    print_pairs(sorted(counts.items()))


class Moved(Struct, frozen=True, kw_only=True):
    """What a move did."""

    log_epoch: int
    """Of the log that has begun in the target."""
    rows: dict[str, int]
    digests: dict[str, str]
    already: bool = False
    """Whether it had been done before, by a run whose end nobody saw."""


async def move(
    source: Movable, target: Movable, *, clock: Callable[[], float] = time.time, tell: Callable[[str], None] = say
) -> Moved:
    """Move everything from one open store into another, or go on where an earlier run was interrupted.

    Raises:
        Misconfigured: the target has records of its own, or those of another move; the source is such a target, was
            moved elsewhere before, or is empty; or both are one.
        Conflict: somebody writes to the source.
    """
    if source.kinds.tables != target.kinds.tables:
        raise Misconfigured("The two stores were not made with the same kinds of record. Nothing was done.")
    if await source.unfinished() is not None:
        raise Misconfigured("The database to move from is itself the target of a move that was not finished.")
    await _refuse_servers(source, tell)
    log, there = await _log_of(source), await _log_of(target)
    done = await target.unfinished()
    if done is None:
        counts = await target.counts()
        if there == log:
            raise Misconfigured("Both names lead to one database, or to copies of one. Nothing was done.")
        if not any((await source.counts()).values()):
            raise Misconfigured("There is nothing in the database to move from. Is it the right one? Nothing was done.")
        if there.salt == log.salt and there.log_epoch > log.log_epoch:
            tell("This database was moved there before. Nothing was done.")
            await _wait_for_the_gone(source, target, there.log_epoch)
            return Moved(log_epoch=there.log_epoch, rows=counts, digests={}, already=True)
        if await source.is_left():
            raise Misconfigured(
                "Everything in the database to move from was moved elsewhere before, and went on there. Move from that "
                "one; or, if it is lost, run `dutchdoor restored` first. Nothing was done."
            )
        try:
            await target.begin_move(log)
        except Conflict:
            found = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count) or "a log that was written"
            raise Misconfigured(f"The database to move to is not empty: {found}. Nothing was done.") from None
        done = {}
    elif there.salt != log.salt:
        raise Misconfigured("In the database to move to is the unfinished move of another database. Nothing was done.")
    elif there != log:
        tell("The database to move from has changed since the last run, which begins anew.")
        await target.begin_move(log)
        done = {}
    else:
        tell("Going on where the last run was interrupted.")
    try:
        for kind in source.kinds.tables:
            if kind not in done or done[kind] is not None:
                await _copy(source, target, kind, done.get(kind), tell)
    except Conflict:
        # A record stands in another's way, which it did not at one moment.
        await _begin_again(target, log, "")
    tallies = await _compared(source, target, log, tell)
    now = clock()
    await source.leave()
    detail = f"moved from epoch {log.log_epoch}"
    log_epoch = await target.end_move(now, event("log_begun", now=now, client=NOBODY, actor=ACTOR, detail=detail))
    await _wait_for_the_gone(source, target, log_epoch)
    return Moved(
        log_epoch=log_epoch,
        rows={kind: tally.count for kind, tally in tallies.items()},
        digests={kind: tally.digest for kind, tally in tallies.items()},
    )


async def _refuse_servers(store: Movable, tell: Callable[[str], None]) -> None:
    """Refuse if a row of a node changes: it is renewed by a process that runs."""
    rows = (await store.node_rows()).rows
    if not rows:
        return
    wait = min(LOOK_AT_MOST, max(row.lease_for for row in rows) / 6 * 1.5 + 1.0)
    tell(f"Looking for {wait:.0f} s whether a server still runs on the database to move from.")
    stamps = {row.stamp for row in rows}
    deadline = time.monotonic() + wait
    while time.monotonic() < deadline:
        await asyncio.sleep(0.25)
        if any(row.stamp not in stamps for row in (await store.node_rows()).rows):
            text = "A server runs on the database to move from. Stop all of them, and run this again."
            raise Conflict(text, message=text)


async def _wait_for_the_gone(source: Movable, target: Movable, log_epoch: int) -> None:
    """Have the target's fences wait for leases that the source's servers granted, if they left any."""
    rows = (await source.node_rows()).rows
    if rows:
        await target.node_register(row_of_the_gone(rows, log_epoch))


async def _log_of(store: Movable) -> LogState:
    read = await store.read_log(0, 0)
    return LogState(read.log_epoch, read.salt, read.head)


async def _copy(source: Movable, target: Movable, kind: str, after: str | None, tell: Callable[[str], None]) -> None:
    copied, told_at = 0, time.monotonic()
    while True:
        page = await source.export(kind, after)
        await target.take_in(kind, page)
        copied += len(page.records)
        if time.monotonic() - told_at > TELL_EVERY:
            told_at = time.monotonic()
            tell(f"{kind}: {copied} copied")
        after = page.after
        if after is None:
            tell(f"{kind}: {copied} copied, that is all")
            return


async def _compared(source: Movable, target: Movable, log: LogState, tell: Callable[[str], None]) -> dict[str, Tally]:
    """Read both again. Each page waits for nothing but the disk, so that they are compared one after the other."""
    tallies: dict[str, Tally] = {}
    differ: list[str] = []
    for kind in source.kinds.tables:
        tell(f"{kind}: comparing")
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
        f"The database to move from has changed since it was read{what}. Stop all servers and commands that use it, "
        "and run this again; it begins anew."
    )
    raise Conflict(text, message=text)


def _store(url: str) -> Movable:
    store = make_store(url)
    if url.startswith("memory:") or not isinstance(store, Movable):
        raise Misconfigured(f"Nothing can be moved from or to {url.partition(':')[0]}.")
    return store


def _there(url: str) -> Movable:
    if url.startswith("sqlite:///") and not Path(url.removeprefix("sqlite:///")).exists():
        raise Misconfigured(f"There is no database {url.removeprefix('sqlite:///')} to move from.")
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
        write(f"Everything was moved and compared. A new revocation log has begun: epoch {moved.log_epoch}.")
    print_pairs(sorted(moved.rows.items()))
    write("Start the servers on the new database, with the same master key; and never again on the old one.")
