"""The README is true: its transcript runs as it stands, and so does its Python."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from starlette.testclient import TestClient
from tests.running import running_server
from tests.standins import Absent

from dutchdoor.errors import InvalidToken
from dutchdoor.fastapi import Auth

README = (Path(__file__).parents[2] / "README.md").read_text()


class Step(NamedTuple):
    command: str
    shows: str


def steps(text: str) -> Iterator[Step]:
    """Read the console blocks: each command with the lines it shows."""
    for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, shows = part.partition("\n")
            yield Step(command, shows.strip())


def as_pattern(shows: str) -> str:
    """What a command shows, with `…` for anything."""
    return ".*".join(re.escape(piece) for piece in shows.split("…"))


def test_the_transcript_runs_word_for_word(tmp_path: Path) -> None:
    """Every command of the README's transcript, typed into one shell, shows what the README says it shows."""
    if shutil.which("curl") is None:
        pytest.skip("the transcript needs curl")
    transcript = list(steps(README))
    assert len(transcript) > 20
    with running_server(tmp_path) as port:
        script = "".join(f"{step.command}\nprintf '\\n%s\\n' '-- {n}'\n" for n, step in enumerate(transcript))
        script = script.replace("localhost:8000", f"localhost:{port}")
        done = subprocess.run(
            ["bash"], input=script, capture_output=True, text=True, cwd=tmp_path, timeout=240, check=True
        )
    shown = re.split(r"\n-- \d+\n", done.stdout)
    for step, output in zip(transcript, shown, strict=False):
        assert re.fullmatch(as_pattern(step.shows), output.strip(), re.DOTALL), f"$ {step.command}\n{output}"


def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The README's application signs a person in and greets them, and answers 503 while its store is away."""
    pytest.importorskip("fastapi")
    monkeypatch.chdir(tmp_path)
    code, _ = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)
    assert isinstance(names["auth"], Auth)
    authority = names["auth"].engine.authority
    store = authority.store
    authority.store = away = Absent(store)
    with TestClient(names["app"]) as client:
        client.cookies.set("dd_session", "dds1_" + "A" * 48)
        assert client.get("/hello").status_code == 503
        assert int(client.get("/hello").headers["retry-after"]) >= 1
        away.absent = False
        assert client.get("/hello").status_code == 401
    authority.store = store
    ada = {"email": "ada@example.com", "password": "a door in two halves"}
    with TestClient(names["app"]) as client:
        assert client.get("/hello").status_code == 401
        assert client.post("/auth/register", json=ada).status_code == 201
        assert client.post("/auth/login", json={**ada, "mode": "session"}).status_code == 200
        assert client.get("/hello").json() == {"hello": "ada@example.com"}
        csrf = client.get("/auth/csrf").json()["csrf_token"]
        cookies = dict(client.cookies)
        assert client.post("/auth/logout", headers={"x-csrf-token": csrf}).status_code in {200, 202}
        client.cookies.update(cookies)
        assert client.get("/hello").status_code == 401


def test_the_verifier_of_the_readme_refuses_what_was_logged_out(tmp_path: Path) -> None:
    """The README's verifier knows a token's owner, and refuses the token as soon as log-out says that it is fenced."""
    _, code = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    with running_server(tmp_path) as port:

        def post(path: str, body: object, **headers: str) -> Any:
            connection = http.client.HTTPConnection("localhost", port, timeout=60)
            connection.request("POST", path, json.dumps(body), {"content-type": "application/json", **headers})
            said = json.loads(connection.getresponse().read())
            connection.close()
            return said

        ada = {"email": "ada@example.com", "password": "a door in two halves"}
        user = post("/auth/register", ada)["user"]
        token = post("/auth/login", {**ada, "mode": "hybrid"})["access_token"]
        names: dict[str, Any] = {}
        exec(compile(code.replace("localhost:8000", f"localhost:{port}"), "README.md", "exec"), names)
        assert names["greet"](token) == f"hello {user['id']}"
        done = post("/auth/logout", {}, authorization=f"Bearer {token}", prefer="wait=20")
        assert (done["fenced"], done["ended"]) == (True, 1)
        with pytest.raises(InvalidToken):
            names["greet"](token)
        names["verify"].close()
