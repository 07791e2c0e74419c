"""Commands beside a server, over SQLite and over PostgreSQL: what they revoke is fenced at its verifiers."""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from typing import Any

import pytest
from tests.running import Run
from tests.server.running import Running, running

from dutchdoor import Verifier
from dutchdoor.errors import InvalidToken, StaleClaims

ADA = {"email": "ada@example.com", "password": "a quiet heron at dusk"}


pytestmark = pytest.mark.usefixtures("patience", "patient_verifiers")  # a busy machine is no outage


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.long)])
def environment(request: pytest.FixtureRequest) -> dict[str, str]:
    if request.param == "sqlite":
        return {}
    return {"DUTCHDOOR_DATABASE": str(request.getfixturevalue("postgres_url"))}


def post(server: Running, path: str, body: object) -> Any:
    connection = http.client.HTTPConnection(server.host, server.port, timeout=60)
    connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
    said = json.loads(connection.getresponse().read())
    connection.close()
    return said


def test_what_a_command_ends_is_fenced_at_the_servers_verifiers(
    tmp_path: Path, environment: dict[str, str], run: Run
) -> None:
    """What a command ends, or makes stale, is refused by a verifier that follows the server when the command says that
    it is fenced: long before the verifier's lease has run out. Removing its key is fenced when that has.
    """

    def ran(*arguments: str) -> Any:
        done = run(*arguments, "--json", environment=environment)
        assert done.code == 0, done.err
        return done.json

    with running(tmp_path, "--lease", "60s", environment=environment) as server:
        post(server, "/auth/register", ADA)
        key = ran("verifier", "add", "orders")["key"]
        verify = Verifier(f"http://localhost:{server.port}", key=key)
        try:
            signed_in = post(server, "/auth/login", {**ADA, "mode": "hybrid"})
            assert verify(signed_in["access_token"]).session_id == signed_in["session"]["id"]
            nodes = ran("verifier", "list")["nodes"]
            assert [node["lease_s"] for node in nodes] == [60.0]

            assert ran("session", "end", signed_in["session"]["id"])["fenced"] is True
            with pytest.raises(InvalidToken):
                verify(signed_in["access_token"])

            other = post(server, "/auth/login", {**ADA, "mode": "hybrid"})["access_token"]
            assert verify(other)
            assert ran("user", "role", "ada@example.com", "editor")["fenced"] is True
            with pytest.raises(StaleClaims):
                verify(other)
            removed = ran("verifier", "remove", "orders", "--no-wait")
            assert (removed["fenced"], removed["fenced_in_ms"] > 1000) == (False, True), "its lease is still good"
        finally:
            verify.close()
