"""Step-up (RFC 9470) in every framework and by every proof, asked over HTTP of real servers."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import httpx2
import pyotp
import pytest
from tests.frameworks.conftest import PASSWORD, App

MODES = ("session", "hybrid", "jwt")
IN_EACH_MODE = ("fastapi", "django")
"""One over ASGI and one over WSGI, with users of ours and of its own. The others in one: each waits for a second."""


def signed_in(client: httpx2.Client, who: dict[str, str], mode: str) -> dict[str, Any]:
    body = {**who, "mode": mode, **({"transport": "body"} if mode == "hybrid" else {})}
    answer = client.post("/auth/login", json=body)
    assert answer.status_code == 200, answer.text
    said: dict[str, Any] = answer.json()
    return said


class Person:
    """One account with an app and recovery codes, and a sign-in of it from before the app."""

    own_users = False
    """Whether the application has users of its own: they type their login besides the password."""

    def __init__(self, client: httpx2.Client, who: dict[str, str], mode: str) -> None:
        self.client, self.who, self.mode = client, who, mode
        self.held = signed_in(client, who, mode)
        with httpx2.Client(base_url=client.base_url, timeout=60) as phone:
            bearer = {"authorization": f"Bearer {signed_in(phone, who, 'jwt')['access_token']}"}
            given = phone.post("/auth/factors/totp/enrol", headers=bearer).json()
            first = {"token": given["token"], "code": pyotp.TOTP(given["secret"]).now()}
            done = phone.post("/auth/factors/totp/confirm", json=first, headers=bearer)
        self.codes: list[str] = done.json()["recovery_codes"]

    @property
    def headers(self) -> dict[str, str]:
        """What a request carries besides the cookie."""
        if self.mode == "session":
            return {"x-csrf-token": self.held["csrf_token"]}
        return {"authorization": f"Bearer {self.held['access_token']}"}

    def prove(self, **proof: str) -> None:
        answer = self.client.post("/auth/reauthenticate", json=proof, headers=self.headers)
        assert answer.status_code == 200, answer.text
        self.held = answer.json()

    def prove_factor(self) -> None:
        self.prove(method="recovery_code", response=self.codes.pop())

    def prove_password(self) -> None:
        self.prove(**{name: value for name, value in self.who.items() if name == "password" or self.own_users})

    def get(self, url: str, **more: str) -> httpx2.Response:
        return self.client.get(url, headers={**self.headers, **more})


def claims(token: str) -> dict[str, Any]:
    body = token.split(".")[1]
    read: dict[str, Any] = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    return read


def steps_up(person: Person, url: str) -> None:
    """Walk one account through both requirements of the application at `url`."""
    refused = person.get(f"{url}/factors")
    assert (refused.status_code, refused.json()["code"]) == (401, "step_up_required")
    assert (refused.json()["factors"], refused.json()["acr_values"]) == (2, "aal2")
    challenge = refused.headers["www-authenticate"]
    assert 'error="insufficient_user_authentication"' in challenge
    assert 'acr_values="aal2"' in challenge
    assert (me := person.get("/auth/me").json())["acr"] == "aal1", me
    person.prove_password()  # one kind of proof, however fresh it is
    assert person.get(f"{url}/factors").status_code == 401
    person.prove_factor()
    assert person.get(f"{url}/factors").status_code == 200
    me = person.get("/auth/me").json()
    assert (me["acr"], me["amr"]) == ("aal2", ["pwd", "otp"])
    if person.mode != "session":
        said = claims(person.held["access_token"])
        assert (said["acr"], said["amr"]) == ("aal2", ["pwd", "otp"])
    if person.mode == "hybrid":
        body = {"refresh_token": person.held["refresh_token"]}
        person.held = person.client.post("/auth/refresh", json=body).json()
        assert claims(person.held["access_token"])["acr"] == "aal2"
        assert person.get(f"{url}/factors").status_code == 200

    until = time.monotonic() + 60
    while (old := person.get(f"{url}/fresh")).status_code == 200:
        assert time.monotonic() < until
        time.sleep(0.1)
    assert (old.status_code, old.json()["max_age"]) == (401, 1)
    assert 'max_age="1"' in old.headers["www-authenticate"]
    proofs = [person.prove_password, person.prove_factor]
    for prove in proofs:
        while True:  # one second is short on a machine that is busy
            prove()
            if person.get(f"{url}/fresh").status_code == 200:
                break
            assert time.monotonic() < until
    assert person.get(f"{url}/factors").status_code == 200


def test_a_step_up_is_asked_for_and_enough(app: App) -> None:
    """A guard that wants two kinds of proof, or a fresh one, says so on the wire; the step-up satisfies it, the session
    and the next access token say what was proved, and a stale proof is asked for again.
    """
    for mode in MODES if app.name in IN_EACH_MODE else MODES[:1]:
        person = Person(app.browser(), app.someone(), mode)
        person.own_users = app.is_django
        steps_up(person, app.url)


def test_a_browser_is_led_to_the_proof_and_back(app: App) -> None:
    """A page that wants two kinds of proof sends a browser to where the application asks for them; the form of our own
    page leads back to it.
    """
    person = Person(app.browser(), app.someone(), "session")
    page = {"accept": "text/html", "sec-fetch-mode": "navigate"}
    led = person.client.get("/factors", headers=page)
    assert (led.status_code, led.headers["location"]) == (303, "/login?next=%2Ffactors&again=1&factors=2")
    assert "recovery_code" in person.client.get("/auth/confirm?next=%2Ffactors&factors=2", headers=page).text
    form = {"method": "recovery_code", "response": person.codes.pop(), "next": "/factors", "factors": "2"}
    own = {"csrf_token": person.held["csrf_token"], **form}
    back = person.client.post("/auth/reauthenticate", data=own, headers={"origin": app.url, **page})
    assert (back.status_code, back.headers["location"]) == (303, "/factors"), back.text
    assert person.client.get("/factors", headers=page).status_code == 200


@pytest.mark.long
def test_a_service_that_verifies_asks_for_a_step_up(server: str, service: App) -> None:
    """A service that only verifies asks in the same words, and the next token of the server satisfies it."""
    for mode in MODES[1:] if service.name in IN_EACH_MODE else MODES[1:2]:
        with httpx2.Client(base_url=server, headers={"user-agent": "Firefox"}, timeout=60) as client:
            who = {"email": f"{service.name}-{mode}@example.com", "password": PASSWORD}
            assert client.post("/auth/register", json=who).status_code == 201
            steps_up(Person(client, who, mode), service.url)
