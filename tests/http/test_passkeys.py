"""Passkeys over HTTP, by an authenticator in software: from making one to a copied key."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any

import pytest
from fido2.cose import ES256, RS256, EdDSA
from msgspec.structs import replace
from tests.backing import new_database
from tests.http.world import OTHER_PASSWORD, OWN, PASSWORD, Answer, Browser, Person, World, a_world
from tests.softkey import BE, BS, PRESENT, SYNCHRONISED, UP, UV, SoftKey, b64
from tests.standins import Gate

from dutchdoor.credentials.passkey import facts_of
from dutchdoor.errors import Misconfigured
from dutchdoor.model.accounts import Credential
from dutchdoor.model.http_client import Client
from dutchdoor.model.policy import MINUTE, STANDARD
from dutchdoor.services.passkeys import relying_party
from dutchdoor.stores.base import Remove, Swap
from dutchdoor.stores.postgres import PostgresStore
from dutchdoor.stores.sqlite import SqliteStore

ADA, BOB = "ada@example.com", "bob@example.com"
LOGIN, REGISTER = "/auth/passkeys/login", "/auth/passkeys/register"


async def options(person: Person, path: str, **body: Any) -> dict[str, Any]:
    answer = await person.call("POST", f"{path}/options", **({"json": body} if body else {}))
    assert answer.status == 200, answer
    return dict(answer.json["publicKey"])


async def made(person: Browser, key: SoftKey | None = None, name: str = "", **other: Any) -> tuple[SoftKey, Answer]:
    """Make a passkey on a browser in which its owner has signed in."""
    key = key or SoftKey(OWN)
    answered = key.create(await options(person, REGISTER), **other)
    return key, await person.call("POST", REGISTER, json={"response": answered, "name": name})


async def with_key(world: World, email: str = ADA, **more: Any) -> tuple[Browser, SoftKey, list[str]]:
    await world.register(email)
    person = world.browser()
    await person.login(email)
    key, answer = await made(person, SoftKey(world.origin, **more), "Laptop")
    assert answer.status == 200, answer
    return person, key, answer.json["recovery_codes"]


async def sign_in(person: Person, key: SoftKey, mode: str = "session", **other: Any) -> Answer:
    answered = key.get(await options(person, LOGIN), **other)
    return await person.call("POST", LOGIN, json={"response": answered, "mode": mode})


async def test_a_passkey_without_a_name_is_named_by_the_page_that_made_it(world: World) -> None:
    """A German page gives it the German name of the device, as its owner reads it from then on; a program gets the name
    that is stored for devices.
    """
    await world.register(ADA)
    person = world.browser()
    await person.login(ADA)
    _, answer = await made(person)
    assert answer.status == 200, answer
    answered = SoftKey(OWN).create(await options(person, REGISTER))
    fields = {"response": json.dumps(answered), "name": " ", "csrf_token": person.csrf or ""}
    german = [("accept", "text/html"), ("accept-language", "de")]
    done = await person.call("POST", REGISTER, form=fields, headers=german)
    assert done.status in {200, 303}, done
    listed = (await person.call("GET", "/auth/factors")).json["factors"]
    assert sorted(each["name"] for each in listed) == ["Firefox on Linux", "Firefox unter Linux"]


@pytest.mark.parametrize("mode", ["session", "hybrid", "jwt"])
async def test_a_passkey_alone_signs_in(world: World, mode: str) -> None:
    """Without a name and a password, in each pattern: with its owner verified, it stands for two kinds of proof."""
    await with_key(world, flags=SYNCHRONISED)
    _, key, _ = await with_key(world, BOB, flags=SYNCHRONISED)
    browser = world.browser()
    asked = await options(browser, LOGIN)
    assert (asked["allowCredentials"], asked["userVerification"]) == ([], "required")
    done = await sign_in(browser, key, mode)
    assert done.status == 200, done
    me = await browser.call("GET", "/auth/me", by_token=mode != "session")
    assert me.json["user"]["email"] == BOB
    if mode != "session":
        principal = await world.auth.authority.verify(done.json["access_token"])
        assert (principal.amr, principal.acr) == (("swk", "user", "mfa"), "aal2")


@pytest.mark.parametrize("alg", [ES256.ALGORITHM, EdDSA.ALGORITHM, RS256.ALGORITHM])
async def test_each_algorithm_that_is_asked_for(world: World, alg: int) -> None:
    """A key of each algorithm in the options signs in; one that never leaves its device is `hwk`."""
    _, key, _ = await with_key(world, alg=alg)
    done = await sign_in(world.program(), key, "hybrid")
    assert (await world.auth.authority.verify(done.json["access_token"])).amr == ("hwk", "user", "mfa")


# What a right answer has to be


def flipped(signature: bytes) -> bytes:
    return signature[:-1] + bytes([signature[-1] ^ 1])


WRONG: dict[str, dict[str, Any]] = {
    "another site": {"rp_id": "evil.example"},
    "another origin": {"origin": "https://evil.example"},
    "a subdomain": {"origin": f"{OWN}.evil.example"},
    "without TLS": {"origin": OWN.replace("https", "http")},
    "a frame of another site": {"embedded": True},
    "the other ceremony": {"type": "webauthn.create"},
    "a challenge of no one": {"challenge": b64(b"x" * 60)},
    "no challenge": {"challenge": ""},
    "without a touch": {"flags": UV},
    "without verification": {"flags": PRESENT},
    "backed up, and not eligible": {"flags": UP | UV | BS},
    "eligible by now": {"flags": UP | UV | BE},
    "another account's handle": {"user": b"someone else"},
    "a wrong signature": {"signature": b"\x30\x06\x02\x01\x01\x02\x01\x01"},
    "no signature": {"signature": b""},
    "an unknown passkey": {"id": b"x" * 24},
}


@pytest.mark.parametrize("wrong", WRONG, ids=[name.replace(" ", "-") for name in WRONG])
async def test_an_answer_of_which_one_part_is_wrong(world: World, wrong: str) -> None:
    """Each part of an answer is checked: with one of them wrong, no session starts, and the right one still signs
    in.
    """
    _, key, _ = await with_key(world)
    before = (await world.store.counts())["sessions"]
    browser = world.browser()
    refused = await sign_in(browser, key, **WRONG[wrong])
    assert (refused.status, refused.set_cookies()) == (401, []), refused
    assert (await world.store.counts())["sessions"] == before
    assert (await sign_in(browser, key)).status == 200


MALFORMED: dict[str, Any] = {
    "nothing": {},
    "no passkey": {"id": "a", "type": "password", "response": {}},
    "no parts": {"id": "AAAA", "type": "public-key", "response": {}},
    "an id that is none": {"id": "\x00'--", "type": "public-key", "response": {"clientDataJSON": "e30"}},
    "no JSON": {"id": "AAAA", "type": "public-key", "response": {"clientDataJSON": b64(b"\xff")}},
    "numbers": {
        "id": "AAAA",
        "type": "public-key",
        "response": {"clientDataJSON": b64(b'{"type":1,"challenge":2,"origin":3}')},
    },
    "deep": {"id": "AAAA", "type": "public-key", "response": {"clientDataJSON": b64(b"[" * 9000)}},
    "long": {"id": "AAAA", "type": "public-key", "response": {"clientDataJSON": "A" * 20_000}},
}


@pytest.mark.parametrize("wrong", MALFORMED, ids=[name.replace(" ", "-") for name in MALFORMED])
async def test_what_is_no_answer(world: World, wrong: str) -> None:
    """What is no answer of a passkey is refused as such, at each endpoint, and is no error of the server."""
    person, *_ = await with_key(world)
    for path in (LOGIN, REGISTER):
        answer = await person.call("POST", path, json={"response": MALFORMED[wrong]})
        assert (answer.status, answer.json["field"]) == (422, "response"), answer
    answer = await person.call("POST", "/auth/reauthenticate", json={"method": "passkey", "response": MALFORMED[wrong]})
    assert (answer.status, answer.json["field"]) == (422, "response"), answer


NO_KEYS: dict[str, dict[str, Any]] = {
    "another site": {"rp_id": "evil.example"},
    "another origin": {"origin": "https://evil.example"},
    "the other ceremony": {"type": "webauthn.get"},
    "without a touch": {"flags": UV},
    "an algorithm that was not asked for": {"public": {1: 2, 3: -35, -1: 2, -2: bytes(48), -3: bytes(48)}},
    "a point that is not on the curve": {"public": {1: 2, 3: -7, -1: 1, -2: bytes(32), -3: b"\1" * 32}},
    "a short RSA key": {"public": {1: 3, 3: -257, -1: b"\xff" * 128, -2: b"\1\0\1"}},
    "a huge RSA key": {"public": {1: 3, 3: -257, -1: b"\xff" * 2048, -2: b"\1\0\1"}},
    "no key": {"public": {}},
}


@pytest.mark.parametrize("wrong", NO_KEYS, ids=[name.replace(" ", "-") for name in NO_KEYS])
async def test_a_passkey_that_is_not_taken(world: World, wrong: str) -> None:
    """What a new passkey says of itself is checked, and a key that could not be checked later is refused now."""
    await world.register(ADA)
    person = world.browser()
    await person.login()
    _, answer = await made(person, **NO_KEYS[wrong])
    assert answer.status in {401, 422}, answer
    assert (await person.call("GET", "/auth/factors")).json["factors"] == []


# Challenges


async def test_a_challenge_is_for_one_purpose_and_one_browser(world: World) -> None:
    """A challenge is worth nothing in another browser, for another purpose, for another account, or after five
    minutes.
    """
    ada, key, _ = await with_key(world)
    _, other, _ = await with_key(world, BOB)
    browser, stranger, program = world.browser(), world.browser(), world.program()
    await options(stranger, LOGIN)

    async def tries(person: Person, answered: dict[str, Any], path: str = LOGIN, **body: Any) -> str:
        answer = await person.call("POST", path, json={"response": answered, **body})
        return "ok" if answer.status == 200 else answer.code

    answered = key.get(await options(browser, LOGIN))
    assert await tries(stranger, answered) == "invalid_token"
    assert await tries(program, answered) == "invalid_token"
    assert await tries(world.browser(), answered) == "invalid_token"
    assert await tries(ada, answered, "/auth/reauthenticate", method="passkey") == "invalid_token"
    assert await tries(browser, answered) == "ok"
    assert await tries(browser, answered) == "invalid_token"  # used
    late = key.get(await options(browser, LOGIN))
    world.clock.now += 5 * MINUTE
    assert await tries(browser, late) == "invalid_token"

    # The other way round: of a step-up, of a new passkey, and of an unfinished sign-in.
    assert (await sign_in(ada, key)).status == 200
    again = key.get(await options(ada, "/auth/passkeys/reauthenticate"))
    assert await tries(ada, again) == "invalid_token"
    new = await options(ada, REGISTER)
    assert await tries(ada, key.get(new | {"rpId": key.rp_id})) == "invalid_token"
    fresh = SoftKey(OWN).create(new | {"challenge": (await options(ada, LOGIN))["challenge"]})
    assert await tries(ada, fresh, REGISTER) == "invalid_token"
    asked = await waiting(browser)
    step = await options(browser, "/auth/passkeys/step", token=asked)
    assert [each["id"] for each in step["allowCredentials"]] == [b64(key.id)]
    assert await tries(browser, key.get(step)) == "invalid_token"
    second = await waiting(browser)
    assert await tries(browser, key.get(step), "/auth/login/step", method="passkey", token=second) == "invalid_token"
    assert await tries(browser, other.get(step), "/auth/login/step", method="passkey", token=asked) == (
        "wrong_credentials"
    )
    assert await tries(browser, key.get(step), "/auth/login/step", method="passkey", token=asked) == "ok"


async def waiting(person: Person, email: str = ADA) -> str:
    answer = await person.call("POST", "/auth/login", json={"email": email, "password": PASSWORD, "mode": "session"})
    assert answer.code == "sign_in_unfinished" and "passkey" in answer.json["methods"], answer
    return str(answer.json["token"])


async def test_a_challenge_belongs_to_the_origin_that_asked(tmp_path: Path) -> None:
    """With related origins, a challenge that one page got is worth nothing on a page of another; and the browser finds
    the list of these origins.
    """
    shop, blog = "https://shop.example.org", "https://blog.example.net"
    origins = [shop, blog]
    async with a_world(origins=origins, passkey_origins=[*origins, "android:apk-key-hash:abc"]) as world:
        _, key, _ = await with_key(world)
        listed = await world.call("GET", "/.well-known/webauthn")
        assert listed.json == {"origins": origins}

        def from_page(origin: str) -> list[tuple[str, str]]:
            return [("origin", origin), ("sec-fetch-site", "cross-site")]

        asked = (await world.call("POST", f"{LOGIN}/options", headers=from_page(shop))).json["publicKey"]

        async def tries(page: str, origin: str) -> int:
            body = {"response": key.get(asked, origin=origin)}
            return (await world.call("POST", LOGIN, headers=from_page(page), json=body)).status

        assert await tries(shop, OWN) == 401
        assert await tries(shop, blog) == 401
        assert await tries(blog, blog) == 401
        assert await tries(blog, shop) == 401
        assert await tries(shop, shop) == 200
        # An app names itself by the key that signed it.
        program = world.program()
        assert (await sign_in(program, key, origin="android:apk-key-hash:abc")).status == 200
        assert (await sign_in(program, key, origin="android:apk-key-hash:abd")).status == 401
    async with a_world() as world:
        assert (await world.call("GET", "/.well-known/webauthn")).status == 404


@pytest.fixture(params=["sqlite", "postgres"])
async def nodes(request: pytest.FixtureRequest, tmp_path: Path, patience: None) -> AsyncIterator[tuple[World, World]]:
    """Two servers over one database."""
    with ExitStack() as databases:
        url = databases.enter_context(new_database()) if request.param == "postgres" else ""

        def store() -> Any:
            return PostgresStore(url) if url else SqliteStore(tmp_path / "passkeys.db")

        async with AsyncExitStack() as stack:
            first = await stack.enter_async_context(a_world(store=store()))
            second = await stack.enter_async_context(a_world(store=store(), clock=first.clock))
            yield first, second


async def test_an_answer_is_accepted_once(nodes: tuple[World, World]) -> None:
    """64 tries at once with one answer, over two nodes, start one session; so do 64 in one unfinished sign-in, and 64
    of one new passkey make one.
    """
    first, second = nodes
    ada, key, _ = await with_key(first)
    browser = first.browser()

    async def tries(jar: dict[str, str], path: str, body: dict[str, Any], csrf: str = "") -> list[int]:
        async def once(world: World) -> int:
            person = world.browser()
            person.jar, person.csrf = dict(jar), csrf
            while (status := (await person.call("POST", path, json=body)).status) == 503:
                pass  # a store that a busy machine has made late: it says to try again
            return status

        return sorted(await asyncio.gather(*(once(nodes[n % 2]) for n in range(64))))

    before = (await first.store.counts())["sessions"]
    answered = key.get(await options(browser, LOGIN))
    got = await tries(browser.jar, LOGIN, {"response": answered, "mode": "session"})
    assert (got[0], set(got[1:])) == (200, {401}), got
    token = await waiting(browser)
    answered = key.get(await options(browser, "/auth/passkeys/step", token=token))
    body = {"method": "passkey", "token": token, "response": answered}
    got = await tries(browser.jar, "/auth/login/step", body)
    assert (got[0], set(got[1:])) == (200, {401}), got
    assert (await first.store.counts())["sessions"] == before + 2
    assert (await sign_in(ada, key)).status == 200
    new = SoftKey(OWN).create(await options(ada, REGISTER))
    got = await tries(ada.jar, REGISTER, {"response": new}, ada.csrf)
    assert got[0] == 200 and set(got[1:]) <= {401, 403}, got
    assert (await sign_in(second.browser(), key)).status == 200


# The account


async def test_a_copied_key_is_refused(world: World) -> None:
    """A key that counts its signatures and comes with a lower count is refused, in each ceremony, and is an event."""
    ada, key, _ = await with_key(world, counts=True)
    browser = world.browser()
    assert (await sign_in(browser, key)).status == 200
    stand = key.count
    for count in (stand, stand - 1, 0):
        refused = await sign_in(browser, key, count=count)
        assert (refused.code, "copied" in refused.json["detail"]) == ("wrong_credentials", True), refused
    answered = key.get(await options(ada, "/auth/passkeys/reauthenticate"), count=0)
    refused = await ada.call("POST", "/auth/reauthenticate", json={"method": "passkey", "response": answered})
    assert refused.code == "wrong_credentials"
    seen = [each for each in await world.events() if each.name == "passkey_cloned"]
    assert len(seen) == 4 and seen[0].detail == "Laptop"
    key.count = stand + 5
    assert (await sign_in(browser, key)).status == 200


async def test_a_passkey_is_asked_for_after_the_password(world: World) -> None:
    """With a passkey, the password leads to a step: an older key, which checks no one, is enough there, and is not
    enough alone. A recovery code stands in for it.
    """
    _, key, codes = await with_key(world, flags=PRESENT)
    assert len(codes) == 10
    browser = world.browser()
    alone = await sign_in(browser, key)
    assert (alone.code, "PIN" in alone.json["detail"]) == ("wrong_credentials", True)
    token = await waiting(browser)
    answered = key.get(await options(browser, "/auth/passkeys/step", token=token))
    done = await browser.call(
        "POST", "/auth/login/step", json={"method": "passkey", "response": answered, "token": token}
    )
    assert done.status == 200, done
    program = world.program()
    token = await waiting(program)
    body = {"method": "recovery_code", "response": codes[0], "token": token}
    assert (await program.call("POST", "/auth/login/step", json=body)).status == 200


async def test_a_sign_in_makes_the_passkey_that_the_policy_demands() -> None:
    """Where a second factor is demanded, a sign-in makes a passkey, and no session exists before. The answer works in
    that sign-in alone, and a second factor that is there by now has to be proved.
    """
    async with a_world(policy=replace(STANDARD, second_factor="required")) as world:
        await world.register(ADA)
        browser, other = world.browser(), world.browser()
        tokens = [await waiting(person) for person in (browser, other)]
        keys = [SoftKey(OWN), SoftKey(OWN)]
        bodies = [
            {
                "method": "passkey",
                "token": token,
                "response": key.create(await options(person, "/auth/passkeys/enrol", token=token)),
            }
            for person, token, key in zip((browser, other), tokens, keys, strict=True)
        ]
        mixed = await browser.call("POST", "/auth/login/step", json=bodies[0] | {"token": tokens[1]})
        assert mixed.code == "invalid_token"
        assert (await world.store.counts())["sessions"] == 0
        done = await browser.call("POST", "/auth/login/step", json=bodies[0])
        assert done.status == 200 and len(done.json["recovery_codes"]) == 10
        late = await other.call("POST", "/auth/login/step", json=bodies[1])
        assert late.status == 401
        refused = await other.call("POST", "/auth/passkeys/enrol/options", json={"token": tokens[1]})
        assert refused.status == 403
        assert (await sign_in(world.browser(), keys[0])).status == 200


async def test_a_policy_that_requires_verification() -> None:
    """With `passkey_verification="required"`, a key that checks no one is neither made nor proved."""
    async with a_world() as lax:
        _, key, _ = await with_key(lax, flags=PRESENT)
        async with a_world(
            store=lax.store, clock=lax.clock, policy=replace(STANDARD, passkey_verification="required")
        ) as world:
            browser = world.browser()
            token = await waiting(browser)
            asked = await options(browser, "/auth/passkeys/step", token=token)
            assert asked["userVerification"] == "required"
            body = {"method": "passkey", "response": key.get(asked), "token": token}
            assert (await browser.call("POST", "/auth/login/step", json=body)).code == "wrong_credentials"
            await world.register(BOB)
            await browser.login(BOB)
            assert (await made(browser, SoftKey(OWN, flags=PRESENT)))[1].code == "wrong_credentials"
            assert (await made(browser))[1].status == 200


async def test_several_passkeys_with_names(world: World) -> None:
    """Passkeys are listed by name, renamed and removed one by one; a device is asked for one of each account, and no
    passkey is registered twice.
    """
    user = await world.register(ADA)
    account = await world.store.account(user["id"])
    assert account is not None
    await world.store.commit(Swap(replace(account, email_verified_at=1.0)))
    ada = world.browser()
    await ada.login()
    key, answer = await made(ada, SoftKey(OWN, flags=SYNCHRONISED), "Laptop")
    codes = answer.json["recovery_codes"]
    asked = await options(ada, REGISTER)
    assert [each["id"] for each in asked["excludeCredentials"]] == [b64(key.id)]
    assert asked["user"]["id"] == b64(key.user) and ADA not in asked["user"]["id"]
    assert (await made(ada, key))[1].status == 403
    world.clock.now += 1
    spare, answer = await made(ada, name="Spare key")
    assert answer.status == 200 and "recovery_codes" not in answer.json
    named = (await ada.call("GET", "/auth/factors")).json["factors"]
    assert [(each["name"], each["synchronised"]) for each in named] == [("Laptop", True), ("Spare key", False)]
    for name, status in (("Old laptop", 204), ("", 422), ("a" * 61, 422), ("\u202eevil", 422)):
        renamed = await ada.call("POST", "/auth/passkeys/rename", json={"id": b64(key.id), "name": name})
        assert renamed.status == status, renamed
    missing = await ada.call("POST", "/auth/passkeys/rename", json={"id": "AAAA", "name": "x"})
    assert missing.status == 404
    gone = await ada.call("POST", "/auth/factors/remove", json={"method": "passkey", "id": b64(key.id)})
    assert gone.status == 204, gone
    assert (await sign_in(world.browser(), key)).code == "wrong_credentials"
    assert (await sign_in(world.browser(), spare)).status == 200
    left = (await ada.call("GET", "/auth/factors")).json
    assert ([each["name"] for each in left["factors"]], left["recovery_codes_left"]) == (["Spare key"], len(codes))
    exported = await ada.call("GET", "/auth/account/export")
    assert [each.get("name") for each in exported.json["credentials"]] == ["Spare key", None, None]
    await world.posted()
    assert sorted(mail.subject.partition(" - ")[0] for mail in world.mailbox.mails if "passkey" in mail.subject) == [
        "A passkey was added to your account",
        "A passkey was added to your account",
        "A passkey was removed from your account",
    ]


async def test_adding_and_removing_take_a_fresh_proof_and_the_factor(world: World) -> None:
    """An old session adds and removes none, nor does one that proved no second factor where the account has one; a
    passkey proves it again.
    """
    ada, key, codes = await with_key(world)
    other = world.browser()
    token = await waiting(other)
    body = {"method": "recovery_code", "response": codes[0], "token": token}
    assert (await other.call("POST", "/auth/login/step", json=body)).status == 200
    world.clock.now += 11 * MINUTE
    removal = {"method": "passkey", "id": b64(key.id)}
    for path, sent in ((f"{REGISTER}/options", None), (REGISTER, {"response": {}}), ("/auth/factors/remove", removal)):
        assert (await ada.call("POST", path, json=sent)).code == "step_up_required", path
    answered = key.get(await options(ada, "/auth/passkeys/reauthenticate"))
    fresh = await ada.call("POST", "/auth/reauthenticate", json={"method": "passkey", "response": answered})
    assert fresh.status == 200, fresh
    assert (await ada.call("POST", "/auth/factors/remove", json=removal)).status == 204
    assert (await ada.call("GET", "/auth/factors")).json["recovery_codes_left"] == 0
    await world.browser().login()  # the password alone is enough again


async def test_the_last_way_in_stays(world: World) -> None:
    """Of an account without a password, the last passkey is not removed: of two removals at once, one succeeds."""
    ada, key, _ = await with_key(world)
    record = await world.store.find(Credential, method="passkey", handle=b64(key.id))
    assert record is not None
    password = await world.store.get(Credential, record.subject, "password", "")
    assert password is not None
    await world.store.commit(Remove(password))
    spare, answer = await made(ada)
    assert answer.status == 200
    # Each has seen the other passkey before one of them is gone.
    gate = Gate(world.store, "commit")
    world.directory.factors.store = gate  # type: ignore[assignment]

    async def remove(one: SoftKey) -> int:
        body = {"method": "passkey", "id": b64(one.id)}
        return (await ada.call("POST", "/auth/factors/remove", json=body)).status

    first = asyncio.create_task(remove(key))
    await gate.reached.wait()
    assert await remove(spare) == 204
    gate.open.set()
    assert await first == 403
    assert len((await ada.call("GET", "/auth/factors")).json["factors"]) == 1


async def test_a_password_alone_adds_no_passkey_beside_another(world: World) -> None:
    """A session from before the first passkey cannot add one of a thief's."""
    await world.register(ADA)
    thief, ada = world.browser(), world.browser()
    await thief.login()
    asked = await options(thief, REGISTER)
    await ada.login()
    assert (await made(ada))[1].status == 200
    refused = await thief.call("POST", REGISTER, json={"response": SoftKey(OWN).create(asked)})
    assert refused.code == "step_up_required"


async def test_a_change_in_between_ends_a_ceremony(world: World) -> None:
    """An unfinished sign-in, a registration and a step-up do not survive a change of the password; a passkey of a
    disabled account, and one that was removed, sign no one in.
    """
    ada, key, _ = await with_key(world)
    browser = world.browser()
    token = await waiting(browser)
    answered = key.get(await options(browser, "/auth/passkeys/step", token=token))
    new = SoftKey(OWN).create(await options(ada, REGISTER))
    discoverable = key.get(await options(browser, LOGIN))
    change = {"current_password": PASSWORD, "new_password": OTHER_PASSWORD}
    assert (await ada.call("POST", "/auth/password", json=change)).status in {200, 202}
    late = await browser.call(
        "POST", "/auth/login/step", json={"method": "passkey", "response": answered, "token": token}
    )
    assert late.code == "invalid_token"
    assert (await ada.call("POST", REGISTER, json={"response": new})).code == "invalid_token"
    record = await world.store.find(Credential, method="passkey", handle=b64(key.id))
    assert record is not None
    await world.directory.admin.disable(record.subject, client=Client(), actor="cli")
    assert (await browser.call("POST", LOGIN, json={"response": discoverable})).code == "wrong_credentials"
    assert (await sign_in(browser, key)).code == "wrong_credentials"


async def test_before_a_first_proof_nothing_tells_of_passkeys(world: World) -> None:
    """The options of a sign-in are the same for everyone, and a wrong password is answered alike with and without."""
    await with_key(world)
    await world.register(BOB)
    asked = [await options(world.browser(), LOGIN) for _ in range(2)]
    for each in asked:
        each.pop("challenge")
    assert asked[0] == asked[1]
    wrong = [
        await world.browser().call("POST", "/auth/login", json={"email": email, "password": "not this one 1"})
        for email in (ADA, BOB, "no@example.com")
    ]
    assert len({each.body for each in wrong}) == 1 and wrong[0].status == 401


async def test_the_store_keeps_no_secret_of_a_passkey(world: World) -> None:
    """A thief of the database gets public keys, names and counts: nothing that signs in."""
    _, key, _ = await with_key(world)
    record = await world.store.find(Credential, method="passkey", handle=b64(key.id))
    assert record is not None
    facts = facts_of(record)
    assert set(facts.__struct_fields__) == {
        "key", "user", "count", "eligible", "backed_up", "transports", "name", "used_at"
    }  # fmt: skip
    assert ADA not in record.proof and record.subject not in record.proof


async def test_the_domain_of_passkeys() -> None:
    """A parent domain makes passkeys of its subdomains one; a foreign domain, and what is no origin, are refused."""
    async with a_world(passkey_domain="example.com") as world:
        _, key, _ = await with_key(world)
        assert key.rp_id == "example.com"
        assert (await sign_in(world.browser(), key)).status == 200
    wrong: dict[str, Any]
    for wrong in (
        {"passkey_domain": "example.org"},
        {"passkey_domain": "ample.com"},
        {"passkey_origins": ["evil.com/"]},
        {"passkey_origins": ["http://localhost:5173"]},
    ):
        with pytest.raises(Misconfigured, match="passkey"):
            World(**wrong)


def test_in_development_a_page_of_another_port_may_use_the_passkeys() -> None:
    """Browsers offer passkeys on localhost without https, so a server there accepts such an origin, and no other."""
    page = "http://localhost:5173"
    assert relying_party("", [page], "http://localhost:8000", "Door").origins == (page,)
    for origin in ("http://localhost.example.org", "http://127.0.0.1:5173", "http://localhost:5173/"):
        with pytest.raises(Misconfigured, match=r"An origin is like https://example\.org"):
            relying_party("", [origin], "http://localhost:8000", "Door")
    with pytest.raises(Misconfigured, match="for a server that is on localhost, too"):
        relying_party("", [page], "https://example.org", "Door")
