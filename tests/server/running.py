"""Real server processes on loopback, on ports the system gives."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

STARTS_WITHIN = 60.0


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "dutchdoor.server", *arguments]


def clean_environment(more: dict[str, str] | None = None) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "PYTHONPATH", "LANG"}}
    return {**kept, **(more or {})}


class Running:
    """A server that said it is ready. `url` is what it said; `out` and `err` what it wrote since."""

    def __init__(self, process: subprocess.Popen[str], line: str, err: list[str]) -> None:
        self.process, self.line, self.err = process, line, err
        found = re.search(r"(https?)://(\S+):([0-9]+)", line)
        assert found, line
        self.scheme, self.host, self.port = found[1], found[2].strip("[]"), int(found[3])
        if self.host == "localhost":
            self.host = "127.0.0.1"  # where it listens: another server may have the port at ::1
        self.url = found[0].replace("localhost", "127.0.0.1")

    @property
    def said(self) -> str:
        return "".join(self.err)

    def stop(self) -> tuple[int, str]:
        """Ask it to stop; give its exit code and the rest of its standard output."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        assert self.process.stdout is not None
        return self.process.returncode, self.process.stdout.read()


@contextlib.contextmanager
def running(directory: Path, *arguments: str, environment: dict[str, str] | None = None) -> Iterator[Running]:
    """Serve from a directory until the block ends, without a handover unless the environment asks for one."""
    process = subprocess.Popen(
        command("serve", "--port", "0", *arguments),
        cwd=directory,
        env=clean_environment({"DUTCHDOOR_HANDOVER_FOR": "0s", **(environment or {})}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    err: list[str] = []
    lines: queue.Queue[str] = queue.Queue()
    stdout, stderr = process.stdout, process.stderr
    reader = threading.Thread(target=lambda: err.extend(iter(stderr.readline, "")), daemon=True)
    reader.start()
    threading.Thread(target=lambda: lines.put(stdout.readline()), daemon=True).start()
    server = None
    try:
        try:
            line = lines.get(timeout=STARTS_WITHIN)
        except queue.Empty:
            raise AssertionError(f"no line within {STARTS_WITHIN} seconds: {err}") from None
        assert line, f"it ended: {''.join(err)}"
        server = Running(process, line, err)
        yield server
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
        process.wait()
        reader.join(60)
        process.stdout.close()
        process.stderr.close()


def eventually(holds: Callable[[], bool], within: float = 60.0) -> None:
    """Wait until something holds that another process brings about."""
    end = time.monotonic() + within
    while not holds():
        assert time.monotonic() < end, "it never came about"
        time.sleep(0.02)
