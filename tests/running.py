"""A server of its own process, as a person starts it; and a command in this one, since a start takes longer than most
commands.
"""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.ports import free_port

from dutchdoor.server.cli import main

PROGRAM = "from dutchdoor.server.cli import main; main()"


@contextmanager
def running_server(folder: Path, *arguments: str, **environment: str) -> Iterator[int]:
    """Run `dutchdoor serve` in a folder, with nothing set but what is given, and give its port once it is ready."""
    port = free_port()
    clean = {name: value for name, value in os.environ.items() if not name.startswith("DUTCHDOOR_")}
    with (folder / "server.log").open("w+") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, "serve", "--port", str(port), *arguments],
            cwd=folder,
            env={**clean, **environment},
            stdout=subprocess.PIPE,
            stderr=log,
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
            process.wait(60)
            process.stdout.close()


class Ran(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Ran]
"""Runs a command in this process, and says how it ended."""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in an empty directory, in this process, and say how it ended."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("DUTCHDOOR_") or name in {"DATABASE_URL", "REDIS_URL", "PORT", "WEB_CONCURRENCY"}:
            monkeypatch.delenv(name)

    def ran(*arguments: str, text: str = "", environment: dict[str, str] | None = None, terminal: bool = False) -> Ran:
        monkeypatch.setattr(sys, "argv", ["dutchdoor", *arguments])
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))
        monkeypatch.setattr(sys.stdin, "isatty", lambda: terminal, raising=False)
        with monkeypatch.context() as patched:
            for name, value in (environment or {}).items():
                patched.setenv(name, value)
            with pytest.raises(SystemExit) as ended:
                main()
        written = capsys.readouterr()
        return Ran(int(ended.value.code or 0), written.out, written.err)

    return ran
