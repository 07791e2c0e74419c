"""What one of each costs: the figures that `dutchdoor advise` and `dutchdoor estimate` calculate with.

    python -m benchmarks.choice [--rounds 5] [--to src/dutchdoor/choice/figures.json]

Bytes are those of real sign-ins through the whole engine, on SQLite and on a PostgreSQL of its own. Times are processor
time of `dutchdoor serve`, which other programs on the machine hardly change; a fence is by the clock, with 20 verifiers
that follow. About five minutes. It writes the file at its end.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import uvloop

from benchmarks.databases import end_in_order, postgres
from benchmarks.polls import hold
from benchmarks.servers import PAGE_KIB, free_port
from dutchdoor.auth import Auth
from dutchdoor.choice.figures import PACKAGED, Figure, figure, written
from dutchdoor.jose.access_token import AccessTokenIssuer, AccessTokenVerifier
from dutchdoor.jose.jwk import Key
from dutchdoor.jose.token_cache import TokenCache
from dutchdoor.model.http_client import Client, Device
from dutchdoor.model.ids import new_id
from dutchdoor.model.principal import Verified
from dutchdoor.revocation.log import Entry, RevocationLog

BY = "python -m benchmarks.choice"
SESSIONS = 20_000
AT_ONCE = 250
REQUESTS = 3000
REFRESHES = 20
VERIFIERS, FEW = 500, 20
PERSON = {"email": "ada@example.com", "password": "a quiet heron at dusk"}
PACKED = "SELECT sum(pgsize) FROM dbstat WHERE name IN (SELECT name FROM sqlite_schema WHERE tbl_name = ?)"


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# --- bytes -----------------------------------------------------------------------------------------------------------


async def sign_in_many(auth: Auth, sessions: int = SESSIONS) -> None:
    """Start so many hybrid sessions of a quarter as many accounts, as sign-ins do, with their audit events."""
    subjects = [await auth.authority.provide(f"user{number}") for number in range(sessions // 4)]
    client = Client(
        address="203.0.113.77",
        country="NL",
        devices=Device(name="Firefox on Linux", browser_family="Firefox", platform="Linux"),
    )
    for first in range(0, sessions, AT_ONCE):
        await asyncio.gather(
            *(
                auth.authority.start(
                    Verified(subject=each.subject, epoch=each.epoch, amr=("pwd",), at=time.time()),
                    mode="hybrid",
                    client=client,
                )
                for each in (subjects[number % len(subjects)] for number in range(first, first + AT_ONCE))
            )
        )


async def on_sqlite(folder: Path) -> tuple[float, float]:
    """Bytes of a session and of the audit events of one sign-in."""
    path = folder / "bytes.db"
    async with Auth(f"sqlite:///{path}", master_key=str(folder / "bytes.keys")) as auth:
        await sign_in_many(auth)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    sessions, events = (connection.execute(PACKED, (table,)).fetchone()[0] for table in ("sessions", "events"))
    connection.close()
    return sessions / SESSIONS, events / SESSIONS


async def on_postgres(url: str, folder: Path) -> tuple[float, float]:
    async with Auth(url, master_key=str(folder / "pg.keys")) as auth:
        await sign_in_many(auth)
    connection = await asyncpg.connect(url)
    sizes = [
        await connection.fetchval("SELECT pg_total_relation_size($1::regclass)", f"dutchdoor.{table}")
        for table in ("sessions", "events")
    ]
    await connection.close()
    return sizes[0] / SESSIONS, sizes[1] / SESSIONS


def in_memory() -> tuple[float, float]:
    """Bytes of Python's heap: of a token in the cache of verified tokens, and of an entry of the revocation log."""
    count, now = 5000, time.time()
    key = Key.generate("ES256")
    issue = AccessTokenIssuer(issuer="https://auth.example.com", audience="api")
    tokens = [
        issue(
            key=key, now=now, lifetime=600, subject=new_id(), client_id="app", epoch=3, amr=("pwd",), roles=("user",),
            session_id=new_id(),
        )
        for _ in range(count)
    ]  # fmt: skip
    cache = TokenCache(AccessTokenVerifier(keys=key, issuer="https://auth.example.com", audience="api"))
    cache.recognise(tokens[0], now)
    of_a_token = grown(lambda: [cache.recognise(token, now) for token in tokens[1:]] and None) / (count - 1)
    log = RevocationLog()

    def entries() -> Iterator[Entry]:
        return (Entry(0, os.urandom(16), 0, int(now) + 3600) for _ in range(count))

    return of_a_token, grown(lambda: log.take(entries())) / count


def grown(work: Callable[[], object]) -> float:
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    work()
    size = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return size


# --- processor time ---------------------------------------------------------------------------------------------------


class Person:
    """One client over one connection, and what it sends."""

    def __init__(self, port: int) -> None:
        self.origin = f"http://localhost:{port}"
        self.connection = http.client.HTTPConnection("localhost", port, timeout=60)

    def ask(self, method: str, path: str, body: object = None, **headers: str) -> http.client.HTTPResponse:
        sent = None if body is None else json.dumps(body)
        named = {} if sent is None else {"content-type": "application/json"}
        self.connection.request(method, path, sent, named | headers)
        self.answer = self.connection.getresponse()
        self.content = self.answer.read()
        assert self.answer.status < 300, (path, self.answer.status, self.content)
        return self.answer

    def sign_in(self, mode: str) -> dict[str, str]:
        """Sign in, and give the header that proves it from then on."""
        # A request with an origin comes from a browser, which gets a refresh token in a cookie alone.
        from_page = {"origin": self.origin} if mode == "session" else {}
        answer = self.ask("POST", "/auth/login", {**PERSON, "mode": mode}, **from_page)
        if mode == "session":
            cookies = [each.partition(";")[0] for each in answer.headers.get_all("set-cookie", [])]
            return {"cookie": next(each for each in cookies if "session" in each)}
        self.tokens = json.loads(self.content)
        return {"authorization": f"Bearer {self.tokens['access_token']}"}


def a_round(folder: Path) -> dict[str, float]:
    """Processor seconds and bytes of one server of its own."""
    found: dict[str, float] = {}
    clean = {name: value for name, value in os.environ.items() if not name.startswith("DUTCHDOOR_")}
    port = free_port()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "dutchdoor.server", "serve", "--port", str(port)],
            cwd=folder, env=clean, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log,
        )  # fmt: skip
    assert process.stdout is not None
    try:
        assert b"ready" in process.stdout.readline(), (folder / "log").read_text()
        found["server_memory"] = resident(process.pid)
        person = Person(port)
        person.ask("POST", "/auth/register", PERSON)
        begun = spent(process.pid)
        for _ in range(10):
            person.sign_in("session")
        found["login_cpu"] = (spent(process.pid) - begun) / 10
        for mode in ("session", "hybrid", "jwt"):
            proof = person.sign_in(mode)
            ((name, value),) = proof.items()
            found[f"sent {mode}"] = len(f"{name}: {value}\r\n")
            person.ask("GET", "/auth/me", **proof)
            begun = spent(process.pid)
            for _ in range(REQUESTS):
                person.ask("GET", "/auth/me", **proof)
            found[f"request {mode}"] = (spent(process.pid) - begun) / REQUESTS
        chains = []
        for _ in range(8):  # a session may refresh some times a second
            person.sign_in("hybrid")
            chains.append(person.tokens["refresh_token"])
        found["refresh_bytes"] = len(chains[0])
        begun = spent(process.pid)
        for token in chains * REFRESHES:
            person.ask("POST", "/auth/refresh", {"refresh_token": token})
        found["refresh_cpu"] = (spent(process.pid) - begun) / (REFRESHES * len(chains))
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()
    return found


def spent(pid: int) -> float:
    """Processor seconds of all threads, to the nanosecond."""
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9


def resident(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_KIB * 1024


# --- together ---------------------------------------------------------------------------------------------------------


async def measured(rounds: int, folder: Path) -> list[Figure]:
    say(f"bytes of {SESSIONS:,} sign-ins on SQLite and on PostgreSQL")
    lite = [await on_sqlite(fresh(folder)) for _ in range(2)]
    with postgres() as database:
        heavy = [await on_postgres(database.url(), fresh(folder)) for _ in range(2)]
    say("bytes in memory")
    memory = [in_memory() for _ in range(3)]
    rows: list[dict[str, float]] = []
    for number in range(rounds):
        say(f"processor time, round {number + 1} of {rounds}")
        rows.append(a_round(fresh(folder)))
    say(f"{VERIFIERS} verifiers that follow, three times half a minute")
    phases = [await hold(VERIFIERS, 10.0, 8.0, fresh(folder)) for _ in range(3)]
    say(f"log-outs with {FEW} verifiers that follow")
    _, one, ten = await hold(FEW, 10.0, 8.0, fresh(folder))
    fences = [*one.fences, *ten.fences]

    def of(name: str) -> list[float]:
        return [row[name] for row in rows]

    def named(name: str, values: list[float], unit, says: str, subject: str = "dutchdoor") -> Figure:
        return figure(name, values, unit, says=says, by=BY, subject=subject)

    sends = {"session": "the session cookie", "hybrid": "the access token", "jwt": "the access token"}
    return [
        named("row_sqlite", [each[0] for each in lite], "B", "a session on SQLite, its indexes included"),
        named("row_postgres", [each[0] for each in heavy], "B", "a session on PostgreSQL, its indexes included"),
        named("events_sqlite", [each[1] for each in lite], "B", "the audit events of one sign-in on SQLite"),
        named("events_postgres", [each[1] for each in heavy], "B", "the audit events of one sign-in on PostgreSQL"),
        named("token_memory", [each[0] for each in memory], "B", "a verified token in the memory of a process"),
        named("entry_memory", [each[1] for each in memory], "B", "an entry of the revocation log in memory"),
        *(
            named("sent", of(f"sent {mode}"), "B", f"{sends[mode]} in a request, with its header", mode)
            for mode in sends
        ),
        named("refresh_token", of("refresh_bytes"), "B", "a refresh token"),
        *(
            named("request_cpu", of(f"request {mode}"), "s", "processor time of an authenticated request", mode)
            for mode in sends
        ),
        named("refresh_cpu", of("refresh_cpu"), "s", "processor time of a refresh"),
        named("login_cpu", of("login_cpu"), "s", "processor time of a log-in, the hash of the password included"),
        named("server_memory", of("server_memory"), "B", "memory of a server process that has started"),
        named("poll_cpu", [each[0].cpu / each[0].polls for each in phases], "s", "processor time of a verifier's poll"),
        named("poll_bytes", [each[0].wire for each in phases], "B", "the answer to a verifier's poll"),
        named("polls", [each[0].polls / VERIFIERS for each in phases], "1/s", "polls of one verifier, a lease of 10 s"),
        named("fence", fences, "s", f"from a log-out until all of {FEW} verifiers refuse the token"),
    ]


def fresh(folder: Path) -> Path:
    return Path(tempfile.mkdtemp(dir=folder))


def main() -> None:
    end_in_order()
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--rounds", type=int, default=5)
    reader.add_argument("--to", type=Path, default=PACKAGED)
    asked = reader.parse_args()
    with tempfile.TemporaryDirectory(prefix="dutchdoor-choice-") as folder:
        found = uvloop.run(measured(asked.rounds, Path(folder)))
    asked.to.write_bytes(written(found))
    for each in found:
        print(f"{each.value:>12g} {each.unit:3} {each.subject:10} {each.says}  ({each.low:g} to {each.high:g})")


if __name__ == "__main__":
    main()
