"""The metrics of /metrics, in the text format of Prometheus.

Events are counted from the audit log, whichever process wrote them: every node counts all events of the database. All
other metrics are those of one node, added up over its processes. Known labels start at 0, because `increase()` misses
a series that begins with its first event.

`serve` imports this module by name, and only if /metrics is enabled: the library takes 2 MB in every process.
"""

from __future__ import annotations

import math
import os
import platform
import resource
import time
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, get_args

from cryptography import x509
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
    start_http_server,
)
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from dutchdoor.auth import Auth
from dutchdoor.errors import Unavailable
from dutchdoor.model.audit_events import AuditEvent, EventName, Outcome
from dutchdoor.revocation.fence import FenceState
from dutchdoor.server.instrumentation import MULTIPROCESS
from dutchdoor.stores.base import WRITING, Change, Revoked
from dutchdoor.web.api import Route
from dutchdoor.web.device_binding import UNPROVED
from dutchdoor.web.health import SOURCES
from dutchdoor.web.verifiers import Followed, followed

__all__ = ["Counters", "forget", "open_metrics_port"]

_Mode = Literal["livesum", "livemax", "livemin"]

disable_created_metrics()  # type: ignore[no-untyped-call]  # a `_created` series for each counter would nearly double what a scrape reads


_SECONDS = (0.0025, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Buckets of the duration of requests."""


class _Timer(Histogram):
    """A histogram that takes many values at once: a value of its own costs more than half of an answer's look-ups."""

    def add(self, counts: Sequence[int], total: float) -> None:
        for bucket, count in zip(self._buckets, counts, strict=True):
            bucket.inc(count)
        self._sum.inc(total)


class _Answers:
    """The responses of one route with one status since they were last recorded."""

    __slots__ = ("counts", "seconds")

    def __init__(self) -> None:
        self.counts, self.seconds = [0] * (len(_SECONDS) + 1), 0.0


class Counters:
    """The metrics of one process or, if `PROMETHEUS_MULTIPROC_DIR` is set, of all processes of the server."""

    def __init__(self, routes: Iterable[Route] = (), *, certificate: str | None = None) -> None:
        self.registry = CollectorRegistry()
        self._events = self._counter(
            "events", "Audit events of the database, whichever process wrote them.", "name", "outcome"
        )
        self._unavailable = self._counter(
            "unavailable", "Responses with 503, by the part that was unavailable.", "source"
        )
        self._unproved = self._counter(
            "unproved",
            "Refused requests of sessions that are bound to their browser, by what the browser says of it; `unbound`: "
            "of sessions that have to be bound and are not.",
            "why",
        )
        self._refreshes = self._counter("refreshes", "Responses to refresh requests.", "outcome")
        self._answers = self._counter("http_answers", "HTTP responses.", "route", "status")
        self._seconds = _Timer(
            "dutchdoor_http_seconds",
            "Duration of requests, without long polls.",
            ("route",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._commits = self._histogram(
            "commit_seconds",
            "Duration of a commit, until it is on disk.",
            (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 6.0),
        )
        self._fences = self._histogram(
            "fence_seconds",
            "How long revoking calls waited for their fence, by the state of the fence after the wait.",
            (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0),
            "state",
        )
        self._hashing = self._gauge("hashing_queue", "Passwords that are being hashed or wait for it.", "livesum")
        self._waiting = self._gauge("fences_waiting", "Calls that wait for a fence.", "livesum")
        self._followers = self._gauge("followers", "Processes that follow the revocation log.", "livesum", "credential")
        self._behind = self._gauge(
            "followers_behind", "Entries that the slowest follower has not acknowledged.", "livemax", "credential"
        )
        self._leases = self._gauge(
            "followers_lease_seconds", "Longest remaining lease of a follower.", "livemax", "credential"
        )
        self._entries = self._gauge("revocation_entries", "Live entries of the revocation log.", "livemax")
        self._seq = self._gauge("revocation_seq", "Last applied entry of the log; lowest of all processes.", "livemin")
        self._log_begun = self._gauge(
            "log_begun_timestamp_seconds", "When a new revocation log last began; 0 for never.", "livemax"
        )
        self._stale = self._gauge("stale", "Processes that cannot read the revocation log.", "livesum")
        self._ready = self._gauge(
            "ready", "1 if a key signs and the store can be read and written, as /readyz; lowest of all.", "livemin"
        )
        self._connections = self._gauge("database_connections", "Open connections to the database.", "livesum")
        self._busy = self._gauge("database_busy", "Connections that wait for an answer of the database.", "livesum")
        self._queued = self._gauge(
            "database_waiting", "Calls that wait for a connection, or for the thread that writes.", "livesum"
        )
        self._up = self._gauge("dependency_up", "1 if it answers; only what is configured.", "livemin", "name")
        self._expiry = self._gauge(
            "expiry_timestamp_seconds", "When the certificate, or the last signing key, expires.", "livemin", "of"
        )
        self._due = self._gauge("next_key_due_timestamp_seconds", "When the next key is created.", "livemin")
        self._mails = self._counter("mails", "Letters that were given to the mail server.", "outcome")
        self._attempts = self._counter("webhook_attempts", "Messages that were sent to webhooks.", "outcome")
        self._late = self._gauge(
            "webhook_behind_seconds", "Age of the oldest event that a webhook was not delivered.", "livemax", "webhook"
        )
        self._refused = self._gauge(
            "webhook_waiting", "Accounts whose events the endpoint of a webhook refuses.", "livemax", "webhook"
        )
        self._purged = self._counter("purged_rows", "Expired records that were deleted.")
        self._purge_took = self._gauge("purge_seconds", "Duration of the last deletion.", "livemax")
        self._purged_at = self._gauge(
            "last_purge_timestamp_seconds", "When expired records were last deleted, or the process began.", "livemax"
        )
        self._memory = self._gauge("process_resident_memory_bytes", "Memory of the processes.", "livesum")
        self._files = self._gauge("process_open_fds", "Open files and connections of the processes.", "livesum")
        self._cpu = self._counter("process_cpu_seconds", "Processor time of the processes.")
        self._began = self._gauge("process_start_time_seconds", "When the oldest process began.", "livemin")
        self._build = self._gauge("build_info", "What runs here.", "livemax", "version", "python")
        self._cpu_seen = 0.0
        self._certificate = None if certificate is None else Path(certificate)
        self._answered: dict[tuple[str, int], _Answers] = {}
        self._hanging = {route.path for route in routes if route.hangs}
        self._seen: set[str] = set()
        self._webhooks: set[str] = set()
        self._has_looked_back = False
        self._begin(routes)

    def _begin(self, routes: Iterable[Route]) -> None:
        """Let each series that an alert counts start at 0."""
        for name in get_args(EventName):
            for outcome in get_args(Outcome):
                self._events.labels(name, outcome)
        for source in SOURCES:
            self._unavailable.labels(source)
        for why in UNPROVED:
            self._unproved.labels(why)
        for outcome in {*_REFRESH.values(), _FAILED}:
            self._refreshes.labels(outcome)
        for state in get_args(FenceState):
            self._fences.labels(state)
        for outcome in _MAILED.values():
            self._mails.labels(outcome)
        for outcome in _ATTEMPTS.values():
            self._attempts.labels(outcome)
        for route in routes:
            for status in (500, 503):
                self._answers.labels(route.path, str(status))
        self._began.set(now := time.time())
        self._purged_at.set(now)
        self._due.set(math.inf)  # unknown yet: a 0 would be an alert each time that a process starts
        self._build.labels(version("dutchdoor"), platform.python_version()).set(1)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"dutchdoor_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, mode: _Mode, *labels: str) -> Gauge:
        return Gauge(f"dutchdoor_{name}", text, labels, registry=self.registry, multiprocess_mode=mode)

    def _histogram(self, name: str, text: str, buckets: Sequence[float], *labels: str) -> Histogram:
        return Histogram(f"dutchdoor_{name}", text, labels, buckets=buckets, registry=self.registry)

    def watch(self, auth: Auth) -> None:
        """Count what this process does from now on."""
        hooks = auth.authority.hooks
        hooks.fence_waited.append(lambda state, took: self._fences.labels(state).observe(took))
        hooks.unavailable.append(lambda source: self._unavailable.labels(source).inc())
        hooks.unproved.append(lambda why: self._unproved.labels(why).inc())
        hooks.mailed.append(lambda is_sent: self._mails.labels(_MAILED[is_sent]).inc())
        hooks.delivered.append(lambda is_taken: self._attempts.labels(_ATTEMPTS[is_taken]).inc())
        hooks.tidied.append(self._tidied)

    def _tidied(self, count: int, took: float) -> None:
        self._purged.inc(count)
        self._purge_took.set(took)
        self._purged_at.set(time.time())

    async def look(self, auth: Auth) -> None:
        """Record how this process is. Labels are the keys of followers: process ids would grow without limit.

        A node without requests reads no log. So the look reads it, as the next request would: otherwise a quiet night
        would look like an outage.
        """
        api, fencing = auth.api, auth.authority.fencing
        self._stale.set(not await _succeeds(fencing.follow()))
        self._ready.set(await _succeeds(api.readiness.check()))
        found = {each.credential: each for each in followed(fencing)}
        for name in self._seen | set(found):
            each = found.get(name, Followed(name, 0, 0, 0.0))
            self._followers.labels(name).set(each.processes)
            self._behind.labels(name).set(each.behind)
            self._leases.labels(name).set(each.lease_left)
        self._seen = set(found)
        self._waiting.set(api.waiting_for_fences)
        self._entries.set(len(fencing.log))
        self._seq.set(fencing.node.applied_seq)
        self._hashing.set(auth.directory.hasher.waiting)
        load = auth.store.load
        self._connections.set(load.connections)
        self._busy.set(load.busy)
        self._queued.set(load.waiting)
        if load.redis_up is not None:
            # A question, because without requests nothing would show that Redis is gone.
            is_up = load.redis_up and await _succeeds(auth.store.hit([WRITING], auth.authority.clock()))
            self._up.labels("redis").set(is_up)
        self._look_at_webhooks(auth)
        self._look_at_expiry(auth)
        self._look_at_process()
        self.record()
        if not self._has_looked_back:
            # A restore and a move begin a log while no node runs, and so no node counts that event.
            for event in await auth.store.events(name="log_begun", limit=1):
                self._log_begun.set(event.at)
            self._has_looked_back = True

    def _look_at_webhooks(self, auth: Auth) -> None:
        """Record those that this process sends to. One that another process has taken over is behind by 0 here."""
        now, couriers = auth.authority.clock(), {courier.id: courier for courier in auth.deliveries.couriers}
        for name in self._webhooks | set(couriers):
            courier = couriers.get(name)
            since = courier.behind_since if courier else 0.0
            self._late.labels(name).set(max(0.0, now - since) if since else 0.0)
            self._refused.labels(name).set(courier.waiting if courier else 0)
        self._webhooks = set(couriers)

    def _look_at_expiry(self, auth: Auth) -> None:
        authority = auth.authority
        keys = [row for row in authority.ring.rows if row.alg == authority.alg and row.revoked_at is None]
        if keys:
            last = max(row.signs_until for row in keys)
            self._expiry.labels("signing_key").set(last)
            self._due.set(last - authority.policy.key_publish_for)
        if self._certificate is not None:
            with suppress(OSError, ValueError):  # it is being replaced, and the server says so if it stays wrong
                found = x509.load_pem_x509_certificate(self._certificate.read_bytes())
                self._expiry.labels("certificate").set(found.not_valid_after_utc.timestamp())

    def _look_at_process(self) -> None:
        used = time.process_time()
        self._cpu.inc(used - self._cpu_seen)
        self._cpu_seen = used
        with suppress(OSError):  # only Linux has these files
            self._memory.set(int(Path("/proc/self/statm").read_bytes().split()[1]) * resource.getpagesize())
            self._files.set(sum(1 for _ in Path("/proc/self/fd").iterdir()))

    def happened(self, event: AuditEvent) -> None:
        self._events.labels(event.name, event.outcome).inc()
        if event.name == "log_begun":
            self._log_begun.set(event.at)

    def committed(self, _changes: Sequence[Change], _committed: Revoked, took: float) -> None:
        self._commits.observe(took)

    def answered(self, route: str, status: int, took: float) -> None:
        found = self._answered.get((route, status))
        if found is None:
            found = self._answered[route, status] = _Answers()
        found.counts[bisect_left(_SECONDS, took)] += 1
        found.seconds += took

    def record(self) -> None:
        """Record the responses since the last call. Call it in the event loop, which also counts them."""
        answered, self._answered = self._answered, {}
        for (route, status), found in answered.items():
            count = sum(found.counts)
            self._answers.labels(route, str(status)).inc(count)
            if route not in self._hanging:
                self._seconds.labels(route).add(found.counts, found.seconds)
            if route == "/auth/refresh":
                self._refreshes.labels(_REFRESH.get(status, _FAILED)).inc(count)

    def text(self) -> bytes:
        self.record()
        return generate_latest(_everybodys(self.registry))


_REFRESH = {200: "ok", 401: "refused", 409: "superseded", 429: "limited", 503: "unavailable"}
_FAILED = "failed"
_MAILED = {True: "sent", False: _FAILED}
_ATTEMPTS = {True: "taken", False: _FAILED}


async def _succeeds(work: Any) -> bool:
    try:
        await work
    except Unavailable:
        return False
    return True


def _everybodys(own: CollectorRegistry) -> CollectorRegistry:
    """The metrics of all processes of this server, or of this process if it is the only one."""
    if MULTIPROCESS not in os.environ:
        return own
    together = CollectorRegistry()
    MultiProcessCollector(together)  # type: ignore[no-untyped-call]  # prometheus-client types only part of itself
    return together


def forget(pid: int) -> None:
    """Remove the gauges of a process that has exited. Its counts stay in the totals."""
    mark_process_dead(pid)  # type: ignore[no-untyped-call]


def open_metrics_port(port: int, counters: Counters | None) -> None:
    """Serve metrics on a separate port of the loopback address. Without `counters`, serve those of the workers.

    Raises:
        Unavailable: the port is in use.
    """
    registry = CollectorRegistry() if counters is None else counters.registry
    try:
        start_http_server(port, addr="127.0.0.1", registry=_everybodys(registry))
    except OSError as exc:
        text = f"Cannot listen on 127.0.0.1 port {port} for metrics: {exc.strerror}."
        raise Unavailable(f"{text} Choose another port with --metrics-port.") from None
