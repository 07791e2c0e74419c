"""A server of its own process, as a person starts it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAM = "from dutchdoor.server.cli import main; main()"


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
    with (folder / "server.log").open("w+") as told:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, "serve", "--port", str(port), *arguments],
            cwd=folder,
            env={**clean, **environment},
            stdout=subprocess.PIPE,
            stderr=told,
            text=True,
        )
        assert process.stdout is not None
        try:
            # Standard output has one line: the address, when the server is ready. Without it, its end.
            ready = process.stdout.readline()
            assert f":{port}" in ready, f"not ready: {ready}\n{(folder / 'server.log').read_text()}"
            yield port
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)
            process.stdout.close()
