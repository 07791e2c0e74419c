"""How long a revoked token is still accepted anywhere, with real processes, and how long its fence takes.

    python -m benchmarks.fence_live [--quick] [--only undisturbed stopped ...] [--over sqlite postgres]

20 verifiers, each a process, follow `dutchdoor serve` over one SQLite file, and then three nodes over one PostgreSQL.
Each looks at the token that is revoked next every millisecond. Counted is, per revocation, from the sending of the call
(`POST /auth/logout`) to the moment the last verifier anywhere finished a check that accepted; and to the answer that
says `fenced`. A check that began after such an answer and accepted is a breach, and fails the run.

Verifiers reach the nodes through a forwarder that gives each connection to the next node and can cut all of them. Nodes
and database are on core 0, verifiers on core 1: on machines of their own, all would be faster.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import uvloop

from benchmarks.databases import end_in_order, postgres
from benchmarks.load import Request, drive, repeating
from benchmarks.servers import HOST, LOAD_CORE, SERVER_CORE, free_port, pin
from benchmarks.verifying import BEGAN, CURRENT, DONE, EACH, HEAD, PAUSE, SEEN, SET, STALE, STOP, board
from dutchdoor.auth import Auth
from dutchdoor.auth.key_file import read_or_make_master_key
from dutchdoor.errors import Unavailable
from dutchdoor.model.http_client import Client
from dutchdoor.model.principal import Verified

VERIFIERS = 20
EVERY = 0.001
"""Seconds between two checks of one verifier, where it does not check without pause."""
DUTCHDOOR = str(Path(sys.executable).parent / "dutchdoor")


class Revoked(NamedTuple):
    """One revocation: seconds from the call to the last acceptance anywhere, to the answer, and what it said."""

    accepted_for: float
    answered_in: float
    answered_at: float
    fenced: bool
    breaches: int


# --- a forwarder that gives connections to nodes in turn, and can cut them --------------------------------------------


class Forwarder:
    def __init__(self, ports: Sequence[int]) -> None:
        self._ports, self._turn = list(ports), 0
        self.open: set[asyncio.Transport] = set()
        self.port = 0

    async def start(self, port: int) -> None:
        loop = asyncio.get_running_loop()
        self.port = port
        self._server = await loop.create_server(lambda: _Side(self), HOST, port)

    async def close(self) -> None:
        self._server.close()
        self.cut()

    def next_ports(self) -> list[int]:
        """Every node, the next in turn first: one that is down is passed over."""
        self._turn += 1
        at = self._turn % len(self._ports)
        return self._ports[at:] + self._ports[:at]

    def cut(self) -> None:
        for transport in list(self.open):
            transport.abort()


class _Side(asyncio.Protocol):
    """One side of a forwarded connection; `other` is the other one."""

    def __init__(self, forwarder: Forwarder, other: _Side | None = None) -> None:
        self.forwarder, self.other = forwarder, other
        self.waiting: list[bytes] = []
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport) -> None:
        self.transport = transport
        self.forwarder.open.add(transport)
        if self.other is None:
            self.reaching = asyncio.get_running_loop().create_task(self.reach())

    async def reach(self) -> None:
        loop = asyncio.get_running_loop()
        for port in self.forwarder.next_ports():
            with contextlib.suppress(OSError):
                _, self.other = await loop.create_connection(lambda: _Side(self.forwarder, self), HOST, port)
                for data in self.waiting:
                    self.other.transport.write(data)
                return
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        if self.other is None:
            self.waiting.append(data)
        elif self.other.transport is not None:
            self.other.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.forwarder.open.discard(self.transport)
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()


# --- the world --------------------------------------------------------------------------------------------------------


class World:
    """Nodes over one database, a forwarder, verifiers, and tokens to revoke."""

    def __init__(self, folder: Path, database: str, nodes: int, lease: float) -> None:
        self.folder, self.database, self.lease = folder, database, lease
        self.ports = [free_port() for _ in range(nodes)]
        self.forwarder = Forwarder(self.ports)
        self.host = f"localhost:{free_port()}"
        self.issuer = f"http://{self.host}"
        self.nodes: dict[int, subprocess.Popen[bytes]] = {}
        self.verifiers: list[subprocess.Popen[bytes]] = []
        self.board = board(folder, VERIFIERS)
        self.tokens: list[str] = []
        self._sets = 0.0
        self._turn = 0
        self.again = 0

    @property
    def environ(self) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("DUTCHDOOR_")}
        return {
            **clean,
            "DUTCHDOOR_DATABASE": self.database,
            "DUTCHDOOR_MASTER_KEY_FILE": str(self.folder / "keys"),
            "DUTCHDOOR_PUBLIC_URL": self.issuer,
            "DUTCHDOOR_OTHER_HOST": HOST,  # as the load generator calls them
            "DUTCHDOOR_LEASE": f"{self.lease:g}",
        }

    def start_node(self, port: int) -> None:
        with (self.folder / f"node{port}.log").open("ab") as log:
            process = subprocess.Popen(
                [DUTCHDOOR, "serve", "--port", str(port)],
                cwd=self.folder,
                env=self.environ,
                stdout=subprocess.PIPE,
                stderr=log,
                preexec_fn=lambda: pin(SERVER_CORE),  # noqa: PLW1509 - no other thread runs here
            )
        assert process.stdout is not None
        if b"ready" not in process.stdout.readline():
            raise RuntimeError((self.folder / f"node{port}.log").read_text()[-3000:])
        self.nodes[port] = process

    async def start(self) -> None:
        pin(LOAD_CORE)
        read_or_make_master_key(self.folder / "keys")
        made = subprocess.run(
            [DUTCHDOOR, "verifier", "add", "bench", "--json"],
            cwd=self.folder, env=self.environ, capture_output=True, text=True, check=True,
        )  # fmt: skip
        self.key = json.loads(made.stdout)["key"]
        for port in self.ports:
            self.start_node(port)
        await self.forwarder.start(int(self.host.partition(":")[2]))
        await self.renew_tokens(1)
        for number in range(VERIFIERS):
            with (self.folder / f"verifier{number}.log").open("wb") as log:
                self.verifiers.append(
                    subprocess.Popen(
                        [sys.executable, "-m", "benchmarks.verifying", self.issuer, str(self.folder), str(number)],
                        env={**os.environ, "DUTCHDOOR_VERIFIER_KEY": self.key},
                        stdout=log,
                        stderr=log,
                    )
                )
        await self.all_accept(0, within=60)

    async def stop(self) -> None:
        self.board[STOP] = 1
        for process in self.verifiers:
            process.send_signal(signal.SIGCONT)
        await asyncio.sleep(0.2)
        for process in [*self.verifiers, *self.nodes.values()]:
            process.terminate()
        for process in [*self.verifiers, *self.nodes.values()]:
            with contextlib.suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(process.wait, 15)
            process.kill()
        await self.forwarder.close()

    async def renew_tokens(self, count: int) -> None:
        """Sign in so many people anew, each once: what one of them ends is an entry of its own."""
        async with Auth(self.database, master_key=self.folder / "keys", public_url=self.issuer) as auth:
            self.tokens = []
            for number in range(count):
                account = await auth.authority.provide(f"user{self._sets:.0f}-{number}")
                proof = Verified(subject=account.subject, epoch=account.epoch, amr=("pwd",), at=time.time())
                while True:
                    with contextlib.suppress(
                        Unavailable
                    ):  # the machine does more than it can, which is what is measured
                        signed_in = await auth.authority.start(proof, mode="hybrid", client=Client())
                        break
                self.tokens.append(signed_in.access_token)
        self._sets += 1
        (self.folder / f"tokens{self._sets:.0f}").write_text(json.dumps(self.tokens))
        self.board[CURRENT] = 0
        self.board[SET] = self._sets
        for number in range(VERIFIERS):
            self.board[HEAD + EACH * number + SEEN] = 0

    async def all_accept(self, current: int, *, within: float, but: Sequence[int] = ()) -> None:
        """Wait until every verifier (`but` these) has accepted a token."""
        self.board[CURRENT] = current
        deadline = time.monotonic() + within
        wanted = [number for number in range(VERIFIERS) if number not in but]
        while not all(self.board[HEAD + EACH * number + SEEN] == current + 1 for number in wanted):
            if time.monotonic() > deadline:
                late = [number for number in wanted if self.board[HEAD + EACH * number + SEEN] != current + 1]
                raise RuntimeError(f"not accepted by {late}: {(self.folder / f'verifier{late[0]}.log').read_text()}")
            await asyncio.sleep(EVERY)

    async def revoke(self, current: int, *, wait: float, patience: float = 20.0) -> Revoked:
        """Log a person out, at the next node, and look how long it took. A client that is refused (503) or loses the
        connection asks again, as a client would.
        """
        sent_at = time.monotonic()
        while True:
            self._turn += 1
            port = self.ports[self._turn % len(self.ports)]
            try:
                answer = await asyncio.wait_for(logout(port, self.host, self.tokens[current], wait), wait + 10)
                break
            except OSError:
                if time.monotonic() - sent_at > patience:
                    raise
                self.again += 1
                await asyncio.sleep(0.005)
        answered_at = time.monotonic()
        # A verifier without the entry by now would go on: give it the time to.
        await asyncio.sleep(0.1 if answer["fenced"] else self.lease * 1.3)
        mine = self._rows_that_saw(current)
        last = max((self.board[row + DONE] for row in mine), default=sent_at)
        fenced = bool(answer["fenced"])
        late = self.breaches(current, answered_at) if fenced else 0
        return Revoked(max(last - sent_at, 0.0), answered_at - sent_at, answered_at, fenced, late)

    def breaches(self, current: int, answered_at: float) -> int:
        """Verifiers that accepted a token in a check that began after it was fenced."""
        return sum(self.board[row + BEGAN] > answered_at for row in self._rows_that_saw(current))

    def _rows_that_saw(self, current: int) -> list[int]:
        rows = [HEAD + EACH * number for number in range(VERIFIERS)]
        return [row for row in rows if self.board[row + SEEN] == current + 1]


async def logout(port: int, host: str, token: str, wait: float) -> dict[str, object]:
    lines = (
        "POST /auth/logout HTTP/1.1",
        f"host: {host}",
        f"authorization: Bearer {token}",
        f"prefer: wait={wait:.0f}",
    )
    request = "\r\n".join((*lines, "content-length: 0", "connection: close", "", ""))
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        writer.write(request.encode())
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    finally:
        writer.close()
    if not head.startswith((b"HTTP/1.1 200", b"HTTP/1.1 202")):
        raise ConnectionError(head[:100] + body[:300])
    return json.loads(body)


# --- the conditions ---------------------------------------------------------------------------------------------------


async def undisturbed(world: World, count: int) -> list[Revoked]:
    found = []
    for current in range(count):
        await world.all_accept(current, within=60)
        await asyncio.sleep(random.uniform(0, 0.02))
        found.append(await world.revoke(current, wait=15))
    return found


async def loaded(world: World, count: int) -> list[Revoked]:
    """Verifiers check without pause, and every node answers as many authenticated requests as it can."""
    requests = [Request("GET", "/auth/me", {"authorization": f"Bearer {world.tokens[-1]}"})]
    world.board[PAUSE] = 0
    over = asyncio.Event()

    async def asking(port: int) -> None:
        while not over.is_set():
            await drive(port, repeating(requests, max(1, 8 // len(world.ports))), 0.5)

    load = [asyncio.ensure_future(asking(port)) for port in world.ports]
    try:
        return await undisturbed(world, count - 1)
    finally:
        over.set()
        world.board[PAUSE] = EVERY
        await asyncio.gather(*load, return_exceptions=True)


async def cut(world: World, count: int) -> list[Revoked]:
    """Every connection of every verifier is cut about once a second."""

    async def cutting() -> None:
        while True:
            await asyncio.sleep(random.uniform(0.5, 1.5))
            world.forwarder.cut()

    task = asyncio.ensure_future(cutting())
    try:
        return await undisturbed(world, count)
    finally:
        task.cancel()


async def stopped(world: World, count: int) -> list[Revoked]:
    """One verifier is stopped (SIGSTOP) before the call, and goes on when its fence has fallen."""
    found = []
    for current in range(count):
        await world.all_accept(current, within=20)
        victim = random.choice(world.verifiers)
        victim.send_signal(signal.SIGSTOP)
        try:
            done = await world.revoke(current, wait=25)
        finally:
            victim.send_signal(signal.SIGCONT)
        # What it does when it wakes is the point: it must not accept.
        await asyncio.sleep(0.3)
        found.append(done._replace(breaches=world.breaches(current, done.answered_at)) if done.fenced else done)
    return found


async def killed(world: World, count: int) -> list[Revoked]:
    """A node is killed (-9) at the moment of the call and started again at once; the call is repeated until heard."""
    found = []
    for current in range(count):
        await world.all_accept(current, within=60)
        port = random.choice(world.ports)
        process = world.nodes[port]
        process.kill()
        process.wait()
        _, done = await asyncio.gather(
            asyncio.to_thread(world.start_node, port), world.revoke(current, wait=25, patience=60)
        )
        found.append(done)
    return found


CONDITIONS: dict[str, tuple[Callable[[World, int], object], int, int]] = {
    # Name: what is done, how often, and how often when it has to be quick.
    "undisturbed": (undisturbed, 300, 40),
    "under load": (loaded, 100, 20),
    "connections cut": (cut, 100, 20),
    "a verifier stopped": (stopped, 6, 2),
    "a node killed": (killed, 6, 2),
}


@contextlib.contextmanager
def databases(over: Sequence[str], folder: Path) -> Iterator[list[tuple[str, str, int]]]:
    with contextlib.ExitStack() as stack:
        found = []
        if "sqlite" in over:
            found.append(("one node, SQLite", f"sqlite:///{folder}/bench.db", 1))
        if "postgres" in over:
            found.append(("three nodes, PostgreSQL", stack.enter_context(postgres(cores=[SERVER_CORE])).url(), 3))
        yield found


@contextlib.asynccontextmanager
async def a_world(folder: Path, database: str, nodes: int, lease: float) -> AsyncIterator[World]:
    folder.mkdir()
    world = World(folder, database, nodes, lease)
    world.board[PAUSE] = EVERY
    try:
        await world.start()
        yield world
    finally:
        await world.stop()


def at(values: Sequence[float], part: float) -> str:
    ordered = sorted(values)
    return f"{ordered[min(int(len(ordered) * part), len(ordered) - 1)] * 1000:,.1f}"


async def measure(chosen: Sequence[str], over: Sequence[str], lease: float, *, quick: bool) -> int:
    breaches = 0
    print(f"{VERIFIERS} verifiers, a lease of {lease:g} s, milliseconds\n")
    print("| | | revocations | accepted for: p50 | p99 | max | fenced after: p50 | p99 | max | breaches |")
    print("|---|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory(prefix="dutchdoor-") as top, databases(over, Path(top)) as found:
        for number, (name, database, nodes) in enumerate(found):
            async with a_world(Path(top, str(number)), database, nodes, lease) as world:
                for condition, (work, often, short) in CONDITIONS.items():
                    if chosen and condition not in chosen:
                        continue
                    count = short if quick else often
                    await world.renew_tokens(count)
                    done: list[Revoked] = await work(world, count)
                    accepted, fenced = [each.accepted_for for each in done], [each.answered_in for each in done]
                    bad = sum(each.breaches for each in done)
                    breaches += bad
                    unfenced = sum(not each.fenced for each in done)
                    cells = [at(values, part) for values in (accepted, fenced) for part in (0.5, 0.99, 1)]
                    note = f" ({unfenced} not fenced)" if unfenced else ""
                    print(f"| {name} | {condition} | {len(done)}{note} | {' | '.join(cells)} | {bad} |", flush=True)
                stale = sum(world.board[HEAD + EACH * each + STALE] for each in range(VERIFIERS))
                print(
                    f"\n{name}: {stale:,.0f} checks got no answer; {world.again} calls were repeated.\n",
                    file=sys.stderr,
                )
    return breaches


def main() -> None:
    end_in_order()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fence_live", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few revocations each, and a lease of 2 s")
    parser.add_argument("--only", nargs="*", default=[], choices=list(CONDITIONS), metavar="CONDITION")
    parser.add_argument("--over", nargs="*", default=["sqlite", "postgres"], choices=["sqlite", "postgres"])
    parser.add_argument("--lease", type=float, help="seconds; 10 unless quick")
    given = parser.parse_args()
    lease = given.lease or (2.0 if given.quick else 10.0)
    sys.exit(uvloop.run(measure(given.only, given.over, lease, quick=given.quick)) != 0)


if __name__ == "__main__":
    main()
