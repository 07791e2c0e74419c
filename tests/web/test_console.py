"""The console: who sees its pages, and what each of its acts demands. New pages and acts fall under these laws."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any, TypeVar
from urllib.parse import quote

import pytest
from msgspec.structs import replace
from starlette.testclient import TestClient
from tests.standins import MASTER, Watched
from tests.web.test_form_pages import ADA, FORM, PAGE, PASSWORD
from tests.web.test_pages import Elements

from dutchdoor.auth import Auth
from dutchdoor.credentials.password import CHEAPEST, PasswordHasher
from dutchdoor.errors import Misconfigured
from dutchdoor.model.http_client import Client
from dutchdoor.model.policy import Policy
from dutchdoor.services.external_users import ExternalUsers
from dutchdoor.stores.base import Add, Log
from dutchdoor.stores.memory import MemoryStore
from dutchdoor.testing.clock import Clock
from dutchdoor.testing.conformance import a_credential, a_session, an_account, an_event
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
    named = "?id=nothing-with-this-id" if "id" in route.query else ""
    return re.sub(r"\{\w+\}", "nothing-with-this-id", route.path) + named


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
            noted = f"{path}{'&' if '?' in path else '?'}done=x"
            sent = console.anyone().get(noted)
            assert sent.headers["location"] == f"/auth/login?next={quote(noted, safe='')}"
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
        if route.method == "POST" or "nothing" in path_of(route):
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


SCRIPT, IMAGE = "<script>document.title='owned'</script>", '"><img src=x onerror=alert(1)>'
TRICKS = (SCRIPT, IMAGE, "\u202eevil\u2066", "W" * 10_000, *["Firefox on Linux"] * 4)


def test_a_page_asks_no_more_for_a_thousand_rows_than_for_ten() -> None:
    """Each page of accounts asks the store a number of questions that does not depend on how many rows there are, and
    shows a bounded number of them; what people and programs call themselves is text in every table.
    """
    store = Watched(MemoryStore())
    found = Console(Auth(store, console=True, hasher=PasswordHasher(CHEAPEST), master_key=MASTER), Clock())  # type: ignore[arg-type]
    with found.open:
        make = partial(found.auth.directory.admin.create, client=Client(), actor="cli", password=PASSWORD)
        found.call(make, ROOT["email"], roles=("admin",))
        ada = found.call(make, ADA["email"])
        root, asked = found.one(), []
        for rows in (10, 1000):
            people = [replace(an_account(f"w{n}-{rows}"), name=TRICKS[n % 8][:200]) for n in range(rows)]
            sessions = [replace(a_session(ada), device=TRICKS[n % 8], client_id=TRICKS[n % 8]) for n in range(rows)]
            live = [replace(each, expires_at=4e9, idle_expires_at=4e9) for each in sessions]
            events = [replace(an_event(ada.subject), device=TRICKS[n % 8], detail=TRICKS[n % 8]) for n in range(rows)]
            found.call(store.commit, *map(Add, [*people, *live]), *map(Log, events))
            for path in (
                "/admin/accounts", "/admin/accounts?search=w", "/admin/accounts?status=unverified",
                "/admin/accounts?status=admin", f"/admin/accounts/one?id={ada.subject}",
            ):  # fmt: skip
                root.get(path)
                store.calls.clear()
                page = root.get(path)
                assert page.status_code == 200, page.text
                asked.append((path, tuple(store.calls)))
                assert page.text.count("<tr>") <= 130 and len(page.content) < 5_000_000
                assert "<script>document" not in page.text and "<img src=x" not in page.text
                elements = Elements(page.text)
                assert not [each for _, each in elements.found if {"onerror", "style"} & each.keys()]
        assert asked[:5] == asked[5:]
        assert max(len(calls) for _, calls in asked) <= 7, asked


def acted(console: Console, client: TestClient, act: str, status: int = 303, **fields: str) -> str:
    """Send the form of an act, and return the page that the browser is shown then."""
    form = {**fields, "csrf_token": token_of(client)}
    done = client.post(
        f"/admin/accounts{act}", data=form, headers={**FORM, "referer": "http://testserver/admin/accounts"}
    )
    assert done.status_code == status, done.text
    return str(client.get(done.headers["location"]).text if status == 303 else done.text)


def test_an_administrator_does_to_an_account_what_its_page_offers(console: Console) -> None:
    """Each act does what it says, says whether it is in force everywhere, and is in the audit log by the administrator
    who did it.
    """
    root, ada = console.one(), console.one(ADA)
    store = console.auth.store
    account = console.call(store.account_by_email, ADA["email"])
    assert account is not None
    of = {"subject": account.subject}
    assert "In force everywhere" in acted(console, root, "/roles", **of, roles="staff admin").replace("It is in", "In")
    assert ada.get("/admin").status_code == 200
    assert "The roles were changed." in acted(console, root, "/roles", **of, roles="")
    assert ada.get("/admin").status_code == 403
    (live,) = console.call(console.auth.authority.sessions, account.subject)
    assert "The sign-in was ended." in acted(console, root, "/end", **of, session=live.id)
    assert ada.get("/auth/devices").status_code == 303
    ada = console.one(ADA)
    assert "signed out everywhere" in acted(console, root, "/sign-out", **of)
    assert ada.get("/auth/devices").status_code == 303
    assert "link to a new password was mailed" in acted(console, root, "/reset", **of)
    app = replace(a_credential(account), method="totp", proof="sealed")
    console.call(store.commit, Add(app))
    factor = {**of, "method": "totp"}
    assert 'name="method" value="totp"' in root.get(f"/admin/accounts/one?id={account.subject}").text
    assert "The second factor was removed." in acted(console, root, "/factor", **factor)
    assert "There is no such second factor." in acted(console, root, "/factor", 404, **factor)
    assert "There is no such second factor." in acted(console, root, "/factor", 404, **of, method="password")
    assert "The account was disabled." in acted(console, root, "/disable", **of)
    assert console.anyone().post("/auth/login", data=ADA, headers=FORM).status_code == 401
    assert 'value="' + account.subject in root.get(f"/admin/accounts/one?id={account.subject}").text
    assert "The account was enabled." in acted(console, root, "/enable", **of)
    console.one(ADA)
    made = acted(console, root, "", email="new@example.com", name="New", roles="staff")
    assert "The account was created" in made and "<h1><bdi>new@example.com</bdi></h1>" in made
    assert "The account was deleted." in acted(console, root, "/delete", **of)
    assert root.get(f"/admin/accounts/one?id={account.subject}").status_code == 404
    names = {(event.name, event.actor) for event in console.call(store.events, limit=100)}
    own = console.call(store.account_by_email, ROOT["email"])
    assert own is not None
    for name in ("roles_changed", "session_ended", "password_reset_requested", "account_disabled",
                 "account_enabled", "account_created", "factor_removed"):  # fmt: skip
        assert (name, own.subject) in names, name


def test_what_an_administrator_may_not_do_is_said_on_a_page(console: Console) -> None:
    """No one takes away their own access or that of the last administrator; a wrong role, a taken address, a session
    of another account and an account that is not there are refused with the reason and the way back.
    """
    root, store = console.one(), console.auth.store
    own, ada = (console.call(store.account_by_email, who["email"]) for who in (ROOT, ADA))
    assert own is not None and ada is not None
    (mine,) = console.call(console.auth.authority.sessions, own.subject)
    for act, status, fields, words in (
        ("/disable", 403, {"subject": own.subject}, "You cannot remove your own access."),
        ("/roles", 403, {"subject": own.subject, "roles": "staff"}, "You cannot remove your own access."),
        ("/delete", 403, {"subject": own.subject}, "You cannot remove your own access."),
        ("/roles", 422, {"subject": ada.subject, "roles": "a,b"}, "A role is 1 to 64 letters"),
        ("/roles", 422, {"subject": ada.subject, "roles": " ".join(f"r{n}" for n in range(33))}, "at most 32 roles"),
        ("/end", 404, {"subject": ada.subject, "session": mine.id}, "does not exist"),
        ("/sign-out", 404, {"subject": "nobody"}, "does not exist"),
        ("/reset", 404, {"subject": "nobody"}, "does not exist"),
    ):
        page = acted(console, root, act, status, **fields)
        assert words in page and 'href="/admin/accounts"' in page, act
    page = acted(console, root, "", 409, email=ADA["email"], name="Ada 2", roles="staff")
    assert 'value="Ada 2"' in page and 'value="staff"' in page and 'role="alert"' in page
    assert 'aria-invalid="true"' in acted(console, root, "", 422, email="new@example.com", roles="a,b")
    assert console.call(store.account_by_email, "new@example.com") is None
    assert root.get("/admin/accounts/one?id=nobody").status_code == 404
    assert root.get("/admin/accounts?status=gone").status_code == 200
    assert root.get("/admin/accounts?after=x").status_code == 422


def test_a_list_of_accounts_goes_on_where_it_ended(console: Console) -> None:
    """Accounts are found by how a word begins, and by status; a link leads to the next page."""
    people = [replace(an_account(f"zoe{n:03}"), created_at=float(n)) for n in range(150)]
    console.call(console.auth.store.commit, *map(Add, people))
    root = console.one()
    for path in ("/admin/accounts?search=zoe", "/admin/accounts?status=active", "/admin/accounts"):
        first = root.get(path).text
        (following,) = re.findall(r'href="([^"]*)" rel="next"', first)
        second = root.get(following.replace("&amp;", "&")).text
        found = re.findall(r"<bdi>(zoe\d+)@example.com</bdi></a>", first + second)
        assert len(found) == len(set(found)) == 150 and 'rel="next"' not in second, path
    assert "There are no such accounts." in root.get("/admin/accounts?search=oe001").text


def test_accounts_of_the_application_are_its_own() -> None:
    """Where the application has its users and their roles, the console neither creates accounts nor sets roles or
    passwords; it shows an account whatever its id is.
    """
    users = ExternalUsers(authenticate=lambda login, _: login, load=lambda id: id, roles=lambda _: ("admin",))
    auth = Auth("memory:", console=True, users=users)
    paths = {route.path for route in of_console(auth) if route.method == "POST"}
    assert "/admin/accounts/disable" in paths
    assert not {"/admin/accounts", "/admin/accounts/roles", "/admin/accounts/reset"} & paths
    client = TestClient(auth.asgi(), headers=PAGE, follow_redirects=False)
    with client:
        odd = "auth0|a/b?c#d&e"
        assert client.post("/auth/login", data={"email": odd, "password": "x"}, headers=FORM).status_code == 303
        listed = client.get("/admin/accounts").text
        (link,) = re.findall(r'<a href="(/admin/accounts/one[^"]*)"', listed)
        page = client.get(link).text
        assert "auth0|a/b?c#d&amp;e" in page and "Create an account" not in listed
        assert "/admin/accounts/roles" not in page and "/admin/accounts/reset" not in page
