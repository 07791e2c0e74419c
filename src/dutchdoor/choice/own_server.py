"""A throw-away `dutchdoor serve` in a process of its own, on loopback, with nothing set but what its starter sets."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from queue import Empty, SimpleQueue

from dutchdoor.errors import Unavailable

__all__ = ["ENDS_WITHIN", "end", "start"]

STARTS_WITHIN, ENDS_WITHIN = 60.0, 15.0

# Its standard input is a pipe that ends with its starter: it does not outlive one that was killed.
_PROGRAM = """
import os, signal, threading
from dutchdoor.server.cli import main

def end_with_starter():
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)

threading.Thread(target=end_with_starter, daemon=True).start()
main()
"""


def start(folder: Path, settings: Mapping[str, str], *, port: int = 0) -> tuple[subprocess.Popen[str], int]:
    """Start a server whose files are in a folder, and return it with its port once it is ready.

    `settings` are variables of the environment; those of this process are not taken over.

    Raises:
        Unavailable: it does not start.
    """
    clean = {name: value for name, value in os.environ.items() if not name.startswith("DUTCHDOOR_")}
    for name in ("DATABASE_URL", "REDIS_URL", "PORT", "WEB_CONCURRENCY"):
        clean.pop(name, None)
    log = folder / "server.log"
    with log.open("a") as written:
        process = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-c", _PROGRAM, "serve", "--port", str(port)],
            cwd=folder, env={**clean, **settings}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=written,
            text=True,
        )  # fmt: skip
    try:
        return process, _port(process, log)
    except Unavailable:
        end(process)
        raise


def end(process: subprocess.Popen[str]) -> None:
    """Ask a server to stop, and see that it does."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(ENDS_WITHIN)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for end_of_pipe in (process.stdin, process.stdout):
        if end_of_pipe is not None:
            end_of_pipe.close()


def _port(process: subprocess.Popen[str], log: Path) -> int:
    """Return the port that a server names on its first line, when it is ready."""
    lines: SimpleQueue[str] = SimpleQueue()
    threading.Thread(target=lambda: lines.put(next(iter(process.stdout or ()), "")), daemon=True).start()
    try:
        line = lines.get(timeout=STARTS_WITHIN)
        return int(line.split("://", 1)[1].split()[0].rstrip("/").rsplit(":", 1)[1])
    except (Empty, IndexError, ValueError):
        lines_of_log = log.read_text().strip().splitlines() or ["it wrote nothing"]
        raise Unavailable(f"the server did not start: {lines_of_log[-1]}") from None
