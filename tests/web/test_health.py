"""What the server says of itself when something is out of reach: one line a second, and one look for every probe."""

from __future__ import annotations

import asyncio
import logging
import math

import pytest
from tests.standins import Clock, Wrapped, authority

from dutchdoor.errors import Unavailable
from dutchdoor.stores.memory import MemoryStore
from dutchdoor.web.health import LOOK_EVERY, LOOK_FOR, REASONS_AT_MOST, Outages, Readiness

FULL = "sqlite: database or disk is full"


def test_p15_a_reason_is_logged_once_a_second_and_counted_always(caplog: pytest.LogCaptureFixture) -> None:
    """Of a hundred requests that one reason refuses in a second one is a line; the next line says how many were not.
    Another reason has a line of its own.
    """
    clock, counted = Clock(), list[str]()
    outages = Outages(clock, [counted.append])
    for _ in range(100):
        outages.note(Unavailable(FULL))
    outages.note(Unavailable("postgres: no answer"))
    clock.forward(1.0)
    outages.note(Unavailable(FULL))
    assert caplog.messages == [
        f"requests are refused with 503: {FULL}",
        "requests are refused with 503: postgres: no answer",
        f"requests are refused with 503: {FULL} (and 99 more times since it was last logged)",
    ]
    assert {record.levelno for record in caplog.records} == {logging.ERROR}
    assert (counted.count("sqlite"), counted.count("postgres"), len(counted)) == (101, 1, 102)


def test_p15_reasons_without_end_are_no_lines_without_end(caplog: pytest.LogCaptureFixture) -> None:
    """However many reasons there are, memory and the lines of one second are bounded, and so is what counts them."""
    clock, counted = Clock(), set[str]()
    outages = Outages(clock, [counted.add])
    for turn in range(3):
        for number in range(1000):
            outages.note(Unavailable(f"reason {turn} {number}"))
        clock.forward(1.0)
    assert len(caplog.messages) == 3 * REASONS_AT_MOST
    assert counted == {"other"}


def test_p15_a_reason_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """What a server says in several lines cannot be taken for several lines of ours."""
    Outages(Clock(), []).note(Unavailable("postgres: 57P03 starting\nup\x1b[2J"))
    (line,) = caplog.messages
    assert line.isprintable()


class Counted(Wrapped):
    """Counts what is written for readiness, and holds it up or fails it."""

    def __init__(self, inner: MemoryStore) -> None:
        super().__init__(inner)
        self.writes, self.fails = 0, ""
        self.free = asyncio.Event()
        self.free.set()

    async def try_writing(self, now: float) -> None:
        self.writes += 1
        await self.free.wait()
        if self.fails:
            raise Unavailable(self.fails)
        await self.inner.try_writing(now)


async def test_p15_a_flood_of_probes_is_one_write_a_second() -> None:
    """However many probes come, the store is written once a second, and all of them answer by what came of it."""
    store, clock = Counted(MemoryStore()), Clock()
    over = authority(store, clock)
    await over.open()
    over.fencing.now = clock
    readiness = Readiness(over)
    await asyncio.gather(*[readiness.check() for _ in range(1000)])
    assert store.writes == 1
    store.fails = FULL
    await readiness.check()
    clock.forward(LOOK_EVERY)
    outcomes = await asyncio.gather(*[readiness.check() for _ in range(1000)], return_exceptions=True)
    assert {each.reason for each in outcomes if isinstance(each, Unavailable)} == {FULL}
    assert len({id(each) for each in outcomes}) == 1000
    assert store.writes == 2
    clock.forward(LOOK_EVERY)
    store.fails = ""
    await readiness.check()
    await over.close()


async def test_p15_a_store_that_hangs_is_asked_once_and_is_not_waited_for() -> None:
    """While one write hangs no other is begun, and later probes are refused at once."""
    store, clock = Counted(MemoryStore()), Clock()
    over = authority(store, clock)
    await over.open()
    over.fencing.now = clock
    readiness = Readiness(over)
    store.free.clear()
    first = asyncio.ensure_future(readiness.check())
    while not store.writes:
        await asyncio.sleep(0)
    clock.forward(LOOK_FOR + 60)
    for _ in range(3):
        with pytest.raises(Unavailable) as refused:
            await readiness.check()
        assert "readiness probe" in refused.value.reason
    store.free.set()
    await first
    assert store.writes == 1
    await readiness.check()
    assert store.writes == 2
    await over.close()


async def test_p25_a_node_that_starts_or_stops_lets_no_other_stop() -> None:
    """`/readyz` says for the handover that the node is not ready, without a look at the store and without an outage."""
    clock = Clock()
    over = authority(MemoryStore(), clock)
    over.fencing.now = clock
    readiness = Readiness(over)
    assert not readiness.handing_over()
    readiness.hold(3.0)
    assert readiness.handing_over()
    clock.forward(3.0)
    assert not readiness.handing_over()
    readiness.hold(math.inf)
    clock.forward(1e6)
    assert readiness.handing_over()


@pytest.mark.parametrize("alg", ["ES256", "HS256"])
async def test_p15_without_a_key_that_signs_a_node_is_not_ready(alg: str) -> None:
    """A node that cannot sign a token for anyone is not ready, whether its keys are public or not."""
    over = authority(MemoryStore(), Clock(), alg=alg)
    await over.open(upkeep=False)
    with pytest.raises(Unavailable) as refused:
        await Readiness(over).check()
    assert refused.value.reason == "no key signs"
    await over.close()
    await over.open()
    await Readiness(over).check()
    await over.close()
