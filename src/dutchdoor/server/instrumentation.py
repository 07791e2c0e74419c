"""Logs and counters of the server: one line for each transition, one for each request if configured, and metrics.

Transitions are logged at the commit, which all of them pass. Every committed transition has its line, and no line is
written without a commit. Lines and labels contain no token, query string or header. A path is logged as its route,
because a client may put a token into a path.

`serve` wraps the application only if requests are logged or counted, so disabled logging costs nothing.
"""

from __future__ import annotations

import hmac
import logging
import re
import time
from collections.abc import Callable, MutableMapping, Sequence
from functools import lru_cache
from typing import Any, Protocol

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dutchdoor.model.audit_events import AuditEvent
from dutchdoor.server.config import Secret
from dutchdoor.server.logs import Fields
from dutchdoor.stores.base import Around, Change, Log, Revoked, Store
from dutchdoor.web.api import Route
from dutchdoor.web.asgi import REQUEST
from dutchdoor.web.scope import below

__all__ = [
    "METHODS",
    "MULTIPROCESS",
    "Commit",
    "Counting",
    "ObservedStore",
    "Watched",
    "event_line",
    "log_event",
    "log_transitions",
    "route_names",
]

MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"
"""The environment variable with the directory that the processes of one server share."""

events_log = logging.getLogger("dutchdoor.events")
access_log = logging.getLogger("dutchdoor.access")

Commit = Callable[[Sequence[Change], Revoked, float], None]


class ObservedStore(Around):
    """A store that calls its listeners after each commit."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._commit = store.commit
        self.listeners: Sequence[Commit] = ()

    async def commit(self, *changes: Change) -> Revoked:
        started = time.perf_counter()
        committed = await self._commit(*changes)
        took = time.perf_counter() - started
        for listener in self.listeners:
            listener(changes, committed, took)
        return committed


def log_transitions(changes: Sequence[Change], _committed: Revoked, _took: float) -> None:
    """Write one line for each audit event of a commit."""
    for change in changes:
        if isinstance(change, Log):
            log_event(change.event)


def log_event(event: AuditEvent) -> None:
    events_log.info(event_line(event))


def event_line(event: AuditEvent) -> Fields:
    """Return the named values of an event, without its time."""
    line = Fields(event=event.name, outcome=event.outcome, id=event.id)
    line.update((name, getattr(event, name)) for name in _OF_AN_EVENT)
    return line


_OF_AN_EVENT = ("subject", "actor", "session_id", "client_id", "address", "country", "device", "detail")


class Counting(Protocol):
    """Interface of `dutchdoor.server.metrics.Counters`, which is imported only if metrics are enabled."""

    def answered(self, route: str, status: int, took: float) -> None: ...

    def text(self) -> bytes: ...


def route_names(routes: Sequence[Route], base_path: str = "") -> Callable[[str], str]:
    """Return a function that names the route of a path: a client may put a token into a path."""
    exact = {route.path for route in routes if "{" not in route.path}
    patterns = [
        (re.compile(re.sub(r"\\\{[a-z_]+\\\}", "[^/]+", re.escape(path))), path)
        for path in sorted({route.path for route in routes} - exact)
    ]

    @lru_cache(maxsize=1024)
    def named(path: str) -> str:
        path = below(base_path, path) or path
        if path in exact:
            return path
        return next((name for pattern, name in patterns if pattern.fullmatch(path)), "(none)")

    return named


class Watched:
    """The application, with a log line or a count for each response."""

    def __init__(
        self,
        app: ASGIApp,
        routes: Sequence[Route],
        *,
        counters: Counting | None,
        metrics_token: Secret | None,
        log: bool,
        base_path: str = "",
    ) -> None:
        self._app, self._counters, self._log = app, counters, log
        self._token = None if metrics_token is None else metrics_token.reveal().encode()
        self._named = route_names(routes, base_path)

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
            took = time.perf_counter() - started
            if self._counters is not None:
                self._counters.answered(route, status, took)
            if self._log:
                method = scope["method"] if scope["method"] in METHODS else "OTHER"
                line = Fields(method=method, route=route, status=status, ms=round(took * 1000, 1))
                request = scope.get(REQUEST)
                if request is not None:
                    line.update(client=request.client, request_id=request.id)
                access_log.info(line)

    async def _metrics(self, scope: MutableMapping[str, Any], send: Send) -> None:
        sent = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        scheme, _, token = sent.strip(b" \t").partition(b" ")
        common = [(b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff")]
        if (
            scheme.lower() == b"bearer"
            and hmac.compare_digest(token.lstrip(b" "), self._token or b"\0")
            and self._counters
        ):
            status, body = 200, self._counters.text()
            common.append((b"content-type", b"text/plain; version=0.0.4; charset=utf-8"))
        else:
            status, body = 401, b""
            common.append((b"www-authenticate", b'Bearer realm="metrics"'))
        headers = [*common, (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body if scope["method"] != "HEAD" else b""})


METHODS = frozenset({"GET", "HEAD", "POST", "DELETE", "PUT", "PATCH", "OPTIONS"})
