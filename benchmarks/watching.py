"""What metrics cost an authenticated request: `python -m benchmarks.watching`, about a minute.

The server's application answers `GET /auth/me` with a session cookie, in one process and without a socket. Each round
is a process of its own, and the modes take turns. What is counted is processor time, which a busy machine hardly
changes.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from dutchdoor.server.config import read_settings

MODES = {
    "without": "no metrics",
    "one": "metrics, one process",
    "several": "metrics, several worker processes",
}
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

    token = {"DUTCHDOOR_METRICS_TOKEN": "a token of this benchmark"}
    settings = read_settings(
        {"database": f"sqlite:///{folder}/door.db", "master_key_file": f"{folder}/keys"},
        {} if mode == "without" else token,
    )
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


def one_round(mode: str) -> float:
    """Measure a mode in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        shared = {"PROMETHEUS_MULTIPROC_DIR": folder} if mode == "several" else {}
        ran = subprocess.run(
            [sys.executable, "-m", "benchmarks.watching", mode, folder],
            env={**os.environ, **shared}, stdout=subprocess.PIPE, text=True, check=True,
        )  # fmt: skip
    return float(ran.stdout)


def main() -> None:
    if len(sys.argv) > 1:
        print(asyncio.run(measure(sys.argv[1], Path(sys.argv[2]))))
        os._exit(0)  # the application is not closed: nothing of it is wanted any more
    taken: dict[str, list[float]] = {mode: [] for mode in MODES}
    for number in range(ROUNDS):
        for mode in list(MODES)[:: 1 if number % 2 else -1]:
            taken[mode].append(one_round(mode))
    plain = statistics.median(taken["without"])
    for mode, text in MODES.items():
        median = statistics.median(taken[mode])
        print(f"{text:40} {median:7.1f} us a request   {median / plain:5.2f} times")


if __name__ == "__main__":
    main()
