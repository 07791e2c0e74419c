"""Webhooks: messages a second and how late they come, against plain posts by the same HTTP client in the same process.

    python -m benchmarks.webhooks [--quick]

The receiver is a process of its own that answers 204 to everything. The limit is what the client alone does: as many
posts of the same body, eight at once. Webhooks read each event from the log, sign it, send it, and commit how far they
came. The lag is from the commit of a sign-in's event to its arrival, at 50 events a second.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import httpx2
import uvloop

from benchmarks.databases import end_in_order, postgres
from dutchdoor.auth import Auth
from dutchdoor.model.audit_events import event
from dutchdoor.model.http_client import Client
from dutchdoor.services.delivering import WIDTH, Courier, Deliveries
from dutchdoor.stores.base import Log

EVENTS, ACCOUNTS, LATE_FOR, A_SECOND = 5000, 500, 10.0, 50
NOW_AND_THEN = 0.005
TURNS = 5


class Receiver(asyncio.Protocol):
    """Answers each POST, and notes when each message id came."""

    def __init__(self, came: dict[str, float]) -> None:
        self.came, self.kept = came, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self.kept += data
        head, found, rest = self.kept.partition(b"\r\n\r\n")
        while found:
            fields = dict(line.split(b": ", 1) for line in head.lower().split(b"\r\n")[1:])
            size = int(fields[b"content-length"])
            if len(rest) < size:
                return
            original = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:])
            self.came.setdefault(original.get(b"webhook-id", b"").decode(), time.time())
            self.transport.write(b"HTTP/1.1 204 No Content\r\n\r\n")
            self.kept = rest[size:]
            head, found, rest = self.kept.partition(b"\r\n\r\n")


def receive(pipe: Connection) -> None:
    came: dict[str, float] = {}

    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(lambda: Receiver(came), "127.0.0.1", 0)
        pipe.send(server.sockets[0].getsockname()[1])
        while await asyncio.to_thread(pipe.recv):
            pipe.send(came)

    with contextlib.suppress(EOFError):
        uvloop.run(serve())


@contextlib.contextmanager
def receiver() -> Iterator[tuple[str, Connection]]:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=receive, args=(theirs,), daemon=True)
    process.start()
    yield f"http://127.0.0.1:{ours.recv()}/hooks", ours
    process.kill()
    process.join()


class Spent(NamedTuple):
    """Messages a second, and milliseconds of this process's cores for each."""

    rate: float
    cores: float


@contextlib.contextmanager
def spending(count: int, into: list[Spent]) -> Iterator[None]:
    begun, used = time.perf_counter(), time.process_time()
    yield
    into.append(
        Spent(count / (time.perf_counter() - begun), (time.process_time() - used) / count * 1000),
    )


async def plain(url: str, count: int, body: bytes, into: list[Spent]) -> None:
    """Post by the client alone."""
    transport = httpx2.AsyncHTTPTransport(trust_env=False)
    left = iter(range(count))

    async def post() -> None:
        for _ in left:
            request = httpx2.Request("POST", url, headers={"content-type": "application/json"}, content=body)
            response = await transport.handle_async_request(request)
            await response.aread()
            await response.aclose()

    with spending(count, into):
        async with asyncio.TaskGroup() as group:
            for _ in range(WIDTH):
                group.create_task(post())
    await transport.aclose()


async def happen(auth: Auth, number: int) -> str:
    made = event("session_started", now=time.time(), client=Client(), subject=f"user {number % ACCOUNTS}")
    await auth.authority.store.commit(Log(made))
    return made.id


async def measure(name: str, database: str, folder: Path, count: int, late_for: float) -> None:
    alone, webhooks = list[Spent](), list[Spent]()
    with receiver() as (url, pipe):
        auth = Auth(database, master_key=folder / f"{name}.keys", webhook_networks=["127.0.0.0/8"])
        await auth.open(upkeep=False)  # it does not send by itself
        made = await auth.webhooks.add(url, events=["session_started"], client=Client(), actor="cli")
        courier = Courier(auth.webhooks, made.webhook.id, "bench")
        for _ in range(TURNS):  # in turns: what else the machine does disturbs both
            await plain(url, count // TURNS, b"{}" + b" " * 250, alone)
            for number in range(count // TURNS):
                await happen(auth, number)
            with spending(count // TURNS, webhooks):
                while not await courier.round():
                    pass
        await courier.release()
        await courier.close()
        lags = await late(auth, pipe, late_for)
        await auth.close()
    (rate, cores), (our_rate, our_cores) = [Spent(*map(median, zip(*each, strict=True))) for each in (alone, webhooks)]
    print(
        f"{name:<12}alone {rate:.0f}/s, {cores:.2f} ms of a core    webhooks {our_rate:.0f}/s, {our_cores:.2f} ms"
        f"    ratio {our_rate / rate:.2f}, of cores {cores / our_cores:.2f}"
        f"    lag {lags[len(lags) // 2] * 1000:.1f} ms (median), {lags[int(len(lags) * 0.99)] * 1000:.1f} ms (p99)",
        flush=True,
    )


async def late(auth: Auth, pipe: Connection, late_for: float) -> list[float]:
    """Return how long events took from their commit to the receiver, in seconds, sorted."""
    deliveries = Deliveries(auth.webhooks)
    deliveries.begin()
    while not deliveries.couriers:
        await asyncio.sleep(NOW_AND_THEN)
    committed = {}
    for number in range(int(late_for * A_SECOND)):
        made = await happen(auth, number)
        committed[made] = time.time()
        await asyncio.sleep(1 / A_SECOND)
    await asyncio.sleep(2)
    pipe.send("what came?")
    came: dict[str, float] = pipe.recv()
    await deliveries.close()
    return sorted(came[made] - at for made, at in committed.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the events")
    quick = parser.parse_args().quick
    count, late_for = (EVENTS // 10, 2.0) if quick else (EVENTS, LATE_FOR)
    end_in_order()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        uvloop.run(measure("SQLite", f"sqlite:///{folder / 'test.db'}", folder, count, late_for))
        with postgres() as database:
            uvloop.run(measure("PostgreSQL", database.url(), folder, count, late_for))


if __name__ == "__main__":
    main()
