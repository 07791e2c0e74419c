"""What a reviewer broke once: each test is an attack that worked, and what it must get now."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace
from tests.http.test_oauth import INACTIVE, exchange, introspect, refresh, signed_in
from tests.http.world import AWAY, OTHER_PASSWORD, PASSWORD, PROXY, Program, World, a_world
from tests.server.running import running
from tests.standins import HOME, Clock

from dutchdoor.auth import Auth
from dutchdoor.errors import InvalidInput, InvalidKey, WrongCredentials
from dutchdoor.model.ids import decode, encode
from dutchdoor.model.master_key import MasterKey, MasterKeys
from dutchdoor.model.policy import DAY, HOUR, STANDARD
from dutchdoor.model.rate_limits import Limits
from dutchdoor.server.check import findings
from dutchdoor.server.config import read_settings
from dutchdoor.server.protocol import HEAD_AT_MOST
from dutchdoor.services.browser import Browser
from dutchdoor.services.endings import ENDED_ONE_BY_ONE
from dutchdoor.services.sessions import LISTED
from dutchdoor.stores.base import Revoke
from dutchdoor.stores.memory import MemoryStore
from dutchdoor.stores.sqlite import SqliteStore
from dutchdoor.testing.conformance import a_revocation, the_log
from dutchdoor.web.oauth import TokenAnswer
from dutchdoor.web.schemas import Login, PasswordChange, RefreshProof, SignedInView, User

NEW_PASSWORD = "yet another phrase to remember 3"


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with a_world(proxies=[PROXY]) as made:
        yield made


async def test_a_database_by_two_names_has_one_log(tmp_path: Path) -> None:
    """A process that opens the database through a symbolic link sees the changes of one that opens the file itself, and
    the other way round: a session ended by the one is refused by the other at once.
    """
    (tmp_path / "data").mkdir()
    (tmp_path / "link.db").symlink_to(tmp_path / "data" / "real.db")
    one, other = SqliteStore(tmp_path / "data" / "real.db"), SqliteStore(tmp_path / "link.db")
    await one.open()
    await other.open()
    try:
        for seq, (writes, reads) in enumerate([(one, other), (other, one)], 1):
            await writes.commit(Revoke(a_revocation()))
            assert (reads.head(), len(await the_log(reads))) == ((1, seq), seq)
    finally:
        await one.close()
        await other.close()
    assert not list(tmp_path.glob("link.db-*"))


def test_trailers_are_bounded(tmp_path: Path) -> None:
    """What follows a chunked body, or stands between its chunks, is cut off like a head without end: it would be kept
    in memory as fast as it comes.
    """
    head = (
        b"POST /auth/login HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n"
    )
    with running(tmp_path) as server:
        for start, more in (
            (b"2\r\n{}\r\n0\r\n", b"x-trailer: " + b"a" * 1000 + b"\r\n"),
            (b"2\r\n{}\r\n0\r\nx-trailer: ", b"a" * 1000),
            (b"2;", b"a" * 1000),
        ):
            with socket.create_connection((server.host, server.port), timeout=60) as connection:
                connection.sendall(head + start)
                with pytest.raises(ConnectionError):
                    send_often(connection, more, 4000 * HEAD_AT_MOST)  # far more than fits into sockets
        # An honest body in many pieces is read, and its few trailers are.
        body = b'{"email": "ada@example.com", "password": "' + b"a" * 900 + b'"}'
        chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body)
        with socket.create_connection((server.host, server.port), timeout=60) as connection:
            connection.sendall(head + chunks + b"0\r\nx-trailer: a\r\n\r\n")
            assert connection.recv(65536).startswith(b"HTTP/1.1 401 ")


def send_often(connection: socket.socket, piece: bytes, size: int) -> None:
    for _ in range(size // len(piece)):
        connection.sendall(piece)


async def test_o13_a_confidential_client_proves_itself_at_every_door(world: World) -> None:
    """A stolen refresh token of a client that has a secret is worth nothing without that secret: naming the client in
    the body of the own endpoint is no proof. Nor is naming a client that was removed.
    """
    await world.register()
    mine, public = await world.add_client(), await world.add_client(public=True)
    stolen = (await signed_in(world, mine)).refresh
    for named in (mine[0], "nobody"):
        assert (await refresh(world, stolen, client_id=named)).status == 401
    assert (await exchange(world, stolen, mine)).status == 200
    assert (await refresh(world, (await signed_in(world, public)).refresh, client_id=public[0])).status == 200


async def test_i06_proving_again_does_not_survive_a_log_out(world: World) -> None:
    """A session that is logged out while its password is being looked at again starts no other in its place."""
    await world.register()
    page, other = world.browser(), world.browser()
    await page.login(mode="session")
    other.jar, other.csrf = dict(page.jar), page.csrf
    looked, go_on, verify = asyncio.Event(), asyncio.Event(), world.directory.hasher.verify

    async def slowly(password: str, encoded: str) -> bool:
        right = await verify(password, encoded)
        looked.set()
        await go_on.wait()
        return right

    world.directory.hasher.verify = slowly  # type: ignore[method-assign]
    proving = asyncio.create_task(page.call("POST", "/auth/reauthenticate", json={"password": PASSWORD}))
    await looked.wait()
    assert (await other.call("POST", "/auth/logout")).status == 200
    go_on.set()
    assert (await proving).status == 401
    assert (await page.me()).status == 401
    assert (await world.auth.authority.sessions((await world.store.accounts())[0].subject)) == []


async def test_nothing_is_passed_on_for_what_expired(world: World) -> None:
    """A token that lives by the leeway alone is 401 at `/auth/check`, and no error: what was passed on for it would
    end later than it does.
    """
    await world.register()
    for mode in ("jwt", "hybrid"):
        program = world.program()
        await program.login(mode=mode)
        world.clock.forward(STANDARD.access_for - 1)
        assert (await world.check(bearer=program.access)).status == 204
        world.clock.forward(2)
        assert (await world.check(bearer=program.access)).status == 401


async def test_an_application_that_many_ask_at_once_opens_once(tmp_path: Path) -> None:
    """The first requests of an application arrive together: one of them opens the store, and no thread stays."""

    def writers() -> int:
        return sum(thread.name == "dutchdoor-sqlite-writer" for thread in threading.enumerate())

    before = writers()
    auth = Auth(f"sqlite:///{tmp_path}/app.db", master_key=tmp_path / "keys")
    await asyncio.gather(
        *[auth.principal({"type": "http", "method": "GET", "path": "/", "headers": []}) for _ in range(5)]
    )
    assert writers() == before + 1
    await auth.close()
    assert writers() == before


@pytest.mark.parametrize("door", ["/auth/refresh", "/oauth2/token"])
async def test_no_one_else_uses_up_a_sessions_refreshes(door: str) -> None:
    """The id of a session is no secret. Forged tokens that carry it take nothing from the limit of its owner."""
    async with a_world(limits=Limits()) as world:
        await world.register()
        program = await signed_in(world)
        body = decode(program.refresh.removeprefix("ddr1_"))[:-16]
        for n in range(Limits().refresh_by_session.burst + 5):
            forged = "ddr1_" + encode(body + n.to_bytes(16, "big"))
            answer = await (refresh if door == "/auth/refresh" else exchange)(world, forged, peer=AWAY)
            assert answer.status in {400, 401}
        assert (await refresh(world, program.refresh)).status == 200
        taken = [(await refresh(world, program.refresh)).status for _ in range(Limits().refresh_by_session.burst)]
        assert taken[0] == 200
        assert taken[-1] == 429, "its own refreshes are counted"


async def test_what_was_passed_on_ends_with_its_token(world: World) -> None:
    """The token that `/auth/check` hands to a service in the name of a session or a stateless token ends when that one
    is logged out.
    """
    await world.register()
    service = await world.add_client()
    for mode in ("jwt", "hybrid"):
        program = world.program()
        await program.login(mode=mode)
        passed_on = (await world.check(bearer=program.access)).header("x-auth-token")
        assert passed_on
        assert b'"active":true' in await introspect(world, passed_on, service)
        assert (await world.call("POST", "/auth/logout", bearer=program.access)).status == 200
        assert await introspect(world, passed_on, service) == INACTIVE


async def test_thousands_of_sessions_cause_no_wait(world: World) -> None:
    """An account with more sessions than usual lists the latest, and ends the others in a handful of changes;
    the one that is kept goes on, and what was ended is dead with its access tokens.
    """
    await world.register()
    many = [await signed_in(world) for _ in range(LISTED + 3)]
    kept = many[-1]
    assert len((await kept.call("GET", "/auth/sessions")).json["sessions"]) == LISTED
    before = len(await the_log(world.store))
    ended = await kept.call("DELETE", "/auth/sessions?except=current")
    assert ended.json["ended"] == LISTED + 2
    assert len(await the_log(world.store)) == before + 1
    for gone in (many[0], many[-2]):
        assert (await gone.me()).status == 401
        assert (await refresh(world, gone.refresh)).status == 401
    again = await refresh(world, kept.refresh)
    assert again.status == 200
    assert (await world.call("GET", "/auth/me", bearer=again.json["access_token"])).status == 200
    assert len((await world.call("GET", "/auth/sessions", bearer=again.json["access_token"])).json["sessions"]) == 1


async def test_few_others_end_one_by_one_and_the_kept_token_lives(world: World) -> None:
    """Up to the bound the others end by name, so that the access token of the one that is kept stays good."""
    await world.register()
    many = [await signed_in(world) for _ in range(ENDED_ONE_BY_ONE + 1)]
    ended = await many[0].call("DELETE", "/auth/sessions?except=current")
    assert ended.json["ended"] == ENDED_ONE_BY_ONE
    assert (await many[0].me()).status == 200
    assert {(await each.me()).status for each in many[1:]} == {401}


async def test_an_address_that_was_not_verified_is_not_flooded() -> None:
    """A stranger who registered an address can sign in as often as the limits allow: no mail goes out for it."""
    policy = replace(STANDARD, require_verified_email=True)
    async with a_world(limits=Limits(), policy=policy) as world:
        await world.directory.registration.register("ada@example.com", PASSWORD, "", client=HOME)
        await world.posted()
        for _ in range(Limits().sign_in_by_stranger.burst):
            with pytest.raises(WrongCredentials):
                await world.directory.sign_in.by_password("ada@example.com", PASSWORD, Browser(HOME), mode="jwt")
        await world.posted()
        assert len(world.mailbox.mails) == 1


@pytest.mark.parametrize(
    ("line", "mode", "finds"),
    [
        ('pepper = "k3J9-qPz7_mW2xVb5nRt"', 0o644, True),
        ('mail = "smtps://user:s3nd-m4il-0nly@mail.example.com"', 0o640, True),
        ('pepper = "k3J9-qPz7_mW2xVb5nRt"', 0o600, False),
        ('mail = "console:"', 0o644, False),
        ('mail = "console:"', 0o666, True),
    ],
)
def test_a_configuration_file_with_a_secret_in_it_is_one(tmp_path: Path, line: str, mode: int, finds: bool) -> None:
    """`check` finds a configuration file that others can read, where a secret itself stands in it."""
    file = tmp_path / "door.toml"
    file.write_text(line + "\n")
    file.chmod(mode)
    settings = read_settings({"config": str(file), "database": f"sqlite:///{tmp_path}/door.db"}, {})
    assert ("config" in {each.setting for each in findings(settings)}) == finds


@pytest.mark.parametrize("subject", ["u\r\nX-Auth-Roles: admin", "admin ", " admin", "", "a\x00", "é", "a" * 256])
async def test_a_subject_is_nothing_that_a_header_cannot_carry(world: World, subject: str) -> None:
    """An application may name its users as it likes, but not so that `/auth/check` writes a header of their choice."""
    with pytest.raises(InvalidInput):
        await world.auth.authority.provide(subject)
    assert await world.store.accounts() == []
    assert (await world.auth.authority.provide("auth0|a/b@c:d+e")).subject == "auth0|a/b@c:d+e"


def test_i23_bodies_and_answers_show_no_secret() -> None:
    """What a program that reports errors prints of the variables it finds holds neither passwords nor tokens."""
    user = User("id", "ada@example.com", "Ada", (), True)
    for shown in (
        Login(email="ada@example.com", password="canary"),
        PasswordChange(current_password="canary", new_password="canary"),
        RefreshProof(refresh_token="canary"),
        SignedInView(user=user, access_token="canary", refresh_token="canary", csrf_token="canary"),
        TokenAnswer("canary", "Bearer", 1, "canary", ""),
    ):
        assert "canary" not in repr(shown)


@pytest.mark.parametrize("door", ["password", "reauthenticate"])
async def test_a_copied_session_guesses_no_longer_than_a_marked_browser(door: str) -> None:
    """Guesses at the password inside a session end at the ceiling, however long it lives and however many there are;
    the owner, who is refused then too, resets it and goes on. A right one starts the count anew.
    """
    async with a_world(limits=Limits()) as world:
        await world.register()
        thieves = [await signed_in(world) for _ in range(3)]

        async def guess(thief: Program, password: str) -> int:
            field = "password" if door == "reauthenticate" else "current_password"
            more = {} if door == "reauthenticate" else {"new_password": OTHER_PASSWORD}
            return (await thief.call("POST", f"/auth/{door}", json={field: password, **more})).status

        async def guesses() -> int:
            made = 0
            for n in range(40):
                thief = thieves[n % 3]
                world.clock.forward(HOUR)
                thief.learn(await refresh(world, thief.refresh))
                made += await guess(thief, "not the password") == 401
            return made

        assert await guess(thieves[0], "not the password") == 401
        assert await guess(thieves[0], PASSWORD) == 200
        if door == "password":  # it ended the others
            thieves[1:] = [await signed_in_with(world, OTHER_PASSWORD) for _ in range(2)]
        assert await guesses() == Limits().devices_in_a_row.burst
        thieves[0].learn(await refresh(world, thieves[0].refresh))
        assert await guess(thieves[0], OTHER_PASSWORD if door == "password" else PASSWORD) == 429
        await world.directory.recovery.forget_password("ada@example.com", client=HOME)
        await world.posted()
        token = world.mailbox.mails[-1].text.partition("#")[2].split()[0]
        reset = await world.call("POST", "/auth/password/reset", json={"token": token, "new_password": NEW_PASSWORD})
        assert reset.status == 200
        again = await signed_in_with(world, NEW_PASSWORD)
        assert await guess(again, NEW_PASSWORD) == 200


async def signed_in_with(world: World, password: str) -> Program:
    program = world.program()
    await program.login(password=password, mode="hybrid")
    return program


async def test_a_master_key_that_leaked_can_be_dropped() -> None:
    """Once all that it sealed was killed or has retired, the server starts without it; before that, it does not."""
    store, clock = MemoryStore(), Clock()
    leaked, fresh = MasterKey.generate(), MasterKey.generate()

    async def start(*keys: MasterKey, kill: bool = False) -> None:
        async with Auth(store, master_key=MasterKeys(*keys), clock=clock) as auth:
            for row in auth.authority.ring.rows if kill else ():
                await auth.authority.kill_key(row.kid, client=HOME, actor="cli")
            assert auth.authority.ring.signing(clock(), "ES256")

    await start(leaked)
    with pytest.raises(InvalidKey):
        await start(fresh)
    await start(fresh, leaked, kill=True)
    await start(fresh)
    before = clock.now
    clock.forward(400 * DAY)
    await start(MasterKey.generate())  # what retired needs no key either
    clock.now = before
    with pytest.raises(InvalidKey):
        await start(MasterKey.generate())
