"""The bounded threads passwords are hashed on (credentials/hashing.py): I-24, as far as hashing goes."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
import weakref
from collections.abc import Iterator

import pytest

from dutchdoor import errors
from dutchdoor.credentials.hashing import NICENESS, HashingPool, available_cores


class Gate:
    """Work that says when it has begun, and goes on only when the test says so."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.go_on = threading.Semaphore(0)
        self.calls = 0

    def __call__(self) -> int:
        self.calls += 1
        self.begun.release()
        assert self.go_on.acquire(timeout=60)
        return self.calls

    async def until_begun(self) -> None:
        assert await asyncio.to_thread(self.begun.acquire, timeout=60)


@pytest.fixture
def one() -> Iterator[HashingPool]:
    pool = HashingPool(workers=1, queue=2)
    yield pool
    pool.close()


async def waiting(pool: HashingPool, gate: Gate, number: int) -> list[asyncio.Task[int]]:
    """Start `number` pieces of work and let each reach the pool."""
    tasks = [asyncio.create_task(pool.run(gate)) for _ in range(number)]
    await asyncio.sleep(0)
    return tasks


async def test_work_is_done_and_its_result_comes_back(one: HashingPool) -> None:
    """What the work returns is what the caller gets, and it was done on another thread."""
    assert threading.get_ident() != await one.run(threading.get_ident)


async def test_what_the_work_raises_reaches_the_caller(one: HashingPool) -> None:
    """An exception on a hashing thread is the caller's, and the thread serves on."""

    def fail() -> None:
        raise errors.Misconfigured("no pepper")

    for _ in range(5):
        with pytest.raises(errors.Misconfigured):
            await one.run(fail)
    assert await one.run(lambda: 1) == 1


async def test_i24_a_full_queue_refuses_and_says_when_to_come_back(one: HashingPool) -> None:
    """I-24: one at work and two waiting is all that one worker with a queue of two takes; the fourth gets 503."""
    gate = Gate()
    tasks = await waiting(one, gate, 3)
    await gate.until_begun()
    with pytest.raises(errors.Unavailable) as refusal:
        await one.run(gate)
    assert refusal.value.retry_after > 0
    gate.go_on.release(4)
    assert await asyncio.gather(*tasks) == [1, 2, 3]
    assert await one.run(gate) == 4


async def test_i24_no_more_is_done_at_once_than_there_are_workers() -> None:
    """I-24: twenty callers on two workers never have three hashes in memory."""
    pool, lock, now, most = HashingPool(workers=2, queue=20), threading.Lock(), 0, 0
    two = threading.Barrier(2, timeout=60)

    def work() -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        two.wait()
        with lock:
            now -= 1

    await asyncio.gather(*(pool.run(work) for _ in range(20)))
    pool.close()
    assert most == 2


async def test_a_caller_who_hangs_up_while_waiting_leaves_the_queue(one: HashingPool) -> None:
    """Work that no caller waits for any more is not done, and its place is free at once."""
    gate = Gate()
    first, second, third = await waiting(one, gate, 3)
    await gate.until_begun()
    second.cancel()
    await asyncio.wait([second])
    (fourth,) = await waiting(one, gate, 1)
    gate.go_on.release(3)
    assert await asyncio.gather(first, third, fourth) == [1, 2, 3]
    assert gate.calls == 3


async def test_i24_hanging_up_again_and_again_grows_nothing(one: HashingPool) -> None:
    """I-24: a client that connects and hangs up in a loop, behind a busy worker, leaves nothing behind."""
    gate = Gate()
    (first,) = await waiting(one, gate, 1)
    await gate.until_begun()
    for _ in range(2_000):
        (task,) = await waiting(one, gate, 1)
        task.cancel()
        await asyncio.wait([task])
    assert one._waiting == {}
    gate.go_on.release()
    assert await first == 1


async def test_work_that_has_begun_keeps_its_place_when_its_caller_hangs_up(one: HashingPool) -> None:
    """Hanging up early gives no client a second thread: the place is free when the work has ended."""
    gate = Gate()
    first, *others = await waiting(one, gate, 3)
    await gate.until_begun()
    first.cancel()
    await asyncio.wait([first])
    with pytest.raises(errors.Unavailable):
        await one.run(gate)
    gate.go_on.release(3)
    assert await asyncio.gather(*others) == [2, 3]


async def test_closing_refuses_what_waits_and_ends_what_has_begun() -> None:
    """At the end of the server no caller is left waiting: those in the queue get 503, those at work their result."""
    pool, gate = HashingPool(workers=1, queue=2), Gate()
    first, second, third = await waiting(pool, gate, 3)
    await gate.until_begun()
    pool.close()
    pool.close()
    for task in (second, third):
        with pytest.raises(errors.Unavailable):
            await task
    with pytest.raises(errors.Unavailable):
        await pool.run(gate)
    gate.go_on.release()
    assert await first == 1


async def test_no_thread_is_started_before_it_is_needed() -> None:
    """A server may make its pool and then fork its workers: threads do not survive a fork, so none may exist yet."""
    before = set(threading.enumerate())
    pool = HashingPool(workers=3)
    assert set(threading.enumerate()) <= before
    await pool.run(int)
    assert len(set(threading.enumerate()) - before) == 3
    pool.close()


async def test_an_idle_thread_forgets_the_last_password(one: HashingPool) -> None:
    """I-23: between two log-ins no hashing thread keeps the last password alive."""

    class Secret(str):
        __slots__ = ("__weakref__",)

    secret = Secret("the password")
    gone = weakref.ref(secret)
    await one.run(secret.upper)
    del secret
    # The thread lets go right after it has answered the caller.
    for _ in range(500):
        gc.collect()
        if gone() is None:
            break
        await asyncio.sleep(0.01)
    assert gone() is None


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a priority belongs to the whole process")
async def test_hashing_threads_stand_back_and_the_event_loop_does_not(one: HashingPool) -> None:
    """The priority is lowered for the hashing threads alone, by a moderate step."""
    before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    there = await one.run(lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
    assert min(before + NICENESS, 19) == there
    assert before == os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def test_one_worker_a_core_by_default() -> None:
    """The default is the cores this process may use, not those the machine has."""
    pool = HashingPool()
    assert pool.workers == available_cores()
    if sys.platform == "linux":
        assert pool.workers == len(os.sched_getaffinity(0))
    pool.close()


@pytest.mark.parametrize(("workers", "queue"), [(0, 1), (-1, 1), (1, -1)])
def test_a_pool_that_could_do_nothing_is_refused(workers: int, queue: int) -> None:
    """A setting that would make every log-in fail is refused at the start."""
    with pytest.raises(errors.Misconfigured):
        HashingPool(workers=workers, queue=queue)
