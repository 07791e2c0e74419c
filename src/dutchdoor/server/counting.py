"""The counters behind /metrics, in the text format of Prometheus.

A file of its own because its library takes 2 MB of every process: `serve` loads it by name, and only where /metrics is
asked for.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, start_http_server
from prometheus_client.multiprocess import MultiProcessCollector

from dutchdoor.store import Change, Committed, End, EndAll, Log

__all__ = ["Counters", "open_metrics_port"]

MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"


class Counters:
    """The server's counters, in one process or, where `PROMETHEUS_MULTIPROC_DIR` is set, over all of them."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._events = self._counter("events", "Audit events.", "name", "outcome")
        self._sign_ins = self._counter("sign_ins", "Sign-ins; refused ones include reauthentication.", "outcome")
        self._ended = self._counter("sessions_ended", "Sessions ended.", "reason")
        self._refreshes = self._counter("refreshes", "Answers to refresh requests.", "outcome")
        self._answers = self._counter("http_answers", "Answers over HTTP.", "route", "status")
        self._commits = Histogram(
            "dutchdoor_commit_seconds",
            "Time from a commit's request to its being on disk.",
            buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 6.0),
            registry=self.registry,
        )
        self._hashing = Gauge(
            "dutchdoor_hashing_queue",
            "Passwords that are being hashed, or wait to be.",
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        self._children: dict[tuple[str, int], Any] = {}
        self._refresh_children: dict[int, Any] = {}
        self._queue: Callable[[], int] | None = None

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"dutchdoor_{name}", text, labels, registry=self.registry)

    def watch_hashing(self, length: Callable[[], int]) -> None:
        """Ask this for the length of the hashing queue whenever something was answered or asked."""
        self._queue = length

    def committed(self, changes: Sequence[Change], committed: Committed, took: float) -> None:
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
                self._ended.labels(change.reason).inc(committed.ended)

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

    def text(self) -> bytes:
        return generate_latest(_everybodys(self.registry))


_REFRESH = {200: "ok", 401: "refused", 409: "superseded", 429: "limited", 503: "unavailable"}


def _everybodys(own: CollectorRegistry) -> CollectorRegistry:
    """The counters of all processes of this server; this one's where it is alone."""
    if MULTIPROCESS not in os.environ:
        return own
    together = CollectorRegistry()
    MultiProcessCollector(together)  # type: ignore[no-untyped-call]  # prometheus-client types only part of itself
    return together


def open_metrics_port(port: int, counters: Counters | None) -> None:
    """Answer on a port of its own, on this machine alone. Without `counters`, with those the worker processes keep.

    Raises:
        OSError: the port is taken.
    """
    registry = CollectorRegistry() if counters is None else counters.registry
    start_http_server(port, addr="127.0.0.1", registry=_everybodys(registry))
