"""What metrics, logs and traces cost an authenticated request: `python -m benchmarks.watching`, about two minutes.

The server's application answers `GET /auth/me` with a session cookie, in one process and without a socket. Each round
is a process of its own, and the modes take turns. What is counted is processor time, which a busy machine hardly
changes. The log goes to a file, and traces to a collector that keeps none: sending them is part of the time.
"""

from __future__ import annotations

import asyncio
import http.server
import logging.config
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from dutchdoor.server.config import read_settings
from dutchdoor.server.logs import logging_config

MODES = {
    "without": "no metrics",
    "one": "metrics, one process",
    "several": "metrics, several worker processes",
    "text": "a log line for each request, text",
    "json": "a log line for each request, JSON",
    "some-traces": "traces, one of a hundred requests",
    "all-traces": "traces, each request",
}
TRACES = {"DUTCHDOOR_TRACES": "true"}
ENVIRONMENTS: dict[str, dict[str, str]] = {
    "without": {},
    "one": {"DUTCHDOOR_METRICS_TOKEN": "a token of this benchmark"},
    "several": {"DUTCHDOOR_METRICS_TOKEN": "a token of this benchmark"},
    "text": {"DUTCHDOOR_ACCESS_LOG": "true"},
    "json": {"DUTCHDOOR_ACCESS_LOG": "true", "DUTCHDOOR_LOG_FORMAT": "json"},
    "some-traces": TRACES,
    "all-traces": TRACES,
}
"""The settings of each mode."""
ROUNDS, REQUESTS, WARM = 7, 20_000, 2_000
PASSWORD = "a password of this benchmark"


async def ask(
    app: Any, method: str, path: str, body: Mapping[str, object] | None = None, cookie: str = ""
) -> tuple[int, list[tuple[bytes, bytes]]]:
    """Send a request to an ASGI application. Gives status and headers of the answer."""
    content = b"" if body is None else msgspec.json.encode(body)
    headers = [(b"host", b"localhost:8000"), (b"content-length", b"%d" % len(content))]
    headers += [(b"content-type", b"application/json")] if body is not None else []
    headers += [(b"cookie", cookie.encode())] if cookie else []
    scope = {
        "type": "http", "method": method, "path": path, "query_string": b"", "headers": headers, "scheme": "http",
        "client": ("127.0.0.1", 1234), "root_path": "",
    }  # fmt: skip
    answer: list[Any] = []

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": content, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            answer[:] = [message["status"], message["headers"]]

    await app(scope, receive, send)
    return answer[0], answer[1]


async def measure(mode: str, folder: Path) -> float:
    """Microseconds of processor time that a request takes."""
    from dutchdoor.server.serve import application  # noqa: PLC0415 - it reads where several processes share counters

    settings = read_settings(
        {"database": f"sqlite:///{folder}/dutchdoor.db", "master_key_file": f"{folder}/keys"}, ENVIRONMENTS[mode]
    )
    logging.config.dictConfig(logging_config(settings.log_format))
    app = application(settings)
    ada = {"email": "ada@example.com", "password": PASSWORD}
    assert (await ask(app, "POST", "/auth/register", ada))[0] == 201
    status, headers = await ask(app, "POST", "/auth/login", {**ada, "mode": "session"})
    assert status == 200
    cookie = "; ".join(value.decode().partition(";")[0] for name, value in headers if name == b"set-cookie")
    for _ in range(WARM):
        assert (await ask(app, "GET", "/auth/me", cookie=cookie))[0] == 200
    started = time.process_time()
    for _ in range(REQUESTS):
        await ask(app, "GET", "/auth/me", cookie=cookie)
    return (time.process_time() - started) / REQUESTS * 1e6


def one_round(mode: str, collects: int) -> float:
    """Measure a mode in a process of its own."""
    with tempfile.TemporaryDirectory() as folder, Path(folder, "log").open("wb") as log:
        more = {"PROMETHEUS_MULTIPROC_DIR": folder} if mode == "several" else {}
        more["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{collects}"
        if mode == "some-traces":
            more |= {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.01"}
        ran = subprocess.run(
            [sys.executable, "-m", "benchmarks.watching", mode, folder],
            env={**os.environ, **more}, stdout=subprocess.PIPE, stderr=log, text=True, check=True,
        )  # fmt: skip
    return float(ran.stdout)


class Collector(http.server.BaseHTTPRequestHandler):
    """Takes spans and keeps none."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


def main() -> None:
    if len(sys.argv) > 1:
        print(asyncio.run(measure(sys.argv[1], Path(sys.argv[2]))))
        os._exit(0)  # the application is not closed: nothing of it is wanted any more
    taken: dict[str, list[float]] = {mode: [] for mode in MODES}
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector) as collector:
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        for number in range(ROUNDS):
            for mode in list(MODES)[:: 1 if number % 2 else -1]:
                taken[mode].append(one_round(mode, collector.server_port))
        collector.shutdown()
    plain = statistics.median(taken["without"])
    for mode, text in MODES.items():
        median = statistics.median(taken[mode])
        print(f"{text:40} {median:7.1f} us a request   {median / plain:5.2f} times")


if __name__ == "__main__":
    main()
