"""A server of its own process, as a person starts it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

START_WITHIN = 30


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running_server(folder: Path, *arguments: str, **environment: str) -> Iterator[int]:
    """Run `dutchdoor serve` in a folder, with nothing set but what is given, and give its port once it is ready."""
    port = free_port()
    clean = {name: value for name, value in os.environ.items() if not name.startswith("DUTCHDOOR_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "dutchdoor.server.cli", "serve", "--port", str(port), *arguments],
        cwd=folder,
        env={**clean, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    shown: list[str] = []
    ready = threading.Event()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            shown.append(line)
            if f":{port}" in line:
                ready.set()
        ready.set()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        assert ready.wait(START_WITHIN), "no ready line:\n" + "".join(shown)
        assert process.poll() is None, "".join(shown)
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)
        reader.join(5)
