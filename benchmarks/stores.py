"""What a session costs on each store, beside SQLAlchemy and the bare driver on the same database, and as tables grow.

    python -m benchmarks.stores [--quick] [--only PostgreSQL SQLAlchemy ...] [--sizes] [--ten-million]

One program at a time calls from core 1, alone and with 64 callers; the databases are on core 0. Rounds are interleaved,
every second one backwards, and the table has medians of calls a second. All of PostgreSQL have the same server and the
same tables, with fsync on. Before the first round 10,000 sessions of 2,500 accounts are stored.

look-up   the session with its account by the session's id, as records
create    a session stored, and acknowledged when it is on disk
rotate    a session read, its generation raised, and written back on the condition that no other writer did

SQLAlchemy is 2.x with its ORM on asyncpg, 16 connections, a session of the ORM a call. The driver has 16 connections
and a prepared statement a call; "in batches" is the driver with the statements of 64 callers made into one by hand
(`= ANY`, COPY, UPDATE ... FROM unnest), and no records made of the rows: nothing on this database can be faster. On
PostgreSQL + Valkey a look-up finds a sealed copy.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import asyncpg
import uvloop

from benchmarks.__main__ import Machine, say
from benchmarks.databases import Database, end_in_order, postgres, valkey
from benchmarks.filling import fill, multiply_postgres, multiply_sqlite
from benchmarks.servers import LOAD_CORE, SERVER_CORE, pin
from dutchdoor.stores.urls import make_store

CALLERS = (1, 64)
OPERATIONS = ("look-up", "create", "rotate")
ROWS = 10_000
HERE = Path(__file__).parent


class Kind(NamedTuple):
    """A column: how its worker is started, and over which database."""

    name: str
    command: tuple[str, ...]
    database: str


def _ours(kind: str, redis: str = "-") -> tuple[str, ...]:
    return (sys.executable, "-m", "benchmarks.store_worker", kind, redis)


KINDS = (
    Kind("memory", _ours("memory"), "memory"),
    Kind("SQLite", _ours("sqlite"), "sqlite"),
    Kind("PostgreSQL", _ours("postgres"), "postgres"),
    Kind("PostgreSQL + Valkey", _ours("valkey", "{redis}"), "postgres"),
    Kind(
        "SQLAlchemy",
        (str(HERE / ".venvs/sqlalchemy/bin/python"), str(HERE / "peers/sqlalchemy_sessions.py")),
        "postgres",
    ),
    Kind("driver", _ours("driver"), "postgres"),
    Kind("driver, in batches", _ours("batches"), "postgres"),
)


def run(command: Sequence[str], url: str, ids: Path, callers: Sequence[int], seconds: float) -> dict[str, dict]:
    done = subprocess.run(
        [*command, url, str(ids), ",".join(map(str, callers)), str(seconds)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])},
    )
    if done.returncode:
        raise RuntimeError(f"{command}: {done.stderr[-3000:]}")
    return json.loads(done.stdout)


async def prepared(url: str, rows: int, ids: Path) -> None:
    store = make_store(url)
    await store.open()
    ids.write_text("\n".join(raw.hex() for raw in await fill(store, rows)))
    await store.close()


async def side_by_side(
    kinds: Sequence[Kind], rounds: int, seconds: float, folder: Path, database: Database, redis: str
) -> None:
    urls = {"memory": "memory:", "sqlite": f"sqlite:///{folder}/bench.db", "postgres": database.url()}
    ids = {name: folder / f"{name}.ids" for name in urls}
    ids["memory"].write_text("\n".join(["00" * 16] * ROWS))  # it makes its own
    for name in ("sqlite", "postgres"):
        await prepared(urls[name], ROWS, ids[name])
    found: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    late: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for number in range(rounds):
        for kind in kinds[:: -1 if number % 2 else 1]:
            say(f"round {number + 1}: {kind.name}")
            command = [part.replace("{redis}", redis) for part in kind.command]
            answers = run(command, urls[kind.database], ids[kind.database], CALLERS, seconds)
            for measure, answer in answers.items():
                found[kind.name, measure].append(answer["rate"])
                late[kind.name, measure].append(answer["p99"])
    names = [kind.name for kind in kinds]
    print(f"| calls a second (p99 in ms) | {' | '.join(names)} |\n|---|{'---:|' * len(names)}")
    medians = {each: statistics.median(values) for each, values in found.items()}
    for operation in OPERATIONS:
        for callers in CALLERS:
            measure = f"{operation} {callers}"
            cells = [f"{medians[name, measure]:,.0f} ({statistics.median(late[name, measure]):.1f})" for name in names]
            print(f"| {operation}, {callers} caller{'s' if callers > 1 else ''} | {' | '.join(cells)} |")
    ratios(medians, names)


def ratios(medians: dict[tuple[str, str], float], names: Sequence[str]) -> None:
    others = [name for name in ("SQLAlchemy", "driver", "driver, in batches") if name in names]
    if "PostgreSQL" not in names or not others:
        return
    print(f"\n| PostgreSQL, as a multiple of | {' | '.join(others)} |\n|---|{'---:|' * len(others)}")
    for operation in OPERATIONS:
        for callers in CALLERS:
            measure = f"{operation} {callers}"
            cells = [f"{medians['PostgreSQL', measure] / medians[other, measure]:.2f}" for other in others]
            print(f"| {operation}, {callers} | {' | '.join(cells)} |")
    if "SQLAlchemy" in names and "driver" in names:
        for operation in OPERATIONS:
            times = medians["PostgreSQL", f"{operation} 64"] / medians["SQLAlchemy", f"{operation} 64"]
            share = medians["PostgreSQL", f"{operation} 64"] / medians["driver", f"{operation} 64"]
            print(
                f"\n{operation} at 64 callers: {times:.1f} times SQLAlchemy ({'reached' if times >= 5 else 'missed'}: "
                f"5), {share:.2f} of the driver ({'reached' if share >= 0.6 else 'missed'}: 0.6)",
                end="",
            )
        print()


async def as_it_grows(sizes: Sequence[int], seconds: float, folder: Path, database: Database) -> None:
    print("\n| sessions | SQLite: bytes each | look-ups/s, 1 | 64 | PostgreSQL: bytes each | look-ups/s, 1 | 64 |")
    print("|---:|---:|---:|---:|---:|---:|---:|")
    for size in sizes:
        say(f"{size:,} sessions")
        path, ids = folder / f"{size}.db", folder / "grown.ids"
        await prepared(f"sqlite:///{path}", ROWS, ids)
        before = path.stat().st_size  # a store that was closed has no log beside it
        kept = multiply_sqlite(path, size) if size > ROWS else []
        if kept:
            each = (path.stat().st_size - before) / (size - ROWS)
            ids.write_text("\n".join(raw.hex() for raw in kept))
        else:
            each = _bytes_of_sessions(path) / ROWS
        lite = run(_ours("look"), f"sqlite:///{path}", ids, CALLERS, seconds)
        path.unlink()
        url = database.url()
        await prepared(url, ROWS, ids)
        kept = await multiply_postgres(url, size)
        if kept:
            ids.write_text("\n".join(raw.hex() for raw in kept))
        connection = await asyncpg.connect(url)
        total = await connection.fetchval("SELECT pg_total_relation_size('dutchdoor.sessions')")
        await connection.close()
        there = run(_ours("look"), url, ids, CALLERS, seconds)
        cells = [f"{found[f'look-up {callers}']['rate']:,.0f}" for found in (lite, there) for callers in CALLERS]
        print(f"| {size:,} | {each:,.0f} | {' | '.join(cells[:2])} | {total / size:,.0f} | {' | '.join(cells[2:])} |")
        connection = await asyncpg.connect(url.rpartition("/")[0] + "/postgres")
        await connection.execute(f"DROP DATABASE {url.rpartition('/')[2]} WITH (FORCE)")
        await connection.close()


def _bytes_of_sessions(path: Path) -> float:
    """What so few sessions take: the file without them is that of the schema and the accounts."""
    there = sqlite3.connect(path)
    path = path.with_suffix(".copy")
    connection = sqlite3.connect(path)
    there.backup(connection)
    there.close()
    connection.execute("VACUUM")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    whole = path.stat().st_size
    connection.execute("DELETE FROM sessions")
    connection.commit()
    connection.execute("VACUUM")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return whole - path.stat().st_size


async def measure(kinds: Sequence[Kind], sizes: Sequence[int], rounds: int, seconds: float) -> None:
    pin(LOAD_CORE)
    with (
        tempfile.TemporaryDirectory(prefix="dutchdoor-") as folder,
        postgres(cores=[SERVER_CORE]) as database,
        valkey(cores=[SERVER_CORE]) as redis,
    ):
        if kinds:
            await side_by_side(kinds, rounds, seconds, Path(folder), database, redis)
        if sizes:
            await as_it_grows(sizes, seconds, Path(folder), database)


def main() -> None:
    end_in_order()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stores", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round, and no more than 10^5 sessions")
    parser.add_argument("--only", nargs="*", choices=[kind.name for kind in KINDS], metavar="COLUMN")
    parser.add_argument("--sizes", action="store_true", help="only how it grows")
    parser.add_argument("--ten-million", action="store_true", help="up to 10^7 sessions: some ten minutes, 10 GB")
    given = parser.parse_args()
    kinds = [kind for kind in KINDS if given.only is None or kind.name in given.only]
    if given.sizes:
        kinds = []
    sizes = [10**4, 10**5] if given.quick else [10**4, 10**5, 10**6]
    if given.ten_million:
        sizes.append(10**7)
    if given.only is not None:
        sizes = []
    machine = Machine()
    uvloop.run(measure(kinds, sizes, 1 if given.quick else 3, 1.0 if given.quick else 3.0))
    print(f"\n{machine.noise()}")


if __name__ == "__main__":
    main()
