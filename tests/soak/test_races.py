"""Several server processes over one SQLite file, real HTTP, and everything that can go wrong at once.

Short forms run in `make test`, long ones in `make soak`. The test is a process of its own over the same file: it makes
sessions as old as it needs them, and ends some of them from there.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytest
from msgspec.structs import replace
from tests.ports import free_port
from tests.running import PROGRAM

from dutchdoor.auth import Auth
from dutchdoor.errors import NotAuthenticated
from dutchdoor.model.http_client import Client, Device
from dutchdoor.model.principal import Verified
from dutchdoor.services.presenting import SignedIn

Mode = Literal["session", "hybrid"]


# --- a server, and a client that can be cut off -----------------------------------------------------------------------


class Server:
    """`dutchdoor serve` in a process group of its own, so that all of it can be killed at once."""

    def __init__(self, folder: Path, workers: int, broken: str = "") -> None:
        self.folder, self.workers, self.port, self.broken = folder, workers, free_port(), broken
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("DUTCHDOOR_")}
        if self.broken:  # every process of the server runs this before anything else
            (self.folder / "sitecustomize.py").write_text(self.broken)
            clean["PYTHONPATH"] = os.pathsep.join([str(self.folder), *filter(None, sys.path)])
        with (self.folder / "server.log").open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, "serve", "--port", str(self.port), "--workers", str(self.workers)],
                cwd=self.folder, env=clean, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True,
            )  # fmt: skip
        assert self.process.stdout is not None
        ready = self.process.stdout.readline()
        assert f":{self.port}" in ready, f"not ready: {ready}\n{(self.folder / 'server.log').read_text()}"

    def stop(self, how: int = signal.SIGTERM) -> None:
        process, self.process = self.process, None
        if process is None:
            return
        if how == signal.SIGKILL:
            os.killpg(process.pid, how)
        else:
            process.send_signal(how)
        process.wait(20)
        assert process.stdout is not None
        process.stdout.close()

    def beside(self, clock: Callable[[], float] = time.time) -> Auth:
        """One more node over the same file."""
        return Auth(
            f"sqlite:///{self.folder}/dutchdoor.db", master_key=self.folder / "dutchdoor.keys",
            local_url=f"http://localhost:{self.port}", clock=clock,
        )  # fmt: skip


@contextmanager
def serving(folder: Path, workers: int, broken: str = "") -> Iterator[Server]:
    server = Server(folder, workers, broken)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two workers for all the short tests: a start takes longer than most of them."""
    with serving(tmp_path_factory.mktemp("races"), 2) as server:
        yield server


class Answer(NamedTuple):
    status: int
    cookies: list[str]
    body: Any


class Wire:
    """One kept connection. Many of them reach every worker."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self.port, self.host = port, host
        self.streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        if self.streams is None:
            # An address for each wire, so that limits by address do not take them all for one client.
            self.streams = await asyncio.open_connection("127.0.0.1", self.port, local_addr=(self.host, 0))
        reader, writer = self.streams
        payload = b"" if body is None else json.dumps(body).encode()
        lines = [f"{method} {path} HTTP/1.1", f"Host: localhost:{self.port}", f"Content-Length: {len(payload)}"]
        if body is not None:
            lines.append("Content-Type: application/json")
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode() + payload)
        try:
            return await read_answer(reader)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if self.streams is not None:
            self.streams[1].close()
            self.streams = None


async def read_answer(reader: asyncio.StreamReader) -> Answer:
    """Raises `ConnectionError` or `IncompleteReadError` for an answer that was cut."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    fields = [tuple(line.split(": ", 1)) for line in head[1:] if line]
    length = next((int(value) for name, value in fields if name.lower() == "content-length"), 0)
    body = await reader.readexactly(length)
    cookies = [value for name, value in fields if name.lower() == "set-cookie"]
    return Answer(int(head[0].split()[1]), cookies, json.loads(body) if body else None)


@asynccontextmanager
async def wires(port: int, count: int) -> AsyncIterator[list[Wire]]:
    made = [Wire(port, f"127.0.{random.randrange(1, 250)}.{1 + n % 250}") for n in range(count)]
    try:
        yield made
    finally:
        for wire in made:
            wire.close()


def refresh(wire: Wire, token: str) -> Awaitable[Answer]:
    return wire.send("POST", "/auth/refresh", {"refresh_token": token})


def me(wire: Wire, signed_in: SignedIn) -> Awaitable[Answer]:
    if signed_in.session_token:
        return wire.send("GET", "/auth/me", Cookie=f"dd_session={signed_in.session_token}")
    return wire.send("GET", "/auth/me", Authorization=f"Bearer {signed_in.access_token}")


OLD_AGE = 900.0


async def begin(node: Auth, subject: str, mode: Mode = "hybrid") -> SignedIn:
    account = await node.authority.provide(subject)
    proof = Verified(subject=subject, epoch=account.epoch, amr=("pwd",), at=node.authority.clock())
    return await node.authority.start(proof, mode=mode, client=HERE)


HERE = Client(address="127.0.0.1")


@asynccontextmanager
async def node_of(server: Server) -> AsyncIterator[tuple[Auth, Auth]]:
    """Two more nodes: one of now, one whose clock is a quarter of an hour behind and makes sessions that are old."""
    async with server.beside() as now, server.beside(lambda: time.time() - OLD_AGE) as then:
        yield now, then


# --- I-01 -------------------------------------------------------------------------------------------------------------


async def ends_hold(server: Server, rounds: int, connections: int = 8) -> int:
    """End sessions in every way there is, and ask for them everywhere at once; gives the number of checks."""
    checks = 0
    lots = random.Random(1)
    async with node_of(server) as (node, _), wires(server.port, connections) as lines:
        for n in range(rounds):
            subject = f"i01 {n} {time.time()}"
            mode: Mode = lots.choice(["session", "hybrid"])
            held = await begin(node, subject, mode)
            before = await asyncio.gather(*(me(line, held) for line in lines))
            assert [answer.status for answer in before] == [200] * connections
            assert held.session is not None
            match lots.choice(["log out", "delete", "all", "node", "disable"] if mode == "hybrid" else ["node", "all"]):
                case "log out":
                    done = await lines[0].send("POST", "/auth/logout", {"refresh_token": held.refresh_token})
                    assert done.status == 200
                case "delete":
                    done = await lines[0].send(
                        "DELETE", f"/auth/sessions/{held.session.id}", Authorization=f"Bearer {held.access_token}"
                    )
                    assert done.status in {200, 202}, done
                case "all":
                    await node.authority.end_all(subject, client=HERE, actor="cli")
                case "node":
                    await node.authority.end(held.session.id, client=HERE, actor="cli")
                case "disable":
                    await node.directory.admin.disable(subject, client=HERE, actor="cli")
            asked = [me(line, held) for line in lines[: connections // 2]]
            if mode == "hybrid":
                asked += [refresh(line, held.refresh_token) for line in lines[connections // 2 :]]
            else:
                asked += [me(line, held) for line in lines[connections // 2 :]]
            after = await asyncio.gather(*asked)
            assert all(answer.status in {401, 429} for answer in after), after
            checks += len(after)
    return checks


@pytest.mark.long
async def test_an_end_holds_on_every_worker(shared: Server) -> None:
    """I-01: a request that starts after an end was acknowledged anywhere is refused, on each worker, at once."""
    assert await ends_hold(shared, 25) == 200


@pytest.mark.soak
async def test_an_end_holds_a_hundred_thousand_times(tmp_path: Path) -> None:
    """I-01: the same over three workers, a hundred thousand checks."""
    with serving(tmp_path, 3) as server:
        assert await ends_hold(server, 8_400, 12) > 100_000


# --- I-05 -------------------------------------------------------------------------------------------------------------


async def crowds_converge(server: Server, crowds: list[int]) -> None:
    async with node_of(server) as (node, then):
        for crowd in crowds:
            held = await begin(then, f"i05 {crowd} {time.time()}")
            async with wires(server.port, crowd) as lines:
                answers = await asyncio.gather(*(refresh(line, held.refresh_token) for line in lines))
            given = {answer.body["refresh_token"] for answer in answers if answer.status == 200}
            # Above 30 in one moment the limit of a session's refreshes asks some to wait.
            assert {answer.status for answer in answers} <= ({200, 409, 429} if crowd > 30 else {200, 409})
            assert len(given) == 1
            assert given != {held.refresh_token}
            assert held.session is not None
            found = await node.store.session(held.session.id)
            assert found is not None
            assert (found[0].generation, found[0].sibling, found[0].ended_at) == (1, 0, None)


@pytest.mark.long
async def test_refreshes_at_once_converge_over_workers(shared: Server) -> None:
    """I-05: however many refresh in one moment over two workers, all get the same token, one generation on."""
    await crowds_converge(shared, [2, 3, 8, 24])


@pytest.mark.soak
async def test_refreshes_at_once_converge_for_every_crowd(tmp_path: Path) -> None:
    """I-05: the same for every crowd from 2 to 64 over three workers, ten times each."""
    with serving(tmp_path, 3) as server:
        await crowds_converge(server, [crowd for crowd in range(2, 65) for _ in range(10)])


# --- I-06 -------------------------------------------------------------------------------------------------------------


async def soon(lots: random.Random, call: Callable[..., Awaitable[Any]], *args: Any) -> Any:
    await asyncio.sleep(lots.random() * 0.004)
    return await call(*args)


async def ends_win(server: Server, rounds: int) -> int:
    """Refresh and end at the same moment; gives how many refreshes were answered although they overlapped."""
    lots = random.Random(6)
    answered = 0
    async with node_of(server) as (node, then), wires(server.port, 7) as (leaving, *lines):
        for n in range(rounds):
            held = await begin(then, f"i06 {n} {time.time()}")
            assert held.session is not None

            refreshing = [asyncio.create_task(soon(lots, refresh, line, held.refresh_token)) for line in lines]
            if n % 2:
                await asyncio.sleep(lots.random() * 0.004)
                await node.authority.end(held.session.id, client=HERE, actor="cli")
            else:
                out = {"refresh_token": held.refresh_token}
                assert (await soon(lots, leaving.send, "POST", "/auth/logout", out)).status == 200
            for answer in await asyncio.gather(*refreshing):
                assert answer.status in {200, 401, 429}, answer
                if answer.status == 200:
                    answered += 1
                    given = replace(held, access_token=answer.body["access_token"], session_token="")
                    assert (await me(lines[0], given)).status == 401
                    assert (await me(lines[1], given)).status == 401
                    with pytest.raises(NotAuthenticated):
                        await node.authority.refresh(answer.body["refresh_token"], HERE)
                    with pytest.raises(NotAuthenticated):
                        await node.authority.verify(answer.body["access_token"])
            found = await node.store.session(held.session.id)
            assert found is not None
            assert found[0].ended_at is not None
    return answered


@pytest.mark.long
async def test_an_end_wins_over_refreshes(shared: Server) -> None:
    """I-06: once an end is acknowledged, no token of any refresh that overlapped it is accepted."""
    assert await ends_win(shared, 20) > 0, "no refresh overlapped: nothing was tested"


@pytest.mark.soak
async def test_an_end_wins_over_refreshes_thousands_of_times(tmp_path: Path) -> None:
    """I-06: the same, five thousand times over three workers."""
    with serving(tmp_path, 3) as server:
        assert await ends_win(server, 5_000) > 1_000


# --- I-09 -------------------------------------------------------------------------------------------------------------


class Clients:
    """Clients that refresh and log out without pause, and record the answers."""

    def __init__(self, lots: random.Random, held: dict[str, str]) -> None:
        self.lots, self.held = lots, held
        self.refreshed: dict[str, str] = {}
        self.asked_out: set[str] = set()
        self.logged_out: set[str] = set()

    async def work(self, wire: Wire, mine: list[str]) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):  # it was killed: what was under way happened or not
            for session_id in mine:
                answer = await refresh(wire, self.held[session_id])
                if answer.status == 200:
                    self.refreshed[session_id] = answer.body["refresh_token"]
                if self.lots.random() < 0.5:
                    self.asked_out.add(session_id)
                    out = {"refresh_token": self.held[session_id]}
                    if (await wire.send("POST", "/auth/logout", out)).status == 200:
                        self.logged_out.add(session_id)

    async def compare(self, node: Auth) -> None:
        """Hold what is there against what was acknowledged."""
        for session_id, token in self.held.items():
            found = await node.store.session(session_id)
            assert found is not None
            if session_id in self.refreshed:
                assert found[0].generation == 1, "an acknowledged refresh was lost"
            if session_id in self.logged_out:
                assert found[0].ended_at is not None, "an acknowledged log-out was lost"
                with pytest.raises(NotAuthenticated):
                    await node.authority.refresh(token, HERE)
            elif session_id not in self.asked_out:
                # Both what was stored and what was not are exchanged, and lead to one token.
                given = (await node.authority.refresh(token, HERE)).refresh_token
                if session_id in self.refreshed:
                    assert given == self.refreshed[session_id]
                    assert (await node.authority.refresh(given, HERE)).refresh_token == given


async def kills_lose_nothing(server: Server, kills: int, seed: int = 0) -> int:
    """Kill every process of the server at work, start again, and compare; gives how much had been acknowledged."""
    lots = random.Random(seed)
    acknowledged = 0
    for round_ in range(kills):
        async with node_of(server) as (_, then):
            held = [await begin(then, f"i09 {seed} {round_} {n}") for n in range(40)]
        clients = Clients(lots, {one.session.id: one.refresh_token for one in held if one.session})
        everything = list(clients.held)
        async with wires(server.port, 8) as lines:
            tasks = [asyncio.create_task(clients.work(line, everything[n::8])) for n, line in enumerate(lines)]
            await asyncio.sleep(lots.uniform(0.005, 0.06))
            server.stop(signal.SIGKILL)
            await asyncio.gather(*tasks)
        with closing(sqlite3.connect(server.folder / "dutchdoor.db")) as looked_at:
            assert looked_at.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        server.start()
        async with node_of(server) as (node, _), wires(server.port, 1) as (line,):
            await clients.compare(node)
            assert (await line.send("GET", "/auth/me")).status == 401
        acknowledged += len(clients.refreshed) + len(clients.logged_out)
    return acknowledged


@pytest.mark.long
async def test_kills_lose_nothing(tmp_path: Path) -> None:
    """I-09: what was acknowledged before `kill -9` of every process is there afterwards, and nothing is half there."""
    with serving(tmp_path, 2) as server:
        assert await kills_lose_nothing(server, 2) > 0


@pytest.mark.soak
async def test_a_hundred_kills_lose_nothing(tmp_path: Path) -> None:
    """I-09: the same, a hundred times on one file."""
    with serving(tmp_path, 3) as server:
        assert await kills_lose_nothing(server, 100, 1) > 100


# --- I-04 -------------------------------------------------------------------------------------------------------------


class Cutter:
    """A proxy that passes a request on, and cuts the connection after so many bytes of the answer."""

    def __init__(self, upstream: int) -> None:
        self.upstream, self.cut_at, self.length = upstream, 0, 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line[16:]) for line in head.decode().split("\r\n") if line.startswith("Content-Length: "))
        body = await reader.readexactly(length)
        inside, outside = await asyncio.open_connection("127.0.0.1", self.upstream)
        outside.write(head.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") + body)
        answer = await inside.read(-1)
        self.length = len(answer)
        writer.write(answer[: self.cut_at])
        await writer.drain()
        writer.close()
        outside.close()


async def cuts_lose_nobody(server: Server, offsets: Callable[[int], list[int]], transport: str) -> int:
    """Cut the answer to a refresh at each offset, and try again with what the client still holds."""
    cutter = Cutter(server.port)
    proxy = await asyncio.start_server(cutter.serve, "127.0.0.1", 0)
    port = proxy.sockets[0].getsockname()[1]
    tried = 0
    async with (
        proxy,
        node_of(server) as (node, then),
        wires(server.port, 1) as (line,),
        server.beside(lambda: time.time() + OLD_AGE) as later,
    ):

        async def ask(wire: Wire, token: str, csrf: str) -> Answer:
            if transport == "body":
                return await refresh(wire, token)
            return await wire.send("POST", "/auth/refresh", None, Cookie=f"dd_refresh={token}", X_CSRF_Token=csrf)

        async def one(cut_at: int) -> None:
            nonlocal tried
            held = await begin(then, f"i04 {cut_at} {time.time()}")
            csrf = ""
            if transport == "cookie":
                csrf = (await line.send("GET", "/auth/csrf", Cookie=f"dd_refresh={held.refresh_token}")).body[
                    "csrf_token"
                ]
            cutter.cut_at = cut_at
            wire = Wire(port)
            try:
                complete = (await ask(wire, held.refresh_token, csrf)).status == 200
            except (OSError, asyncio.IncompleteReadError):
                complete = False
            wire.close()
            assert complete is (cut_at >= cutter.length)
            # The client never stored anything: it tries again with the token it has, at once and after the window.
            again = await ask(line, held.refresh_token, csrf)
            assert again.status == 200, (cut_at, again)
            assert held.session is not None
            found = await node.store.session(held.session.id)
            assert found is not None
            assert (found[0].generation, found[0].sibling) == (1, 0)
            if transport == "cookie":
                (cookie,) = again.cookies  # without it the jar would keep the parent
                given = cookie.split("=", 1)[1].split(";")[0]
            else:
                given = again.body["refresh_token"]
            assert given != held.refresh_token
            if cut_at % 2:
                # It dies again before it stores: the parent comes back after the window, and is believed.
                given = (await later.authority.refresh(held.refresh_token, found_client(found))).refresh_token
            # And what it holds now leads on, a period later.
            await later.authority.refresh(given, found_client(found))
            tried += 1

        await one(1 << 20)
        for cut_at in offsets(cutter.length):
            await one(cut_at)
    return tried


def found_client(found: Any) -> Client:
    """A client that looks like the one in the row."""
    browser, _, platform = found[0].fingerprint.partition("|")
    device = Device(browser_family=browser, platform=platform)
    return Client(address=found[0].address, country=found[0].country, devices=device)


@pytest.mark.long
@pytest.mark.parametrize("transport", ["body", "cookie"])
async def test_a_cut_answer_logs_no_one_out(shared: Server, transport: str) -> None:
    """I-04, O02: an answer to a refresh that breaks off signs no one out: the old token again succeeds."""
    assert await cuts_lose_nobody(shared, lambda length: [0, *range(1, length, 41), length - 1], transport) > 10


@pytest.mark.soak
@pytest.mark.parametrize("transport", ["body", "cookie"])
async def test_an_answer_cut_at_every_byte_logs_no_one_out(tmp_path: Path, transport: str) -> None:
    """I-04, O02: the same for every offset of the answer."""
    with serving(tmp_path, 2) as server:
        assert await cuts_lose_nobody(server, lambda length: list(range(length)), transport) > 1000


# Broken once, to see these tests fail

NO_LOG = """
from dutchdoor.revocation.log import RevocationLog
RevocationLog.covering = RevocationLog.covering_token = lambda self, named: None
"""
NO_ENTRY = """
from dutchdoor.services.sessions import Authority
async def unlogged(self, account, entries, now):
    return [], account
Authority._revoking = unlogged
"""
NO_TURN = """
from dutchdoor import authority
from dutchdoor.model.refresh_tokens import Rotated, _rotated
def decide(session, token, client, now, policy):
    return Rotated(_rotated(session, token.sibling, client, now, policy))
authority.decide = decide
"""
SILENT_JAR = """
from msgspec.structs import replace
from dutchdoor.services.sessions import Authority
real = Authority.refresh
async def refresh(self, *args, **named):
    return replace(await real(self, *args, **named), rotated=False)
Authority.refresh = refresh
"""
TOO_EARLY = """
import asyncio
from dutchdoor.stores.base import Revoked
from dutchdoor.stores.sqlite import SqliteStore
real = SqliteStore.commit
async def commit(self, *changes):
    asyncio.get_running_loop().call_later(0.05, lambda: asyncio.ensure_future(real(self, *changes)))
    return Revoked(1)
SqliteStore.commit = commit
"""


@pytest.mark.soak
@pytest.mark.parametrize(
    ("broken", "race"),
    [
        pytest.param(NO_LOG, lambda server: ends_hold(server, 25), id="no log, ends"),
        pytest.param(NO_ENTRY, lambda server: ends_win(server, 40), id="no entry, refreshes"),
        pytest.param(NO_TURN, lambda server: crowds_converge(server, [24]), id="no turns, crowds"),
        pytest.param(
            SILENT_JAR, lambda server: cuts_lose_nobody(server, lambda _: [0], "cookie"), id="no cookie, cuts"
        ),
        pytest.param(TOO_EARLY, lambda server: kills_lose_nothing(server, 5), id="acknowledged too early, kills"),
    ],
)
async def test_the_races_notice(tmp_path: Path, broken: str, race: Callable[[Server], Awaitable[Any]]) -> None:
    """The races can fail: against a server with one thing wrong in it each of them does."""
    with serving(tmp_path, 2, broken) as server, pytest.raises((AssertionError, pytest.fail.Exception, ValueError)):
        await race(server)
