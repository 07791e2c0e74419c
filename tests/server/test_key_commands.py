"""What commands about keys read, write and print, also beside servers with settings of their own."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from tests.server.conftest import PASSWORD, Run, asynchronously, auth_here, empty, made, served, sign_in
from tests.standins import HOME

from dutchdoor.auth import Auth
from dutchdoor.credentials.password import CHEAPEST, PasswordHasher
from dutchdoor.errors import InvalidKey, InvalidToken, NotAuthenticated
from dutchdoor.mail.file import FileTransport
from dutchdoor.model.deployment import SERVERS, Deployment
from dutchdoor.model.http_client import Client
from dutchdoor.model.master_key import MasterKey
from dutchdoor.model.policy import DAY, HOUR, STANDARD
from dutchdoor.services.browser import Browser
from dutchdoor.services.presenting import SignedIn
from dutchdoor.stores.base import Swap
from dutchdoor.stores.sqlite import SqliteStore

DAILY = replace(STANDARD, key_sign_for=2 * DAY, key_publish_for=6 * HOUR, max_audit_for=3650 * DAY)


def counts(run: Run) -> dict[str, int]:
    rows: dict[str, int] = run("migrate", "--json").json["rows"]
    return rows


def test_p40_a_second_next_key_is_refused(run: Run) -> None:
    """While a key waits to sign, `key rotate` creates no other one of its algorithm: it says which and from when. With
    --at-once, or for another algorithm, it does.
    """
    served()
    made = run("key", "rotate")
    assert "Every server shows it in its key set within 30 s. It signs from 2" in made.out
    again = run("key", "rotate")
    kid = made.out.split()[2]
    assert (again.code, f"Key {kid} is the next one already: it signs from 2" in again.err) == (1, True)
    assert "add --at-once" in again.err
    assert len(run("key", "list", "--json").json) == 2
    assert run("key", "rotate", "--alg", "EdDSA").code == 0
    assert run("key", "rotate", "--at-once").code == 0
    assert run("key", "rotate").code == 1


def test_p40_no_key_is_shown_to_sign_before_it_was_created(run: Run) -> None:
    """A first key is stored with an earlier time, for nodes whose clocks are behind. No one is shown that time."""
    served()
    (key,) = run("key", "list", "--json").json
    assert key["signs_at"] == key["created_at"]
    assert key["created_at"] in run("key", "list").out


def stored(spoil: str = "") -> str:
    """The settings in the database; with `spoil`, make that name in them another one."""

    async def read() -> str:
        store = SqliteStore("dutchdoor.db")
        await store.open()
        record = await store.get(Deployment, SERVERS)
        assert record is not None
        if spoil:
            await store.commit(Swap(replace(record, settings=record.settings.replace(f'"{spoil}"', '"another"'))))
        await store.close()
        return record.settings

    return str(asynchronously(read()))


@pytest.mark.parametrize(
    "words",
    [
        ("key", "list"),
        ("user", "list"),
        ("user", "show", "ada@example.com"),
        ("session", "list", "ada@example.com"),
        ("verifier", "list"),
        ("client", "list"),
        ("audit",),
        ("migrate",),
        ("token", "verify", "a.b.c"),
    ],
)
def test_p40_a_reading_command_writes_nothing(run: Run, words: tuple[str, ...]) -> None:
    """A command that lists or shows leaves each record as it is, although a key of its default algorithm would be due
    and the record of the settings would be another with its own.
    """
    made(run)
    served(alg="HS256", policy=DAILY)
    before, keys = counts(run), run("key", "list", "--json").out
    run(*words)
    assert counts(run) == before
    assert run("key", "list", "--json").out == keys
    assert [key["alg"] for key in json.loads(keys)] == ["HS256"]


def test_p40_a_rotation_by_command_follows_the_servers(run: Run) -> None:
    """A key that a command creates has the algorithm and the times of the servers, unless the command is given others.
    Where no server was, it does not guess.
    """
    empty()
    refused = run("key", "rotate")
    assert (refused.code, "No server has used this database" in refused.err) == (2, True)
    served(alg="EdDSA", policy=DAILY)
    row = run("key", "rotate", "--json").json
    assert (row["alg"], row["state"]) == ("EdDSA", "upcoming")
    times = {name: _seconds(row[name]) for name in ("created_at", "signs_at", "signs_until")}
    assert times["signs_at"] - times["created_at"] == pytest.approx(DAILY.key_publish_for, abs=1)
    assert times["signs_until"] - times["signs_at"] == pytest.approx(DAILY.key_sign_for, abs=1)
    assert run("key", "rotate", "--alg", "ES256", "--json").json["alg"] == "ES256"


def test_p40_a_rotation_at_once_says_when_servers_sign_with_it(run: Run) -> None:
    """Other servers read the keys now and then: what is printed is when they have the new one, not when it was made."""
    served()
    assert "Every server signs with it within 30 s." in run("key", "rotate", "--at-once").out


def test_p40_a_command_verifies_a_token_as_the_servers_issue_it(run: Run) -> None:
    """`token verify` without settings knows the issuer and the audience of the servers."""
    made(run)

    async def issued() -> str:
        async with Auth(
            "sqlite:///dutchdoor.db",
            master_key="dutchdoor.keys",
            public_url="https://auth.example.com",
            audience=("shop",),
        ) as auth:
            signed_in, _ = await auth.directory.sign_in.by_password(
                "ada@example.com", PASSWORD, Browser(Client()), mode="jwt"
            )
            return signed_in.access_token

    token = asynchronously(issued())
    assert run("token", "verify", text=token).code == 0
    assert run("token", "verify", "--audience", "blog", text=token).code == 1


@pytest.mark.parametrize(
    ("settings", "words", "says"),
    [
        ({"hasher": PasswordHasher(CHEAPEST, pepper=b"p" * 15 + b"q")}, ("create", "a@example.com", "--password-stdin"),
         "DUTCHDOOR_PEPPER"),
        ({"mail": FileTransport(Path("mail"), sender="a@example.com")}, ("create", "a@example.com", "--mail-link"),
         "DUTCHDOOR_MAIL"),
        ({"mail": FileTransport(Path("mail"), sender="a@example.com")}, ("reset", "ada@example.com"),
         "with --config FILE, or set --mail-file FILE or DUTCHDOOR_MAIL."),
        ({"breached": lambda _: False}, ("create", "a@example.com", "--password-stdin"), "--breached FILE"),
    ],
)  # fmt: skip
def test_p40_a_command_asks_for_a_secret_that_the_servers_have(
    run: Run, settings: dict[str, Any], words: tuple[str, ...], says: str
) -> None:
    """Without the pepper of the servers a command would store a hash without it, and without their mail server it would
    print a link instead of sending it: it names what it needs, and does nothing.
    """
    made(run)
    served(**settings)
    before = counts(run)
    ran = run("user", *words, text=f"{PASSWORD}\n")
    assert (ran.code, says in ran.err) == (2, True)
    assert counts(run) == before


def test_p40_the_settings_are_those_of_the_last_server(run: Run) -> None:
    """A server stores its settings when it starts, and nothing secret among them. A command stores none."""
    served(policy=DAILY, hasher=PasswordHasher(CHEAPEST, pepper=b"canary of a pepper"))
    assert json.loads(stored())["policy"]["key_sign_for"] == DAILY.key_sign_for
    assert json.loads(stored())["withheld"] == ["pepper"]
    assert "canary" not in stored()
    served(policy=STANDARD)
    kept = stored()
    assert json.loads(kept)["policy"]["key_sign_for"] == STANDARD.key_sign_for
    assert run("key", "rotate", "--key-sign-for", "9d").code == 0
    assert stored() == kept


def test_p40_settings_of_another_version_are_not_guessed_at(run: Run) -> None:
    """Where the servers' settings cannot be read, a command says which version to use."""
    served()
    stored(spoil="alg")
    ran = run("key", "rotate")
    assert (ran.code, "version that the servers have" in ran.err) == (2, True)


def signed_in(*modes: str) -> list[SignedIn]:
    async def sign_in() -> list[SignedIn]:
        async with auth_here() as auth:
            by_password = auth.directory.sign_in.by_password
            return [(await by_password("ada@example.com", PASSWORD, Browser(HOME), mode=mode))[0] for mode in modes]

    return list(asynchronously(sign_in()))


def accepts(each: SignedIn) -> bool:
    """Whether a server accepts what a client has: a cookie, a refresh token or an access token."""

    async def present() -> None:
        async with auth_here() as auth:
            if each.refresh_token:
                await auth.authority.refresh(each.refresh_token, client=HOME)
            elif each.session_token:
                await auth.authority.resume(each.session_token)
            else:
                await auth.authority.verify(each.access_token)

    try:
        asynchronously(present())
    except NotAuthenticated:
        return False
    return True


def test_p43_a_lost_master_key_is_replaced(run: Run) -> None:
    """With the master key lost, servers refuse to start. Commands still work on accounts; one shows which master key is
    missing, and one revokes what it made. Then servers start, and people with a session cookie stay signed in.
    """
    made(run)
    cookie, hybrid, jwt = signed_in("session", "hybrid", "jwt")
    keys = Path("dutchdoor.keys")
    keys.rename("lost")
    keys.touch(mode=0o600)
    keys.write_text(run("key", "master").out)
    with pytest.raises(InvalidKey):
        served()
    assert run("user", "show", "ada@example.com").code == 0
    assert run("key", "rotate").code == 2
    new, lost = run("key", "masters", "--json").json
    assert (new["place"], new["keys"], new["sessions"]) == ("first", 0, 0)
    assert (lost["place"], lost["keys"], lost["sessions"]) == ("no", 1, 1)
    assert lost["id"] in run("key", "masters").out
    asked = run("key", "revoke-master", lost["id"])
    assert (asked.code, "1 signing keys" in asked.err, "nothing was changed" in asked.err) == (1, True, True)
    done = run("key", "revoke-master", lost["id"], "--yes", "--json").json
    assert (done["keys"], done["sessions"], done["fenced"]) == (1, 1, True)
    served()
    assert [accepts(each) for each in (cookie, hybrid, jwt)] == [True, False, False]
    assert all(map(accepts, signed_in("session", "hybrid", "jwt")))


def test_p43_what_a_leaked_master_key_made_is_revoked(run: Run) -> None:
    """Where the master key leaked a new one goes above it, and a command revokes what the old one made, so that its
    line can be removed at once. What the new one made stays. The key that servers go on with is refused.
    """
    made(run)
    _, old_hybrid = signed_in("session", "hybrid")
    keys = Path("dutchdoor.keys")
    leaked = keys.read_text()
    new = run("key", "master").out
    (first,) = run("key", "masters", "--json").json
    refused = run("key", "revoke-master", first["id"], "--yes")
    assert (refused.code, "restart all servers" in refused.err) == (2, True)
    keys.write_text(new + leaked)
    (new_hybrid,) = signed_in("hybrid")
    listed = {each["place"]: each for each in run("key", "masters", "--json").json}
    assert (listed["first"]["sessions"], listed["yes"]["sessions"], listed["yes"]["keys"]) == (1, 1, 1)
    assert run("key", "revoke-master", listed["yes"]["id"], "--yes", "--json").json["sessions"] == 1
    again = run("key", "revoke-master", listed["yes"]["id"], "--yes")
    assert (again.code, "still in use" in again.err) == (1, True)
    keys.write_text(new)
    assert [accepts(each) for each in (old_hybrid, new_hybrid)] == [False, True]


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def test_keys_rotate_and_die(run: Run) -> None:
    """A new key is published before it signs; a killed one is refused, and only after a question."""
    made(run)
    served()
    assert run("key", "rotate", "--json").json["state"] == "upcoming"
    first, second = run("key", "list", "--json").json
    assert (first["state"], second["state"]) == ("signing", "upcoming")
    token = asynchronously(sign_in("ada@example.com", "jwt"))
    assert run("token", "verify", token).code == 0
    refused = run("key", "revoke", first["kid"])
    assert (refused.code, "nothing was changed" in refused.err, "--yes" in refused.err) == (1, True, True)
    assert run("key", "revoke", first["kid"], "--yes").code == 0
    assert run("token", "verify", text=token).code == 1
    states = {each["kid"]: each["state"] for each in run("key", "list", "--json").json}
    assert states[first["kid"]] == "revoked"


def test_an_hs256_secret_is_handed_out_once_and_is_then_no_longer_ours(run: Run) -> None:
    """A service that verifies with it could issue tokens for an administrator, so this server's API accepts nothing
    signed with it.
    """
    made(run, "ada@example.com")
    settings = {"DUTCHDOOR_ALG": "HS256", "DUTCHDOOR_DATABASE": "sqlite:///hs.db"}
    assert run("user", "create", "ada@example.com", "--password-stdin", text=PASSWORD, environment=settings).code == 0

    async def token() -> str:
        async with Auth("sqlite:///hs.db", master_key="dutchdoor.keys", alg="HS256") as auth:
            signed_in, _ = await auth.directory.sign_in.by_password(
                "ada@example.com", PASSWORD, Browser(Client()), mode="jwt"
            )
            await auth.authority.verify(signed_in.access_token)
            return signed_in.access_token

    minted = asynchronously(token())
    exported = run("key", "export", "--json", environment=settings)
    assert exported.json["kty"] == "oct"
    assert len(exported.json["k"]) >= 43

    async def refused() -> None:
        async with Auth("sqlite:///hs.db", master_key="dutchdoor.keys", alg="HS256") as auth:
            await auth.authority.verify(minted)

    with pytest.raises(InvalidToken):
        asynchronously(refused())
    again = run("key", "export", environment=settings)
    assert again.code == 1
    assert "was exported" in again.err
    assert run("audit", "--name", "key_exported", "--json", environment=settings).json[0]["actor"] == "cli"


def test_a_fresh_master_key_is_one(run: Run) -> None:
    """`key master` prints what `--master-key-file` reads, and another each time."""
    first, second = run("key", "master").out, run("key", "master").out
    assert first != second
    assert MasterKey.parse(first).id != MasterKey.parse(second).id
