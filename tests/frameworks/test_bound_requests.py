"""Sign-ins that are bound to a key, in an application that embeds the engine: in each framework, over HTTP."""

from __future__ import annotations

import httpx2
import pytest
from tests.frameworks.conftest import PASSWORD, App
from tests.frameworks.test_verifying import Bound

from dutchdoor.client import SessionAuth


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
