"""How many verifiers one node holds on one core, and what each costs.

    python -m benchmarks.polls [--quick] [--verifiers 500 1000 2000 ...] [--lease 10]

`dutchdoor serve` on SQLite has core 0. From core 1 so many connections poll as verifiers do: each hangs for a quarter
of a lease, answers news at once with its acknowledgement, and keeps count of its own lease. Three phases: nothing
happens; one log-out a second; ten. A number of verifiers is held if, with one log-out a second, no lease ran out and
every fence was early.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import resource
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import uvloop

from benchmarks.databases import end_in_order
from benchmarks.fence_live import DUTCHDOOR, logout
from benchmarks.servers import HOST, LOAD_CORE, PAGE_KIB, SERVER_CORE, TICKS, free_port, pin
from dutchdoor.auth import Auth
from dutchdoor.auth.key_file import read_or_make_master_key
from dutchdoor.model.http_client import Client
from dutchdoor.model.principal import Verified

A_KEY = 2048
"""Verifiers that share one verifier key, as the processes of one service do."""


COLUMNS = (
    *("verifiers", "log-outs a second", "core", "generator", "memory, MiB", "polls/s", "bytes an answer"),
    *("leases lost", "least left, s", "fence p50, ms", "p99", "max", "not early"),
)


class _Answer(msgspec.Struct):
    log_epoch: int
    upto_seq: int
    reaches_head: bool
    lease_ms: int


_decode = msgspec.json.Decoder(_Answer).decode


class Counted:
    """What all verifiers together saw in one phase."""

    def __init__(self) -> None:
        self.polls = self.lapses = self.bad = 0
        self.least_left = float("inf")
        self.bytes = 0
        self.why = b""


class Polling(asyncio.Protocol):
    """One verifier: a poll hangs, its answer is applied, and the next poll acknowledges it."""

    def __init__(self, port: int, key: str, wait_ms: int, counted: list[Counted]) -> None:
        self.holder = secrets.token_urlsafe(16)
        self.head = f"POST /auth/revocations/poll HTTP/1.1\r\nhost: localhost:{port}\r\nauthorization: Bearer {key}\r\n"
        self.head += "content-type: application/json\r\ncontent-length: "
        self.wait_ms, self.counted = wait_ms, counted
        self.log_epoch = self.applied = 0
        self.sent_at = self.leased_until = 0.0
        self.received = b""
        self.closing = False
        self.transport: asyncio.Transport

    def connection_made(self, transport) -> None:
        self.transport = transport
        self.poll()

    def poll(self) -> None:
        body = (
            f'{{"holder":"{self.holder}","log_epoch":{self.log_epoch},"applied_seq":{self.applied},'
            f'"wait_ms":{self.wait_ms}}}'
        )
        self.sent_at = time.monotonic()
        self.transport.write(f"{self.head}{len(body)}\r\n\r\n{body}".encode())

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, end, body = self.received.partition(b"\r\n\r\n")
        at = head.lower().find(b"content-length: ")
        if not end or len(body) < int(head[at + 16 : at + 26].split(b"\r")[0]):
            return
        counted, now = self.counted[-1], time.monotonic()
        counted.bytes += len(self.received)
        self.received = b""
        if not head.startswith(b"HTTP/1.1 200"):
            counted.bad += 1
            counted.why = head[:200] + body[:300]
            asyncio.get_running_loop().call_later(1.0, self.poll)
            return
        answer = _decode(body)
        self.log_epoch, self.applied = answer.log_epoch, answer.upto_seq
        counted.polls += 1
        if self.leased_until:
            counted.least_left = min(counted.least_left, self.leased_until - now)
            counted.lapses += now > self.leased_until
        if answer.lease_ms:
            self.leased_until = max(self.leased_until, self.sent_at + answer.lease_ms / 1000)
            self.poll()
        else:
            asyncio.get_running_loop().call_later(0.1, self.poll)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.closing:
            self.counted[-1].bad += 1


class Phase(NamedTuple):
    """Of one number of verifiers: share of the core, megabytes, polls a second, leases, fences."""

    cpu: float
    memory: float
    polls: float
    lapses: int
    least_left: float
    fences: list[float]
    unfenced: int
    bad: int
    wire: float
    generator: float


async def hold(verifiers: int, lease: float, seconds: float, folder: Path) -> list[Phase]:
    """Run a server and so many verifiers through the phases."""
    port, issuer = free_port(), "http://localhost:{port}"
    issuer = issuer.format(port=port)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("DUTCHDOOR_")}
    environ = {
        **clean,
        "DUTCHDOOR_DATABASE": f"sqlite:///{folder}/bench.db",
        "DUTCHDOOR_MASTER_KEY_FILE": str(folder / "keys"),
        "DUTCHDOOR_PUBLIC_URL": issuer,
        "DUTCHDOOR_LEASE": f"{lease:g}",
        "DUTCHDOOR_MAX_CONNECTIONS": str(4 * verifiers + 256),  # one address gets a quarter
    }
    read_or_make_master_key(folder / "keys")
    keys = []
    for number in range(-(-verifiers // A_KEY)):
        made = subprocess.run(
            [DUTCHDOOR, "verifier", "add", f"bench{number}", "--json"],
            cwd=folder, env=environ, capture_output=True, text=True, check=True,
        )  # fmt: skip
        keys.append(json.loads(made.stdout)["key"])
    rates = (0, 1, 10)
    async with Auth(environ["DUTCHDOOR_DATABASE"], master_key=folder / "keys", public_url=issuer) as auth:
        tokens = []
        for number in range(int(sum(rates) * seconds) + len(rates)):
            account = await auth.authority.provide(f"user{number}")
            proof = Verified(subject=account.subject, epoch=account.epoch, amr=("pwd",), at=time.time())
            tokens.append((await auth.authority.start(proof, mode="hybrid", client=Client())).access_token)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [DUTCHDOOR, "serve", "--port", str(port)], cwd=folder, env=environ, stdout=subprocess.PIPE, stderr=log,
            preexec_fn=lambda: pin(SERVER_CORE),  # noqa: PLW1509 - no other thread runs here
        )  # fmt: skip
    assert process.stdout is not None
    clients: list[Polling] = []
    try:
        if b"ready" not in process.stdout.readline():
            raise RuntimeError((folder / "log").read_text()[-3000:])
        counted = [Counted()]
        loop = asyncio.get_running_loop()
        for number in range(verifiers):
            client = Polling(port, keys[number // A_KEY], int(lease * 250), counted)
            await loop.create_connection(lambda client=client: client, HOST, port)
            clients.append(client)
        deadline = time.monotonic() + 60
        while not all(client.leased_until for client in clients):
            if time.monotonic() > deadline:
                late = sum(not each.leased_until for each in clients)
                raise RuntimeError(f"{late} verifiers got no lease: {counted[-1].why!r}")
            await asyncio.sleep(0.1)
        await asyncio.sleep(lease / 2)
        return [await phase(process, port, counted, tokens, rate, seconds) for rate in rates]
    finally:
        for client in clients:
            client.closing = True
            client.transport.abort()
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(process.wait, 30)
        process.kill()
        process.wait()
        process.stdout.close()


async def phase(
    process: subprocess.Popen[bytes], port: int, counted: list[Counted], tokens: list[str], rate: int, seconds: float
) -> Phase:
    counted.append(Counted())
    fences: list[float] = []
    unfenced = 0

    async def one(token: str) -> None:
        nonlocal unfenced
        begun = time.monotonic()
        answer = await logout(port, f"localhost:{port}", token, 30)
        fences.append(time.monotonic() - begun)
        unfenced += not answer["fenced"]

    before, own, begun = spent(process.pid), own_time(), time.monotonic()
    under_way = []
    for number in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, begun + number / rate - time.monotonic()))
        under_way.append(asyncio.ensure_future(one(tokens.pop())))
    await asyncio.sleep(max(0.0, begun + seconds - time.monotonic()))
    await asyncio.gather(*under_way)
    lasted = time.monotonic() - begun
    seen = counted[-1]
    return Phase(
        cpu=(spent(process.pid) - before) / lasted,
        memory=int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * PAGE_KIB / 1024,
        polls=seen.polls / lasted,
        lapses=seen.lapses,
        least_left=seen.least_left,
        fences=fences,
        unfenced=unfenced,
        bad=seen.bad,
        wire=seen.bytes / max(seen.polls, 1),
        generator=(own_time() - own) / lasted,
    )


def spent(pid: int) -> float:
    stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(stat[11]) + int(stat[12])) / TICKS


def own_time() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def at(ordered: Sequence[float], part: float) -> float:
    return ordered[min(int(len(ordered) * part), len(ordered) - 1)]


def in_ms(fences: Sequence[float]) -> list[str]:
    """Median, 99th percentile and longest."""
    if not fences:
        return ["", "", ""]
    return [f"{value * 1000:,.0f}" for value in (statistics.median(fences), at(fences, 0.99), fences[-1])]


async def measure(numbers: Sequence[int], lease: float, seconds: float) -> bool:
    pin(LOAD_CORE)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536), hard))
    print(f"A lease of {lease:g} s; core: share of one core that the node used; generator: the same of this program.\n")
    print(
        "| verifiers | log-outs a second | core | generator | memory, MiB | polls/s | bytes an answer | leases lost |",
        end="",
    )
    print(" least left, s | fence p50, ms | p99 | max | not early |")
    print("|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    held = 0
    for verifiers in numbers:
        with tempfile.TemporaryDirectory(prefix="dutchdoor-") as folder:
            phases = await hold(verifiers, lease, seconds, Path(folder))
        for rate, each in zip((0, 1, 10), phases, strict=True):
            fences = sorted(each.fences)
            cells = [
                *(f"{verifiers:,}", str(rate), f"{each.cpu:.0%}", f"{each.generator:.0%}", f"{each.memory:.0f}"),
                *(f"{each.polls:,.0f}", f"{each.wire:,.0f}", str(each.lapses), f"{each.least_left:.1f}"),
                *in_ms(fences),
                str(each.unfenced),
            ]
            print(f"| {' | '.join(cells)} |", flush=True)
            if each.bad:
                print(f"{each.bad} polls were refused or cut", file=sys.stderr)
        if any(each.lapses or each.unfenced or each.bad for each in phases[:2]):
            break
        held = verifiers
    print(f"\nHeld on one core with a log-out a second: {held:,}.")
    return held >= 2000


def main() -> None:
    end_in_order()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.polls", description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--verifiers", type=int, nargs="*", default=[500, 1000, 2000, 3000, 4000, 6000])
    parser.add_argument("--lease", type=float, default=10.0)
    given = parser.parse_args()
    numbers, seconds = ([500, 2000], 6.0) if given.quick else (given.verifiers, 15.0)
    uvloop.run(measure(numbers, given.lease, seconds))


if __name__ == "__main__":
    main()
