"""The store is out of reach, in every way there is (I-12), and comes back (I-13)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from pathlib import Path
from statistics import median, quantiles

import pytest
from tests.backing import new_database
from tests.faults.client import Answer, History, Operation, Wire, result_of
from tests.faults.cluster import Cluster, begin, cluster
from tests.faults.proxy import Proxy
from tests.stores.postgres import lag

LEASE = 2.0
SOON = 1.0
"""Seconds within which a client that needs the store gets 503; this machine's other work not counted."""
SLACK = 1.5
BACK_WITHIN = 20.0
"""Of five seconds that are promised, on a machine that has other work."""


def refused(link: Proxy) -> None:
    link.refuse()


def reset(link: Proxy) -> None:
    link.resetting = True
    link.reset()


def black_hole(link: Proxy) -> None:
    link.hold()


def silent(link: Proxy) -> None:
    link.down.hold()


def slow(link: Proxy) -> None:
    link.down.delay = 30.0


def half_open(link: Proxy) -> None:
    link.half_open()
    link.hold()


FAULTS = [refused, reset, black_hole, silent, slow, half_open]


class Patient:
    """A person who asks for one thing again and again, and notes each answer."""

    def __init__(self, history: History, name: str, wire: Wire, *request, **more) -> None:
        self.history, self.name, self.wire, self.request, self.more = history, name, wire, request, more
        self.answers: list[tuple[float, float, Answer]] = []
        """With the times at which each was asked for and came."""

    async def ask(self) -> Answer:
        began = time.monotonic()
        answer = await self.wire.send(*self.request, **self.more)
        ended = time.monotonic()
        self.history.add(Operation(self.name, "", began, ended, result_of(answer.status), answer.status))
        self.answers.append((began, ended, answer))
        return answer

    async def go_on(self, until) -> None:
        while not until():
            await self.ask()
            await asyncio.sleep(0.05)


def judge_refusal(answer: Answer) -> None:
    """What a client that needs the store gets while it is gone: nothing that lets in or signs out."""
    assert answer.status == 503, answer
    assert int(answer.header("retry-after") or "") >= 1
    assert answer.cookies == {}
    assert b"postgres" not in answer.raw.lower()
    assert b"redis" not in answer.raw.lower()


class Outage:
    """The store goes and comes back under people who ask without pause."""

    def __init__(self, ours: Cluster) -> None:
        self.ours, self.history = ours, History()
        self.needs: list[Patient] = []
        self.anonymous: list[Patient] = []
        self.proved: list[Patient] = []
        self.served: dict[str, float] = {}
        self.gone_at = self.back_at = self.late = 0.0
        """`late`: seconds for which this machine was too busy, of which no node is to blame."""

    @property
    def everybody(self) -> list[Patient]:
        return [*self.needs, *self.anonymous, *self.proved]

    async def prepare(self) -> None:
        """One of each kind at every node, each of whom has been served."""
        async with self.ours.beside() as node:
            held = [await begin(node) for _ in self.ours.nodes]
            cookie = f"__Host-dd_session={(await begin(node, mode='session')).session_token}"
        token = held[0].access_token
        person = {"email": "nobody@example.com", "password": "a password that is long"}
        for each, mine in zip(self.ours.nodes, held, strict=True):

            def patient(name: str, *request, at=each, **more) -> Patient:
                return Patient(self.history, name, at.wire(), *request, **more)

            self.needs += [
                patient("refresh", "POST", "/auth/refresh", {"refresh_token": mine.refresh_token}),
                patient("login", "POST", "/auth/login", person),
                patient("sessions", "GET", "/auth/sessions", bearer=token),
            ]
            self.anonymous += [
                patient("anonymous", "GET", "/"),
                patient("anonymous", "GET", "/livez"),
                patient("nobody", "GET", "/auth/me"),
            ]
            self.proved += [
                patient("token", "GET", "/auth/check", bearer=token, headers=[("X-Forwarded-Method", "GET")]),
                patient("cookie", "GET", "/auth/me", cookie=cookie),
            ]
        for patient in self.everybody:
            answer = await patient.ask()
            # After some outages the wrong password has been tried too often.
            wanted = {"nobody": {401}, "login": {401, 429}}.get(patient.name, {200, 204})
            assert answer.status in wanted, answer
            patient.answers.clear()
        self.history.operations.clear()

    async def happen(self, fault, gone_for: float) -> None:
        links, over = self.ours.to_store(), False
        for link in links:
            fault(link)
        self.gone_at = time.monotonic()
        async with lag() as late, asyncio.TaskGroup() as group:
            for patient in self.everybody:
                group.create_task(patient.go_on(lambda: over))
            await asyncio.sleep(gone_for)
            self.back_at = time.monotonic()
            for link in links:
                link.heal()
            while len(self.served) < len(self.needs) and time.monotonic() < self.back_at + 60:
                self._see_who_is_served()
                await asyncio.sleep(0.02)
            over = True
            self.late = late[0]

    def _see_who_is_served(self) -> None:
        for patient in self.needs:
            if any(began > self.back_at and answer.status != 503 for began, _, answer in patient.answers[-3:]):
                self.served.setdefault(f"{patient.name} {patient.wire.port}", time.monotonic() - self.back_at)

    def judge(self) -> dict[str, float]:
        """Give what it cost, in seconds."""
        assert len(self.served) == len(self.needs), (self.served, "not back without a restart")
        assert max(self.served.values()) < BACK_WITHIN + self.late, (self.served, self.late)
        for patient in self.needs:
            for began, ended, answer in patient.answers:
                # Valkey is still there: it counts a log-in by its address before the database is asked for anything.
                if patient.name == "login" and answer.status == 429:
                    continue
                if self.gone_at + 0.1 < began and ended < self.back_at:
                    judge_refusal(answer)
        for patient in self.anonymous:
            wanted = 401 if patient.name == "nobody" else 200
            assert {answer.status for *_, answer in patient.answers} == {wanted}
        waits = [
            each.ended - each.began
            for each in self.history.named("refresh", "login", "sessions")
            if self.gone_at < each.began < self.back_at
        ]
        # One that a node answers late was not looked at meanwhile: the machine has other work.
        assert median(waits) < SOON + SLACK + self.late, (sorted(waits)[-5:], self.late)
        return {
            "503 p50": quantiles(waits, n=100)[49],
            "503 p99": quantiles(waits, n=100)[98],
            "503 max": max(waits),
            "anonymous max": max(each.ended - each.began for each in self.history.named("anonymous", "nobody")),
            "tokens for": max(self._judge_proved(patient) for patient in self.proved),
            "back after": max(self.served.values()),
        }

    def _judge_proved(self, patient: Patient) -> float:
        """What a node knows is good for the lease it has, and not a moment longer. Gives how long it was."""
        # A client that still waited when it came back got a true answer.
        gone = [(began - self.gone_at, answer) for began, ended, answer in patient.answers if ended < self.back_at]
        assert {answer.status for _, answer in gone} <= {200, 204, 503}
        let_in = max((at for at, answer in gone if answer.status != 503), default=0.0)
        assert let_in < LEASE
        if patient.name == "token":
            assert let_in > 0
        judge_refusal(gone[-1][1])
        return let_in


async def store_goes(ours: Cluster, fault, *, gone_for: float = LEASE + 4.0) -> dict[str, float]:
    """Take the store away from every node and give it back."""
    outage = Outage(ours)
    try:
        await outage.prepare()
        await outage.happen(fault, gone_for)
    finally:
        for patient in outage.everybody:
            patient.wire.close()
    return outage.judge()


async def goes_and_comes_back(folder: Path, place: dict[str, str], fault, nodes: int = 3) -> None:
    with cluster(folder, nodes=nodes, lease=f"{LEASE:.0f}s", **place) as ours:
        pids = [node.pid for node in ours.nodes]
        figures = await store_goes(ours, fault)
        assert [node.pid for node in ours.nodes] == pids
        print(fault.__name__, {name: round(value, 3) for name, value in figures.items()})
        # One line for each transition, however many were refused in between; a node that was stopped has more.
        for node in ours.nodes:
            said = [line for line in node.said.splitlines() if "out of reach" in line or "in reach again" in line]
            assert 1 <= len(said) <= 20, said


@pytest.mark.parametrize(
    ("fault", "nodes"),
    [(refused, 1), pytest.param(black_hole, 3, marks=pytest.mark.long)],
)
async def test_i12_a_store_that_is_gone(tmp_path: Path, full_place: dict[str, str], fault, nodes: int) -> None:
    """A client that needs the store gets 503 with Retry-After within a second, and never a cleared cookie; who proves
    nothing is served as before; tokens are accepted for the length of a lease and then are 503. When it is back
    everyone is served within five seconds, by the same processes.
    """
    await goes_and_comes_back(tmp_path / "cluster", full_place, fault, nodes)


@pytest.mark.soak
@pytest.mark.parametrize("fault", FAULTS)
async def test_i12_in_every_way_there_is(tmp_path: Path, server_place: dict[str, str], fault) -> None:
    """The same for each kind of store that is a network away, and each way in which it can be gone."""
    await goes_and_comes_back(tmp_path / "cluster", server_place, fault)


@pytest.mark.soak
@pytest.mark.timeout(3600)
async def test_i13_fifty_outages(tmp_path: Path, server_place: dict[str, str]) -> None:
    """Fifty outages of every kind, one after the other: each time everything is back, and no connection and no file is
    left behind.
    """
    with cluster(tmp_path / "cluster", lease=f"{LEASE:.0f}s", **server_place) as ours:
        await store_goes(ours, refused)
        files = [files_of(node.pid) for node in ours.nodes]
        for n in range(50):
            await store_goes(ours, FAULTS[n % len(FAULTS)])
        for node, before in zip(ours.nodes, files, strict=True):
            assert files_of(node.pid) <= before + 20


def files_of(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


async def test_anonymous_requests_do_not_touch_the_store(tmp_path: Path, full_place: dict[str, str]) -> None:
    """A request that proves nothing sends not one byte to the store."""
    with cluster(tmp_path / "cluster", nodes=1, lease="300s", **full_place) as ours:
        (node,) = ours.nodes
        links = [link for link in (node.to_store, node.to_redis) if link is not None]
        async with ours.wires(1) as (wire,):
            for path in ("/", "/livez", "/docs", "/auth/me"):
                await wire.send("GET", path)
            await asyncio.sleep(0.2)
            before = [link.up.passed for link in links]
            for _ in range(60):
                for path in ("/", "/livez", "/docs", "/auth/me", "/assets/page.css"):
                    await wire.send("GET", path)
            touched = [link.up.passed - was for link, was in zip(links, before, strict=True)]
        # Keeping a lease or a connection alive costs a few hundred bytes now and then, without any request.
        assert all(each < 5_000 for each in touched), touched


@pytest.mark.long
async def test_a_process_that_dies_meanwhile_takes_no_other_with_it(tmp_path: Path) -> None:
    """One of two processes dies while PostgreSQL is away, and the one in its place cannot begin: the other goes on with
    what it can, and when the store is back there are two again, without a restart.
    """
    with new_database() as url, cluster(tmp_path / "cluster", nodes=1, workers=2, database=url) as ours:
        (node,) = ours.nodes

        def workers() -> list[int]:
            found: list[int] = []
            for pid in Path(f"/proc/{node.pid}/task/{node.pid}/children").read_text().split():
                with contextlib.suppress(OSError):  # it has just ended
                    if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                        found.append(int(pid))
            return found

        first, _ = workers()
        ours.to_store()[0].refuse()
        os.kill(first, signal.SIGKILL)
        async with ours.wires(1) as (wire,), asyncio.timeout(60):
            while "could not start" not in node.said:
                assert node.process is not None
                assert node.process.poll() is None, node.said
                await asyncio.sleep(0.05)
            assert (await wire.once_more("GET", "/livez")).status == 200
            ours.heal()
            wire.close()
            while (await wire.once_more("GET", "/readyz")).status != 200:
                await asyncio.sleep(0.05)
            while len(workers()) < 2:
                await asyncio.sleep(0.05)
