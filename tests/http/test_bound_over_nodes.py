"""Bound sign-ins over three real nodes, which share a database and a URL."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from tests.http.world import PASSWORD
from tests.server.running import eventually, running

from dutchdoor.client.dpop import ProofKey

pytestmark = [pytest.mark.long]

HOST = "auth.example.com"


class Nodes:
    """Three nodes behind one name, each of which a test can ask by itself."""

    def __init__(self, ports: list[int]) -> None:
        self.ports, self.numbers = ports, itertools.count()

    def ask(self, node: int, method: str, path: str, headers: dict[str, str], **more: Any) -> httpx2.Response:
        url = f"http://127.0.0.1:{self.ports[node]}{path}"
        return httpx2.request(method, url, headers={"host": HOST, **headers}, timeout=60, **more)


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    folder, settings = tmp_path_factory.mktemp("nodes"), ("--public-url", f"https://{HOST}")
    with running(folder, *settings) as one, running(folder, *settings) as two, running(folder, *settings) as three:
        yield Nodes([one.port, two.port, three.port])


class Client:
    """A program whose sign-in is bound, at the first node."""

    def __init__(self, nodes: Nodes) -> None:
        self.nodes, self.key = nodes, ProofKey.generate()
        who = {"email": f"person{next(nodes.numbers)}@example.com", "password": PASSWORD}
        assert nodes.ask(0, "POST", "/auth/register", {}, json=who).status_code == 201
        body = {**who, "mode": "hybrid", "transport": "body"}
        self.nonce = nodes.ask(0, "POST", "/auth/login", self.proof("/auth/login"), json=body).headers["dpop-nonce"]
        said = nodes.ask(0, "POST", "/auth/login", self.proof("/auth/login"), json=body).json()
        self.access, self.refresh = said["access_token"], said["refresh_token"]

    def proof(self, path: str, key: ProofKey | None = None) -> dict[str, str]:
        nonce = getattr(self, "nonce", "")
        return {"dpop": (key or self.key).proof("POST", f"https://{HOST}{path}", at=time.time(), nonce=nonce)}

    def me(self, node: int) -> int:
        proof = self.key.proof("GET", f"https://{HOST}/auth/me", at=time.time(), nonce=self.nonce, token=self.access)
        headers = {"authorization": f"DPoP {self.access}", "dpop": proof}
        return self.nodes.ask(node, "GET", "/auth/me", headers).status_code


def test_d26_a_proof_that_refreshed_at_one_node_is_refused_at_each(nodes: Nodes) -> None:
    """The nonce of the first node is good at the others. A proof that was taken at one is refused at all three, and
    ends nothing.
    """
    client = Client(nodes)
    proof, body = client.proof("/auth/refresh"), {"refresh_token": client.refresh}
    first = nodes.ask(1, "POST", "/auth/refresh", proof, json=body)
    assert first.status_code == 200
    client.access = first.json()["access_token"]
    for node in range(3):
        again = nodes.ask(node, "POST", "/auth/refresh", proof, json=body)
        assert (again.status_code, again.json()["code"]) == (401, "invalid_dpop_proof")
        assert client.me(node) == 200


def test_d30_a_thief_at_one_node_ends_the_session_at_each(nodes: Nodes) -> None:
    """A copied refresh token with another key, at the third node: no node takes the session's tokens after that."""
    client = Client(nodes)
    assert [client.me(node) for node in range(3)] == [200] * 3
    theft = client.proof("/auth/refresh", ProofKey.generate())
    answer = nodes.ask(2, "POST", "/auth/refresh", theft, json={"refresh_token": client.refresh})
    assert (answer.status_code, answer.json()["code"]) == (401, "invalid_token")
    eventually(lambda: [client.me(node) for node in range(3)] == [401] * 3)
    mine = nodes.ask(0, "POST", "/auth/refresh", client.proof("/auth/refresh"), json={"refresh_token": client.refresh})
    assert mine.status_code == 401
