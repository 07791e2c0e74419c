"""What a stranger gets wrong over HTTP: each answer names the problem and the fix, by a code that the reference has."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.http.world import PASSWORD, World, a_world, basic

ROOT = Path(__file__).parents[2]
CODES = set(re.findall(r"`([a-z_]+)`", (ROOT / "docs" / "reference" / "errors.md").read_text()))
JSON, LOGIN = [("content-type", "application/json")], "/auth/login"


@pytest.fixture
async def signed_in(world: World) -> str:
    """An administrator's access token."""
    await world.make_admin()
    answer = await world.call(
        "POST", LOGIN, json={"email": "root@example.com", "password": PASSWORD, "mode": "hybrid", "transport": "body"}
    )
    token: str = answer.json["access_token"]
    return token


async def test_each_endpoint_names_what_is_wrong_with_a_request(world: World, signed_in: str) -> None:
    """On each path: another method, a slash too many, a parameter of no one; and on each that reads JSON: no body,
    broken JSON, a list, a field of another name, another type, compression, and too many bytes.
    """
    long = b'"' + b"x" * 70_000 + b'"'
    for route in world.auth.api.routes:
        path = re.sub(r"\{\w+\}", "x", route.path)
        if route.probe or route.demands == "verifier" or path == "/":
            continue
        for method, sent, code, says in (
            ("PATCH", path, {"method_not_allowed", "invalid_request"}, route.method),
            (route.method, f"{path}?bogus=1", {"invalid_input"}, "This parameter is not known. Th"),
            (route.method, f"{path}/", {"not_found", "invalid_request"}, f"is {path}, without a slash"),
        ):
            if ("{" in route.path and sent.endswith("/")) or (route.form and "?" in sent) or route.query_of_another:
                continue
            answer = await world.call(method, sent, bearer=signed_in)
            assert (answer.code in code, says in answer.body.decode()) == (True, True), (sent, answer)
        if route.body is None or route.optional_body or route.page is not None:
            continue
        for body, kind, code, says in (
            (b"", JSON, "malformed_json", "The body is empty. It is a JSON object with the fields "),
            (b"{nope", JSON, "malformed_json", "The body is not valid JSON, at byte 1."),
            (b"[]", JSON, "invalid_input", "The body must be an object."),
            (b'{"bogus": 1}', JSON, "invalid_input", "This field is not known. The fields are "),
            (b"{}", [], "unsupported_media_type", "as application/json, and name this type"),
            (b"{}", [*JSON, ("content-encoding", "gzip")], "unsupported_media_type", "without compression"),
            (b"{}", [("content-type", "application/json; charset=latin-1")], "unsupported_media_type", "UTF-8"),
            (long, JSON, "too_large", f"may have {route.body_at_most} bytes"),
        ):
            answer = await world.call(route.method, path, body=body, headers=kind, bearer=signed_in)
            assert (answer.code, says in answer.json["detail"]) == (code, True), (path, answer)
            assert code in CODES


def test_each_code_of_an_error_is_in_the_reference() -> None:
    """A stranger who has an answer finds its code."""
    sources = "".join(path.read_text() for path in (ROOT / "src" / "dutchdoor").rglob("*.py"))
    used = set(re.findall(r"\bcode ?= ?\"([a-z_]+)\"", sources)) - {"error"}
    assert used > {"malformed_json", "not_found"}
    assert used - CODES == set()


@pytest.mark.parametrize(
    ("since", "says"),
    [
        ("yesterday", "This must be an instant such as 2026-11-30T08:00:00Z."),
        ("2026-01-01T00:00:00", "This must be an instant such as 2026-11-30T08:00:00Z."),
        (5, "This must be an instant such as 2026-11-30T08:00:00Z."),
    ],
)
async def test_an_instant_is_shown_as_it_is_written(world: World, signed_in: str, since: object, says: str) -> None:
    """A field that has a form of its own is refused with an example."""
    answer = await world.call("POST", "/admin/api/webhooks/x/replay", json={"since": since}, bearer=signed_in)
    assert (answer.status, answer.json["field"], answer.json["detail"]) == (422, "since", says)


@pytest.mark.parametrize("value", ["Token abc", "eyJ.eyJ.abc"])
async def test_a_token_without_the_word_bearer_is_named(world: World, value: str) -> None:
    """The most usual slip of a program. With HTTP Basic, which a proxy may want, the answer is as without it."""
    answer = await world.call("GET", "/auth/me", headers=[("authorization", value)])
    assert "in the header Authorization, after the word Bearer." in answer.json["detail"]
    assert (await world.call("GET", "/auth/me", headers=[basic(("a", "b"))])).json["detail"] == "Sign in to continue."


async def test_a_client_is_not_asked_to_sign_in(world: World) -> None:
    """A program with wrong credentials, or none, reads about them. An unknown client and a wrong secret are one."""
    client, secret = await world.add_client()
    wrong = {"error": "invalid_client", "error_description": "The client id or the client secret is not right."}
    other = ("A" if secret[-1] != "A" else "B") + secret[-1:]
    for credentials in ((client, "x"), (client, secret[:-1] + other[0]), ("nope", secret)):
        answer = await world.call("POST", "/oauth2/introspect", form={"token": "x"}, headers=[basic(credentials)])
        assert (answer.status, answer.json) == (401, wrong)
    form = {"grant_type": "refresh_token", "refresh_token": "x", "client_id": client}
    answer = await world.call("POST", "/oauth2/token", form=form)
    assert answer.json["error_description"] == "Authenticate the client by HTTP Basic."


@pytest.fixture
async def below() -> AsyncIterator[World]:
    async with a_world(base_path="/id") as made:
        yield made


async def test_a_path_outside_of_the_base_path_is_named(below: World) -> None:
    """Where all paths have a prefix, the refusal of a request without it says so; and the path that is shown has it."""
    for path, says in (
        ("/auth/me", "All paths of this server begin with /id."),
        ("/id/auth/me/", "This path is /id/auth/me, without a slash at its end."),
        ("/id/nope", "There is no such path."),
    ):
        answer = await below.call("GET", path)
        assert (answer.status, answer.code, answer.json["detail"]) == (404, "not_found", says)
