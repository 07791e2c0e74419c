"""Measure dutchdoor beside what a user would pick instead, and print one table: `make bench`, `make bench QUICK=1`.

README.md says what each row means and how it is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import uvloop

from benchmarks import contenders
from benchmarks.contenders import Contender, View
from benchmarks.load import Chain, Figures, Generator, Request, ask, drive, once, repeating
from benchmarks.servers import LOAD_CORE, SERVER_CORE, Server, pin, running
from benchmarks.table import table
from dutchdoor.auth.key_file import read_or_make_master_key

CREDENTIALS = 64
CONNECTIONS = 32
CHAINS = 8
LOGIN_CONNECTIONS = 8
MIXED_CONNECTIONS, MIXED_LOGINS = 8, 4


class Effort(NamedTuple):
    """How long everything takes."""

    rounds: int
    seconds: float
    warm_for: float
    many_rows: int
    sessions: int


FULL = Effort(rounds=3, seconds=3, warm_for=0.5, many_rows=10**6, sessions=10**5)
QUICK = Effort(rounds=1, seconds=1.5, warm_for=0.3, many_rows=10**5, sessions=10**4)
FEW_ROWS = 10**4
PATIENCE = 600.0
"""Seconds that answering for every session once may take."""
PARTS = ("requests", "hashing", "memory", "inside")


class Results:
    """What was measured, by column and measure, over the rounds."""

    def __init__(self) -> None:
        self._figures: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
        self.bad: defaultdict[str, int] = defaultdict(int)

    def add(self, column: str, measure: str, value: float) -> None:
        self._figures[column, measure].append(value)

    def add_figures(self, column: str, measure: str, figures: Figures) -> None:
        self.add(column, measure, figures.rate)
        self.add(column, f"{measure} p50", figures.p50)
        self.add(column, f"{measure} p99", figures.p99)
        self.bad[column] += figures.bad

    def median(self, column: str, measure: str) -> float | None:
        values = self._figures.get((column, measure))
        return statistics.median(values) if values else None


def sign_in(server: Server, view: View, times: int) -> list[Request]:
    """Sign in so often, and give as many authenticated requests, checked to be just that."""
    anonymous = ask(server.port, Request("GET", view.me))
    if anonymous.status != 401 and server.contender is not contenders.RAW_ASGI:
        raise RuntimeError(f"{server.contender.name}: {view.me} answers {anonymous.status} without a proof")
    requests = []
    for _ in range(times):
        answer = ask(server.port, view.login)
        if answer.status != 200:
            raise RuntimeError(f"{server.contender.name}: signing in answered {answer.status}: {answer.body[:300]!r}")
        requests.append(Request("GET", view.me, view.credential(answer)))
    for request in requests:
        answer = ask(server.port, request)
        if answer.status != 200:
            raise RuntimeError(f"{server.contender.name}: {view.me} answered {answer.status}: {answer.body[:300]!r}")
    return requests


async def watched(server: Server, measure: str, results: Results, load: Awaitable[Figures]) -> None:
    """Record what a load measures, and the processor time that the server spends on one answer meanwhile."""
    before = server.cpu_seconds
    figures = await load
    results.add_figures(server.contender.column, measure, figures)
    if figures.good:
        spent = (server.cpu_seconds - before) / figures.good
        results.add(server.contender.column, f"{measure} cpu", spent * 1e6)


async def measure_requests(server: Server, view: View, effort: Effort, load: Generator, results: Results) -> None:
    """Authenticated requests, log-ins and refreshes of one view, nothing else running."""
    port, measures = server.port, server.contender.measures
    if "me" in measures:
        requests = sign_in(server, view, CREDENTIALS)
        await drive(port, repeating(requests, CONNECTIONS), effort.warm_for)
        asking = load.repeat(port, requests, CONNECTIONS, effort.seconds)
        await watched(server, f"me {view.kind}", results, asking)
    if "login" in measures:
        signing_in = drive(port, repeating([view.login], LOGIN_CONNECTIONS), effort.seconds)
        await watched(server, f"login {view.kind}", results, signing_in)
    if "refresh" in measures and view.refresh:
        mode = "refresh window" if server.contender is contenders.OURS_WINDOW else "refresh"
        token, present = view.refresh
        starts = [token(ask(port, view.login).body) for _ in range(CHAINS)]
        chains = [Chain(present(start).encoded(), lambda body: present(token(body)).encoded()) for start in starts]
        await watched(server, mode, results, drive(port, chains, effort.seconds))


def hash_rate(contender: Contender, seconds: float) -> float:
    """What the server's core hashes a second when it does nothing else, with the contender's own library."""
    python = sys.executable if contender.hashes_with == "cryptography" else contender.python
    script = Path(__file__).with_name("hash_rate.py")
    printed = subprocess.run(
        [python, str(script), contender.hashes_with, str(seconds)],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: pin(SERVER_CORE),
    ).stdout
    return float(printed)


async def measure_hashing(server: Server, view: View, effort: Effort, load: Generator, results: Results) -> None:
    """Log-ins that hash, and what they leave of the authenticated requests."""
    column, port = server.contender.column, server.port
    possible = hash_rate(server.contender, effort.seconds)
    figures = await drive(port, repeating([view.login], LOGIN_CONNECTIONS), effort.seconds * 2)
    results.add(column, "hashes possible", possible)
    results.add_figures(column, "login hashed", figures)
    results.add(column, "login hashed share", figures.rate / possible)

    requests = sign_in(server, view, CREDENTIALS)
    idle = await load.repeat(port, requests, MIXED_CONNECTIONS, effort.seconds)
    logins = asyncio.ensure_future(drive(port, repeating([view.login], MIXED_LOGINS), effort.seconds + 1))
    await asyncio.sleep(0.5)
    busy = await load.repeat(port, requests, MIXED_CONNECTIONS, effort.seconds)
    meanwhile = await logins
    results.add_figures(column, "idle", idle)
    results.add_figures(column, "mixed", busy)
    results.add(column, "mixed share", busy.rate / idle.rate)
    results.add(column, "mixed logins", meanwhile.rate)
    results.bad[column] += meanwhile.bad


async def measure(chosen: Sequence[str], parts: Sequence[str], effort: Effort, load: Generator) -> Results:
    """Run all rounds, every second one backwards so that no contender always follows the same one."""
    results = Results()
    for number in range(effort.rounds):
        for contender in in_turn(contenders.WITHOUT_HASH if "requests" in parts else (), chosen, number):
            say(f"round {number + 1}: {contender.name}")
            with running(contender, hashing="none") as server:
                for view in contender.views:
                    await measure_requests(server, view, effort, load, results)
                if contender is not contenders.OURS_WINDOW:
                    results.add(contender.column, "memory", server.memory_mib)
        for contender in in_turn(contenders.WITH_HASH if "hashing" in parts else (), chosen, number):
            say(f"round {number + 1}, Argon2id: {contender.name}")
            with running(contender, hashing="argon2id") as server:
                await measure_hashing(server, contender.views[0], effort, load, results)
    if not chosen or contenders.OURS in chosen:
        if "memory" in parts:
            await measure_memory(effort, results)
        if "inside" in parts:
            measure_inside(effort, results)
    return results


def measure_inside(effort: Effort, results: Results) -> None:
    """What needs no peer: a validation beside a bare SELECT, bytes on disk, and what importing costs."""
    say("inside the process: validation on SQLite")
    few, many = inside("validation", FEW_ROWS), inside("validation", effort.many_rows)
    results.add(contenders.OURS, "validation few", few["validation"] / few["select"])
    results.add(contenders.OURS, "validation many", many["validation"] / many["select"])
    results.add(contenders.OURS, "validation growth", many["validation"] / few["validation"])
    results.add(contenders.OURS, "session bytes", many["bytes"])
    say("inside the process: imports")
    results.add(contenders.OURS, "import verifier", inside("verifier")["import"])


def inside(*what: object) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.inside", *map(str, what)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


async def measure_memory(effort: Effort, results: Results) -> None:
    """Make a database with many sessions, and let `dutchdoor serve` answer for each of them once."""
    say(f"memory with {effort.sessions:,} sessions")
    view = contenders.OURS_SERVER.views[0]
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder, "bench.db")
        read_or_make_master_key(Path(f"{database}.keys"))
        tokens = inside("sessions", database, effort.sessions)["tokens"]
        afresh = contenders.OURS_SERVER._replace(once_up=lambda port: None)
        with running(afresh, hashing="argon2id", database=database) as server:
            results.add(contenders.OURS, "memory without sessions", server.memory_mib)
            requests = [Request("GET", view.me, {"cookie": f"dd_session={token}"}) for token in tokens]
            used = await drive(server.port, once(requests, CONNECTIONS), PATIENCE)
            results.add(contenders.OURS, "memory with sessions", server.memory_mib)
    results.bad[contenders.OURS] += used.bad + effort.sessions - used.good


class Machine:
    """Watches what else runs: figures of a busy machine are low, and not all by the same factor."""

    def __init__(self) -> None:
        self._busy, self._own, self._at = self._busy_now(), self._own_now(), time.monotonic()

    def noise(self) -> str:
        """Say how much of one core other processes used since the start."""
        others = (self._busy_now() - self._busy) - (self._own_now() - self._own)
        part = max(others / (time.monotonic() - self._at), 0.0)
        advice = " Measure again on a quiet machine." if part > 0.1 else ""
        return f"Other programs used {part:.0%} of a core meanwhile.{advice}"

    @staticmethod
    def _busy_now() -> float:
        user, nice, system, _idle, _waiting, *rest = map(int, Path("/proc/stat").read_text().split("\n")[0].split()[1:])
        return (user + nice + system + sum(rest[:3])) / os.sysconf("SC_CLK_TCK")

    @staticmethod
    def _own_now() -> float:
        own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def in_turn(entries: Sequence[Contender], chosen: Sequence[str], number: int) -> Sequence[Contender]:
    wanted = [entry for entry in entries if not chosen or entry.column in chosen]
    return wanted[:: -1 if number % 2 else 1]


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--generator", choices=["auto", "wrk", "own"], default="auto")
    parser.add_argument("--only", nargs="*", default=[], metavar="COLUMN", help="some contenders only, by column")
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=PARTS, help="some parts only")
    arguments = parser.parse_args()

    pin(LOAD_CORE)
    machine = Machine()
    effort = QUICK if arguments.quick else FULL
    load = Generator.chosen(arguments.generator)
    begun = time.monotonic()
    results = uvloop.run(measure(arguments.only, arguments.parts, effort, load))
    print(table(results, few=FEW_ROWS, many=effort.many_rows, sessions=effort.sessions))
    bad = sum(results.bad.values())
    print(
        f"\n{effort.rounds} rounds of {effort.seconds:g} s, medians; load by {load.name}; "
        f"{time.monotonic() - begun:.0f} s in all; bad answers: {bad}"
    )
    print(machine.noise())
    sys.exit(bad != 0)


if __name__ == "__main__":
    main()
