"""A token in doubt, at a service that only verifies: refused with a step-up until its owner proves again."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import time
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import httpx2
import pytest
from tests.devicekey import DeviceKey
from tests.ports import free_port
from tests.server.running import clean_environment, command, running
from tests.verifier.standin import until

from dutchdoor import Verifier
from dutchdoor.errors import InvalidToken, StepUpRequired
from dutchdoor.jose.claims import Claims
from dutchdoor.revocation.log import Revocation, RevocationLog
from dutchdoor.verifier.reports import Reports

HOME, SYDNEY = "145.97.39.155", "1.128.0.1"
ADA = {"email": "ada@example.com", "password": "a door in two halves"}


def claims(**more: Any) -> Claims:
    return Claims(
        iss="i", sub="ada", aud="a", exp=2, iat=1, jti="a-token", client_id="app", epoch=1, amr=(), roles=(), **more
    )


def test_d19_a_doubt_covers_its_session_or_its_token_alone() -> None:
    """An entry of the kind `doubt` refuses the tokens of one session, or one stateless token. A revocation of the same
    comes first, and nothing else is touched.
    """
    log = RevocationLog()
    log.apply([Revocation(kind="doubt", id="a-session", expires_at=100.0, seq=1)])
    assert log.covering_token(claims(sid="a-session")) == "doubt"
    assert log.covering_token(claims(sid="another")) is None
    assert log.covering_token(claims()) is None
    assert log.doubts("a-session")
    assert not log.doubts("another")
    log.apply([Revocation(kind="doubt", id="a-token", expires_at=100.0, seq=2)])
    assert log.covering_token(claims()) == "doubt"
    log.apply([Revocation(kind="session", id="a-session", expires_at=100.0, seq=3)])
    assert log.covering_token(claims(sid="a-session")) == "session"
    log.drop_expired(1000.0, 10.0)
    assert log.covering_token(claims()) is None


def ask(url: str, method: str, path: str, body: object = None, *, peer: str, token: str = "") -> tuple[int, Any]:
    headers = {
        "Content-Type": "application/json",
        "X-Forwarded-For": peer,
        "X-Forwarded-Proto": "http",
        "Authorization": f"Bearer {token}",
    }
    if not token:
        del headers["Authorization"]
    request = Request(f"{url}{path}", None if body is None else json.dumps(body).encode(), headers, method=method)
    try:
        with urlopen(request, timeout=60) as answer:
            return answer.status, json.loads(answer.read() or b"{}")
    except HTTPError as error:
        return error.code, json.loads(error.read())


def is_in_doubt(verifier: Verifier, token: str) -> bool:
    try:
        verifier(token)
    except StepUpRequired:
        return True
    return False


@pytest.mark.long
@pytest.mark.parametrize("mode", ["hybrid", "jwt"])
def test_d19_a_token_that_was_used_far_away_is_in_doubt_at_a_verifier(mode: str, tmp_path: Path) -> None:
    """A thief uses a copy at the authority, from another continent. A service in another process, which holds the log,
    refuses the token with a step-up within a poll; the owner proves again, and the next token is accepted there.
    """
    port = free_port()
    url = f"http://localhost:{port}"
    arguments = ("--public-url", url, "--proxy", "127.0.0.1", "--port", str(port))
    with running(tmp_path, *arguments, environment={"DUTCHDOOR_SUSPICION": "standard"}):
        key = _verifier_key(tmp_path)
        ask(url, "POST", "/auth/register", ADA, peer=HOME)
        how = {"mode": mode} | ({"transport": "body"} if mode == "hybrid" else {})
        _, signed_in = ask(url, "POST", "/auth/login", {**ADA, **how}, peer=HOME)
        token = signed_in["access_token"]
        with Verifier(url, key=key) as verifier:
            assert verifier(token).subject
            assert ask(url, "GET", "/auth/me", peer=HOME, token=token)[0] == 200
            status, problem = ask(url, "GET", "/auth/me", peer=SYDNEY, token=token)
            assert (status, problem["code"]) == (401, "step_up_required")
            until(lambda: is_in_doubt(verifier, token))
            proof = {"password": ADA["password"]}
            status, proved = ask(url, "POST", "/auth/reauthenticate", proof, peer=HOME, token=token)
            assert status == 200, proved
            assert verifier(proved["access_token"]).subject
            if mode == "hybrid":
                until(lambda: not is_in_doubt_or_valid(verifier, token))


@pytest.mark.long
def test_q35_a_verifier_takes_the_token_again_that_a_browser_answered_for(tmp_path: Path) -> None:
    """A service in another process refuses the token of a session that is used far away. Its browser answers by its
    key, and the service takes the same token again, without a proof of the owner.
    """
    port = free_port()
    url = f"http://localhost:{port}"
    arguments = ("--public-url", url, "--proxy", "127.0.0.1", "--port", str(port))
    home, away = ({"x-forwarded-for": each, "x-forwarded-proto": "http"} for each in (HOME, SYDNEY))
    with (
        running(tmp_path, *arguments, environment={"DUTCHDOOR_SUSPICION": "standard"}),
        httpx2.Client(base_url=url, timeout=60) as browser,
        Verifier(url, audience=f"{url}/auth/check", key=_verifier_key(tmp_path)) as verifier,
    ):
        key = DeviceKey()
        browser.post("/auth/register", json=ADA, headers=home)
        brings = {**home, "cookie": f"dd_key={key.jwk['x']}.{key.jwk['y']}"}
        signed_in = browser.post("/auth/login", json={**ADA, "mode": "session"}, headers=brings)
        csrf = signed_in.json()["csrf_token"]
        token = browser.get("/auth/check", headers={**home, "x-forwarded-method": "GET"}).headers["x-auth-token"]
        assert verifier(token).subject
        assert browser.get("/auth/me", headers=away).json()["code"] == "step_up_required"
        until(lambda: is_in_doubt(verifier, token))
        page = browser.get(
            "/auth/confirm?next=/", headers={**away, "sec-fetch-mode": "navigate", "accept": "text/html"}
        )
        (challenge,) = re.findall(r'data-challenge="([^"]+)"', page.text)
        signature = base64.b64encode(key.key.sign(challenge.encode())).decode()
        answer = {"challenge": challenge, "signature": signature}
        lifted = browser.post("/auth/reauthenticate/browser", json=answer, headers={**away, "x-csrf-token": csrf})
        assert lifted.status_code == 204, lifted.text
        until(lambda: not is_in_doubt(verifier, token))
        assert verifier(token).subject and browser.get("/auth/me", headers=away).status_code == 200


@pytest.mark.long
def test_d19_a_stateless_token_on_two_continents_is_noticed_by_the_authority(tmp_path: Path) -> None:
    """The owner signs in at home. A thief uses the token at a service that only verifies, on another continent, and the
    authority is never asked: the service's next poll reports it, and the token is in doubt there within seconds.
    """
    port = free_port()
    url = f"http://localhost:{port}"
    arguments = ("--public-url", url, "--proxy", "127.0.0.1", "--port", str(port))
    with running(tmp_path, *arguments, environment={"DUTCHDOOR_SUSPICION": "standard"}):
        key = _verifier_key(tmp_path)
        ask(url, "POST", "/auth/register", ADA, peer=HOME)
        _, signed_in = ask(url, "POST", "/auth/login", {**ADA, "mode": "jwt"}, peer=HOME)
        token = signed_in["access_token"]
        with Verifier(url, key=key, reports=True) as verifier, Verifier(url, key=key) as other:
            verifier.seen(token, verifier(token), HOME)
            time.sleep(3)  # a poll and more: at home, nothing follows
            assert other(token).subject
            verifier.seen(token, verifier(token), SYDNEY)
            until(lambda: is_in_doubt(verifier, token))
            until(lambda: is_in_doubt(other, token))


def test_d19_reports_are_few_and_bounded() -> None:
    """A token is reported when it is new or its network changes, eight at a time; what does not fit is dropped."""
    reports = Reports()
    for _ in range(3):
        reports.see("a", "token-a", "145.97.39.155")
        reports.see("a", "token-a", "145.97.39.7")
    assert [(seen.token, seen.network) for seen in reports.take()] == [("token-a", "145.97.39.0/24")]
    assert reports.take() == ()
    reports.see("a", "token-a", "1.128.0.1")
    reports.see("b", "token-b", "10.0.0.1")
    assert [seen.network for seen in reports.take()] == ["1.128.0.0/24"]
    for number in range(200):
        reports.see(f"id-{number}", f"token-{number}", "1.128.0.1")
    assert [len(reports.take()) for _ in range(9)] == [8] * 8 + [0]
    reports.see("c", "x" * 9000, "1.128.0.1")
    reports.see("d", "y" * 9000, "1.128.0.1")
    assert [len(seen.token) for seen in reports.take()] == [9000]


def is_in_doubt_or_valid(verifier: Verifier, token: str) -> bool:
    try:
        return is_in_doubt(verifier, token)
    except InvalidToken:
        return False


def _verifier_key(folder: Path) -> str:
    done = subprocess.run(
        command("verifier", "add", "orders"),
        cwd=folder,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    (key,) = [word for word in done.stdout.split() if word.startswith("ddv1_")]
    return key
