"""What an operator relies on: every event written, no secret anywhere, and no answer that helps an attacker."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path
from typing import Any, get_args

import pyotp
import pytest
from msgspec.structs import replace
from starlette.testclient import TestClient
from tests.backing import a_postgres
from tests.devicekey import DeviceKey
from tests.http.test_browser import BODIES
from tests.http.test_device_binding import Bound
from tests.http.test_lost_factors import KEEP, REMOVE, WAIT, begun, link, protected
from tests.http.world import (
    AWAY,
    OTHER_PASSWORD,
    PASSWORD,
    REFRESH,
    SESSION,
    Wire,
    World,
    a_world,
    basic,
)  # fmt: skip
from tests.running import running_server
from tests.softkey import SoftKey, b64
from tests.standins import Absent, Gate, Wrapped

from dutchdoor import issuers
from dutchdoor.auth import Auth
from dutchdoor.credentials.password import CHEAPEST, PasswordHasher
from dutchdoor.errors import Misconfigured, Unavailable
from dutchdoor.issuers.identity import Identity
from dutchdoor.model.accounts import Account, Credential
from dutchdoor.model.audit_events import EventName
from dutchdoor.model.http_client import Client, Device
from dutchdoor.model.policy import STANDARD
from dutchdoor.model.rate_limits import DEFAULT_LIMITS
from dutchdoor.server.cli import main
from dutchdoor.services.set_aside import setting_aside
from dutchdoor.stores.memory import MemoryStore
from dutchdoor.stores.sqlite import SqliteStore
from dutchdoor.stores.urls import make_store
from dutchdoor.web.user_agent import UserAgentReader

ADA = "ada@example.com"
CHROME = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36"
)

# Events of commands, of imports, of the end of an account and of invitations; each is tested where it is made.
ELSEWHERE = {
    *("account_erased", "account_exported", "deletion_cancelled", "deletion_requested"),
    *("email_change_requested", "email_changed", "email_restored", "invitation_sent", "invitation_withdrawn"),
    "account_expired",
    *("session_confirmed", "session_suspected"),
    "accounts_exported",
    *("client_added", "client_removed", "client_secret_changed", "key_exported", "account_imported"),
    *("password_rehashed", "refresh_impossible", "log_begun"),
    *("verifier_added", "verifier_key_changed", "verifier_removed"),
    *("webhook_added", "webhook_disabled", "webhook_enabled", "webhook_given_up", "webhook_removed"),
    *("webhook_replayed", "webhook_secret_changed"),
}


class Story:
    """Everything that can happen to an account, one scenario after another."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.secrets: set[str] = {PASSWORD, OTHER_PASSWORD, "a wrong guess of mine"}

    def keep(self, *found: str | None) -> None:
        self.secrets |= {secret for secret in found if secret}

    async def run(self) -> None:
        world = self.world
        user = await world.register()
        await world.directory.admin.set_roles(user["id"], ["admin"], client=Client(), actor="cli")
        browser, phone, stateless = world.browser(), world.program(), world.program()
        await browser.login(mode="session")
        await phone.login(mode="hybrid")
        await stateless.login(mode="jwt")
        self.keep(*browser.jar.values(), browser.csrf, phone.refresh, phone.access, stateless.access)
        wrong = {"email": ADA, "password": "a wrong guess of mine"}
        assert (await world.call("POST", "/auth/login", json=wrong)).status == 401
        assert (await world.call("POST", "/auth/login", json={**wrong, "email": PASSWORD})).status == 401
        await stateless.call("POST", "/auth/logout")
        # a theft: two holders of one generation
        world.clock.forward(STANDARD.access_for)
        first = phone.refresh
        for _ in range(2):
            answer = await world.call("POST", "/auth/refresh", json={"refresh_token": phone.refresh})
            phone.refresh = answer.json["refresh_token"]
            self.keep(phone.refresh, answer.json["access_token"])
            world.clock.forward(STANDARD.access_for)
        thief = [("user-agent", CHROME)]
        await world.call("POST", "/auth/refresh", json={"refresh_token": first}, headers=thief, peer=AWAY)
        # a lost answer
        again = world.program()
        await again.login(mode="hybrid")
        world.clock.forward(STANDARD.access_for)
        await world.call("POST", "/auth/refresh", json={"refresh_token": again.refresh})
        world.clock.forward(STANDARD.refresh_window * 2)
        await world.call("POST", "/auth/refresh", json={"refresh_token": again.refresh})
        service = await world.add_client()
        self.keep(service[1], again.refresh, again.access)
        form = {"grant_type": "refresh_token", "refresh_token": again.refresh}
        await world.call("POST", "/oauth2/token", form=form, headers=[basic(service)])
        # a browser that is bound to its device, and a thief with a key of their own
        device = Bound(world)
        await device.bind()
        self.keep(*device.jar.values(), device.csrf)
        assert (await device.prove(DeviceKey())).status == 403
        world.clock.forward(30)
        session = await world.row(device)
        kept = world.auth.api.bindings.challenge_for(replace(session, binding=None), anew=True)
        assert (await device.register(kept, DeviceKey())).status == 403
        await world.posted()
        # the account
        assert (await browser.call("POST", "/auth/account/name", json={"name": "Ada L."})).status == 200
        change = {"current_password": PASSWORD, "new_password": OTHER_PASSWORD}
        assert (await browser.call("POST", "/auth/password", json=change)).status == 200
        self.keep(*browser.jar.values(), browser.csrf)
        await world.call("POST", "/auth/password/forgot", json={"email": ADA})
        await world.posted()
        self.keep(token := self.mailed())
        await world.call("POST", "/auth/password/reset", json={"token": token, "new_password": PASSWORD})
        account = await world.store.account(user["id"])
        assert account is not None
        await world.posted()  # the notice of the new password
        await world.directory.registration.send_verification(account, Client())
        await world.posted()
        self.keep(token := self.mailed())
        assert (
            await world.call("POST", "/auth/email/verify", json={"token": token, "password": PASSWORD})
        ).status == 200
        # codes by mail
        world.directory.mailed_codes.policy = replace(STANDARD, sign_in_by_mail=True)
        asked = (await browser.call("POST", "/auth/code", json={"email": ADA})).json
        self.keep(asked["token"])
        # second factors
        await browser.login(password=PASSWORD)
        given = (await browser.call("POST", "/auth/factors/totp/enrol")).json
        self.keep(given["token"], given["secret"])
        proof = {"token": given["token"], "code": pyotp.TOTP(given["secret"]).at(int(world.clock()))}
        codes = (await browser.call("POST", "/auth/factors/totp/confirm", json=proof)).json["recovery_codes"]
        self.keep(*codes)
        pending = await browser.call("POST", "/auth/login", json={"email": ADA, "password": PASSWORD})
        self.keep(pending.json["token"])
        step = {"token": pending.json["token"], "method": "recovery_code", "response": codes[0]}
        assert (await browser.call("POST", "/auth/login/step", json=step)).status == 200
        assert (await browser.call("POST", "/auth/factors/remove", json={"method": "totp"})).status == 204
        # passkeys
        key = SoftKey(world.origin, counts=True)
        made = (await browser.call("POST", "/auth/passkeys/register/options")).json["publicKey"]
        done = await browser.call("POST", "/auth/passkeys/register", json={"response": key.create(made)})
        self.keep(*done.json["recovery_codes"], browser.jar[f"{world.prefix}dd_browser"])
        named = {"id": b64(key.id), "name": "Laptop"}
        assert (await browser.call("POST", "/auth/passkeys/rename", json=named)).status == 204
        asked = (await browser.call("POST", "/auth/passkeys/login/options")).json["publicKey"]
        copied = {"response": key.get(asked, count=0)}
        assert (await browser.call("POST", "/auth/passkeys/login", json=copied)).status == 401
        gone = {"method": "passkey", "id": b64(key.id)}
        assert (await browser.call("POST", "/auth/factors/remove", json=gone)).status == 204
        # what is set aside, and kept
        made = (await browser.call("POST", "/auth/passkeys/register/options")).json["publicKey"]
        done = await browser.call("POST", "/auth/passkeys/register", json={"response": key.create(made)})
        self.keep(*done.json["recovery_codes"])
        account = await world.store.account(user["id"])
        assert account is not None
        held = await world.store.select(Credential, subject=account.subject)
        await world.store.commit(*setting_aside(account, held, Client(), world.clock(), by_mail=True))
        (way,) = await world.directory.set_aside.of(account.subject)
        await world.directory.set_aside.keep(account, way.id, client=Client())
        assert (await browser.call("POST", "/auth/factors/remove", json=gone)).status == 204
        # the password, given up
        made = (await browser.call("POST", "/auth/passkeys/register/options")).json["publicKey"]
        done = await browser.call("POST", "/auth/passkeys/register", json={"response": key.create(made)})
        self.keep(*done.json["recovery_codes"])
        assert (await browser.call("POST", "/auth/password/remove")).status == 200
        await world.posted()  # the notices about all of that
        await world.call("POST", "/auth/password/forgot", json={"email": ADA})
        await world.posted()
        self.keep(token := self.mailed(), browser.csrf, *browser.jar.values())
        await world.call("POST", "/auth/password/reset", json={"token": token, "new_password": PASSWORD})
        await world.directory.factors.remove(
            await self.account(user["id"]), "passkey", b64(key.id), amr=None, client=Client(), actor="cli"
        )
        # other log-ins
        corp = issuers.openid(name="corp", title="Corp", url="https://corp.example", client_id="us")
        named, identities = Identity(issuer=corp.url, subject="ada-1"), world.directory.identities
        account = await world.store.account(user["id"])
        assert account is not None
        await identities.link(account, "", named, corp, client=Client())
        await identities.unlink(account, (await identities.of(account.subject))[0].id, client=Client())
        # endings
        admin = world.program()
        await admin.login(mode="hybrid")
        self.keep(admin.refresh, admin.access)
        await admin.call("POST", "/admin/api/keys/rotate")
        kid = (await admin.call("GET", "/admin/api/keys")).json["keys"][0]["kid"]
        assert (await admin.call("DELETE", f"/admin/api/keys/{kid}")).status == 200
        for path in ("/auth/logout", "/auth/logout/all"):
            leaving = world.browser()
            await leaving.login(mode="session")
            self.keep(*leaving.jar.values(), leaving.csrf)
            assert (await leaving.call("POST", path)).status == 200
        await world.make_admin()  # the last administrator cannot be disabled
        await world.directory.admin.disable(user["id"], client=Client(), actor="cli")
        await world.directory.admin.enable(user["id"], client=Client(), actor="cli")
        # a second factor that is lost
        _, secret = await protected(world, "bob@example.com")
        self.keep(secret)
        for path in (KEEP, REMOVE):
            await begun(world, "bob@example.com")
            self.keep(link(world, path))
            world.clock.forward(WAIT)
            assert (await world.call("POST", path, json={"token": link(world, path)})).status == 200
        await world.posted()

    async def account(self, subject: str) -> Account:
        found = await self.world.store.account(subject)
        assert found is not None
        return found

    def mailed(self) -> str:
        return str(self.world.mailbox.token())


async def test_p01_every_event_has_a_scenario_that_writes_it(world: World) -> None:
    """Each event there is, but for those of commands, is written by a scenario; each with an instant, an outcome, who
    and from where; refusals are marked as such.
    """
    await Story(world).run()
    events = await world.events()
    assert set(get_args(EventName)) - {event.name for event in events} == ELSEWHERE
    refused = {event.name for event in events if event.outcome == "refused"}
    assert refused == {"device_key_conflict", "device_key_refused", "login", "refresh_theft", "refresh_wrong_client"}
    for event in events:
        assert event.at > 0
        # No proof was given when a guess was refused, or a reset, a code or a verification was asked for.
        unproven = {"login", "mail_code_sent", "password_reset_requested", "email_verification_sent"}
        assert event.actor or event.name in unproven, event
    guesses = [event for event in events if event.name == "login" and event.outcome == "refused"]
    assert {event.detail for event in guesses} >= {"wrong password", "unknown address"}


async def test_p01_i23_no_secret_is_kept_anywhere(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """After all of that, no password, cookie, token, CSRF or one-time token or client secret is in the database, its
    WAL, the log, or an audit event, in the clear or in part.
    """
    with caplog.at_level(0):
        async with a_world(store=SqliteStore(tmp_path / "test.db")) as world:
            story = Story(world)
            await story.run()
            kept = b"".join(path.read_bytes() for path in tmp_path.iterdir())
            events = "".join(repr(event) for event in await world.events())
    assert len(kept) > 50_000
    assert len(story.secrets) > 20
    for secret in story.secrets:
        tail = secret[-24:]  # the part that proves something, without a public id before it
        for found in (kept, events.encode(), caplog.text.encode()):
            assert secret.encode() not in found
            assert tail.encode() not in found, secret


def test_p01_i23_no_secret_in_what_a_server_writes(tmp_path: Path) -> None:
    """A server with its access log on, seen by its files and its output: no canary in log, database or WAL."""
    canary, token = "a canary phrase of 27 letters", "ddr1_" + "Canary42" * 8
    with running_server(tmp_path, "--mail", "file:mail", "--access-log") as port:
        wire = Wire(port)
        wire.call("POST", "/auth/register", json={"email": ADA, "password": canary})
        body = {"email": ADA, "password": canary, "mode": "session"}
        signed_in = wire.call("POST", "/auth/login", json=body)
        cookie = signed_in.cookie(SESSION) or ""
        wire.call("GET", "/auth/me", cookie=f"{SESSION}={cookie}")
        wire.call("POST", "/auth/login", json={"email": canary, "password": canary})
        wire.call("POST", "/auth/refresh", json={"refresh_token": token})
        wire.call("GET", f"/auth/me?access_token={token}", cookie=f"{REFRESH}={token}")
        wire.call("GET", "/auth/me", bearer=token)
        kept = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.is_file())
        assert len(cookie) == 53
        for secret in (canary, token, cookie, cookie[-24:]):
            assert secret.encode() not in kept
        assert ADA.encode() in kept, "and the search finds what is there"


class Down(Wrapped):
    """A store out of reach, the head of its log too."""

    down = False

    def head(self) -> Any:
        return None if self.down else self.inner.head()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.inner, name)
        if not asyncio.iscoroutinefunction(found):
            return found

        async def called(*given: Any, **named: Any) -> Any:
            if self.down:
                raise Unavailable("the disk is gone")
            return await found(*given, **named)

        return called

    async def commit(self, *changes: Any) -> Any:
        if self.down:
            raise Unavailable("the disk is gone")
        return await self.inner.commit(*changes)


async def test_p02_a_store_out_of_reach_is_503_and_signs_no_one_out() -> None:
    """While the store is down a client with a proof gets 503 with Retry-After, never 200, 401 or a cleared cookie;
    public pages answer; when it is back, everyone is signed in as before.
    """
    store = Down(MemoryStore())
    async with a_world(store=store) as world:
        await world.register()
        browser, phone = world.browser(), world.program()
        await browser.login(mode="session")
        await phone.login(mode="hybrid")
        assert (await browser.me()).status == (await phone.me()).status == 200
        store.down = True
        for path in ("/auth/me", "/auth/check", "/auth/sessions"):
            for answer in (await browser.call("GET", path), await phone.call("GET", path)):
                assert (answer.status, answer.code, answer.set_cookies()) == (503, "unavailable", [])
        for path, body in (
            ("/auth/login", {"email": ADA, "password": PASSWORD}),
            ("/auth/refresh", {"refresh_token": phone.refresh}),
            ("/auth/register", {"email": "x@example.com", "password": PASSWORD}),
        ):
            assert (await world.call("POST", path, json=body)).status == 503
        assert (await browser.call("POST", "/auth/logout")).status == 503
        assert (await world.call("GET", "/readyz")).status == 503
        for path in ("/", "/livez", "/docs"):
            assert (await world.call("GET", path)).status == 200
        assert (await world.call("GET", "/auth/me")).status == 401, "nobody in particular"
        store.down = False
        assert (await browser.me()).status == (await phone.me()).status == 200


@pytest.mark.usefixtures("patience")
async def test_p15_a_database_that_is_read_only_is_logged_and_not_ready(caplog: pytest.LogCaptureFixture) -> None:
    """A PostgreSQL that answers and takes no writes: log-ins are 503 with the server's reason in the log, `/readyz`
    fails, and people who are signed in stay so.
    """
    with a_postgres() as server:
        async with a_world(store=make_store(server.url())) as world:
            await world.register()
            browser = world.browser()
            await browser.login(mode="session")
            assert (await world.call("GET", "/readyz")).status == 200
            wanted = {"email": ADA, "password": PASSWORD, "mode": "session"}
            for setting, status in (("on", 503), ("off", 200)):
                server.sql(f"ALTER SYSTEM SET default_transaction_read_only = {setting}")
                server.sql("SELECT pg_reload_conf()")
                world.elapsed.ahead += 60
                # Each process of the server reads the setting in its own time.
                async with asyncio.timeout(60):
                    while (await world.call("POST", "/auth/login", json=wanted)).status != status:
                        await asyncio.sleep(0.02)
                    while (await world.call("GET", "/readyz")).status != status:
                        world.elapsed.ahead += 60
                assert (await browser.me()).status == 200
            said = next(line for line in caplog.messages if line.startswith("requests are refused with 503: "))
            assert re.search("postgres: 25006 cannot execute .* in a read-only transaction", said)


def test_p02_a_store_that_was_never_there_is_503_and_found_when_it_is(tmp_path: Path) -> None:
    """An application without a lifespan opens its store at a request: until it can, that is 503 and no traceback."""
    store = Absent(MemoryStore())
    client = TestClient(
        Auth(store, master_key=tmp_path / "keys").asgi(), base_url="http://localhost", client=("127.0.0.1", 50000)
    )
    answer = client.get("/auth/me")
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert "Retry-After" in answer.headers
    store.absent = False
    assert client.get("/auth/me").status_code == 401


async def test_p03_i02_a_session_that_ended_meanwhile_is_not_written_back() -> None:
    """A request that read its session, and is overtaken by a log-out before it writes when it was last seen, brings
    nothing back to life.
    """
    inner = MemoryStore()
    async with a_world(store=inner) as world:
        await world.register()
        browser = world.browser()
        await browser.login(mode="session")
        world.clock.forward(STANDARD.touch_every * 2)
        gate = Gate(inner, "session", after=True)
        world.auth.authority.store = gate
        asking = asyncio.ensure_future(world.call("GET", "/auth/me", cookie=browser.cookie()))
        await gate.reached.wait()
        assert (await browser.call("POST", "/auth/logout")).json["ended"] == 1
        gate.open.set()
        await asking
        assert (await world.call("GET", "/auth/me", cookie=browser.cookie() or "__Host-x=1")).status == 401
        found = await inner.session(browser.session_id)
        assert found is not None
        assert found[0].ended_at is not None


class Breaks(MemoryStore):
    """A store with a mistake in it, whose exception quotes a secret."""

    broken = False

    async def session(self, session_id: str) -> Any:
        if self.broken:
            raise RuntimeError(
                f"near 'SELECT secret FROM sessions WHERE id = {session_id}' in /usr/lib/store.py: {PASSWORD}"
            )
        return await super().session(session_id)

    async def known(self, email: str, *, recent: int) -> Any:
        if self.broken:
            raise KeyError(PASSWORD)
        return await super().known(email, recent=recent)


async def test_p04_our_own_mistake_shows_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """An unexpected exception is a 500 with an id that is in the log as well, and without stack, SQL, path or value;
    the log has its place and not its text.
    """
    store = Breaks()
    async with a_world(store=store) as world:
        await world.register()
        browser = world.browser()
        await browser.login(mode="session")
        world.clock.forward(100.0)
        store.broken = world.breaks = True
        for answer in (
            await browser.call("GET", "/auth/me"),
            await browser.call("POST", "/auth/logout"),
            await world.call("POST", "/auth/login", json={"email": ADA, "password": PASSWORD}),
        ):
            assert answer.status == 500
            assert set(answer.json) == {"title", "status", "code", "incident"}
            assert answer.json["incident"] in caplog.text
            assert answer.set_cookies() == []
        assert PASSWORD not in caplog.text
        assert "SELECT" not in caplog.text


GIFTS = {
    "roles": ["admin"], "role": "admin", "is_admin": True, "admin": True, "email_verified": True, "status": "active",
    "id": "root", "subject": "root", "sub": "root", "epoch": 0, "scope": "admin", "amr": ["mfa"], "created_at": 0,
    "email_verified_at": 1, "__proto__": {"roles": ["admin"]}, "user": {"roles": ["admin"]}, "session_id": "x",
}  # fmt: skip


async def test_p05_no_body_gives_what_was_not_asked_for(world: World) -> None:
    """A member that an endpoint does not know is 422 by name and changes nothing, wherever a body is read."""
    admin = await world.make_admin()
    await world.register()
    root = world.program()
    await root.login("root@example.com", mode="hybrid")
    verifier = await world.add_verifier()
    for template, body in BODIES.items():
        path = template.replace("{subject}", admin["id"])
        for name, value in GIFTS.items():
            if name in body:
                continue
            if template.startswith(("/admin/api/accounts", "/admin/api/invitations")) and name == "roles":
                continue
            if template.endswith("/factors/remove") and name == "id":  # which of several factors
                continue
            proof = {"bearer": verifier} if path == "/auth/revocations/poll" else {}
            answer = await root.call("POST", path, json={**body, name: value}, **proof)
            assert (answer.status, answer.json.get("field")) == (422, name), (path, name)
    assert {account.email for account in await world.store.accounts()} == {ADA, "root@example.com"}
    account = await world.store.account_by_email(ADA)
    assert account is not None
    assert (account.roles, account.email_verified_at) == ((), None)


async def test_p06_what_was_revoked_is_counted_truly(world: World) -> None:
    """A call that ended something says how many; one that ended nothing says so, or that there is no such thing."""
    await world.register()
    here, there = world.browser(), world.browser()
    await here.login(mode="session")
    await there.login(mode="session")
    path = f"/auth/sessions/{there.session_id}"
    assert (await here.call("DELETE", path)).json["ended"] == 1
    assert (await here.call("DELETE", path)).json["ended"] == 0
    assert (await here.call("DELETE", f"/auth/sessions/{here.session_id[::-1]}")).status == 404
    assert (await here.call("DELETE", "/auth/sessions?except=current")).json["ended"] == 0
    for _ in range(2):
        await world.program().login(mode="hybrid")
    assert (await here.call("POST", "/auth/logout/all")).json["ended"] == 3


@pytest.mark.parametrize(
    ("arguments", "environment", "says"),
    [
        (["--host", "0.0.0.0"], {}, "--public-url"),
        (["--public-url", "http://auth.example.com"], {}, "https"),
        (["--proxy", "10.0.0.1"], {}, "--public-url"),
        (["--public-url", "https://auth.example.com", "--proxy", "0.0.0.0/0"], {}, "all addresses"),
        ([], {"DUTCHDOOR_PEPPER": "dwarfish"}, "too short"),
        ([], {"DUTCHDOOR_PEPPER": "changeme-changeme-changeme"}, "placeholder"),
        ([], {"DUTCHDOOR_METRICS_TOKEN": "your-256-bit-secret"}, "placeholder"),
        ([], {"DUTCHDOOR_MASTER_KEY": "changeme"}, ""),
        ([], {"DUTCHDOOR_ACCES_FOR": "5m"}, "DUTCHDOOR_ACCESS_FOR"),
        (["--password-hash", "cheapest"], {}, "cheapest"),
    ],
)
def test_p09_an_unsafe_setting_stops_the_start(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    environment: dict[str, str],
    says: str,
) -> None:
    """Plain HTTP off this machine, short, placeholder and well-known secrets, and misspelt settings stop the start with
    a sentence that names the setting, an exit code that is not 0, and nothing listening.
    """
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("DUTCHDOOR_")]:
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["dutchdoor", "serve", "--port", "0", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    assert ended.value.code not in {0, None}
    assert says in said.err
    for secret in environment.values():
        assert secret not in said.err or len(secret) < 4
    assert "ready" not in said.out


async def test_i25_answers_never_cross(tmp_path: Path) -> None:
    """Requests of eight people, interleaved and cancelled at random, by cookie and by token: each answer is about the
    person who asked.
    """
    async with a_world(store=SqliteStore(tmp_path / "test.db"), limits=None, hasher=PasswordHasher(CHEAPEST)) as world:
        people = []
        for n in range(8):
            user = await world.register(f"person{n}@example.com")
            person = world.browser() if n % 2 else world.program()
            await person.login(f"person{n}@example.com", mode="session" if n % 2 else "hybrid")
            people.append((user["id"], person))
        crossed: list[object] = []

        async def ask(subject: str, person: Any) -> None:
            proof = {"cookie": person.cookie()} if hasattr(person, "jar") else {"bearer": person.access}
            answer = await world.call("GET", "/auth/me", **proof)
            if answer.status != 200 or answer.json["user"]["id"] != subject:
                crossed.append(answer)

        for turn in range(60):
            world.clock.forward(STANDARD.touch_every)
            tasks = [asyncio.ensure_future(ask(*person)) for person in people * 4]
            await asyncio.sleep(0)
            for n, task in enumerate(tasks):
                if (n * 7 + turn) % 5 == 0:
                    task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if world.clock() - 1_750_000_000 > STANDARD.access_for - 2 * STANDARD.touch_every:
                world.clock.now = 1_750_000_000.0 + STANDARD.touch_every
        assert crossed == []


def test_limits_of_the_server_are_the_documented_ones() -> None:
    """The limits that these tests lift are on in a server: none is without end."""
    for name in DEFAULT_LIMITS.__struct_fields__:
        # All processes of a service share a key, and come at once when the server was restarted. A password is judged
        # while it is typed.
        more = {"ask_by_verifier_key": 8192, "strength_by_address": 200}
        assert getattr(DEFAULT_LIMITS, name).burst <= more.get(name, 60)


async def test_p22_a_request_that_a_limit_refuses_never_reads_its_user_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    """P22: the headers of a throttled address cost the server nothing, however slow they were made to be."""
    read: list[str] = []
    monkeypatch.setattr(UserAgentReader, "read", lambda _self, header: (read.append(header), Device())[1])
    async with a_world(limits=DEFAULT_LIMITS) as world:
        for n in range(DEFAULT_LIMITS.sign_in_by_address.burst + 5):
            body = {"email": f"{n}@example.com", "password": PASSWORD}
            answer = await world.call("POST", "/auth/login", json=body, headers=[("user-agent", f"slow {n}")])
            assert (answer.status == 429) == (f"slow {n}" not in read)
        assert answer.status == 429


@pytest.mark.parametrize(
    "url", ["localhost:5000", "http://localhost:5000/", "https://localhost:5000", "http://example.com"]
)
def test_p09_a_local_url_is_named_as_what_it_is(url: str) -> None:
    """An address without a public URL that cannot be this machine's is refused by its own name."""
    with pytest.raises(Misconfigured, match=r"^local_url .* such as http://localhost:5000"):
        World(public_url=None, local_url=url)
