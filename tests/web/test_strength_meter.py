"""The meter beside a new password: it says what the server would say, to anyone, and keeps nothing."""

from __future__ import annotations

import logging

import pytest
from tests.web.test_form_pages import ADA, FORM, PASSWORD, browser

from dutchdoor.web.pages.strength import STRENGTH_PATH

EVE = {"email": "eve.karlsson@example.com", "name": "Eve Zimmermann"}


TYPED = (
    *("short", "password1", "karlsson2026", "Zimmermann 1", "aaaaaaaaaaaa", "correct horse", PASSWORD, "x" * 1025),
    "dutchdoor1",
)


def test_the_meter_says_what_the_form_says() -> None:
    """A level above 0 is accepted, and 0 is refused with the same reason, for the address and the name as typed."""
    levels = set()
    for password in TYPED:
        with browser() as client:
            said = client.post(STRENGTH_PATH, json={"password": password, **EVE}).json()
            sent = client.post("/auth/register", json={"password": password, **EVE})
        assert (sent.status_code == 201) == (said["level"] > 0), password
        if said["level"] == 0:
            assert said["says"] == sent.json()["detail"]
        levels.add(said["level"])
    assert levels == {0, 2, 3}


def test_the_meter_knows_who_is_signed_in() -> None:
    """For a change of the password, the address and the name of the account count, though the form lacks them."""
    with browser() as client:
        bare = client.post(STRENGTH_PATH, json={"password": "karlsson example"}).json()
        client.post("/auth/register", data={**EVE, "password": PASSWORD}, headers=FORM)
        known = client.post(STRENGTH_PATH, json={"password": "karlsson example"}).json()
        assert bare["level"] > 0 and known["level"] == 0


def test_the_meter_is_bounded_and_speaks_the_language_of_the_page(caplog: pytest.LogCaptureFixture) -> None:
    """Signed out too; no row, no log and no header has the password; and an address asks some 200 times at once."""
    caplog.set_level(logging.DEBUG)
    with browser() as client:
        german = client.post(STRENGTH_PATH, json={"password": PASSWORD}, headers={"accept-language": "de"})
        assert german.json() == {"level": 3, "says": "Schwer zu erraten."}
        assert german.headers["cache-control"] == "no-store" and "set-cookie" not in german.headers
        statuses = {client.post(STRENGTH_PATH, json={"password": "short"}).status_code for _ in range(250)}
        assert statuses == {200, 429}
        assert client.post("/auth/register", data=ADA, headers=FORM).status_code == 303  # the form goes on without it
    assert PASSWORD not in caplog.text
