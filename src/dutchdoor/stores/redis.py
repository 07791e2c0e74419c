"""Redis or Valkey beside a store: a store around a store, and never the system of record.

    redis://[user:password@]host[:6379][/0]       one server; rediss:// with TLS
    unix:///run/valkey.sock[?db=0]                one server, through a socket of this machine
    redis+sentinel://[user:password@]host[:26379],host/service[/0]      the primary that Sentinel names
    redis+cluster://[user:password@]host[:6379],host                    a cluster; both with rediss+ for TLS

The inner store is the record. Redis has three things beside it, all of which may be lost at any moment:

- *Copies of sessions*, for a minute each, so that a session looked up by one node costs the next one no query. A caller
  may use one only if it judges the copy by its age and the revocation log (`store.Copies`); `session` reads the record.
- *Limits that refill with time*, decided by one script, exact over all nodes. Ceilings, which do not refill, stay in
  the record. So an attacker who can empty Redis gets one more burst from each bucket, and no guess above the ceiling.
- *Wake-ups* of the followers of the revocation log.

Attacks, and what stops each. *Reading Redis*, or a dump of it: copies are sealed, and keys are named by keyed hashes.
*Writing to it*: a copy that was not sealed here does not open. Neither does the copy of another session, because its
name is sealed with it. A copy that an attacker kept and put back is too old after a minute. An attacker can set
counters to anything: see above. *Answering in its place*: the same, and an answer to another question is rejected.
*Being slow*: no look-up waits longer than a tenth of a second. After the first that did, no call waits until Redis
answers again.

A deployment has a name in Redis that is derived from the salt of its log, so several may share a server. Copies are
judged by the nodes' clocks; Redis's own clock is used only to delete what expired.

Left out deliberately: reads from replicas, client-side caching (the nodes' own memory does that, and the log
invalidates it), transactions.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from functools import partial
from itertools import count, islice
from typing import Any

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec.structs import replace
from redis.asyncio.cluster import RedisCluster
from redis.exceptions import NoScriptError, RedisError

from dutchdoor.errors import Unavailable
from dutchdoor.model.accounts import Account
from dutchdoor.model.ids import encode
from dutchdoor.model.rate_limits import _GRAIN as GRAIN
from dutchdoor.model.rate_limits import Bucket
from dutchdoor.model.sessions import Session
from dutchdoor.stores.base import REMEMBERED_FOR, Around, Change, Forgive, Load, Revoke, Revoked, Store
from dutchdoor.stores.redis_connection import FAILURES, TRY_EVERY, TRY_FOR, Address, Client, Link, Together, shut

__all__ = ["RedisStore", "around"]

LOOK_FOR = 0.1
"""Seconds that a look-up of a copy may take. The record would have answered by then."""
COUNT_FOR = 0.5
"""Seconds that counting an attempt may take: a credential endpoint answers 503 within a second."""
COPY_AT_MOST = 8192
"""Bytes of a sealed copy, ten times the usual size. A larger one is neither written nor opened."""
COPIES_WAITING = 4096
KEPT_AT_ONCE = 256
SPREAD = 16
"""Hash tags that copies are spread over in a cluster. Fewer make larger batches; more make use of more shards."""

WAKE_EVERY = 0.01
"""Seconds between two wake-ups: an attacker who floods the channel causes at most a hundred looks a second."""
PING_EVERY = 2.0
"""Seconds of silence after which the subscription pings the server."""

PURGE_STEP = 500
"""Buckets that one step of a purge deletes: Redis serves no other client meanwhile."""

WRITERS = 256
"""Processes whose sealing keys are remembered."""

TRIM_AFTER = 600.0
"""Seconds that a bucket is kept after it is full again. A full bucket says nothing, but nodes' clocks differ."""

_NO_ENTRY = 2**53
"""Higher than any `seq`: the read is for the salt."""

Copy = tuple[float, Session, Account]


def around(store: Store, url: str, *, key: bytes = b"") -> RedisStore:
    """Put the Redis that a URL names beside a store. See `RedisStore`.

    Raises:
        Misconfigured: the URL is not valid. The message does not repeat the URL, which may hold a password.
    """
    return RedisStore(store, Address.read(url), key=key)  # type: ignore[abstract]  # `Around` has the rest


class RedisStore(Around):
    """See `dutchdoor.stores.base.Store` and `Copies`. Create and open one in each process, after forking.

    Args:
        store: the record. If it knows the head of its log at once, no copies are kept: its file or memory is nearer
            than any server.
        address: where Redis is.
        key: 32 secret bytes that all nodes have and Redis never sees. Without it, the copies serve only this process.
    """

    def __init__(self, store: Store, address: Address, *, key: bytes = b"") -> None:
        super().__init__(store)
        self._record, self._address = store, address
        self._key = key or secrets.token_bytes(32)
        self._tasks: set[asyncio.Task[None]] = set()
        self._watchers: list[Callable[[], None]] = []
        self._listening: asyncio.Task[None] | None = None
        self._hushed = self._again = self._publishing = False
        self._numbers = count()
        self._is_open = False
        # Set by `open`.
        self._tag: bytes
        self._limits_key: bytes
        self._channel: bytes
        self._salt: bytes
        self._copies: Link | None
        self._limits: Link
        self._sealer: _Sealer
        self._look: Together[bytes, bytes | None]
        self._count: Together[tuple[float, Sequence[Bucket]], list[float]]
        self._keeping: dict[bytes, tuple[Session, Account, float]]

    # --- opening and closing ------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Open the record. Redis may be down: each operation that needs it reports that itself."""
        await self._record.open()
        if self._is_open:
            return
        head = self._record.head()
        log_epoch = (await self._record.node_rows()).log_epoch if head is None else head.log_epoch
        read = await self._record.read_log(log_epoch, _NO_ENTRY)
        self._salt = read.salt
        digest = hashlib.blake2b(read.salt, digest_size=9, person=b"dd deployment").digest()
        self._tag = b"dd:" + encode(digest).encode()
        self._limits_key, self._channel = b"{%s}:limits" % self._tag, b"%s:log" % self._tag
        self._sealer = _Sealer(self._key, self._tag)
        self._limits = Link(self._address, COUNT_FOR, self._probe, "limits: what they guard answers 503")
        self._copies = None
        if head is None:
            self._copies = Link(self._address, LOOK_FOR, self._probe, "copies of sessions: the database is asked")
        self._look = Together(self._get)
        self._count = Together(self._decide)
        self._keeping = {}
        self._is_open = True
        await asyncio.gather(*(link.begin() for link in self._links()))

    async def close(self) -> None:
        if self._is_open:
            self._is_open = False
            # A command that revokes and then exits still wakes the followers.
            telling = self._tasks - {self._listening}
            if telling:
                await asyncio.wait(telling, timeout=COUNT_FOR)
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self._listening = None
            for link in self._links():
                await link.close()
            await asyncio.gather(self._look.close(), self._count.close())
        await self._record.close()

    @property
    def load(self) -> Load:
        up = self._is_open and all(link.is_up for link in self._links())
        return replace(self._record.load, redis_up=up)

    def _links(self) -> list[Link]:
        return [self._limits] if self._copies is None else [self._limits, self._copies]

    async def _probe(self, client: Client) -> None:
        """Fail unless Redis takes writes on every shard: a copy of a primary that died is of no use."""
        await client.execute_command("SET", b"{%s}:probe" % self._tag, b"", "PX", 1000)
        if isinstance(client, RedisCluster):
            await client.ping(target_nodes=RedisCluster.PRIMARIES)

    def _soon(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something that no caller waits for."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # --- copies of sessions -------------------------------------------------------------------------------------------

    async def recent_session(self, session_id: str, log_epoch: int) -> tuple[Session, Account, float] | None:
        """See `dutchdoor.stores.base.Copies`. Any fault of Redis or of its data means that there is no copy."""
        link = self._copies
        if link is None or not link.is_up:
            return None
        name = self._sealer.name(session_id, log_epoch)
        try:
            sealed = await self._look(name)
        except Unavailable:
            return None
        copy = None if sealed is None else self._sealer.open(sealed, name)
        if copy is None or copy[1].id != session_id:
            return None
        read_at, session, account = copy
        return session, account, read_at

    def keep_recent(self, session: Session, account: Account, read_at: float, log_epoch: int) -> None:
        """See `dutchdoor.stores.base.Copies`."""
        link = self._copies
        if link is None or not link.is_up or len(self._keeping) >= COPIES_WAITING:
            return
        if not self._keeping:
            self._soon(self._keep(link))
        self._keeping[self._sealer.name(session.id, log_epoch)] = session, account, read_at

    async def _keep(self, link: Link) -> None:
        keeping, self._keeping = self._keeping, {}
        shards: dict[int, list[bytes]] = {}
        for name, (session, account, read_at) in keeping.items():
            sealed = self._sealer.seal((read_at, session, account), name)
            if len(sealed) <= COPY_AT_MOST:
                shards.setdefault(_shard(name) if link.is_cluster else 0, []).extend((name, sealed))
        for pairs in shards.values():
            for at in range(0, len(pairs), 2 * KEPT_AT_ONCE):
                some = pairs[at : at + 2 * KEPT_AT_ONCE]
                keys = [self._copy_key(name) for name in some[::2]]
                with contextlib.suppress(Unavailable):
                    await link.ask(partial(_KEEP, keys=keys, args=[int(REMEMBERED_FOR * 1000), *some[1::2]]))

    async def _get(self, names: list[bytes]) -> list[bytes | None]:
        link = self._copies
        if link is None:
            return [None] * len(names)
        if not link.is_cluster:
            every = [*map(self._copy_key, names)]
            return await link.ask(lambda client: _values(client.execute_command("MGET", *every), len(every)))
        shards: dict[int, list[bytes]] = {}
        for name in names:
            shards.setdefault(_shard(name), []).append(self._copy_key(name))

        async def ask(client: Client) -> list[list[bytes | None]]:
            together = client.pipeline()  # one question to each server of the cluster
            for keys in shards.values():
                together.execute_command("MGET", *keys)
            answers = await together.execute()
            return [_checked(answer, len(keys)) for answer, keys in zip(answers, shards.values(), strict=True)]

        found = dict(zip(shards, map(iter, await link.ask(ask)), strict=True))
        return [next(found[_shard(name)]) for name in names]

    def _copy_key(self, name: bytes) -> bytes:
        return b"{%s:%x}:%s" % (self._tag, _shard(name), name)

    # --- limits -------------------------------------------------------------------------------------------------------

    async def hit(self, buckets: Sequence[Bucket], now: float) -> tuple[float, str]:
        """Count in Redis first, and ceilings in the record after it: a flood from one address is refused without a
        query.

        If both refuse, the wait is Redis's, which is shorter. If Redis accepts and the record refuses, Redis gets its
        attempts back.
        """
        growing = tuple(bucket for bucket in buckets if not bucket.limit.is_ceiling)
        ceilings = [bucket for bucket in buckets if bucket.limit.is_ceiling]
        if growing:
            waits = await self._count((now, growing))
            wait, by = max(zip(waits, (bucket.limit.name for bucket in growing), strict=True))
            if wait > 0:
                return wait, by
        if not ceilings:
            return 0.0, ""
        try:
            wait, by = await self._record.hit(ceilings, now)
        except Unavailable:
            await self._forgive(growing, ())
            raise
        if wait > 0:
            await self._forgive(growing, ())
        return wait, by

    async def _decide(self, attempts: list[tuple[float, Sequence[Bucket]]]) -> list[list[float]]:
        """Decide attempts one after the other, in one step over all processes: seconds to wait for each bucket."""
        # The answer repeats this nonce: the answer to another question must not let an attempt pass.
        number = str(next(self._numbers)).encode()
        args: list[bytes | str | float] = [number, GRAIN, TRIM_AFTER]
        for now, buckets in attempts:
            args += [now, len(buckets)]
            for bucket in buckets:
                args += [self._bucket(bucket), bucket.limit.interval, bucket.limit.burst]

        async def ask(client: Client) -> list[float]:
            said, *waits = await _HIT(client, keys=[self._limits_key], args=args)
            if said != number or len(waits) != sum(len(buckets) for _, buckets in attempts):
                raise RedisError("an answer to another question")
            return [*map(float, waits)]

        numbers = iter(await self._limits.ask(ask))
        return [list(islice(numbers, len(buckets))) for _, buckets in attempts]

    async def _forgive(self, give_back: Iterable[Bucket], forget: Iterable[Bucket]) -> None:
        """Best effort: a client whose attempts are not given back waits a little longer for the next attempt."""
        returned = [each for bucket in give_back for each in (self._bucket(bucket), bucket.limit.interval)]
        args = [len(returned) // 2, *returned, *map(self._bucket, forget)]
        if len(args) > 1:
            with contextlib.suppress(Unavailable):
                await self._limits.ask(partial(_FORGIVE, keys=[self._limits_key], args=args))

    def _bucket(self, bucket: Bucket) -> bytes:
        # Keys hold networks and session ids, which Redis must not reveal.
        return hashlib.blake2b(bucket.key.encode(), digest_size=16, key=self._salt, person=b"dd bucket").digest()

    # --- the log ------------------------------------------------------------------------------------------------------

    async def commit(self, *changes: Change) -> Revoked:
        """Commit to the record; then give attempts back in Redis, and wake the followers of the log."""
        there: list[Change] = []
        give_back: list[Bucket] = []
        forget: list[Bucket] = []
        for change in changes:
            if isinstance(change, Forgive):
                give_back += (bucket for bucket in change.give_back if not bucket.limit.is_ceiling)
                forget += (bucket for bucket in change.forget if not bucket.limit.is_ceiling)
                ceilings = Forgive(
                    give_back=tuple(bucket for bucket in change.give_back if bucket.limit.is_ceiling),
                    forget=tuple(bucket for bucket in change.forget if bucket.limit.is_ceiling),
                )
                if ceilings.give_back or ceilings.forget:
                    there.append(ceilings)
            else:
                there.append(change)
        done = await self._record.commit(*there)
        if any(isinstance(change, Revoke) for change in changes):
            self._publish()
        await self._forgive(give_back, forget)
        return done

    async def begin_log_epoch(self, now: float) -> int:
        begun = await self._record.begin_log_epoch(now)
        self._publish()
        return begun

    def watch(self, woken: Callable[[], None]) -> Callable[[], None]:
        """Get woken by the record and by Redis, whichever is first."""
        unwatch = self._record.watch(woken)
        self._watchers.append(woken)
        if self._listening is None:
            self._listening = self._soon(self._listen())

        def stop() -> None:
            unwatch()
            with contextlib.suppress(ValueError):
                self._watchers.remove(woken)

        return stop

    def _publish(self) -> None:
        if not self._publishing and self._is_open:
            self._publishing = True
            self._soon(self._tell())

    async def _tell(self) -> None:
        # Commits from here on need a message of their own.
        self._publishing = False
        with contextlib.suppress(Unavailable):
            await self._limits.ask(lambda client: client.execute_command("PUBLISH", self._channel, b""))

    async def _listen(self) -> None:
        """Listen to the channel while the store is open. Followers find a lost message when they next poll the log."""
        while self._is_open:
            client = self._address.client()
            try:
                await self._hear(client)
            except FAILURES:
                pass
            finally:
                await shut(client)
            await asyncio.sleep(TRY_EVERY)

    async def _hear(self, client: Client) -> None:
        async with asyncio.timeout(TRY_FOR):
            await client.initialize()
        async with client.pubsub() as channel:
            async with asyncio.timeout(TRY_FOR):
                await channel.subscribe(self._channel)
            silent = 0
            while self._is_open and silent <= 1:
                message = await channel.get_message(timeout=PING_EVERY)
                if message is None:
                    # A connection that died in the middle reports nothing.
                    silent += 1
                    async with asyncio.timeout(TRY_FOR):
                        await channel.ping()
                    continue
                silent = 0
                if message["type"] in {"message", "subscribe"}:  # messages from before the subscription were missed
                    self._wake()

    def _wake(self) -> None:
        if self._hushed:
            self._again = True
            return
        self._hushed = True
        asyncio.get_running_loop().call_later(WAKE_EVERY, self._unhush)
        for woken in list(self._watchers):
            woken()

    def _unhush(self) -> None:
        self._hushed = False
        if self._again:
            self._again = False
            self._wake()

    # --- upkeep -------------------------------------------------------------------------------------------------------

    async def try_writing(self, now: float) -> None:
        """Write to the record alone. While Redis is out of reach, everything but signing in continues at every node."""
        await self._record.try_writing(now)

    async def purge(self, *, before: float, events_before: float) -> int:
        deleted = await self._record.purge(before=before, events_before=events_before)
        with contextlib.suppress(Unavailable):
            step = PURGE_STEP
            while step == PURGE_STEP:
                step = await self._limits.ask(partial(_PURGE, keys=[self._limits_key], args=[before, PURGE_STEP]))
                deleted += step
        return deleted

    async def counts(self) -> dict[str, int]:
        """Rows of the record, and the buckets in Redis if it answers."""
        counts = dict(await self._record.counts())
        with contextlib.suppress(Unavailable):
            counts["limits"] += await self._limits.ask(lambda client: client.execute_command("ZCARD", self._limits_key))
        return counts


# --- sealing ----------------------------------------------------------------------------------------------------------


class _Sealer:
    """Names copies and seals them (AES-256-GCM), so that Redis knows neither whose they are nor what they say.

    Each process seals under its own key, derived from the common one and a random name that stands before each copy. So
    a counter can serve as the nonce and never repeats, whereas two random nonces might be equal after 2^32 copies.
    """

    def __init__(self, key: bytes, tag: bytes) -> None:
        # Other fields give another name: a program of another version finds no copy that it would misread.
        form = repr((tag, Session.__struct_fields__, Account.__struct_fields__)).encode()
        self._root = hashlib.blake2b(form, digest_size=32, key=key, person=b"dd copies").digest()
        self._named = hashlib.blake2b(digest_size=16, key=self._root, person=b"dd copy name").copy
        self._writer = secrets.token_bytes(16)
        self._own = self._key_of(self._writer)
        self._numbers = count()
        self._keys: dict[bytes, AESGCM] = {}
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(Copy).decode

    def name(self, session_id: str, log_epoch: int) -> bytes:
        named = self._named()
        named.update(b"%d %s" % (log_epoch, session_id.encode()))
        return named.digest()

    def seal(self, copy: Copy, name: bytes) -> bytes:
        number = next(self._numbers).to_bytes(12, "big")
        return self._writer + number + self._own.encrypt(number, self._encode(copy), name)

    def open(self, sealed: bytes, name: bytes) -> Copy | None:
        """Return what one of our processes sealed under this name, or None."""
        if not 44 <= len(sealed) <= COPY_AT_MOST:  # noqa: PLR2004 - a name, a number and a tag
            return None
        writer, number, box = sealed[:16], sealed[16:28], sealed[28:]
        key = self._keys.get(writer) or self._key_of(writer)
        try:
            copy: Copy = self._decode(key.decrypt(number, box, name))
        except (InvalidTag, msgspec.DecodeError):
            return None
        if writer not in self._keys:  # only now: anyone can invent names of writers
            if len(self._keys) >= WRITERS:
                self._keys.clear()
            self._keys[writer] = key
        return copy

    def _key_of(self, writer: bytes) -> AESGCM:
        return AESGCM(hashlib.blake2b(writer, digest_size=32, key=self._root, person=b"dd copy key").digest())


def _shard(name: bytes) -> int:
    return name[0] % SPREAD


async def _values(asked: Awaitable[Any], count: int) -> list[bytes | None]:
    return _checked(await asked, count)


def _checked(answer: Any, count: int) -> list[bytes | None]:
    """Return the answer to MGET. An answer of another form is none: it comes from a connection that is out of step."""
    if type(answer) is not list or len(answer) != count or not {*map(type, answer)} <= {bytes, type(None)}:
        raise RedisError("an answer to another question")
    return answer


# --- scripts ----------------------------------------------------------------------------------------------------------


class _Script:
    """One step in Redis, sent once and called by its hash after."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._hash = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    async def __call__(self, client: Client, *, keys: Sequence[bytes], args: Sequence[bytes | str | float]) -> Any:
        # The shortest text of a double, which Lua reads as the same double.
        texts = [repr(arg) if isinstance(arg, float) else arg for arg in args]
        try:
            return await client.execute_command("EVALSHA", self._hash, len(keys), *keys, *texts)
        except NoScriptError:
            # The server restarted, or is another one. It runs no part of a script that it does not know.
            return await client.execute_command("EVAL", self._text, len(keys), *keys, *texts)


_HIT = _Script("""
-- limits.decide_all, to the bit: the same operations on the same doubles in the same order.
-- KEYS: the buckets, a sorted set of names by theoretical arrival time.
-- ARGV: number of the question, grain, trim after, then for each attempt: now, how many buckets, and for each of them
-- name, interval, burst. Gives the number and, for each bucket, the seconds to wait.
local key, grain, trim = KEYS[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local function text(number) return string.format('%.17g', number) end
if redis.call('TYPE', key).ok ~= 'zset' then redis.call('DEL', key) end
local said, at, now, attempts = {ARGV[1]}, 4, 0, 0
while at <= #ARGV do
  local names, tats, waits, refused = {}, {}, {}, false
  now, attempts = tonumber(ARGV[at]), attempts + 1
  local n = tonumber(ARGV[at + 1])
  at = at + 2
  for i = 1, n do
    local interval, burst = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
    local tat = redis.call('ZSCORE', key, ARGV[at])
    if tat then
      tat = math.min(math.max(tonumber(tat), now), now + interval * burst)
    else
      tat = now
    end
    local open_at = tat - interval * (burst - 1) - grain
    if now < open_at then
      waits[i], tats[i], refused = open_at - now, tat, true
    else
      waits[i], tats[i] = 0, tat + interval
    end
    names[i], at = ARGV[at], at + 3
  end
  for i = 1, n do
    if waits[i] > 0 or not refused then redis.call('ZADD', key, text(tats[i]), names[i]) end
    said[#said + 1] = text(waits[i])
  end
end
local full = redis.call('ZRANGEBYSCORE', key, '-inf', '(' .. text(now - trim), 'LIMIT', 0, 8 * attempts)
if #full > 0 then redis.call('ZREM', key, unpack(full)) end
local last = redis.call('ZRANGE', key, -1, -1, 'WITHSCORES')[2]
if last then redis.call('EXPIRE', key, math.min(math.max(math.ceil(tonumber(last) - now), 0) + trim, 1e9)) end
return said
""")

_FORGIVE = _Script("""
-- ARGV: how many to give back to, name and interval of each, and the names to forget.
local key, n = KEYS[1], tonumber(ARGV[1])
for i = 1, n do
  local tat = redis.call('ZSCORE', key, ARGV[2 * i])
  if tat then
    redis.call('ZADD', key, string.format('%.17g', tonumber(tat) - tonumber(ARGV[2 * i + 1])), ARGV[2 * i])
  end
end
for i = 2 * n + 2, #ARGV do redis.call('ZREM', key, ARGV[i]) end
return 0
""")

_PURGE = _Script("""
local full = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. ARGV[1], 'LIMIT', 0, ARGV[2])
if #full > 0 then redis.call('ZREM', KEYS[1], unpack(full)) end
return #full
""")

_KEEP = _Script("""
for i, key in ipairs(KEYS) do redis.call('SET', key, ARGV[i + 1], 'PX', ARGV[1]) end
return #KEYS
""")
