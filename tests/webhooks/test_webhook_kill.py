"""Senders that are killed at any moment: no event is lost, and those of one account keep their order."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
from tests.backing import new_database
from tests.standins import HOME, Clock, authority
from tests.webhooks.receiver import Message, Receiver, Reply, receiving

from dutchdoor.model.audit_events import event
from dutchdoor.services import delivering
from dutchdoor.services.delivering import Deliveries
from dutchdoor.services.webhooks import Webhooks
from dutchdoor.stores.base import Log
from dutchdoor.stores.urls import make_store
from dutchdoor.webhooks.sender import Sender

LOOPBACK = ("127.0.0.0/8",)
ACCOUNTS = ("ann", "bob", "eve", "joe", "")
SPAWN = multiprocessing.get_context("forkserver")


class RealTime(Clock):
    def __call__(self) -> float:
        return time.time()


def send(url: str, stage: str, number: int) -> None:
    """Be a server that sends, with short leases; die at the n-th time that a stage is reached."""
    delivering.LOOK_EVERY, delivering.POLL_EVERY = 0.05, 0.05  # type: ignore[misc]
    delivering.LEASE, delivering.RENEWED_BELOW, delivering.ROUND_FOR = 1.0, 0.7, 0.2  # type: ignore[misc]

    async def work() -> None:
        over = authority(make_store(url), RealTime())
        await over.open()
        left = number

        def at(reached: str) -> None:
            nonlocal left
            if reached == stage:
                left -= 1
                if left <= 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        def around(call: Callable[..., Any], name: str) -> Callable[..., Any]:
            async def wrapped(*arguments: Any, **named: Any) -> Any:
                at(f"before {name}")
                done = await call(*arguments, **named)
                at(f"after {name}")
                return done

            return wrapped

        Sender.post = around(Sender.post, "post")  # type: ignore[method-assign]
        over.store.commit = around(over.store.commit, "commit")  # type: ignore[method-assign]
        Deliveries(Webhooks(over, LOOPBACK)).begin()
        await asyncio.sleep(120)

    asyncio.run(work())


class Site:
    """One database, one endpoint, and events that were committed to it."""

    def __init__(self, url: str, receiver: Receiver) -> None:
        self.url, self.receiver = url, receiver
        self.made: dict[str, list[str]] = {subject: [] for subject in ACCOUNTS}

    async def open(self) -> None:
        self.over = authority(make_store(self.url), RealTime())
        await self.over.open()
        added = await Webhooks(self.over, LOOPBACK).add(self.receiver.url, events=["login"], client=HOME, actor="cli")
        self.receiver.secrets.append(added.secret)

    async def happens(self, count: int) -> None:
        for number in range(count):
            subject = ACCOUNTS[number % len(ACCOUNTS)]
            happened = event("login", now=time.time(), client=HOME, subject=subject)
            await self.over.store.commit(Log(happened))
            self.made[subject].append(happened.id)

    def is_complete(self) -> bool:
        return {each.id for each in self.receiver.taken} >= {one for made in self.made.values() for one in made}

    def check(self) -> None:
        """Everything came; what came first keeps its order; what came twice has one id and one body."""
        assert {subject: self.receiver.first(subject) for subject in ACCOUNTS} == self.made
        assert all(each.verified for each in self.receiver.messages)
        bodies = {each.id: each.body for each in self.receiver.messages}
        assert all(bodies[each.id] == each.body for each in self.receiver.messages)


@contextmanager
def sender(url: str, stage: str = "", number: int = 0) -> Iterator[BaseProcess]:
    process = SPAWN.Process(target=send, args=(url, stage, number), daemon=True)
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()


@contextmanager
def database(kind: str, folder: Path) -> Iterator[str]:
    if kind == "sqlite":
        yield f"sqlite:///{folder}/test.db"
    else:
        with new_database() as url:
            yield url


STAGES = [f"{when} {what}" for what in ("post", "commit") for when in ("before", "after")]


@pytest.mark.long
@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_killed_at_each_stage(tmp_path: Path, kind: str, patience: None) -> None:
    """B24: before and after each message, and before and after each commit, for the first few of them."""
    with database(kind, tmp_path) as url, receiving() as receiver:
        site = Site(url, receiver)
        await site.open()
        for stage in STAGES:
            for number in (1, 3):
                await site.happens(10)
                with sender(url, stage, number) as process:
                    await asyncio.to_thread(process.join, 60)
                    assert process.exitcode == -signal.SIGKILL, (stage, number)
        with sender(url):
            await asyncio.to_thread(receiver.wait, site.is_complete)
        site.check()
        await site.over.close()


@pytest.mark.long
@pytest.mark.parametrize("seed", range(2))
async def test_two_nodes_are_killed_at_random(tmp_path: Path, seed: int, patience: None) -> None:
    """B24: over PostgreSQL, with an endpoint that refuses one message in five: each event comes, in order."""
    chance = random.Random(seed)

    def answer(_message: Message) -> Reply:
        time.sleep(chance.random() / 100)
        return Reply(500) if chance.random() < 0.2 else Reply()

    with database("postgres", tmp_path) as url, receiving() as receiver:
        receiver.answers = answer
        delivering_site = Site(url, receiver)
        await delivering_site.open()
        for _ in range(6):
            with sender(url), sender(url):
                events = asyncio.create_task(delivering_site.happens(30))
                await asyncio.sleep(0.5 + chance.random())
                await events
        receiver.answers = lambda _message: Reply()
        with sender(url), sender(url):
            await asyncio.to_thread(receiver.wait, delivering_site.is_complete)
        delivering_site.check()
        await delivering_site.over.close()
