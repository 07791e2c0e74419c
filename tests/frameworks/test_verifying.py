"""A service that only verifies has the same guards, in every framework: asked over HTTP, with a server elsewhere."""

from __future__ import annotations

import time
from functools import cache
from typing import Any

import httpx2
import pytest
from tests.frameworks.conftest import PASSWORD, App
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from dutchdoor.client.dpop import Nonces, ProofKey


@cache
def owner(server: str, service: str) -> dict[str, str]:
    """An account for all tests of a service: the server lets an address register a few an hour."""
    who = {"email": f"{service}@example.com", "password": PASSWORD}
    assert httpx2.post(f"{server}/auth/register", json=who).status_code == 201
    return who


def sign_in(server: str, service: App, mode: str) -> tuple[str, dict[str, str]]:
    """The subject of a new sign-in, and the header of its token."""
    who = owner(server, service.name)
    answer: dict[str, Any] = httpx2.post(f"{server}/auth/login", json={**who, "mode": mode}).json()
    return answer["user"]["id"], {"authorization": f"Bearer {answer['access_token']}"}


@pytest.mark.parametrize("mode", ["hybrid", "jwt"])
def test_a_service_knows_the_bearer_until_the_log_out_is_fenced(server: str, service: App, mode: str) -> None:
    """A token names its subject; a missing role is 403; after a fenced log-out the token is 401 at once."""
    subject, headers = sign_in(server, service, mode)
    url = service.url
    assert httpx2.get(f"{url}/hello", headers=headers).json() == {
        "email": None, "id": subject, "subject": subject, "method": "access_token",
    }  # fmt: skip
    assert httpx2.post(f"{url}/order", headers=headers).json()["by"] == subject
    assert httpx2.get(f"{url}/admin", headers=headers).json()["code"] == "forbidden"
    assert httpx2.get(f"{url}/factors", headers=headers).json()["factors"] == 2
    out = httpx2.post(f"{server}/auth/logout", headers={**headers, "prefer": "wait=20"}, timeout=60).json()
    assert out["fenced"]
    refused = httpx2.get(f"{url}/hello", headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (401, "invalid_token")


@pytest.mark.parametrize("mode", ["hybrid", "jwt"])
def test_d39_a_service_checks_the_proofs_of_bound_tokens(server: str, service: App, mode: str) -> None:
    """A bound token works with a proof for this request, by each method, once; and neither as a bearer token nor with
    the key of a thief.
    """
    client = Bound()
    answer = client.send("POST", f"{server}/auth/login", json={**owner(server, service.name), "mode": mode}).json()
    subject, token = answer["user"]["id"], answer["access_token"]
    url = f"{service.url}/hello"
    assert client.send("GET", f"{url}?page=2", token).json()["subject"] == subject
    assert client.send("POST", f"{service.url}/order", token).json()["by"] == subject
    assert client.send("GET", f"{service.url}/admin", token).json()["code"] == "forbidden"
    as_bearer = httpx2.get(url, headers={"authorization": f"Bearer {token}"})
    assert (as_bearer.status_code, as_bearer.json()["code"]) == (401, "dpop_required")
    assert as_bearer.headers["www-authenticate"].startswith("DPoP ")
    thief = Bound()
    for wrong in (thief.send("GET", url, token), client.send("GET", url, token, about=f"{service.url}/order")):
        assert (wrong.status_code, wrong.json()["code"]) == (401, "invalid_dpop_proof")
    twice = httpx2.get(url, headers=[("authorization", f"DPoP {token}"), ("dpop", "a"), ("dpop", "b")])
    assert twice.status_code == 401
    if service.streams:
        headers = {"authorization": f"DPoP {token}", "dpop": client.proof("GET", f"{service.url}/ws", token)}
        with connect(f"{service.url.replace('http', 'ws', 1)}/ws", additional_headers=headers) as socket:
            for word in ("one", "two"):  # the proof of the handshake serves as long as the connection is open
                socket.send(word)
                assert str(socket.recv()).endswith(f": {word}")


class Bound:
    """A client that proves a key of its own, and takes up the nonce of the answer."""

    def __init__(self) -> None:
        self.key, self.nonces = ProofKey.generate(), Nonces(time.time)

    def proof(self, method: str, url: str, token: str = "") -> str:
        return self.nonces.proof(self.key, method, url, token)

    def send(self, method: str, url: str, token: str = "", *, about: str = "", **more: Any) -> httpx2.Response:
        while True:
            headers = {"dpop": self.proof(method, about or url, token)}
            if token:
                headers["authorization"] = f"DPoP {token}"
            answer = httpx2.request(method, url, headers=headers, **more)
            if not (self.nonces.learn(url, answer.headers) and answer.status_code == 401):
                return answer


def test_a_service_reads_no_cookie_and_answers_no_path_of_the_api(server: str, service: App) -> None:
    """The cookie of another host is no proof here, and the API is at its server."""
    refused = httpx2.get(f"{service.url}/hello", headers={"cookie": "dd_session=dds1_" + "A" * 48})
    assert (refused.status_code, refused.json()["code"]) == (401, "not_authenticated")
    assert httpx2.post(f"{service.url}/auth/login", json={}).status_code == 404
    assert httpx2.get(service.url).json() == {"index": "the application's"}


def test_a_socket_of_a_service_ends_with_the_session(server: str, service: App) -> None:
    """After a fenced log-out at the server, a WebSocket at the service delivers nothing more, and closes with 4401."""
    if not service.streams:
        return  # WSGI has no WebSockets
    url = f"{service.url.replace('http', 'ws', 1)}/ws"
    with pytest.raises(InvalidStatus), connect(url):
        pass
    _, headers = sign_in(server, service, "hybrid")
    with connect(url, additional_headers=headers) as socket:
        socket.send("one")
        assert str(socket.recv()).endswith(": one")
        out = httpx2.post(f"{server}/auth/logout", headers={**headers, "prefer": "wait=20"}, timeout=60).json()
        assert out["fenced"]
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(timeout=60)
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 4401
