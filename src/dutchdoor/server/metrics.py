"""The counters of /metrics, in the text format of Prometheus.

`serve` imports this module by name, and only if /metrics is enabled: the library takes 2 MB in every process.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, start_http_server
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from dutchdoor.errors import Unavailable
from dutchdoor.stores.base import Change, End, EndAll, Log, Revoked
from dutchdoor.web.api import Api
from dutchdoor.web.verifiers import Followed, followed

__all__ = ["Counters", "forget", "open_metrics_port"]

MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"
LOOK_EVERY = 5.0
"""Seconds between two readings of the followers. A reading costs one or two microseconds for each follower."""

_Mode = Literal["livesum", "livemax", "livemin"]


class Counters:
    """The counters of one process or, if `PROMETHEUS_MULTIPROC_DIR` is set, of all processes of the server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._events = self._counter("events", "Audit events.", "name", "outcome")
        self._sign_ins = self._counter("sign_ins", "Sign-ins; refused ones include reauthentication.", "outcome")
        self._ended = self._counter("sessions_ended", "Sessions that were revoked or signed out.", "reason")
        self._unavailable = self._counter(
            "unavailable", "Responses with 503, by the part that was unavailable.", "source"
        )
        self._refreshes = self._counter("refreshes", "Responses to refresh requests.", "outcome")
        self._answers = self._counter("http_answers", "HTTP responses.", "route", "status")
        self._commits = Histogram(
            "dutchdoor_commit_seconds",
            "Duration of a commit, until it is on disk.",
            buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 6.0),
            registry=self.registry,
        )
        self._hashing = Gauge(
            "dutchdoor_hashing_queue",
            "Passwords that are being hashed or wait for it.",
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        self._fences = Histogram(
            "dutchdoor_fence_seconds",
            "How long revoking calls waited for their fence, by the state of the fence after the wait.",
            ("state",),
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0),
            registry=self.registry,
        )
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
        self._own_lease = self._gauge(
            "lease_seconds", "Remaining lease of the node itself; shortest of all.", "livemin"
        )
        self._stale = self._gauge("stale", "Processes that must read the log before the next answer.", "livesum")
        self._children: dict[tuple[str, int], Any] = {}
        self._refresh_children: dict[int, Any] = {}
        self._queue: Callable[[], int] | None = None
        self._api: Api | None = None
        self._looked_at = -math.inf
        self._seen: set[str] = set()

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"dutchdoor_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, mode: _Mode, *labels: str) -> Gauge:
        return Gauge(f"dutchdoor_{name}", text, labels, registry=self.registry, multiprocess_mode=mode)

    def watch_hashing(self, length: Callable[[], int]) -> None:
        """Read the length of the hashing queue from this function after each response and for each scrape."""
        self._queue = length

    def watch_fences(self, api: Api) -> None:
        """Count fences and responses with 503, and read the followers at intervals."""
        self._api = api
        hooks = api.authority.hooks
        hooks.fence_waited.append(lambda state, took: self._fences.labels(state).observe(took))
        hooks.unavailable.append(lambda source: self._unavailable.labels(source).inc())

    def _look(self) -> None:
        """Record the followers. Labels are the keys: process ids would grow without limit."""
        now = time.monotonic()
        if self._api is None or now - self._looked_at < LOOK_EVERY:
            return
        self._looked_at = now
        fencing = self._api.authority.fencing
        found = {each.credential: each for each in followed(fencing)}
        for name in self._seen | set(found):
            each = found.get(name, Followed(name, 0, 0, 0.0))
            self._followers.labels(name).set(each.processes)
            self._behind.labels(name).set(each.behind)
            self._leases.labels(name).set(each.lease_left)
        self._seen = set(found)
        self._waiting.set(self._api.waiting_for_fences)
        self._entries.set(len(fencing.log))
        self._seq.set(fencing.node.applied_seq)
        self._own_lease.set(fencing.node.lease_left(fencing.now()))
        self._stale.set(not fencing.is_current())

    def committed(self, changes: Sequence[Change], committed: Revoked, took: float) -> None:
        self._commits.observe(took)
        for change in changes:
            if isinstance(change, Log):
                event = change.event
                self._events.labels(event.name, event.outcome).inc()
                if event.name in {"session_started", "token_issued"}:
                    self._sign_ins.labels("ok").inc()
                elif event.name == "login" and event.outcome == "refused":
                    self._sign_ins.labels("refused").inc()
            elif isinstance(change, End):
                self._ended.labels(change.reason).inc()
            elif isinstance(change, EndAll):
                self._ended.labels(change.reason).inc(committed.count)

    def answered(self, route: str, status: int) -> None:
        child = self._children.get((route, status))
        if child is None:
            child = self._children[route, status] = self._answers.labels(route, str(status))
        child.inc()
        if route == "/auth/refresh":
            outcome = _REFRESH.get(status, "failed")
            self._refreshes.labels(outcome).inc()
        if self._queue is not None:
            self._hashing.set(self._queue())
        self._look()

    def text(self) -> bytes:
        self._looked_at = -math.inf
        self._look()
        return generate_latest(_everybodys(self.registry))


_REFRESH = {200: "ok", 401: "refused", 409: "superseded", 429: "limited", 503: "unavailable"}


def _everybodys(own: CollectorRegistry) -> CollectorRegistry:
    """The counters of all processes of this server, or of this process if it is the only one."""
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
