"""Django's own log-in, admin, permissions and views over sessions of dutchdoor, with Django's test client."""

from __future__ import annotations

import asyncio
import queue
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any

import pytest
from tests.frameworks.django_site import SETTINGS

# isort: split
from asgiref.sync import async_to_sync
from django.conf import settings
from django.contrib.auth.models import AbstractUser, Group, User
from django.core.handlers.asgi import ASGIRequest
from django.core.management import CommandError, call_command
from django.test import AsyncClient, Client, RequestFactory, TestCase, override_settings
from django.test.utils import setup_test_environment, teardown_test_environment
from django.urls import Resolver404, resolve, reverse
from tests.frameworks import django_urls

from dutchdoor import Policy
from dutchdoor.client.dpop import Nonces, ProofKey
from dutchdoor.django import AuditEvent, auth
from dutchdoor.django.asked import asked_of
from dutchdoor.django.checks import check_project
from dutchdoor.django.configuration import gate
from dutchdoor.errors import Misconfigured, Unavailable
from dutchdoor.model.bindings import ProvedKey
from dutchdoor.model.http_client import Client as HttpClient
from dutchdoor.model.principal import Verified

PASSWORD = "a door in two halves"


@pytest.fixture(scope="module", autouse=True)
def project() -> Iterator[None]:
    """The tables of the project, and its engine."""
    setup_test_environment()
    call_command("migrate", verbosity=0)
    yield
    auth.close()
    teardown_test_environment()


_numbers = iter(range(1, 1000))


@pytest.fixture
def ada() -> AbstractUser:
    return User.objects.create_user(f"ada{next(_numbers)}", password=PASSWORD)


def signed_in(user: AbstractUser, **options: Any) -> Client:
    """A browser that signed in on the page of Django."""
    client = Client(**options)
    answer = client.post("/sign-in/", {"username": user.username, "password": PASSWORD})
    assert answer.status_code == 302, answer.content
    return client


def is_in(client: Client) -> bool:
    return client.get("/hello").status_code == 200


def token_of(user: AbstractUser, key: ProofKey | None = None) -> str:
    """An access token of a user who has signed in before, bound to a key if there is one."""
    client = HttpClient() if key is None else HttpClient(proved=ProvedKey(key.thumbprint, "ES256"))

    async def start() -> str:
        authority = auth.engine.authority
        account = await authority.provide(str(user.pk))
        proof = Verified(subject=account.subject, epoch=account.epoch, amr=("pwd",), at=authority.clock())
        return (await authority.start(proof, mode="hybrid", client=client)).access_token

    return gate().run(start())


def bearer(token: str) -> dict[str, Any]:
    return {"headers": {"authorization": f"Bearer {token}"}}


# --- log-in and log-out ----------------------------------------------------------------------------------------------


def test_a_log_in_of_django_is_a_session_of_ours(ada: AbstractUser) -> None:
    """`login()` starts a session that the API lists, and `logout()` ends it and clears both cookies."""
    client = signed_in(ada)
    assert client.get("/hello").json() == {"hello": ada.username, "subject": str(ada.pk)}
    listed = client.get("/auth/sessions").json()["sessions"]
    assert [each["current"] for each in listed] == [True]
    held = client.cookies["dd_session"].value
    assert client.get("/sign-out").json() == {"user": "", "principals": [True, False]}, "in the same view, too"
    assert client.cookies["dd_session"].value == client.cookies["sessionid"].value == ""
    assert not is_in(client)
    thief = Client()
    thief.cookies["dd_session"] = held
    assert not is_in(thief)


def test_a_second_log_in_replaces_the_first(ada: AbstractUser) -> None:
    """A browser that signs in anew has one session, with another id: a planted cookie is worthless afterwards."""
    client = signed_in(ada)
    first = client.cookies["dd_session"].value
    assert client.post("/sign-in/", {"username": ada.username, "password": PASSWORD}).status_code == 302
    assert client.cookies["dd_session"].value != first
    assert len(client.get("/auth/sessions").json()["sessions"]) == 1


def test_the_cookie_alone_signs_in(ada: AbstractUser) -> None:
    """The session cookie names the user without Django's own, and so does a token; a cookie of no one names no one."""
    client = signed_in(ada)
    other = Client()
    other.cookies["dd_session"] = client.cookies["dd_session"].value
    assert is_in(other)
    assert Client().get("/hello", **bearer(token_of(ada))).json()["hello"] == ada.username
    other.cookies["dd_session"] = "dds1_" + "A" * 48
    assert not is_in(other)


def test_the_test_client_signs_in_without_a_page(ada: AbstractUser) -> None:
    """`force_login` and `login` of Django's test client start sessions, and `logout` ends them."""
    client = Client()
    client.force_login(ada)
    assert client.get("/hello").json()["subject"] == str(ada.pk)
    client.logout()
    assert not is_in(client)
    assert client.login(username=ada.username, password=PASSWORD)
    assert is_in(client)
    client = signed_in(ada)
    for user in (ada, User.objects.create_user(f"eve{next(_numbers)}", password=PASSWORD)):
        client.force_login(user)
        assert client.get("/hello").json()["subject"] == str(user.pk)


def test_nobody_behind_a_proxy_is_taken_for_the_test_client() -> None:
    """A client behind a proxy of uvicorn has the port 0, and anyone may send `Host: testserver`: they are counted by
    their address as everyone else.
    """
    sent = {
        "type": "http", "method": "POST", "path": "/auth/login", "query_string": b"", "scheme": "http",
        "headers": [(b"host", b"testserver")], "client": ("203.0.113.5", 0), "server": ("127.0.0.1", 8000),
    }  # fmt: skip
    assert asked_of(ASGIRequest(sent, BytesIO())).peer == "203.0.113.5"


async def test_async_views_know_the_user(ada: AbstractUser) -> None:
    """`await request.auser()` and `auth.require` work in coroutines, under Django's asynchronous handler."""
    client = AsyncClient()
    await client.aforce_login(ada)
    assert (await client.get("/ahello")).json() == {"hello": ada.username}
    refused = await client.get("/aeditors")
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    answers = await asyncio.gather(*(client.get("/ahello") for _ in range(10)))
    assert {answer.json()["hello"] for answer in answers} == {ada.username}


class TestInATransaction(TestCase):
    """Django's own kind of test, whose rows no other thread sees."""

    def test_the_api_signs_in_a_user_of_this_transaction(self) -> None:
        """`/auth/login` and `/auth/refresh` find a user whom only the transaction of the test has."""
        User.objects.create_user("grace", password=PASSWORD)
        grace = {"email": "grace", "password": PASSWORD, "mode": "hybrid", "transport": "body"}
        held = self.client.post("/auth/login", grace, content_type="application/json").json()
        assert self.client.get("/hello", **bearer(held["access_token"])).json()["hello"] == "grace"
        token = {"refresh_token": held["refresh_token"]}
        assert self.client.post("/auth/refresh", token, content_type="application/json").status_code == 200


# --- changes of the user ---------------------------------------------------------------------------------------------


def test_a_changed_password_ends_the_other_sessions(ada: AbstractUser) -> None:
    """Who changes the password stays in, under a new id; every other session and token ends."""
    client, other, token = signed_in(ada), signed_in(ada), token_of(ada)
    before = client.cookies["dd_session"].value
    form = {"old_password": PASSWORD, "new_password1": "two halves of a door", "new_password2": "two halves of a door"}
    assert client.post("/password/", form).status_code == 302
    assert is_in(client) and client.cookies["dd_session"].value != before
    assert not is_in(other)
    assert Client().get("/api/whole", **bearer(token)).status_code == 401


def _saved(user: AbstractUser) -> None:
    user.set_password("two halves of a door")
    user.save()


def _updated(user: AbstractUser) -> None:
    user.set_password("two halves of a door")
    User.objects.filter(pk=user.pk).update(password=user.password)


def _disabled(user: AbstractUser) -> None:
    user.is_active = False
    user.save()


@pytest.mark.parametrize(
    "change",
    [
        _saved,
        _updated,
        _disabled,
        lambda user: User.objects.filter(pk=user.pk).update(is_active=False),
        lambda user: user.delete(),
        lambda user: User.objects.filter(pk=user.pk).delete(),
    ],
    ids=["saved", "updated", "disabled", "disabled by update", "deleted", "deleted by query"],
)
def test_a_changed_user_is_signed_out_at_the_next_request(
    ada: AbstractUser, change: Callable[[AbstractUser], object]
) -> None:
    """A new password, `is_active = False` and a removal end sessions and tokens, also where no signal reported it."""
    client, token, subject = signed_in(ada), token_of(ada), str(ada.pk)
    guarded = signed_in(ada)
    assert is_in(client) and guarded.get("/fresh").status_code == 200
    change(ada)
    assert guarded.get("/fresh").status_code == 401
    assert not is_in(client)
    assert Client().get("/api/whole", **bearer(token)).status_code == 401
    assert gate().run(auth.engine.authority.sessions(subject)) == []


def test_a_change_that_concerns_no_session_ends_none(ada: AbstractUser) -> None:
    """A new name leaves a session alone, and so does another secret key that the project lists as a fallback."""
    client = signed_in(ada)
    ada.first_name = "Ada"
    ada.save()
    assert is_in(client)
    with override_settings(
        SECRET_KEY="another secret of the project" * 2, SECRET_KEY_FALLBACKS=[SETTINGS["SECRET_KEY"]]
    ):
        assert is_in(client)
        ada.save()
        assert is_in(client)


def test_groups_are_roles(ada: AbstractUser) -> None:
    """The groups of a user are the roles of the account, at once in a session; tokens from before are stale."""
    client, token = signed_in(ada), token_of(ada)
    assert client.get("/editors").json()["code"] == "forbidden"
    editors, _ = Group.objects.get_or_create(name="editors")
    ada.groups.add(editors)
    assert client.get("/editors").json() == {"edits": True}
    assert Client().get("/api/scoped", **bearer(token)).json()["code"] == "token_stale"
    for lose in (lambda group: group.user_set.remove(ada), lambda group: group.user_set.clear(), Group.delete):
        lose(editors)
        assert client.get("/editors").json()["code"] == "forbidden"
        editors, _ = Group.objects.get_or_create(name="editors")
        editors.user_set.add(ada)
        assert client.get("/editors").json() == {"edits": True}
    editors.name = "writers"
    editors.save()
    assert client.get("/editors").json()["code"] == "forbidden"


# --- session data ----------------------------------------------------------------------------------------------------

ENGINES = pytest.mark.parametrize(
    "engine", ["dutchdoor.django.sessions", "django.contrib.sessions.backends.db"], ids=["ours", "db"]
)


@ENGINES
def test_a_basket_survives_the_log_in_under_another_id(ada: AbstractUser, engine: str) -> None:
    """What a visitor has kept is there after the log-in under another key, by the page and by the API, and the old key
    finds nothing.
    """
    with override_settings(SESSION_ENGINE=engine):
        for sign_in in (
            lambda client: client.post("/sign-in/", {"username": ada.username, "password": PASSWORD}),
            lambda client: client.post(
                "/auth/login",
                {"email": ada.username, "password": PASSWORD, "mode": "session"},
                content_type="application/json",
            ),
        ):
            client = Client()
            assert client.get("/keep?basket=tea").json() == {"basket": "tea"}
            before = client.cookies["sessionid"].value
            assert sign_in(client).status_code in {200, 302}
            assert client.cookies["sessionid"].value != before
            assert client.get("/keep").json() == {"basket": "tea"} and is_in(client)
            thief = Client()
            thief.cookies["sessionid"] = before
            assert thief.get("/keep").json() == {}
            assert sign_in(client).status_code in {200, 302}, "a second time"
            assert client.get("/keep").json() == {"basket": "tea"}


@ENGINES
@pytest.mark.parametrize("first", ["page", "api"])
@pytest.mark.parametrize("second", ["page", "api"])
@pytest.mark.parametrize("ended", [False, True], ids=["live", "ended"])
def test_the_next_user_of_a_browser_finds_nothing(
    ada: AbstractUser, engine: str, first: str, second: str, ended: bool
) -> None:
    """A user who signs in where another was signed in gets nothing of what that user has kept, by the page and by the
    API, also after the first session has ended; the same user keeps it.
    """

    def sign_in(user: AbstractUser, way: str) -> None:
        path, form = "/sign-in/", {"username": user.username, "password": PASSWORD}
        if way == "api":
            path, form = "/auth/login", {"email": user.username, "password": PASSWORD, "mode": "session"}
        kind = {"content_type": "application/json"} if way == "api" else {}
        assert client.post(path, form, **kind).status_code in {200, 302}

    bob = User.objects.create_user(f"bob{next(_numbers)}", password=PASSWORD)
    with override_settings(SESSION_ENGINE=engine):
        client = Client()
        sign_in(ada, first)
        assert client.get("/keep?secret=hers").json() == {"secret": "hers"}
        if ended:
            gate().run(auth.engine.authority.end_all(str(ada.pk), client=HttpClient(), actor="a test"))
        else:
            sign_in(ada, second)
            assert client.get("/keep").json() == {"secret": "hers"}
        sign_in(bob, second)
        assert client.get("/hello").json()["hello"] == bob.username
        assert client.get("/keep").json() == {}


@ENGINES
@pytest.mark.parametrize("way", ["page", "api", "elsewhere"])
def test_a_log_out_leaves_no_data(ada: AbstractUser, engine: str, way: str) -> None:
    """After a log-out by the page or by the API there is no data under the key, and with our engine none either after
    the session was ended from elsewhere.
    """
    if way == "elsewhere" and engine.startswith("django"):
        return  # Django's table knows nothing of that
    with override_settings(SESSION_ENGINE=engine):
        client = signed_in(ada)
        assert client.get("/keep?basket=tea").json() == {"basket": "tea"}
        held = client.cookies["sessionid"].value
        if way == "page":
            client.get("/sign-out")
        elif way == "api":
            csrf = client.get("/auth/csrf").json()["csrf_token"]
            out = client.post("/auth/logout", headers={"x-csrf-token": csrf}, content_type="application/json")
            assert out.status_code == 200
        else:
            gate().run(auth.engine.authority.end_all(str(ada.pk), client=HttpClient(), actor="a test"))
        thief = Client()
        thief.cookies["sessionid"] = held
        assert thief.get("/keep").json() == {}
        assert client.get("/keep").json() == {}


def test_two_requests_at_once_lose_no_key() -> None:
    """Two requests of one session that change different keys at the same time lose neither."""
    client = Client()
    client.get("/keep?before=1")
    key = client.cookies["sessionid"].value

    def keep(name: str) -> None:
        other = Client()
        other.cookies["sessionid"] = key
        assert other.get(f"/keep?first=1&{name}=1").status_code == 200

    with ThreadPoolExecutor(2) as both:
        list(both.map(keep, ("tea", "coffee")))
    assert client.get("/keep").json() == {"before": "1", "first": "1", "tea": "1", "coffee": "1"}


def test_data_of_another_session_is_not_shown(ada: AbstractUser) -> None:
    """A browser with the data of one session and the cookie of another sees nothing of the first."""
    first, second = signed_in(ada), signed_in(User.objects.create_user(f"eve{next(_numbers)}", password=PASSWORD))
    first.get("/keep?basket=tea")
    mixed = Client(headers={"host": "localhost"})  # as a browser, and not as Django's client for tests
    mixed.cookies["sessionid"] = first.cookies["sessionid"].value
    mixed.cookies["dd_session"] = second.cookies["dd_session"].value
    assert mixed.get("/keep").json() == {}
    assert first.get("/keep").json() == {"basket": "tea"}


def test_data_has_a_bound(ada: AbstractUser) -> None:
    """Data that is larger than the policy allows is refused with a problem, and what was there stays."""
    client = signed_in(ada)
    client.get("/keep?basket=tea")
    refused = client.get(f"/keep?more={'x' * 70_000}")
    assert (refused.status_code, refused.json()["code"]) == (422, "too_much_data")
    assert client.get("/keep").json() == {"basket": "tea"}


# --- guards ----------------------------------------------------------------------------------------------------------


def test_a_browser_is_sent_to_the_log_in_and_back(ada: AbstractUser) -> None:
    """A guard answers a browser that wants a page with the way to the log-in, and a program with a problem."""
    refused = Client().get("/editors?page=2")
    assert (refused.status_code, refused.json()["code"]) == (401, "not_authenticated")
    sent = Client().get("/editors?page=2", headers={"accept": "text/html"})
    assert (sent.status_code, sent["Location"]) == (303, "/sign-in/?next=%2Feditors%3Fpage%3D2")
    client = signed_in(ada)
    assert client.get("/fresh").json() == {"fresh": True}


def test_an_old_proof_is_renewed_on_our_page_where_that_is_the_projects(ada: AbstractUser) -> None:
    """With `LOGIN_URL` at `/auth/login`, a view that needs more leads to a page that asks for it."""
    client = signed_in(ada)
    page = {"accept": "text/html"}
    assert client.get("/factors", headers=page)["Location"] == "/sign-in/?next=%2Ffactors&again=1&factors=2"
    with override_settings(LOGIN_URL="/auth/login"):
        led = client.get("/factors", headers=page)["Location"]
        assert led == "/auth/confirm?next=%2Ffactors&factors=2"
        assert client.get(led, headers=page).status_code == 200


@override_settings(LOGIN_URL="/auth/login")
def test_the_admin_signs_in_on_our_page_where_that_is_the_projects(ada: AbstractUser) -> None:
    """The admin's own form would be a way around the second factor: it asks for the password alone."""
    root = User.objects.create_superuser(f"root{next(_numbers)}", password=PASSWORD)
    form = {"username": root.username, "password": PASSWORD}
    for client, status in ((Client(), 302), (signed_in(ada), 403)):
        assert client.get("/admin/login/?next=/admin/auth/").status_code == status
        assert client.post("/admin/login/", form).status_code == status
        assert client.get("/admin/").status_code == 302, "the form signed in"
    assert Client().get("/admin/login/?next=/admin/auth/")["Location"] == "/auth/login?next=/admin/auth/"
    client = Client()
    given = {"email": root.username, "password": PASSWORD, "mode": "session"}
    assert client.post("/auth/login", given, content_type="application/json").status_code == 200
    assert client.get("/admin/login/")["Location"] == "/admin/"
    assert client.post("/admin/login/", form).status_code == 403
    assert client.get("/admin/").status_code == 200


@pytest.mark.parametrize("by_api", [False, True])
def test_people_are_called_what_they_sign_in_with(ada: AbstractUser, by_api: bool) -> None:
    """Pages, passkeys and authenticator apps show the name of a user, and not the primary key."""
    client = Client() if by_api else signed_in(ada)
    if by_api:
        given = {"email": ada.username, "password": PASSWORD, "mode": "session"}
        assert client.post("/auth/login", given, content_type="application/json").status_code == 200
    assert client.get("/auth/me").json()["user"]["name"] == ada.username
    shown = client.get("/auth/account", headers={"accept": "text/html"}).content.decode()
    assert f"<bdi>{ada.username}</bdi>" in shown


async def test_the_paths_of_the_api_are_open_where_all_views_need_a_log_in() -> None:
    """Django's `LoginRequiredMiddleware` would lead from the page to sign in to that page."""
    every = [*SETTINGS["MIDDLEWARE"], "django.contrib.auth.middleware.LoginRequiredMiddleware"]
    with override_settings(MIDDLEWARE=every):
        assert (await AsyncClient().get("/hello")).status_code == 302
        assert (await AsyncClient().get("/auth/login", headers={"accept": "text/html"})).status_code == 200


def test_a_second_factor_of_the_project_counts(ada: AbstractUser) -> None:
    """`auth.proved` starts the session anew with a further method, which `factors=2` finds; a log-in by another
    provider is one factor.
    """
    assert Client().get("/code").status_code == 401
    client = signed_in(ada)
    before = client.cookies["dd_session"].value
    assert client.get("/factors").json()["code"] == "step_up_required"
    client.get("/code")
    assert client.get("/factors").json() == {"factors": ["pwd", "otp"]}
    assert client.cookies["dd_session"].value != before
    assert len(client.get("/auth/sessions").json()["sessions"]) == 1
    other = Client()
    other.get(f"/elsewhere?id={ada.pk}")
    assert other.get("/fresh").status_code == 200
    assert other.get("/factors").json()["code"] == "step_up_required"


def test_a_cookie_needs_a_proof_of_its_page(ada: AbstractUser) -> None:
    """Cross-site request forgery: Django checks views by its own token or by ours; where a view is exempt, the guard
    checks ours. A bearer token needs neither.
    """
    client = signed_in(ada)
    strict = Client(enforce_csrf_checks=True)
    strict.cookies["dd_session"] = client.cookies["dd_session"].value
    csrf = strict.get("/auth/csrf").json()["csrf_token"]
    by = {"by": str(ada.pk)}
    for path in ("/order", "/exempt"):
        assert strict.post(path).status_code == 403
        assert strict.post(path, headers={"x-csrf-token": csrf + "A"}).status_code == 403
        evil = {"x-csrf-token": csrf, "origin": "https://evil.example"}
        assert strict.post(path, headers=evil).status_code == 403
        assert strict.post(path, headers={"x-csrf-token": csrf}).json() == by
        assert Client(enforce_csrf_checks=True).post(path, **bearer(token_of(ada))).json() == by
        assert strict.post(path, headers={"authorization": "Bearer nonsense"}).status_code in {401, 403}
    assert strict.post("/exempt").json()["code"] == "csrf_token"
    strict.cookies["csrftoken"] = "a" * 32
    assert strict.post("/order", {"csrfmiddlewaretoken": "a" * 32}).json() == by


def test_admin_permissions_and_messages_work(ada: AbstractUser) -> None:
    """Django's admin, permissions and messages see the user of our session."""
    assert signed_in(ada).get("/permitted").status_code == 403
    root = User.objects.create_superuser(f"root{next(_numbers)}", password=PASSWORD)
    client = signed_in(root)
    assert client.get("/permitted").json() == {"permitted": True}
    page = client.get("/admin/")
    assert page.status_code == 200 and b"Noted" in page.content
    assert client.get("/admin/api/accounts").status_code == 200, "a superuser is an administrator of the API"


def test_the_admin_shows_and_ends_the_sessions_of_a_user(ada: AbstractUser) -> None:
    """The page of a user leads to the sessions; each has a button that ends it, and one ends all."""
    client, others = signed_in(ada), [signed_in(ada) for _ in range(2)]
    root = signed_in(User.objects.create_superuser(f"root{next(_numbers)}", password=PASSWORD))
    way = f"/admin/auth/user/{ada.pk}/sessions/"
    assert way.encode() in root.get(f"/admin/auth/user/{ada.pk}/change/").content
    current = next(each["id"] for each in client.get("/auth/sessions").json()["sessions"] if each["current"])
    page = root.get(way).content.decode()
    assert page.count('name="end"') == 4 and current in page
    assert root.post(way, {"end": current}).status_code == 302
    assert not is_in(client) and all(map(is_in, others))
    assert root.post(way, {"end": "all"}).status_code == 302
    assert not any(map(is_in, others))
    assert b"No one is signed in" in root.get(way).content
    staff = User.objects.create_user(f"staff{next(_numbers)}", password=PASSWORD, is_staff=True)
    assert signed_in(staff).get(way).status_code == 403


# --- REST framework --------------------------------------------------------------------------------------------------


def test_rest_framework_takes_tokens_and_cookies(ada: AbstractUser) -> None:
    """A view of REST framework knows the user of a token and of a cookie, which needs Django's CSRF token."""
    token = token_of(ada)
    assert Client().get("/api/whole", **bearer(token)).json() == {"user": ada.username, "by": "access_token"}
    assert Client(enforce_csrf_checks=True).post("/api/whole", **bearer(token)).status_code == 200
    client = signed_in(ada)
    assert client.get("/api/whole").json() == {"user": ada.username, "by": None}
    strict = Client(enforce_csrf_checks=True)
    strict.cookies["dd_session"] = client.cookies["dd_session"].value
    assert strict.post("/api/whole").status_code == 403
    refused = Client().get("/api/whole", **bearer("nonsense"))
    assert (refused.status_code, refused.json()["code"]) == (401, "invalid_token")
    assert refused["WWW-Authenticate"] == 'Bearer realm="dutchdoor", error="invalid_token"'


def test_d39_rest_framework_checks_the_proof_of_a_bound_token(ada: AbstractUser) -> None:
    """A view of REST framework asks for a nonce, and takes a bound token with a proof of its key, by each method; no
    copy of it gets through.
    """
    key, nonces = ProofKey.generate(), Nonces(time.time)
    token, url = token_of(ada, key), "http://testserver/api/whole"

    def shown(method: str, by: ProofKey = key) -> dict[str, Any]:
        proof = nonces.proof(by, method, url, token)
        return {"headers": {"authorization": f"DPoP {token}", "dpop": proof}}

    asked = Client().get("/api/whole", **shown("GET"))
    assert (asked.status_code, asked.json()["code"]) == (401, "use_dpop_nonce")
    assert asked["WWW-Authenticate"].startswith("DPoP ")
    assert nonces.learn(url, asked.headers)
    assert Client().get("/api/whole", **shown("GET")).json() == {"user": ada.username, "by": "access_token"}
    assert Client(enforce_csrf_checks=True).post("/api/whole", **shown("POST")).status_code == 200
    for wrong, code in (
        (bearer(token), "dpop_required"),
        (shown("POST"), "invalid_dpop_proof"),
        (shown("GET", ProofKey.generate()), "invalid_dpop_proof"),
    ):
        refused = Client().get("/api/whole", **wrong)
        assert (refused.status_code, refused.json()["code"]) == (401, code)


def test_permissions_of_rest_framework_refuse_as_guards_do(ada: AbstractUser) -> None:
    """`require` in `permission_classes` answers 401 with a challenge, and 403 with the same problem as a guard."""
    anonymous = Client().get("/api/scoped")
    assert (anonymous.status_code, anonymous["WWW-Authenticate"]) == (401, 'Bearer realm="dutchdoor"')
    refused = Client().get("/api/scoped", **bearer(token_of(ada)))
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    assert 'error="insufficient_scope"' in refused["WWW-Authenticate"]
    ada.groups.add(Group.objects.get_or_create(name="editors")[0])
    assert Client().get("/api/scoped", **bearer(token_of(ada))).status_code == 200
    assert signed_in(ada).get("/api/scoped").status_code == 200


# --- the project -----------------------------------------------------------------------------------------------------


def without(name: str) -> list[str]:
    return [each for each in SETTINGS["MIDDLEWARE"] if name not in each]


VERIFIES = {"issuer": "http://localhost:1"}
OURS = "dutchdoor.django.middleware.DutchdoorMiddleware"


@pytest.mark.parametrize(
    ("changed", "id", "hint"),
    [
        ({"DUTCHDOOR": {"datbase": "memory:"}}, "E002", "Did you mean database?"),
        ({"DUTCHDOOR": "memory:"}, "E002", "is a dict"),
        ({"DUTCHDOOR": {"database": "memory:", "issuer": "http://localhost:1"}}, "E002", "a database or an issuer"),
        ({"MIDDLEWARE": without("dutchdoor")}, "E004", "right after"),
        ({"MIDDLEWARE": [*SETTINGS["MIDDLEWARE"], OURS]}, "E005", "Remove one"),
        ({"MIDDLEWARE": without("sessions")}, "E006", "Add it before"),
        ({"MIDDLEWARE": [OURS, *without("dutchdoor")]}, "E007", "Move"),
        ({"ROOT_URLCONF": "django.contrib.auth.urls"}, "E008", 'path("", include("dutchdoor.django.urls"))'),
        ({"ROOT_URLCONF": "tests.frameworks.django_late_urls"}, "W009", "to the top of urlpatterns"),
        ({"SESSION_SERIALIZER": "shop.Pickle"}, "W010", "what JSON can hold"),
        ({"DUTCHDOOR": {"policy": Policy(second_factor="required")}}, "W011", 'LOGIN_URL = "/auth/login"'),
    ],
)
def test_a_check_says_the_fix(changed: dict[str, Any], id: str, hint: str) -> None:
    """Each misuse of the settings, the middleware and the paths is an error of `manage.py check`, with the fix."""
    assert check_project() == []
    with override_settings(**changed):
        found = check_project()
    assert [each.id for each in found][:1] == [f"dutchdoor.{id}"]
    assert hint in f"{found[0].msg} {found[0].hint}"


def test_a_missing_setting_is_named() -> None:
    """A project without the setting gets the line to add."""
    with override_settings():
        del settings.DUTCHDOOR
        found = check_project()
    assert found[0].id == "dutchdoor.E001" and 'DUTCHDOOR = {"database"' in str(found[0].hint)


def test_a_store_out_of_reach_signs_no_one_out(ada: AbstractUser, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the store a view answers 503, and keeps the cookies; a log-out that did not happen does not seem to."""
    client = signed_in(ada)

    async def gone(*_: Any, **__: Any) -> None:
        raise Unavailable("out of reach")

    with monkeypatch.context() as broken:
        broken.setattr(auth.engine.authority, "recall", gone)
        broken.setattr(auth.engine.authority, "recall_at_once", lambda _: None)
        broken.setattr(auth.engine.authority, "bearer_of", gone)
        for path in ("/hello", "/editors", "/sign-out"):
            refused = client.get(path)
            assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
            assert not refused.cookies
    assert is_in(client)


def test_the_commands_use_the_database_of_the_project(tmp_path: Any, capfd: pytest.CaptureFixture[str]) -> None:
    """`manage.py dutchdoor` passes its arguments on, and says where a setting cannot be passed on."""
    here = {"database": f"sqlite:///{tmp_path}/app.db", "master_key": f"{tmp_path}/keys"}
    with override_settings(DUTCHDOOR=here):
        gate().run(auth.engine.authority.provide("1"))
        auth.close()
        call_command("dutchdoor", "key", "list")
        assert "ES256" in capfd.readouterr().out
        with pytest.raises(CommandError, match="has said why"):
            call_command("dutchdoor", "session", "list", "nobody")
    with (
        override_settings(DUTCHDOOR={"issuer": "http://localhost:1"}),
        pytest.raises(CommandError, match="only verifies"),
    ):
        call_command("dutchdoor", "key", "list")


def test_a_guard_without_the_middleware_says_so() -> None:
    """A guard refuses every request of a project without the middleware, and names the line that is missing."""
    for view in (django_urls.editors, async_to_sync(django_urls.aeditors)):
        with pytest.raises(Misconfigured, match="DutchdoorMiddleware"):
            view(RequestFactory().get("/"))


def test_a_guard_on_a_class_says_where_it_belongs() -> None:
    """A class of a view is no view: the error names Django's decorator for it."""
    with pytest.raises(Misconfigured, match=r"method_decorator\(auth.require"):
        auth.require()(django_urls.Fresh)


@pytest.mark.parametrize(("module", "extra"), [("django", "django"), ("rest_framework", "drf")])
def test_a_missing_package_is_named(module: str, extra: str) -> None:
    """Without Django, or without REST framework, the import names the extra to install."""
    of = "dutchdoor.django" if module == "django" else "dutchdoor.django.rest_framework"
    ran = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.modules[{module!r}] = None; import {of}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"pip install 'dutchdoor[{extra}]'" in ran.stderr.splitlines()[-1]


def test_only_the_embedding_project_has_an_engine() -> None:
    """`auth.engine` says where the engine is, in a project that only verifies."""
    with (
        override_settings(DUTCHDOOR={"issuer": "http://localhost:1"}),
        pytest.raises(Misconfigured, match="at its issuer"),
    ):
        assert auth.engine


def test_each_path_of_the_api_has_a_name_and_no_other_path_is_taken() -> None:
    """`reverse` knows the paths, and what only looks like one belongs to the application."""
    for path in gate().gate.paths:
        assert reverse(f"dutchdoor:{path.strip('/')}") == path
        assert resolve(path).view_name == f"dutchdoor:{path.strip('/')}"
    for path in ("/x/auth/login", "/setup/", "/setup2", "/auth"):
        with pytest.raises(Resolver404):
            resolve(path)


# --- hooks -----------------------------------------------------------------------------------------------------------


def test_a_listener_hears_of_a_log_in_and_of_its_end(ada: AbstractUser) -> None:
    """`@auth.on` calls a function in a thread, which may use the models; `auth.end_all` ends what a user has."""
    heard: queue.Queue[tuple[str, str]] = queue.Queue()

    @auth.on("session_started", "session_ended")
    def listening(event: AuditEvent) -> None:
        if event.subject == str(ada.pk):
            heard.put((event.name, event.detail))

    client = signed_in(ada)
    assert heard.get(timeout=60)[0] == "session_started"
    assert auth.end_all(str(ada.pk), reason="left") == 0.0
    assert heard.get(timeout=60) == ("session_ended", "left")
    assert not is_in(client)
    with pytest.raises(Misconfigured, match=r"Did you mean .session_started."):
        auth.on("session_start")  # type: ignore[arg-type]
