"""Sign-ins that are bound to a key, in an application that embeds the engine: in each framework, over HTTP."""

from __future__ import annotations

from typing import cast

import httpx2
import pytest
from tests.frameworks.conftest import PASSWORD, App
from tests.frameworks.test_verifying import Bound

from dutchdoor import DpopProof, Verifier
from dutchdoor.client import SessionAuth
from dutchdoor.errors import InvalidDpopProof
from dutchdoor.guard.gates import Verifying
from dutchdoor.web.http import Request


@pytest.mark.parametrize("mode", ["hybrid", "jwt"])
def test_d39_an_application_checks_the_proofs_of_bound_tokens(app: App, mode: str) -> None:
    """A bound token works with a proof for this request, by each method; and neither as a bearer token nor with the key
    of a thief. What the guard refuses has a nonce.
    """
    who, client = app.someone(), Bound()
    token = client.send("POST", f"{app.url}/auth/login", json={**who, "mode": mode}).json()["access_token"]
    url = f"{app.url}/hello"
    client.nonces._by_origin.clear()
    asked = httpx2.get(url, headers={"authorization": f"DPoP {token}", "dpop": client.proof("GET", url, token)})
    assert (asked.status_code, asked.json()["code"]) == (401, "use_dpop_nonce")
    assert asked.headers["dpop-nonce"]
    subject = client.send("GET", url, token).json()["subject"]
    assert client.send("POST", f"{app.url}/order", token).json()["by"] == subject
    assert client.send("GET", f"{app.url}/auth/me", token).status_code == 200
    assert httpx2.get(url, headers={"authorization": f"Bearer {token}"}).json()["code"] == "dpop_required"
    assert Bound().send("GET", url, token).json()["code"] == "invalid_dpop_proof"
    assert client.send("POST", f"{app.url}/auth/logout/all", token).status_code in {200, 202}
    assert client.send("GET", url, token).status_code == 401


def test_d39_a_program_of_ours_is_bound(app: App) -> None:
    """`SessionAuth(bound=True)` signs in at an application and calls its routes, by each method."""
    who = app.someone()
    auth = SessionAuth(app.url, login=who["email"], password=PASSWORD, bound=True)
    with httpx2.Client(base_url=app.url, auth=auth) as http:
        assert http.get("/hello").json()["method"] == "access_token"
        assert http.post("/order").status_code == 200
        assert http.get("/hello", params={"page": "2"}).status_code == 200
    assert auth.fresh().key
    auth.close()


class Asked:
    """Stands for a `Verifier`, and keeps what it was asked."""

    issuer = "https://auth.example.com"

    def __init__(self, public_url: str | None) -> None:
        self.public_url, self.proof = public_url, DpopProof("", "", "")

    def __call__(self, token: str, proof: DpopProof) -> str:
        self.proof = proof
        return token

    def seen(self, *_: object) -> None: ...


PLACES = (
    ("https://orders.example.com", "localhost", "", "/a b/7", "https://orders.example.com/a%20b/7"),
    ("https://orders.example.com", "evil.example.com", "", "/7", "https://orders.example.com/7"),
    ("https://example.com/orders", "10.0.0.7", "", "/7", "https://example.com/orders/7"),
    ("https://example.com/orders", "10.0.0.7", "/orders", "/7", "https://example.com/orders/7"),
    ("https://example.com/orders", "10.0.0.7", "", "/orders/7", "https://example.com/orders/7"),
    (None, "localhost:8000", "", "/7", "http://localhost:8000/7"),
    (None, "LOCALHOST:80", "/mounted", "/7", "http://localhost/mounted/7"),
)


@pytest.mark.parametrize(("public_url", "host", "mount", "path", "url"), PLACES, ids=range(len(PLACES)))
def test_d40_a_service_knows_its_url(public_url: str | None, host: str, mount: str, path: str, url: str) -> None:
    """A proof is compared with the public URL and the whole path, whether a proxy strips a part of it or not, and
    whatever the `Host` header says.
    """
    verifier = Asked(public_url)
    headers = [(b"host", host.encode()), (b"authorization", b"dpop a.b.c"), (b"dpop", b"proof")]
    gate = Verifying(cast("Verifier", verifier))
    assert gate.identify_at_once(Request("GET", path, b"", headers, "", "http", mount=mount), csrf_field=None)[0]
    assert verifier.proof == DpopProof("proof", "GET", url)


def test_d40_a_service_without_its_url_takes_no_bound_token(caplog: pytest.LogCaptureFixture) -> None:
    """Without `public_url`, a bound token at another name than localhost is refused, and the log says which setting is
    missing: a proof for another service would pass where its name is believed.
    """
    headers = [(b"host", b"orders.example.com"), (b"authorization", b"DPoP a.b.c"), (b"dpop", b"proof")]
    gate = Verifying(cast("Verifier", Asked(None)))
    with pytest.raises(InvalidDpopProof, match="has to set public_url"):
        gate.identify_at_once(Request("GET", "/7", b"", headers, "", "http"), csrf_field=None)
    assert "set public_url" in caplog.text
