"""The console: who sees its pages, and what each of its acts demands. New pages and acts fall under these laws."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any, TypeVar
from urllib.parse import quote

import pytest
from starlette.testclient import TestClient
from tests.web.test_form_pages import ADA, FORM, PAGE, PASSWORD
from tests.web.test_pages import Elements

from dutchdoor.auth import Auth
from dutchdoor.credentials.password import CHEAPEST, PasswordHasher
from dutchdoor.errors import Misconfigured
from dutchdoor.model.http_client import Client
from dutchdoor.model.policy import Policy
from dutchdoor.testing.clock import Clock
from dutchdoor.web.api import Route

T = TypeVar("T")

ROOT = {"email": "root@example.com", "password": PASSWORD}


def of_console(auth: Auth) -> list[Route]:
    routes = [route for route in auth.api.routes if re.match(r"/admin(?:/(?!api/)|\Z)", route.path)]
    assert routes
    return routes


class Console:
    """One server with its console, an administrator, and an account without roles."""

    def __init__(self, auth: Auth, clock: Clock) -> None:
        self.auth, self.clock, self.app = auth, clock, auth.asgi()
        self.open = self.anyone()
        """Keeps the store open."""

    def anyone(self) -> TestClient:
        return TestClient(self.app, headers=PAGE, follow_redirects=False)

    def one(self, who: dict[str, str] = ROOT) -> TestClient:
        client = self.anyone()
        assert client.post("/auth/login", data=who, headers=FORM).status_code == 303
        return client

    def call(self, verb: Callable[..., Awaitable[T]], *given: Any, **named: Any) -> T:
        """Call a verb of the services, or of the store."""
        assert self.open.portal is not None
        return self.open.portal.call(partial(verb, *given, **named))


@pytest.fixture
def console() -> Iterator[Console]:
    clock = Clock()
    found = Console(Auth("memory:", console=True, hasher=PasswordHasher(CHEAPEST), clock=clock), clock)
    with found.open:
        for who, roles in ((ROOT, ("admin",)), (ADA, ())):
            made = partial(found.auth.directory.admin.create, roles=roles, client=Client(), actor="cli")
            found.call(made, who["email"], password=who["password"])
        yield found


def path_of(route: Route) -> str:
    """The path of a route, with ids that are not there."""
    return re.sub(r"\{\w+\}", "nothing-with-this-id", route.path)


def token_of(client: TestClient) -> str:
    (token,) = set(re.findall(r'name="csrf_token" value="([^"]*)"', client.get("/admin").text))
    return str(token)


def test_only_an_administrator_sees_a_page(console: Console) -> None:
    """Signed out, a browser is sent to sign in and back; an account without the role gets the page of the error 403; a
    program, and a token of an administrator, get what programs get.
    """
    ada, root = console.one(ADA), console.one()
    token = console.anyone().post("/auth/login", json={**ROOT, "mode": "jwt"}).json()["access_token"]
    for route in of_console(console.auth):
        if route.method == "GET":
            path = path_of(route)
            sent = console.anyone().get(path + "?done=x")
            assert sent.headers["location"] == f"/auth/login?next={quote(path + '?done=x', safe='')}"
            refused = ada.get(path)
            assert refused.status_code == 403 and "<h1>" in refused.text, path
            assert console.anyone().get(path, headers={"sec-fetch-mode": "cors"}).status_code == 401
            bearer = {"authorization": f"Bearer {token}", "sec-fetch-mode": "cors"}
            assert console.anyone().get(path, headers=bearer).status_code in {401, 404}, path
            assert root.get(path).status_code == (404 if "nothing" in path else 200), path


def test_each_act_demands_each_of_its_proofs(console: Console) -> None:
    """Each POST is refused without the CSRF token, with that of another session, from another site, to a signed-out
    browser, to an account without the role, and after a sign-in of long ago. None is done by GET. Nothing is changed.
    """
    ada, root, other = console.one(ADA), console.one(), console.one()
    whole, foreign = {"csrf_token": token_of(root)}, {"csrf_token": token_of(other)}
    shown = {route.path for route in of_console(console.auth) if route.method == "GET"}
    acts = [route for route in of_console(console.auth) if route.method == "POST"]
    before = console.call(console.auth.store.counts)
    for route in acts:
        path = path_of(route)
        if route.path not in shown:
            assert root.get(path).status_code == 405, path
        for fields in ({"x": "1"}, foreign, {"csrf_token": ""}):
            refused = root.post(path, data=fields, headers=FORM)
            assert refused.status_code == 403 and "This form has expired." in refused.text, path
        for origin, site in (
            ("https://evil.example", "cross-site"), ("http://sibling.testserver", "same-site"), ("null", "cross-site"),
        ):  # fmt: skip
            sent = root.post(path, data=whole, headers={**FORM, "origin": origin, "sec-fetch-site": site})
            assert sent.status_code == 403, path
        sent = console.anyone().post(path, data=whole, headers=FORM)
        assert (sent.status_code, sent.headers["location"].split("?")[0]) == (303, "/auth/login"), path
        assert ada.post(path, data=whole, headers=FORM).status_code == 403, path
    console.clock.advance(console.auth.authority.policy.step_up_for + 1)
    for route in acts:
        form = {**FORM, "referer": "http://testserver/admin?done=x"}
        sent = root.post(path_of(route), data=whole, headers=form)
        assert sent.headers["location"] == "/auth/confirm?next=%2Fadmin%3Fdone%3Dx", route.path
    assert console.call(console.auth.store.counts) == before


def test_every_link_of_the_console_leads_to_a_page(console: Console) -> None:
    """Each page has one h1, nothing inline, and no link or form that leads nowhere; it marks where it is."""
    root = console.one()
    for route in of_console(console.auth):
        if route.method == "POST" or "{" in route.path:
            continue
        answer = root.get(route.path)
        if not answer.headers["content-type"].startswith("text/html"):
            continue  # a file
        elements = Elements(answer.text)
        assert len(elements.all("h1")) == 1, route.path
        assert [each for each in elements.all("a") if each.get("aria-current")], route.path
        for _, attributes in elements.found:
            assert not {key for key in attributes if key == "style" or key.startswith("on")}, route.path
        for link in elements.all("a"):
            assert root.get(link["href"]).status_code == 200, (route.path, link)
        for form in elements.all("form"):
            if form.get("method") == "post":  # there, and behind its checks
                assert root.post(form["action"], data={"x": "1"}, headers=FORM).status_code == 403, (route.path, form)


@pytest.mark.parametrize("base", ["", "/id"])
def test_the_console_is_where_it_is_asked_for(base: str) -> None:
    """In an application `/admin` is the application's, unless it asks for the console: then it and what is below are of
    the API, below the base path. `/admin/api/` is always of the API.
    """
    without, there = (Auth("memory:", base_path=base, console=asked) for asked in (False, True))
    for path in ("/admin", "/admin/", "/admin/accounts/x/disable"):
        assert (without.owns(base + path), there.owns(base + path)) == (False, True), path
    assert without.owns(f"{base}/admin/api/accounts") and not there.owns(f"{base}/administrators")
    with TestClient(without.asgi(), headers=PAGE) as client:
        assert client.get(f"{base}/admin").status_code == 404
    with TestClient(there.asgi(), headers=PAGE, follow_redirects=False) as client:
        sent = client.get(f"{base}/admin").headers["location"]
        assert sent == f"{base}/auth/login?next={quote(f'{base}/admin', safe='')}"


def test_a_console_without_sessions_is_refused() -> None:
    """A browser proves itself to the console by a session cookie only: without the mode, there is none to show."""
    with pytest.raises(Misconfigured, match="Add session to the modes"):
        Auth("memory:", console=True, policy=Policy(modes=("hybrid",)))
