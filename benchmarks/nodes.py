"""Authenticated requests at one node and at two, over one PostgreSQL: `python -m benchmarks.nodes [--quick]`.

`dutchdoor serve` as it ships, a process a node: the first on core 0, the second on core 1, where the load, PostgreSQL
and Valkey are as well. On two cores two nodes cannot show twice the rate of one, since the load needs one of them. What
does show is what an answer costs: processor time of the nodes, the same with two if nothing is shared between them, and
statements of PostgreSQL, none if a node answers from its memory under its lease.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import statistics
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import asyncpg
import uvloop

from benchmarks.__main__ import Machine, say
from benchmarks.contenders import EMAIL, JSON, OUR_PASSWORD, OURS_SERVER, View
from benchmarks.databases import end_in_order, postgres, valkey
from benchmarks.fence_live import DUTCHDOOR
from benchmarks.load import HOST, Figures, Generator, Request, ask, drive, repeating
from benchmarks.polls import spent
from benchmarks.servers import LOAD_CORE, SERVER_CORE, free_port, pin
from dutchdoor.auth.key_file import read_or_make_master_key

CREDENTIALS, CONNECTIONS = 64, 32
CORES = (SERVER_CORE, LOAD_CORE)


@contextlib.contextmanager
def nodes(count: int, database: str, redis: str, folder: Path) -> Iterator[list[tuple[int, int]]]:
    """Run so many; give their ports and process ids."""
    read_or_make_master_key(folder / "keys")
    clean = {name: value for name, value in os.environ.items() if not name.startswith("DUTCHDOOR_")}
    environ = {
        **clean,
        "DUTCHDOOR_DATABASE": database,
        "DUTCHDOOR_REDIS": redis,
        "DUTCHDOOR_MASTER_KEY_FILE": str(folder / "keys"),
        "DUTCHDOOR_PUBLIC_URL": "http://localhost:8000",  # one issuer for both
        "DUTCHDOOR_OTHER_HOST": HOST,
    }
    with contextlib.ExitStack() as stack:
        running = []
        for number in range(count):
            port = free_port()
            log = stack.enter_context((folder / f"node{number}.log").open("wb"))
            process = subprocess.Popen(
                [DUTCHDOOR, "serve", "--port", str(port)], cwd=folder, env=environ, stdout=subprocess.PIPE, stderr=log,
                preexec_fn=lambda core=CORES[number]: pin(core),  # noqa: PLW1509 - no other thread runs here
            )  # fmt: skip
            stack.callback(process.wait)
            stack.callback(process.terminate)
            assert process.stdout is not None
            stack.callback(process.stdout.close)
            if b"ready" not in process.stdout.readline():
                raise RuntimeError((folder / f"node{number}.log").read_text()[-3000:])
            running.append((port, process.pid))
        yield running


def signed_in(port: int, view: View) -> list[Request]:
    found = []
    for _ in range(CREDENTIALS):
        answer = ask(port, view.login)
        if answer.status != 200:
            raise RuntimeError(f"signing in answered {answer.status}: {answer.body[:300]!r}")
        found.append(Request("GET", view.me, view.credential(answer)))
    return found


async def one(
    running: Sequence[tuple[int, int]], requests: Sequence[Request], seconds: float, load: Generator, database: str
) -> dict[str, float]:
    async def everywhere(lasting: float) -> list[Figures]:
        if len(running) == 1:
            return [await load.repeat(running[0][0], requests, CONNECTIONS, lasting)]
        each = CONNECTIONS // len(running)
        return await asyncio.gather(*(load.repeat(port, requests, each, lasting) for port, _ in running))

    for port, _ in running:
        await drive(port, repeating(requests, CONNECTIONS), 0.5)  # every node has seen every credential
    before = [spent(pid) for _, pid in running], await statements(database)
    figures = await everywhere(seconds)
    good = sum(each.good for each in figures)
    if any(each.bad for each in figures):
        raise RuntimeError(f"bad answers: {sum(each.bad for each in figures)}")
    used = sum(spent(pid) - was for (_, pid), was in zip(running, before[0], strict=True))
    asked = await statements(database) - before[1]
    return {
        "rate": sum(each.rate for each in figures),
        "p99": max(each.p99 for each in figures),
        "cpu": used / good * 1e6,
        "statements": asked / good,
    }


async def statements(database: str) -> int:
    connection: Any = await asyncpg.connect(database)
    try:
        await connection.execute("SELECT pg_stat_force_next_flush()")
        return await connection.fetchval(
            "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()"
        )
    finally:
        await connection.close()


async def measure(rounds: int, seconds: float, load: Generator) -> None:
    pin(LOAD_CORE)
    found: defaultdict[tuple[str, str, int], list[dict[str, float]]] = defaultdict(list)
    with (
        tempfile.TemporaryDirectory(prefix="dutchdoor-") as top,
        postgres(cores=[LOAD_CORE]) as server,
        valkey(cores=[LOAD_CORE]) as redis,
    ):
        folder = Path(top)
        for beside, url in (("PostgreSQL", ""), ("PostgreSQL + Valkey", redis)):
            database = server.url()
            with nodes(2, database, url, folder) as running:
                made = ask(
                    running[0][0],
                    Request("POST", "/auth/register", JSON, f'{{"email": "{EMAIL}", "password": "{OUR_PASSWORD}"}}'),
                )
                if made.status != 201:
                    raise RuntimeError(f"registering answered {made.status}: {made.body[:300]!r}")
                for view in OURS_SERVER.views:
                    requests = signed_in(running[0][0], view)
                    for number in range(rounds):
                        for count in (1, 2)[:: -1 if number % 2 else 1]:
                            say(f"{beside}, {view.kind}, {count} nodes, round {number + 1}")
                            done = await one(running[:count], requests, seconds, load, database)
                            found[beside, view.kind, count].append(done)
    print("| | authenticated by | nodes | requests/s | p99, ms | CPU of nodes a request, us | statements a request |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for (beside, kind, count), every in found.items():
        rate, p99, cpu, asked = (statistics.median(each[name] for each in every) for name in every[0])
        print(f"| {beside} | {kind} | {count} | {rate:,.0f} | {p99:.1f} | {cpu:.0f} | {asked:.4f} |")


def main() -> None:
    end_in_order()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.nodes", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--generator", choices=["auto", "wrk", "own"], default="auto")
    given = parser.parse_args()
    machine = Machine()
    load = Generator.chosen(given.generator)
    uvloop.run(measure(1 if given.quick else 3, 1.5 if given.quick else 4.0, load))
    print(f"\nLoad by {load.name}. {machine.noise()}")


if __name__ == "__main__":
    main()
