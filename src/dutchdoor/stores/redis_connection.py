"""Where Redis is, and whether it answers.

An `Address` is read from a URL and creates clients. A `Link` holds a client and reports at once when no server answers.
`Together` makes one batch of the questions of one turn of the loop. `stores/redis.py` has the questions.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Generic, Literal, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

from msgspec import Struct
from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.credentials import UsernamePasswordCredentialProvider
from redis.maint_notifications import MaintNotificationsConfig

from dutchdoor.errors import Misconfigured, Unavailable

__all__ = ["FAILURES", "TRY_EVERY", "TRY_FOR", "Address", "Client", "Link", "Together", "shut"]

TRY_FOR = 1.0
"""Seconds that one attempt to reach a lost server may take; it may ask a Sentinel and perform a TLS handshake."""
TRY_EVERY = 0.5
PAUSE_AT_MOST = 2.0
STEADY_AFTER = 10.0
"""Seconds. If the server is lost again sooner than that, the next attempt is later."""

AT_ONCE = 4
"""Batches of one kind in flight. Questions that arrive meanwhile form the next batch."""
BATCH_AT_MOST = 256

FAILURES = (Exception,)
"""What a client raises when it gets no usable answer. A driver fails in many ways: a KeyError in a cluster where no
server serves a slot, a RuntimeError of a closed transport, a TypeError for an answer of another form.
"""

log = logging.getLogger("dutchdoor.redis")

Client = Redis | RedisCluster
T = TypeVar("T")
Q = TypeVar("Q")
A = TypeVar("A")


_Kind = Literal["single", "socket", "sentinel", "cluster"]
_SCHEMES: dict[str, tuple[_Kind, bool, int]] = {
    "redis": ("single", False, 6379),
    "rediss": ("single", True, 6379),
    "unix": ("socket", False, 0),
    "redis+sentinel": ("sentinel", False, 26379),
    "rediss+sentinel": ("sentinel", True, 26379),
    "redis+cluster": ("cluster", False, 6379),
    "rediss+cluster": ("cluster", True, 6379),
}


class Address(Struct, frozen=True, kw_only=True):
    """Where Redis is, read from a URL; shown without the credentials."""

    kind: _Kind
    hosts: tuple[tuple[str, int], ...] = ()
    path: str = ""
    service: str = ""
    db: int = 0
    tls: bool = False
    username: str = ""
    password: str = ""
    sentinel_password: str = ""

    def __repr__(self) -> str:
        return f"Address(kind={self.kind!r}, hosts={self.hosts!r}, path={self.path!r}, service={self.service!r})"

    def __str__(self) -> str:
        return f"at {','.join(f'{host}:{port}' for host, port in self.hosts) or self.path}"

    @classmethod
    def read(cls, url: str) -> Address:
        """Raises `Misconfigured`, with a message that repeats nothing of the URL but its scheme."""
        try:
            parts = urlsplit(url)
            options = parse_qs(parts.query, strict_parsing=True) if parts.query else {}
            kind, tls, own = _SCHEMES[parts.scheme]
            login, _, hosts = parts.netloc.rpartition("@")
            username, _, password = login.partition(":")
            path = parts.path.strip("/")
            service = ""
            if kind == "sentinel":
                service, _, path = path.partition("/")
            if kind == "cluster" and path:
                raise ValueError
            if kind == "socket" or not path:
                (path,) = options.pop("db", [""])
            found = cls(
                kind=kind,
                hosts=() if kind == "socket" else tuple(_host(text, own) for text in hosts.split(",")),
                path=unquote(parts.path) if kind == "socket" else "",
                service=unquote(service),
                db=_db(path),
                tls=tls,
                username=unquote(username),
                password=unquote(password),
                sentinel_password=options.pop("sentinel_password", [""])[0] if kind == "sentinel" else "",
            )
            if options or parts.fragment or bool(found.service) != (kind == "sentinel"):
                raise ValueError
            if (kind == "socket" and (hosts or not found.path.strip("/"))) or (
                kind == "single" and len(found.hosts) > 1
            ):
                raise ValueError
        except (ValueError, KeyError):
            text = (
                "This is no URL of Redis. Write redis://user:password@host:6379/0, rediss:// for TLS, "
                "unix:///path.sock, redis+sentinel://host1,host2/service or redis+cluster://host1,host2."
            )
            raise Misconfigured(text) from None
        return found

    def client(self) -> Client:
        """Create a client. It connects at its first question, and sends no question twice."""
        kwargs: dict[str, Any] = {
            "protocol": 2,
            "retry": Retry(NoBackoff(), 0),  # an attempt that may have been counted is not counted again
            "maint_notifications_config": MaintNotificationsConfig(enabled=False),  # nothing here listens to them
            "socket_connect_timeout": TRY_FOR / 2,
            "socket_timeout": TRY_FOR,
        }
        if self.password:
            kwargs["credential_provider"] = UsernamePasswordCredentialProvider(self.username or None, self.password)
        if self.tls:
            kwargs["ssl"] = True
        if self.kind == "cluster":
            nodes = [ClusterNode(host, port) for host, port in self.hosts]
            return RedisCluster(startup_nodes=nodes, require_full_coverage=False, **kwargs)
        if self.kind == "sentinel":
            short = {**kwargs, "socket_connect_timeout": TRY_FOR / 4, "socket_timeout": TRY_FOR / 4}
            short.pop("credential_provider", None)
            if self.sentinel_password:
                short["password"] = self.sentinel_password
            sentinel = Sentinel(self.hosts, sentinel_kwargs=short, db=self.db, **kwargs)  # type: ignore[no-untyped-call]
            found: Redis = sentinel.master_for(self.service)
            return found
        if self.kind == "socket":
            return Redis(unix_socket_path=self.path, db=self.db, **kwargs)
        ((host, port),) = self.hosts
        return Redis(host=host, port=port, db=self.db, **kwargs)


def _host(text: str, default: int) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    host, port = parts.hostname, parts.port
    if not host or parts.path or parts.username is not None:
        raise ValueError
    host.encode("idna")  # otherwise the resolver fails, at each attempt
    return host, default if port is None else port


def _db(text: str) -> int:
    if text and not (text.isascii() and text.isdigit() and len(text) < 6):  # noqa: PLR2004 - there are 16, or a few more
        raise ValueError
    return int(text or 0)


class Link:
    """A client of Redis for one purpose, and whether a server answers it.

    After the first failure it is lost: it reconnects at once and then twice a second, with a fresh client each time,
    because another server may have the name by now. No request waits for these attempts.
    """

    def __init__(self, address: Address, wait: float, probe: Callable[[Client], Awaitable[None]], purpose: str) -> None:
        self._address, self._wait, self._probe, self._purpose = address, wait, probe, purpose
        self.is_up, self.is_cluster = True, address.kind == "cluster"
        self._client = address.client()
        self._pause, self._back_at, self._closing = 0.0, -math.inf, False
        self._returning: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Connect, or begin to try. A mistake in the URL is reported now and not at the first request."""
        failure = await self._try()
        if failure is not None:
            self.lose(failure)

    async def close(self) -> None:
        self._closing = True
        if self._returning is not None:
            self._returning.cancel()
            await asyncio.gather(self._returning, return_exceptions=True)
        self.is_up = False
        await shut(self._client)

    async def ask(self, question: Callable[[Client], Awaitable[T]]) -> T:
        """Raises `Unavailable`: at once while the link is lost, and after `wait` seconds when it is lost now."""
        client = self._client
        if not self.is_up:
            raise Unavailable(f"redis is out of reach: {self._purpose}")
        try:
            async with asyncio.timeout(self._wait):
                return await question(client)
        except FAILURES as exc:
            if client is self._client:
                self.lose(exc)
            # Not chained: a server that does not know AUTH repeats in its error what was sent, the password too.
            raise Unavailable(f"redis: {_name_of(exc)}") from None

    def lose(self, failure: Exception) -> None:
        if self.is_up and not self._closing:
            self.is_up = False
            self._returning = asyncio.get_running_loop().create_task(self._return(failure))

    async def _return(self, failure: Exception) -> None:
        loop = asyncio.get_running_loop()
        # A server that answers at once was not lost: this process paused, or a connection was stale. If it is lost
        # again soon, each retry waits longer.
        reported = False
        steady = loop.time() - self._back_at > STEADY_AFTER
        self._pause = 0.0 if steady else min(max(2 * self._pause, 0.25), PAUSE_AT_MOST)
        if not steady:
            reported = self._report(failure)
        await asyncio.sleep(self._pause)
        while not self._closing:
            await shut(self._client)
            self._client = self._address.client()
            last = await self._try()
            if last is None:
                self.is_up, self._back_at = True, loop.time()
                if reported:
                    log.warning("redis is back for %s", self._purpose.partition(":")[0])
                return
            reported = reported or self._report(last)
            await asyncio.sleep(TRY_EVERY)

    def _report(self, failure: Exception) -> bool:
        log.warning("redis %s is out of reach (%s) for %s", self._address, _name_of(failure), self._purpose)
        return True

    async def _try(self) -> Exception | None:
        try:
            async with asyncio.timeout(TRY_FOR):
                await self._probe(self._client)
        except FAILURES as exc:
            return exc
        return None


async def shut(client: Client) -> None:
    """Close what a client holds, and what it does not close itself. Closing twice is safe."""
    closing: list[Callable[[], Awaitable[None]]] = [client.aclose]
    if isinstance(client, RedisCluster):
        # While it looks for its servers anew, it considers itself closed.
        closing += [client.nodes_manager.aclose, partial(client.nodes_manager.aclose, "startup_nodes")]
    else:
        manager = getattr(client.connection_pool, "sentinel_manager", None)
        closing += [sentinel.aclose for sentinel in (manager.sentinels if manager is not None else ())]
    for close in closing:
        with contextlib.suppress(*FAILURES):
            async with asyncio.timeout(TRY_FOR):
                await close()


_CODES = frozenset({
    "CLUSTERDOWN", "LOADING", "MASTERDOWN", "MISCONF", "NOAUTH", "NOPERM", "NOREPLICAS", "OOM", "READONLY", "WRONGPASS",
})  # fmt: skip


_IN_WORDS = {
    "AuthenticationError": "it refused the user or the password",
    "ConnectionError": "no server answers there, or it closed the connection",
    "MasterNotFoundError": "no Sentinel names a primary for this service",
    "NoPermissionError": "its user lacks a permission",
    "ReadOnlyError": "it is a read-only replica; connect to the primary",
    "RedisClusterException": "the servers are not a cluster",
    "ResponseError": "it refused the command; does it have a database of this number?",
    "TimeoutError": "no answer in time; does only one side use TLS?",
}


def _name_of(exc: Exception) -> str:
    """What a message may say of an error. The error's text may hold what was sent, a password too."""
    code = str(exc).partition(" ")[0]
    name = f"{type(exc).__name__}, {code}" if code in _CODES else type(exc).__name__
    words = _IN_WORDS.get(type(exc).__name__)
    return f"{name}: {words}" if words else name


class Together(Generic[Q, A]):
    """Sends the questions of one turn of the loop in one batch. Questions that arrive while `AT_ONCE` batches are under
    way go into the next one. A caller that leaves takes no answer from the others.
    """

    def __init__(self, ask: Callable[[list[Q]], Awaitable[list[A]]]) -> None:
        self._ask = ask
        self._waiting: list[tuple[Q, asyncio.Future[A]]] = []
        self._flying: set[asyncio.Task[None]] = set()

    async def __call__(self, question: Q) -> A:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[A] = loop.create_future()
        self._waiting.append((question, answer))
        if len(self._waiting) == 1:
            loop.call_soon(self._fly)
        return await answer

    async def close(self) -> None:
        """Report to every waiting caller that no answer will come."""
        for task in self._flying:
            task.cancel()
        await asyncio.gather(*self._flying, return_exceptions=True)

    def _fly(self) -> None:
        while self._waiting and len(self._flying) < AT_ONCE:
            batch, self._waiting = self._waiting[:BATCH_AT_MOST], self._waiting[BATCH_AT_MOST:]
            task = asyncio.get_running_loop().create_task(self._carry(batch))
            self._flying.add(task)
            task.add_done_callback(self._landed)

    def _landed(self, task: asyncio.Task[None]) -> None:
        self._flying.discard(task)
        self._fly()

    async def _carry(self, batch: list[tuple[Q, asyncio.Future[A]]]) -> None:
        failure: Exception = Unavailable("redis: the store was closed")
        answers: list[A] | None = None
        try:
            found = await self._ask([question for question, _ in batch])
            if len(found) != len(batch):
                raise Unavailable("redis: an answer to another question")
            answers = found
        except Exception as exc:  # noqa: BLE001 - each caller gets it
            failure = exc
        finally:
            # On cancellation too: no caller is left waiting.
            if answers is None:
                for _, answer in batch:
                    if not answer.done():
                        answer.set_exception(failure)
        if answers is None:
            return
        for (_, answer), given in zip(batch, answers, strict=True):
            if not answer.done():
                answer.set_result(given)
