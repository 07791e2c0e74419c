"""What the server tells about itself: one line for each transition, one for each request if asked, and counters.

Transitions are told from where all of them pass, the commit: nothing can happen without its line, and no line is
written for what was not committed. No line and no label holds a token, a query string or a header; a path is
written as its route, because somebody may have put a token into it.

What is off costs nothing: `serve` wraps the application only if requests are logged or counted.
"""

from __future__ import annotations

import hmac
import json
import logging
import os
import re
import time
from collections.abc import Callable, MutableMapping, Sequence
from functools import lru_cache
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, start_http_server
from prometheus_client.multiprocess import MultiProcessCollector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dutchdoor.events import AuditEvent
from dutchdoor.server.config import Secret
from dutchdoor.store import Change, Committed, End, EndAll, Log, Store
from dutchdoor.web.api import Route

__all__ = ["MULTIPROCESS", "Counters", "ToldStore", "Watched", "event_line", "log_transitions", "open_metrics_port"]

events_log = logging.getLogger("dutchdoor.events")
access_log = logging.getLogger("dutchdoor.access")

MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"
"""Where the processes of one server keep their counters together; set by the one that starts them."""

Commit = Callable[[Sequence[Change], Committed, float], None]


class ToldStore:
    """A store that tells of each commit once it has happened. Reads are the store's own, at no cost."""

    def __init__(self, store: Store, *told: Commit) -> None:
        self._commit, self._told = store.commit, told
        self.open, self.close = store.open, store.close
        self.session, self.sessions_of = store.session, store.sessions_of
        self.account, self.account_by_email, self.accounts = store.account, store.account_by_email, store.accounts
        self.credential, self.one_time_token = store.credential, store.one_time_token
        self.keys, self.client, self.clients = store.keys, store.client, store.clients
        self.revocations, self.events = store.revocations, store.events
        self.hit, self.purge, self.counts = store.hit, store.purge, store.counts

    async def commit(self, *changes: Change) -> Committed:
        started = time.perf_counter()
        committed = await self._commit(*changes)
        took = time.perf_counter() - started
        for told in self._told:
            told(changes, committed, took)
        return committed


def log_transitions(changes: Sequence[Change], _committed: Committed, _took: float) -> None:
    """Write one line for each audit event of a commit."""
    for change in changes:
        if isinstance(change, Log):
            events_log.info("%s", event_line(change.event))


def event_line(event: AuditEvent) -> str:
    """Write an event as `name=value` pairs; values that are not plain words as JSON text, so that each stays one."""
    pairs = [("event", event.name), ("outcome", event.outcome), ("id", event.id)]
    pairs += [
        (name, getattr(event, name))
        for name in ("subject", "actor", "session_id", "client_id", "address", "country", "device", "detail")
    ]
    return " ".join(f"{name}={_value(value)}" for name, value in pairs if value)


_PLAIN = re.compile(r"[A-Za-z0-9_.:/@+-]+")


def _value(value: str) -> str:
    # A line break in a value would be a line of its own that nobody wrote.
    return value if _PLAIN.fullmatch(value) else json.dumps(value)


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


class Watched:
    """The application, with a line or a count for each of its answers."""

    def __init__(
        self,
        app: ASGIApp,
        routes: Sequence[Route],
        *,
        counters: Counters | None,
        metrics_token: Secret | None,
        log: bool,
    ) -> None:
        self._app, self._counters, self._log = app, counters, log
        self._token = None if metrics_token is None else metrics_token.reveal().encode()
        exact = {route.path for route in routes if "{" not in route.path}
        patterns = [
            (re.compile(re.sub(r"\\\{[a-z_]+\\\}", "[^/]+", re.escape(path))), path)
            for path in sorted({route.path for route in routes} - exact)
        ]

        @lru_cache(maxsize=1024)
        def named(path: str) -> str:
            if path in exact:
                return path
            return next((name for pattern, name in patterns if pattern.fullmatch(path)), "(none)")

        self._named = named

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if self._token is not None and scope["path"] == "/metrics":
            await self._metrics(scope, send)
            return
        started, status = time.perf_counter(), 0

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            route = self._named(scope["path"])
            if self._counters is not None:
                self._counters.answered(route, status)
            if self._log:
                method = scope["method"] if scope["method"] in _METHODS else "OTHER"
                peer = (scope.get("client") or ("-",))[0]
                took = (time.perf_counter() - started) * 1000
                access_log.info("method=%s route=%s status=%d ms=%.1f peer=%s", method, route, status, took, peer)

    async def _metrics(self, scope: MutableMapping[str, Any], send: Send) -> None:
        sent = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        scheme, _, token = sent.partition(b" ")
        common = [(b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff")]
        if scheme.lower() == b"bearer" and hmac.compare_digest(token, self._token or b"\0") and self._counters:
            status, body = 200, self._counters.text()
            common.append((b"content-type", b"text/plain; version=0.0.4; charset=utf-8"))
        else:
            status, body = 401, b""
            common.append((b"www-authenticate", b'Bearer realm="metrics"'))
        headers = [*common, (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body if scope["method"] != "HEAD" else b""})


_METHODS = frozenset({"GET", "HEAD", "POST", "DELETE", "PUT", "PATCH", "OPTIONS"})
