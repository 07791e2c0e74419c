"""Servers that fork after the verifier was made and used: every child follows for itself."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.faults.cluster import begin, cluster
from tests.fence.live.test_live import add_key
from tests.ports import free_port

ROOT = Path(__file__).parents[3]


@contextlib.contextmanager
def gunicorn(folder: Path, workers: int, *options: str, **environment: str) -> Iterator[int]:
    port = free_port()
    with (folder / "gunicorn.log").open("w") as log:
        process = subprocess.Popen(
            [
                sys.executable, "-m", "gunicorn", "--preload", "--workers", str(workers), "--bind", f"127.0.0.1:{port}",
                "--no-control-socket", *options, "tests.fence.live.preloaded:application",
            ],
            cwd=ROOT, stdout=log, stderr=log, env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        )  # fmt: skip
        try:
            deadline = time.monotonic() + 60
            while not listens(port):
                assert process.poll() is None and time.monotonic() < deadline, (folder / "gunicorn.log").read_text()
                time.sleep(0.05)
            yield port
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def ask(port: int, token: str, times: int) -> list[tuple[int, str, str]]:
    """Ask on connections that are open at once, so that each worker has some: status, pid, the parent's pid."""
    answers = []
    lines = [http.client.HTTPConnection("127.0.0.1", port, timeout=60) for _ in range(times)]
    for line in lines:
        line.request("GET", "/", headers={"Authorization": f"Bearer {token}"})
    for line in lines:
        answer = line.getresponse()
        pid, parent = answer.read().decode().split()
        answers.append((answer.status, pid, parent))
        line.close()
    return answers


@pytest.mark.parametrize("worker", ["sync", pytest.param("gthread", marks=pytest.mark.long)])
async def test_gunicorn_with_preload(tmp_path: Path, worker: str) -> None:
    """Three children of a parent that used the verifier: each accepts, and after a fenced log-out none does, in threads
    as well as without; a fence waits for none that is not there, so it takes far less than a lease.
    """
    with cluster(tmp_path / "cluster", nodes=1, local=True, lease="10s") as ours:
        async with ours.beside() as node:
            key = await add_key(node)
            held = [await begin(node) for _ in range(6)]
        keep = held[-1].access_token
        threads = ("--threads", "4") if worker == "gthread" else ()
        with gunicorn(tmp_path, 3, "--worker-class", worker, *threads, ISSUER=ours.public, KEY=key, TOKEN=keep) as port:
            children: set[str] = set()
            deadline = time.monotonic() + 60
            while len(children) < 3:
                answers = ask(port, keep, 9)
                assert {status for status, *_ in answers} == {200}
                children |= {pid for _, pid, parent in answers if pid != parent}
                assert time.monotonic() < deadline, "not every child answers"
            took = []
            async with ours.wires(1) as (wire,):
                for one in held[:-1]:
                    assert {status for status, *_ in ask(port, one.access_token, 9)} == {200}
                    began = time.monotonic()
                    body = {"refresh_token": one.refresh_token}
                    answer = await wire.served("POST", "/auth/logout", body, headers=[("Prefer", "wait=20")])
                    assert answer.json["fenced"] is True
                    took.append(time.monotonic() - began)
                    assert {status for status, *_ in ask(port, one.access_token, 9)} == {401}
            assert {status for status, *_ in ask(port, keep, 9)} == {200}
            assert sorted(took)[len(took) // 2] < 8.0, "fences wait for followers that are not there"
