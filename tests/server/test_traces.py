"""OpenTelemetry traces: a span for each request and each store call in it, without personal data, sent by OTLP."""

from __future__ import annotations

import http.server
import threading
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from tests.http.world import PROXY, World, a_world
from tests.ports import free_port
from tests.server.running import running

from dutchdoor.errors import Misconfigured, Unavailable
from dutchdoor.server import serve as serving
from dutchdoor.server.config import read_settings
from dutchdoor.server.traces import Traced, TracedStore, Traces
from dutchdoor.stores.base import Change, Revoked
from dutchdoor.stores.memory import MemoryStore

PASSWORD = "a quiet heron at dusk"
AWAY = "203.0.113.9"
AGENT = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
ADA = {"email": "ada@example.com", "password": PASSWORD, "name": "Ada Lovelace"}
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Failing(MemoryStore):
    fails = False

    async def commit(self, *changes: Change) -> Revoked:
        if self.fails:
            raise Unavailable("sqlite: no space left for ada@example.com")
        return await super().commit(*changes)


@asynccontextmanager
async def traced() -> AsyncIterator[tuple[World, InMemorySpanExporter, Failing]]:
    """A server whose spans are kept, behind a proxy."""
    exporter, store = InMemorySpanExporter(), Failing()
    traces = Traces(SimpleSpanProcessor(exporter))
    around = TracedStore(store, traces.tracer)  # type: ignore[abstract]  # `Around` has the rest
    async with a_world(store=around, proxies=[PROXY]) as world:
        world.app = Traced(  # type: ignore[assignment]
            world.app, world.auth.api.routes, edge=lambda: world.auth.site.edge, tracer=traces.tracer
        )
        exporter.clear()
        yield world, exporter, store


def named(spans: tuple[ReadableSpan, ...], name: str) -> ReadableSpan:
    (found,) = [span for span in spans if span.name == name]
    return found


async def test_p27_a_request_is_a_span_with_its_store_calls() -> None:
    """The span of a request has method, route, status and request id; each store call of it is a span inside."""
    async with traced() as (world, exporter, _):
        answer = await world.call("POST", "/auth/register", json=ADA)
        assert answer.status in {201, 202}
        spans = exporter.get_finished_spans()
        whole = named(spans, "POST /auth/register")
        assert dict(whole.attributes or {}) == {
            "http.request.method": "POST",
            "http.route": "/auth/register",
            "http.response.status_code": answer.status,
            "dutchdoor.request_id": answer.header("x-request-id"),
        }
        assert (whole.kind, whole.parent) == (SpanKind.SERVER, None)
        inside = [span for span in spans if span is not whole]
        assert "store.commit" in {span.name for span in inside}
        assert whole.context is not None
        assert {span.parent and span.parent.span_id for span in inside} == {whole.context.span_id}


async def test_p27_work_outside_of_a_request_has_no_span() -> None:
    """Housekeeping and polls of the store make no traces of their own."""
    async with traced() as (world, exporter, _):
        await world.auth.authority.tidy()
        assert exporter.get_finished_spans() == ()


async def test_p27_no_span_holds_personal_data_or_a_secret() -> None:
    """Addresses, passwords, tokens, ids of people and sessions, paths, queries and messages of exceptions are in no
    span.
    """
    async with traced() as (world, exporter, store):
        from_ada: Any = {"headers": [("user-agent", AGENT), ("x-forwarded-for", AWAY)], "peer": PROXY}
        made = await world.call("POST", "/auth/register?token=canary-1f2e", json=ADA, **from_ada)
        assert made.status == 422
        made = await world.call("POST", "/auth/register", json=ADA, **from_ada)
        assert made.status in {201, 202}
        login = await world.call("POST", "/auth/login", json=_login(), **from_ada)
        assert login.status == 200
        held = login.json
        await world.call("GET", "/auth/me", bearer=held["access_token"], **from_ada)
        await world.call("GET", f"/auth/verify/{held['refresh_token']}", **from_ada)
        store.fails = True
        assert (await world.call("POST", "/auth/login", json=_login(), **from_ada)).status == 503
        spans = exporter.get_finished_spans()
        written = "\n".join(f"{span.name} {span.to_json()}" for span in spans)
        secrets = [
            *(ADA[name] for name in ("email", "password", "name")),
            *("canary", AWAY, PROXY, "Firefox", "no space left"),
            *(held["access_token"], held["refresh_token"], held["session"]["id"], held["user"]["id"]),
        ]
        assert [each for each in secrets if each in written] == []
        failed = [span for span in spans if span.status.status_code is StatusCode.ERROR]
        assert {"POST /auth/login", "store.commit"} <= {span.name for span in failed}
        assert "Unavailable" in written
        assert "(none)" in written, "a path that no route has may hold a token"


def _login() -> dict[str, str]:
    return {"email": ADA["email"], "password": PASSWORD, "mode": "hybrid", "transport": "body"}


async def test_p27_only_a_trusted_proxy_continues_its_trace() -> None:
    """The trace of a configured proxy goes on; the header of any other client, or a malformed one, begins none."""
    async with traced() as (world, exporter, _):
        for headers, peer, joined in (
            ([("traceparent", PARENT)], PROXY, True),
            ([("traceparent", PARENT)], None, False),
            ([("traceparent", "00-zz-zz-01")], PROXY, False),
            ([], PROXY, False),
        ):
            exporter.clear()
            await world.call("GET", "/livez", headers=headers, peer=peer)
            (span,) = exporter.get_finished_spans()
            assert (span.parent is not None) is joined
            assert not joined or (span.parent and format(span.parent.span_id, "x")) == PARENT.split("-")[2]


def test_p27_traces_without_their_extra_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--traces` without the extra stops the start, with the command that installs it."""

    def missing(name: str) -> None:
        raise ModuleNotFoundError(name="opentelemetry")

    monkeypatch.setattr(serving, "import_module", missing)
    with pytest.raises(Misconfigured, match=r"pip install 'dutchdoor\[otel\]'"):
        serving.refuse_unsafe(read_settings({"traces": True}, {}))


@pytest.fixture
def collector() -> Iterator[tuple[int, list[ExportTraceServiceRequest]]]:
    """What listens for OTLP over HTTP, and keeps what it gets."""
    got: list[ExportTraceServiceRequest] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            assert self.path == "/v1/traces"
            got.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port, got
        server.shutdown()
        thread.join()


def test_p27_serve_sends_its_spans_when_it_stops(
    tmp_path: Path, collector: tuple[int, list[ExportTraceServiceRequest]]
) -> None:
    """A server with `--traces` sends the spans that it still has when it is asked to stop."""
    port, got = collector
    environment = {"DUTCHDOOR_TRACES": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}"}
    with running(tmp_path, environment=environment) as server:
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(f"{server.url}/auth/me", timeout=60)
        assert server.stop()[0] == 0
    parts = [each for sent in got for each in sent.resource_spans]
    (resource,) = {each.resource.SerializeToString() for each in parts}
    assert b"dutchdoor" in resource
    assert "GET /auth/me" in [span.name for each in parts for scope in each.scope_spans for span in scope.spans]


def test_p27_a_collector_that_is_away_costs_a_moment(tmp_path: Path) -> None:
    """Without a collector requests are answered, and the stop does not wait for its retries."""
    environment = {"DUTCHDOOR_TRACES": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{free_port()}"}
    with running(tmp_path, "--log-format", "json", environment=environment) as server:
        assert urllib.request.urlopen(f"{server.url}/livez", timeout=60).status == 200
        assert server.stop()[0] == 0
    assert all(line.startswith("{") for line in server.err), "each line is JSON, those of the exporter too"
