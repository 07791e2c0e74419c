"""Commands in this process, in an empty directory, and servers that were there before them."""

from __future__ import annotations

import asyncio
import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from dutchdoor.auth import Auth
from dutchdoor.server.cli import main

PASSWORD = "a quiet heron at dusk"


class Ran(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Ran]


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


def made(run: Run, email: str = "ada@example.com", *more: str) -> dict[str, Any]:
    ran = run("user", "create", email, "--password-stdin", "--json", *more, text=f"{PASSWORD}\n")
    assert ran.code == 0, ran.err
    account: dict[str, Any] = ran.json
    return account


def auth_here() -> Auth:
    return Auth("sqlite:///dutchdoor.db", master_key="dutchdoor.keys")


def asynchronously(work: Any) -> Any:
    return asyncio.run(work)


def served(database: str = "sqlite:///dutchdoor.db", **settings: Any) -> None:
    """Let a server with these settings start on a database, and stop."""

    async def start() -> None:
        async with Auth(database, master_key="dutchdoor.keys", **settings):
            pass

    asynchronously(start())
