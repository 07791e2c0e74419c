"""OpenTelemetry traces: a span for each request, and in it one for each call of the store. Needs the extra `otel`.

Spans are sent by OTLP over HTTP. The variables of OpenTelemetry (OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_TRACES_SAMPLER,
OTEL_SERVICE_NAME and so on) configure exporter, sampler and resource.

A collector stores traces for many readers. So attributes hold no personal data and no secret: method, route, status,
request id, name of the store call, type of an error. Never an address, header, query string, id or exception message.
Work outside of a request, such as polls and housekeeping, has no spans.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Awaitable, Callable, Sequence
from importlib.metadata import version
from typing import Any

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dutchdoor.server.instrumentation import METHODS, route_names
from dutchdoor.stores.base import Around, RateLimits, Records, RevocationLog, Store
from dutchdoor.web.api import Route
from dutchdoor.web.asgi import REQUEST
from dutchdoor.web.forwarded import Edge
from dutchdoor.web.scope import request_of

__all__ = ["Traced", "TracedStore", "Traces"]

STOP_WITHIN = 2.0
"""Seconds in which the last spans are sent at a stop. Those of a collector that does not answer are lost."""

_W3C = TraceContextTextMapPropagator()
_SENT = frozenset({b"traceparent", b"tracestate"})


class Traces:
    """The tracer of one process. `processor` takes the spans: by default, it sends them in batches."""

    def __init__(self, processor: SpanProcessor | None = None) -> None:
        ours = Resource({"service.name": "dutchdoor", "service.version": version("dutchdoor")})
        self._provider = TracerProvider(resource=ours.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
        self._provider.add_span_processor(processor or BatchSpanProcessor(OTLPSpanExporter()))
        self.tracer = self._provider.get_tracer("dutchdoor")

    def close(self) -> None:
        """Send what is left, for `STOP_WITHIN` seconds at most."""
        # A thread that does not hold up the end of the process: the exporter retries for much longer.
        sending = threading.Thread(target=self._provider.shutdown, name="dutchdoor-traces", daemon=True)
        sending.start()
        sending.join(STOP_WITHIN)


class Traced:
    """The application, with a span for each request. It continues the trace of a configured proxy (W3C Trace Context).

    Any other client could choose trace ids, and decide by the sampled flag how much is recorded. `edge` is asked for
    each request, because a reload changes the proxies.
    """

    def __init__(
        self,
        app: ASGIApp,
        routes: Sequence[Route],
        *,
        edge: Callable[[], Edge],
        tracer: trace.Tracer,
        base_path: str = "",
    ) -> None:
        self._app, self._edge, self._tracer = app, edge, tracer
        self._named = route_names(routes, base_path)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        method = scope["method"] if scope["method"] in METHODS else "OTHER"
        route, status = self._named(scope["path"]), 0

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        with self._tracer.start_as_current_span(
            f"{method} {route}",
            context=self._parent(scope),
            kind=SpanKind.SERVER,
            attributes={"http.request.method": method, "http.route": route},
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                await self._app(scope, receive, noting)
            finally:
                span.set_attribute("http.response.status_code", status)
                if status >= 500:  # noqa: PLR2004
                    span.set_status(Status(StatusCode.ERROR))
                if REQUEST in scope:
                    span.set_attribute("dutchdoor.request_id", scope[REQUEST].id)

    def _parent(self, scope: Scope) -> Any:
        sent = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"] if name in _SENT}
        if not sent or not self._edge().came_through_proxy(request_of(scope)):
            return None
        return _W3C.extract(sent)


class TracedStore(Around):
    """A store with a span for each call that a request waits for."""

    def __init__(self, store: Store, tracer: trace.Tracer) -> None:
        super().__init__(store)
        for port in (Records, RevocationLog, RateLimits):
            for name, member in vars(port).items():
                if inspect.iscoroutinefunction(member) and not name.startswith("_"):
                    setattr(self, name, _traced(tracer, f"store.{name}", getattr(store, name)))


def _traced(tracer: trace.Tracer, name: str, call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def traced(*arguments: Any, **named: Any) -> Any:
        if not trace.get_current_span().is_recording():
            return await call(*arguments, **named)
        with tracer.start_as_current_span(
            name, kind=SpanKind.CLIENT, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                return await call(*arguments, **named)
            except Exception as error:
                span.set_attribute("error.type", type(error).__name__)
                span.set_status(Status(StatusCode.ERROR))
                raise

    return traced
