"""Users of the application's own: everything works but what needs the bundled accounts."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from uuid import UUID

import httpx2
import pytest
from standins import HOME, Clock
from tests.softkey import SoftKey, b64

from dutchdoor import Auth, ExternalUsers, Policy
from dutchdoor.credentials.password import CHEAPEST, PasswordHasher
from dutchdoor.errors import InvalidToken, Misconfigured, NotAuthenticated, RateLimited, Unavailable, WrongCredentials
from dutchdoor.model.policy import Mode
from dutchdoor.services import external_accounts
from dutchdoor.services.browser import Browser
from dutchdoor.services.ongoing import Ongoing
from dutchdoor.stores.base import REMEMBERED_FOR

ADA = {"email": "ada", "password": "right"}


@dataclass
class Member:
    """A user of the application."""

    id: int
    login: str
    password: str = "right"
    roles: list[str] = field(default_factory=list)


class Members:
    """The application's table of users."""

    def __init__(self) -> None:
        self.rows = {7: Member(7, "ada"), 8: Member(8, "bob")}
        self.loads = self.checks = 0
        self.fails: Exception | None = None

    async def authenticate(self, login: str, password: str) -> int | None:
        self.checks += 1
        if self.fails is not None:
            raise self.fails
        return next((row.id for row in self.rows.values() if (row.login, row.password) == (login, password)), None)

    async def load(self, subject: str) -> Member | None:
        self.loads += 1
        if self.fails is not None:
            raise self.fails
        return self.rows.get(int(subject))

    def users(self) -> ExternalUsers[Member]:
        return ExternalUsers(authenticate=self.authenticate, load=self.load, roles=lambda member: member.roles)


class Running:
    """An engine with users of the application's own, and clients that call it over HTTP."""

    def __init__(self, **named: Any) -> None:
        self.members, self.clock = Members(), Clock()
        named.setdefault("users", self.members.users())
        self.auth = Auth("memory:", clock=self.clock, **named)

    def client(self) -> httpx2.AsyncClient:
        transport = httpx2.ASGITransport(self.auth.asgi())
        return httpx2.AsyncClient(transport=transport, base_url="http://localhost:8000")

    async def sign_in(self, mode: Mode = "hybrid", **who: str) -> Any:
        signed_in, _ = await self.auth.directory.sign_in.by_password(
            who.get("email", "ada"), who.get("password", "right"), Browser(HOME), mode=mode
        )
        return signed_in


@contextlib.asynccontextmanager
async def running(**named: Any) -> AsyncIterator[Running]:
    made = Running(**named)
    async with made.auth:
        yield made


@pytest.mark.parametrize(
    "asked",
    [{"mode": "session"}, {"mode": "hybrid", "transport": "cookie"}, {"mode": "hybrid", "transport": "body"},
     {"mode": "jwt"}],
    ids=["session", "hybrid cookie", "hybrid body", "jwt"],
)  # fmt: skip
async def test_a_user_signs_in_by_each_mode_and_out(asked: dict[str, str]) -> None:
    """A login that is no address, by every mode and transport: `/auth/me`, refresh and log-out work."""
    async with running() as our, our.client() as client:
        answer = await client.post("/auth/login", json={**ADA, **asked})
        assert answer.status_code == 200, answer.text
        body = answer.json()
        assert body["user"] == {"id": "7", "email": None, "name": "", "roles": [], "email_verified": False}
        headers = {"authorization": f"Bearer {body['access_token']}"} if "access_token" in body else {}
        csrf = {"x-csrf-token": body["csrf_token"]} if "csrf_token" in body else {}
        assert (await client.get("/auth/me", headers=headers)).json()["user"]["id"] == "7"
        if asked["mode"] == "hybrid":
            proof = {"refresh_token": body["refresh_token"]} if asked["transport"] == "body" else None
            answer = await client.post("/auth/refresh", json=proof, headers=csrf)
            assert answer.status_code == 200, answer.text
        assert (await client.post("/auth/logout", headers={**headers, **csrf})).json()["fenced"]
        assert (await client.get("/auth/me", headers=headers)).status_code == 401


async def test_an_unknown_login_and_a_wrong_password_get_one_answer() -> None:
    """Body, headers and events say nothing of whether a login exists; what was typed is in no event."""
    async with running() as our, our.client() as client:
        answers = [
            await client.post("/auth/login", json={"email": login, "password": "wrong"}) for login in ("ada", "nobody")
        ]
        assert [answer.status_code for answer in answers] == [401, 401]
        assert answers[0].json() == answers[1].json()
        assert answers[0].json()["detail"] == "The login or the password is not right."
        assert answers[0].headers.keys() == answers[1].headers.keys()
        one, two = await our.auth.store.events(name="login")
        assert (one.subject, one.detail) == (two.subject, two.detail) == ("", "unknown login or wrong password")


async def test_guesses_are_limited_and_a_right_password_then_too() -> None:
    """Ten guesses at a login, in any spelling; then even the right password waits, but not in a known browser."""
    async with running() as our, our.client() as known, our.client() as other:
        assert (await known.post("/auth/login", json={**ADA, "mode": "session"})).status_code == 200
        for number in range(10):
            wrong = {"email": ("ada", " ADA", "a\uff44a")[number % 3], "password": "wrong"}
            assert (await other.post("/auth/login", json=wrong)).status_code == 401
        assert our.members.checks == 11
        answer = await other.post("/auth/login", json=ADA)
        assert (answer.status_code, our.members.checks) == (429, 11)
        again = await known.post(
            "/auth/login", json={**ADA, "mode": "session"}, headers={"origin": str(known.base_url)}
        )
        assert again.status_code == 200
        our.clock.forward(25 * 3600)
        assert (await other.post("/auth/login", json=ADA)).status_code == 200


async def test_what_needs_the_bundled_accounts_is_absent() -> None:
    """Registration, passwords, addresses and set-up are not found, not described, and not on the start page."""
    async with running() as our, our.client() as client:
        for path in ("register", "password", "password/forgot", "password/reset", "email/verify", "setup"):
            answer = await client.post(f"/auth/{path}", json={})
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), path
        for page in ("/auth/setup", "/auth/reset", "/auth/verify", "/auth/forgot", "/auth/invitation"):
            assert (await client.get(page)).status_code == 404
        described = (await client.get("/openapi.json")).json()["paths"]
        words = ("/auth/register", "/password", "email", "setup")
        assert not [path for path in described if any(word in path for word in words)]
        assert "/auth/login" in described and "/admin/api/accounts/{subject}/roles" not in described
        assert "post" not in described["/admin/api/accounts"] and "get" in described["/admin/api/accounts"]
        start = (await client.get("/")).text
        assert "/auth/forgot" not in start and "/auth/register" not in start
        assert "/auth/register" not in str(our.auth.described())


async def test_a_user_signs_in_by_a_passkey() -> None:
    """An application's user makes a passkey, signs in by it with the roles of now, and no more once they are gone. The
    last passkey may go: the application keeps the password.
    """
    async with running() as our, our.client() as client:
        first = (await client.post("/auth/login", json={**ADA, "mode": "jwt"})).json()["access_token"]
        headers, key = {"authorization": f"Bearer {first}"}, SoftKey("http://localhost:8000")
        asked = (await client.post("/auth/passkeys/register/options", headers=headers)).json()["publicKey"]
        assert asked["rp"]["id"] == "localhost" and asked["user"]["id"] != "7"
        made = await client.post("/auth/passkeys/register", headers=headers, json={"response": key.create(asked)})
        assert made.status_code == 200, made.text
        our.members.rows[7].roles = ["editor"]

        async def sign_in() -> httpx2.Response:
            asked = (await client.post("/auth/passkeys/login/options")).json()["publicKey"]
            return await client.post("/auth/passkeys/login", json={"response": key.get(asked), "mode": "jwt"})

        done = await sign_in()
        assert done.json()["user"]["roles"] == ["editor"], done.text
        headers = {"authorization": f"Bearer {done.json()['access_token']}"}
        gone = {"method": "passkey", "id": b64(key.id)}
        del our.members.rows[7]
        assert (await sign_in()).json()["code"] == "wrong_credentials"
        our.members.rows[7] = Member(7, "ada")
        headers = {"authorization": f"Bearer {(await sign_in()).json()['access_token']}"}
        assert (await client.post("/auth/factors/remove", headers=headers, json=gone)).status_code == 204
        assert (await sign_in()).json()["code"] == "wrong_credentials"


@pytest.mark.parametrize("mode", ["session", "hybrid"])
async def test_a_user_who_is_gone_is_signed_out(mode: Mode) -> None:
    """From a look-up of the session, or a refresh, that finds no user any more, everything of theirs is revoked."""
    async with running() as our:
        signed_in = await our.sign_in(mode)
        authority = our.auth.authority
        del our.members.rows[7]
        if mode == "session":
            our.clock.forward(REMEMBERED_FOR)
            with pytest.raises(NotAuthenticated):
                await authority.resume(signed_in.session_token)
        else:
            assert await authority.verify(signed_in.access_token)
            with pytest.raises(InvalidToken):
                await authority.refresh(signed_in.refresh_token, HOME)
            with pytest.raises(NotAuthenticated):
                await authority.verify(signed_in.access_token)
        assert await authority.sessions("7") == []
        assert {event.detail for event in await our.auth.store.events(name="session_ended")} == {"user_gone"}
        with pytest.raises(WrongCredentials):
            await our.sign_in(mode)


async def test_end_all_holds_at_once() -> None:
    """After `end_all`, no cookie and no token of the subject is valid, and its wait says so."""
    async with running() as our:
        kept = [await our.sign_in(mode) for mode in ("session", "hybrid", "jwt")]
        assert await our.auth.end_all("7") == 0.0
        with pytest.raises(NotAuthenticated):
            await our.auth.authority.resume(kept[0].session_token)
        for each in kept[1:]:
            with pytest.raises(NotAuthenticated):
                await our.auth.authority.verify(each.access_token)
        await our.sign_in()


@pytest.mark.parametrize("is_first", [True, False], ids=["first sign-in", "later"])
async def test_a_sign_in_that_overlaps_a_change_of_the_password_fails(is_first: bool) -> None:
    """The password is changed, and everything ended, after the old one was checked: the sign-in starts nothing. A
    first sign-in, for which there is no account yet, is no exception.
    """
    members = Members()
    checked, changed = asyncio.Event(), asyncio.Event()

    async def slowly(login: str, password: str) -> int | None:
        found = await members.authenticate(login, password)
        checked.set()
        await changed.wait()
        return found

    users = ExternalUsers(authenticate=slowly, load=members.load)
    async with running(users=users) as our:
        if not is_first:
            changed.set()
            await our.sign_in()
            checked.clear()
            changed.clear()
        signing_in = asyncio.create_task(our.sign_in("session"))
        await checked.wait()
        members.rows[7].password = "another"
        await our.auth.end_all("7")
        changed.set()
        with pytest.raises(WrongCredentials):
            await signing_in
        assert await our.auth.authority.sessions("7") == []
        await our.sign_in(password="another")


async def test_roles_follow_the_user() -> None:
    """Roles are those of the user at the sign-in, at a refresh and at a look-up; tokens with others are stale."""
    async with running() as our:
        our.members.rows[7].roles = ["editor", "author"]
        by_cookie, by_token = await our.sign_in("session"), await our.sign_in()
        authority = our.auth.authority
        assert (await authority.resume(by_cookie.session_token)).principal.roles == ("author", "editor")
        assert (await authority.verify(by_token.access_token)).roles == ("author", "editor")
        our.members.rows[7].roles = ["author"]
        fresh = await authority.refresh(by_token.refresh_token, HOME)
        assert (await authority.verify(fresh.access_token)).roles == ("author",)
        with pytest.raises(NotAuthenticated):
            await authority.verify(by_token.access_token)
        assert (await authority.resume(by_cookie.session_token)).principal.roles == ("author",)
        our.members.rows[7].roles = []
        our.clock.forward(REMEMBERED_FOR)
        assert (await authority.resume(by_cookie.session_token)).principal.roles == ()
        changes = await our.auth.store.events(name="roles_changed")
        assert {change.detail for change in changes} == {"", "author", "author editor"}


async def test_the_name_follows_the_user() -> None:
    """An account has the name of its user at the sign-in and at a look-up, and no token is stale by another one."""
    members = Members()
    users = ExternalUsers(authenticate=members.authenticate, load=members.load, name=lambda member: member.login)
    async with running(users=users) as our:
        by_cookie, by_token = await our.sign_in("session"), await our.sign_in()
        authority = our.auth.authority
        assert (await authority.resume(by_cookie.session_token)).principal.name == "ada"
        members.rows[7].login = "ada\nlovelace" + 200 * "e"
        our.clock.forward(REMEMBERED_FOR)
        named = (await authority.resume(by_cookie.session_token)).principal.name
        assert named == ("ada lovelace" + 200 * "e")[:200]
        assert (await authority.verify(by_token.access_token)).subject == "7"


async def test_a_name_that_is_no_text_is_an_error() -> None:
    """The message names the function."""
    members = Members()
    users = ExternalUsers(authenticate=members.authenticate, load=members.load, name=lambda member: member.id)  # type: ignore[arg-type, return-value]
    async with running(users=users) as our:
        with pytest.raises(Misconfigured, match="name returned int"):
            await our.sign_in()


async def test_a_look_up_asks_once_a_minute() -> None:
    """A session in memory asks nothing of the application."""
    async with running() as our:
        token = (await our.sign_in("session")).session_token
        await our.auth.authority.resume(token)
        loads = our.members.loads
        for _ in range(20):
            await our.auth.authority.resume(token)
        assert our.members.loads == loads


@pytest.mark.parametrize("function", ["authenticate", "load"])
async def test_a_function_that_fails_signs_no_one_in_or_out(function: str, caplog: pytest.LogCaptureFixture) -> None:
    """An exception of the application's function is 503; the log has its place and not its text."""
    async with running() as our, our.client() as client:
        signed_in = await our.sign_in()
        our.members.fails = RuntimeError("SELECT ... ('ada@example.com', 'hunter2')")
        if function == "authenticate":
            answer = await client.post("/auth/login", json={"email": "ada@example.com", "password": "hunter2"})
        else:
            answer = await client.post("/auth/refresh", json={"refresh_token": signed_in.refresh_token})
        assert (answer.status_code, "retry-after" in answer.headers) == (503, True)
        assert f"users: {function} failed: RuntimeError at {__file__}:" in caplog.text
        assert "hunter2" not in caplog.text and "ada@" not in caplog.text
        our.members.fails = None
        assert await our.auth.authority.refresh(signed_in.refresh_token, HOME)


@pytest.mark.parametrize(
    ("returned", "says"),
    [
        (True, "authenticate returned bool. Return the user's id"),
        (Member(7, "ada"), "authenticate returned Member. Return the user's id"),
        ("", "authenticate returned what is no id"),
        ("a\r\nX-Auth-Roles: admin", "authenticate returned what is no id"),
    ],
)
async def test_what_is_no_id_is_no_account(returned: Any, says: str) -> None:
    """`True` would be one account for all users; a line break would reach a header."""
    users = ExternalUsers(authenticate=lambda login, password: returned, load=lambda subject: object())
    async with running(users=users) as our:
        with pytest.raises(Misconfigured, match=says):
            await our.sign_in()


async def test_plain_functions_run_in_threads_and_ids_may_be_of_any_kind() -> None:
    """A hash that is computed in a plain function does not stop the event loop."""
    threads, someone = list[str](), UUID(int=5)

    def authenticate(login: str, password: str) -> UUID | None:
        threads.append(threading.current_thread().name)
        return someone if password == "right" else None

    def load(subject: str) -> str:
        threads.append(threading.current_thread().name)
        return f"user {subject}"

    async with running(users=ExternalUsers(authenticate=authenticate, load=load)) as our:
        assert (await our.sign_in()).account.subject == str(someone)
    assert len(threads) >= 2 and all(name.startswith("dutchdoor-application") for name in threads)


@pytest.mark.parametrize(
    ("named", "says"),
    [
        ({"users": Members()}, "users=ExternalUsers"),
        ({"hasher": PasswordHasher(CHEAPEST)}, "users and hasher"),
        ({"mail": object()}, "users and mail"),
        ({"policy": Policy(require_verified_email=True)}, "users and require_verified_email"),
    ],
)
def test_settings_of_the_bundled_accounts_are_refused_beside_users(named: dict[str, Any], says: str) -> None:
    """A setting that would do nothing is an error that says what to do."""
    with pytest.raises(Misconfigured, match=says):
        Auth("memory:", **{"users": Members().users(), **named})


@pytest.mark.parametrize(
    ("named", "says"),
    [
        ({"authenticate": "check"}, "authenticate is a function"),
        ({"load": None}, "load is a function"),
        ({"roles": "admin"}, "roles is a function"),
        ({"roles": Members().load}, "roles is a plain function"),
        ({"name": "login"}, "name is a function"),
        ({"name": Members().load}, "name is a plain function"),
    ],
)
def test_external_users_are_functions(named: dict[str, Any], says: str) -> None:
    """What cannot be called is refused when it is given."""
    with pytest.raises(Misconfigured, match=says):
        ExternalUsers(**{"authenticate": Members().authenticate, "load": Members().load, **named})


async def test_a_user_proves_the_password_again() -> None:
    """`/auth/reauthenticate` takes login and password, of the same user only, and its guesses are counted."""
    async with running() as our, our.client() as client:
        signed_in = await our.sign_in()
        headers = {"authorization": f"Bearer {signed_in.access_token}"}
        our.clock.forward(300)
        answer = await client.post("/auth/reauthenticate", json={"email": "bob", "password": "right"}, headers=headers)
        assert answer.status_code == 401
        answer = await client.post("/auth/reauthenticate", json=ADA, headers=headers)
        assert answer.status_code == 200
        principal = await our.auth.authority.verify(answer.json()["access_token"])
        assert principal.auth_time == our.clock()
        account = await our.auth.store.account("7")
        assert account is not None
        ongoing = Ongoing(account, None, HOME, "app")
        guess = partial(our.auth.directory.step_up.reauthenticate, ongoing, "wrong", login="ada")
        for _ in range(5):
            with pytest.raises(WrongCredentials):
                await guess()
        with pytest.raises(RateLimited):
            await guess()


async def test_a_disabled_account_does_not_sign_in() -> None:
    """An administrator of dutchdoor can disable an account whose user the application keeps."""
    async with running() as our:
        await our.sign_in()
        await our.auth.directory.admin.disable("7", client=HOME, actor="cli")
        with pytest.raises(WrongCredentials):
            await our.sign_in()


async def test_roles_that_are_no_roles_are_an_error() -> None:
    """Text would be a role for each letter, and a space would be two roles in a header."""
    for wrong in ("admin", ["an admin"]):
        members = Members()
        users = ExternalUsers(authenticate=members.authenticate, load=members.load, roles=lambda _, wrong=wrong: wrong)
        async with running(users=users) as our:
            with pytest.raises(Misconfigured, match="roles returned"):
                await our.sign_in()


async def test_a_flood_of_attempts_is_refused_before_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """More sign-ins at once than the application can check get 503, and the next one is looked at again."""
    monkeypatch.setattr(external_accounts, "WAITING", 2)
    members, go = Members(), asyncio.Event()

    async def slowly(login: str, password: str) -> int | None:
        await go.wait()
        return await members.authenticate(login, password)

    async with running(users=ExternalUsers(authenticate=slowly, load=members.load)) as our:
        waiting = [asyncio.create_task(our.sign_in()) for _ in range(2)]
        await asyncio.sleep(0)
        while our.auth.directory.external._checking < 2:  # type: ignore[union-attr]
            await asyncio.sleep(0)
        with pytest.raises(Unavailable):
            await our.sign_in(email="bob")
        go.set()
        await asyncio.gather(*waiting)
        await our.sign_in(email="bob")


async def test_a_search_that_finds_nothing_hangs_no_request(caplog: pytest.LogCaptureFixture) -> None:
    """`next()` without a default raises StopIteration for an unknown login, which no future can hold: the request is
    answered, and the log says where it was raised.
    """

    def authenticate(login: str, _: str) -> str:
        return next(name for name in ("eve",) if name == login)

    async with running(users=ExternalUsers(authenticate=authenticate, load=lambda subject: object())) as our:
        with pytest.raises(Unavailable):
            await asyncio.wait_for(our.sign_in(), 60)
    assert f"users: authenticate failed: RuntimeError at {__file__}:" in caplog.text
