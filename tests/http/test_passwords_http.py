"""Passwords over HTTP: which are accepted, how they are hashed, and what changing one needs."""

from __future__ import annotations

import random
import time
import unicodedata

import bcrypt
import pytest
from tests.http.ada import ADA, login, register, registration, stored
from tests.http.world import OTHER_PASSWORD, PASSWORD, World, a_world

from dutchdoor.credentials import legacy
from dutchdoor.credentials.password import CHEAPEST, OWASP_2024, PasswordHasher
from dutchdoor.model.http_client import Client
from dutchdoor.model.policy import DAY, HIGH, STANDARD
from dutchdoor.model.rate_limits import DEFAULT_LIMITS


async def test_c01_the_minimum_length_is_the_policys() -> None:
    """8 characters by default, 15 in the profile `high` ; one less is 422 and says which."""
    for policy, least in ((STANDARD, 8), (HIGH, 15)):
        async with a_world(policy=policy) as world:
            good = "Tq7 vLm9 xRw2 Zp4"[:least]
            short = await register(world, good[:-1])
            assert (short.status, short.json["field"]) == (422, "password")
            assert str(least) in short.json["detail"]
            assert (await register(world, good)).status == 201


async def test_c02_a_long_password_is_verified_to_its_last_character(world: World) -> None:
    """128 characters are welcome, and no change of one of them, no end cut off or added, signs anyone in."""
    long = "".join(random.Random(5).choices("abcdefghijklmnopqrstuvwxyz ABCDEFGH0123456789", k=128))
    assert (await register(world, long)).status == 201
    assert (await login(world, long)).status == 200
    for at in (0, 72, 99, 127):
        assert (await login(world, long[:at] + ("x" if long[at] != "x" else "y") + long[at + 1 :])).status == 401
    for other in (long[:-1], long[:72], long + " ", " " + long, long + "\0garbage", long.swapcase(), long.lower()):
        assert (await login(world, other)).status == 401


async def test_c02_what_follows_a_nul_counts(world: World) -> None:
    """A password with a NUL in it is refused or counts to its end; it never stops there."""
    if (await register(world, "before the nul\0and after it")).status == 201:
        assert (await login(world, "before the nul\0and something else")).status == 401
    assert (await login(world, "before the nul")).status == 401


async def test_c03_a_megabyte_of_password_is_refused_for_nothing(world: World) -> None:
    """A password of 1 MiB is refused in milliseconds at every endpoint that takes one, and never hashed."""
    await world.register()
    world.directory.hasher.hash = world.directory.hasher.verify = None  # type: ignore[method-assign,assignment]
    world.directory.hasher.verify_nothing = None  # type: ignore[method-assign,assignment]
    huge = "x" * (1 << 20)
    for path, body in (
        ("/auth/register", registration(huge, "eve@example.com")),
        ("/auth/login", registration(huge)),
        ("/auth/password/reset", {"token": "ddo1_x", "new_password": huge}),
    ):
        content = (await _encoded(body)).encode()
        before = time.process_time()
        answer = await world.call("POST", path, body=content, headers=[("content-type", "application/json")])
        cpu = time.process_time() - before
        assert answer.status == 413
        assert cpu < 0.05, "the test's own client is in this figure"


async def _encoded(body: dict[str, str]) -> str:
    return "{" + ", ".join(f'"{key}": "{value}"' for key, value in body.items()) + "}"


async def test_c03_the_maximum_is_1024_bytes_however_they_are_spelled(world: World) -> None:
    """1,024 bytes are accepted and one more is 422, for ASCII and for characters of four bytes alike."""
    for letter in ("w", "🚪"):
        size = 1024 // len(letter.encode())
        varied = "".join(f"{n % 10}" for n in range(7)) + " door " if letter == "w" else ""
        fits = varied + letter * (size - len(varied))
        for password, status in ((fits, 201), (fits + letter, 422)):
            email = f"{len(password)}-{ord(letter)}@example.com"
            answer = await register(world, password, email)
            if status == 201 and answer.status == 422:
                assert answer.json["code"] == "weak_password", "refused for what it is, not for its length"
            else:
                assert answer.status == status, answer
    known, unknown = await login(world, "🚪" * 257), await login(world, "🚪" * 257, "nobody@example.com")
    assert known.sees() == unknown.sees()


async def test_c03_the_longest_password_signs_in_decomposed(world: World) -> None:
    """A password of up to 1,024 bytes registers and signs in, composed and decomposed, at every endpoint."""
    for number, size in enumerate((342, 505)):
        password = "dörwäy " + "ǖ" * size
        decomposed = unicodedata.normalize("NFD", password)
        for one, other in ((password, decomposed), (decomposed, password)):
            email = f"{number}-{len(one)}@example.com"
            assert (await register(world, one, email)).status == 201
            assert (await login(world, other, email)).status == 200


@pytest.mark.parametrize(
    "password",
    [
        "🚪🔑🪟🧱🪜🛎🔔🗝",
        "  seven spaces and words  ",
        "كلمة مرور طويلة جدا",
        "пароль-на-двери-дома",
        "zero\u200bwidth joins",
    ],
)
async def test_c04_any_characters_make_a_password(world: World, password: str) -> None:
    """Emoji, spaces at both ends, right-to-left and Cyrillic letters are accepted, and sign in as they were typed."""
    assert (await register(world, password)).status == 201
    assert (await login(world, password)).status == 200
    assert (await login(world, password[1:])).status == 401


async def test_c04_composed_and_decomposed_letters_are_one_password(world: World) -> None:
    """Set on a device that decomposes letters, it signs in on one that composes them, and the other way round."""
    text = "Tür zur Straße über Çınarlı"
    for n, (one, other) in enumerate((("NFD", "NFC"), ("NFC", "NFD"))):
        email = f"n{n}@example.com"
        assert (await register(world, unicodedata.normalize(one, text), email)).status == 201  # type: ignore[arg-type]
        assert (await login(world, unicodedata.normalize(other, text), email)).status == 200  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("email", "password"),
    [
        (ADA, "password1234567"),
        (ADA, "iloveyou"),
        ("wilhelmina@example.com", "wilhelmina2026!!"),
        (ADA, "dutchdoor2026"),
        (ADA, "aaaaaaaaaaaaaaaa"),
        (ADA, "1234567890"),
    ],
)
async def test_c05_what_everyone_tries_is_refused_with_a_reason(world: World, email: str, password: str) -> None:
    """Common passwords, and those made of the address or the product's name, are 422 with a reason for people."""
    answer = await register(world, password, email)
    assert (answer.status, answer.code, answer.json["field"]) == (422, "weak_password", "password")
    assert len(answer.json["detail"]) > 20
    assert password not in answer.json["detail"]


async def test_c05_a_leaked_password_is_refused() -> None:
    """A password from the operator's list of leaked ones is refused at registering, changing and resetting."""
    leaked = "an ordinary phrase that leaked"
    async with a_world(breached=lambda password: password == leaked) as world:
        assert (await register(world, leaked)).code == "weak_password"
        await world.register()
        client = world.program()
        await client.login(mode="hybrid")
        changed = await client.call(
            "POST", "/auth/password", json={"current_password": PASSWORD, "new_password": leaked}
        )
        assert (changed.status, changed.code) == (422, "weak_password")
        await world.call("POST", "/auth/password/forgot", json={"email": ADA})
        await world.posted()
        body = {"token": world.mailbox.token(), "new_password": leaked}
        assert (await world.call("POST", "/auth/password/reset", json=body)).code == "weak_password"


async def test_c06_a_password_does_not_age() -> None:
    """A password of five years signs in, and no one is asked to change it."""
    async with a_world() as world:
        await world.register()
        world.clock.forward(5 * 365 * DAY)
        assert (await login(world, PASSWORD)).status == 200


async def test_c06_no_hint_and_no_secret_question(world: World) -> None:
    """No field anywhere in the API is a hint, a question or an answer, or tells when a password expires."""
    document = (await world.call("GET", "/openapi.json")).body.decode().lower()
    for word in ("hint", "question", "mother", "pet_name", "password_expires", "must_change"):
        assert f'"{word}' not in document


async def test_c07_changing_the_password_needs_the_current_one(world: World) -> None:
    """Without the current password 422, with a wrong one 401, and the old password signs in as before."""
    await world.register()
    client = world.program()
    await client.login(mode="hybrid")
    assert (await client.call("POST", "/auth/password", json={"new_password": OTHER_PASSWORD})).status == 422
    wrong = await client.call(
        "POST", "/auth/password", json={"current_password": OTHER_PASSWORD, "new_password": OTHER_PASSWORD}
    )
    assert (wrong.status, wrong.code) == (401, "wrong_credentials")
    assert (await login(world, OTHER_PASSWORD)).status == 401
    assert (await login(world, PASSWORD)).status == 200
    right = {"current_password": PASSWORD, "new_password": OTHER_PASSWORD}
    assert (await client.call("POST", "/auth/password", json=right, bearer="")).status == 401
    assert (await client.call("POST", "/auth/password", json=right)).status == 200
    assert (await login(world, OTHER_PASSWORD)).status == 200
    assert (await login(world, PASSWORD)).status == 401


async def test_g39_inside_a_sign_in_a_wrong_password_is_called_that(world: World) -> None:
    """Where the account is known, a wrong password is not said to be a wrong address."""
    await world.register()
    browser = world.browser()
    await browser.login()
    change = {"current_password": "not this one", "new_password": OTHER_PASSWORD}
    for path, body in (("/auth/password", change), ("/auth/reauthenticate", {"password": "not this one"})):
        refused = await browser.call("POST", path, json=body)
        assert (refused.status, refused.json["detail"]) == (401, "The password is not right.")


async def test_c07_a_thief_with_an_open_browser_gets_few_guesses() -> None:
    """Guessing the current password inside a session is throttled after five, the right guess then too."""
    async with a_world(limits=DEFAULT_LIMITS) as world:
        await world.register()
        client = world.program()
        await client.login(mode="hybrid")
        change = {"current_password": "wrong guess", "new_password": OTHER_PASSWORD}
        statuses = [(await client.call("POST", "/auth/password", json=change)).status for _ in range(6)]
        assert statuses == [401] * 5 + [429]
        right = {**change, "current_password": PASSWORD}
        assert (await client.call("POST", "/auth/password", json=right)).status == 429
        assert (await client.call("POST", "/auth/reauthenticate", json={"password": PASSWORD})).status == 429


async def test_c08_the_hash_is_argon2id_and_is_upgraded_at_log_in() -> None:
    """What is stored is Argon2id with 19 MiB and two passes; a cheaper hash, or another system's, is replaced when its
    owner signs in, and two accounts with one password share no hash.
    """
    async with a_world(hasher=PasswordHasher()) as world:
        await world.register()
        await world.register("ben@example.com")
        assert (await stored(world)).startswith("$argon2id$v=19$m=19456,t=2,p=1$")
        assert await stored(world) != await stored(world, "ben@example.com")

        cheap = await PasswordHasher(CHEAPEST).hash(PASSWORD)
        old = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
        for n, imported in enumerate((cheap, old)):
            email = f"imported{n}@example.com"
            await world.directory.admin.adopt(email, imported, client=Client())
            assert (await login(world, OTHER_PASSWORD, email)).status == 401
            assert await stored(world, email) == legacy.imported(imported), "a wrong password upgrades nothing"
            assert (await login(world, PASSWORD, email)).status == 200
            assert (await stored(world, email)).startswith("$argon2id$v=19$m=19456,t=2,p=1$")
            assert (await login(world, PASSWORD, email)).status == 200
        assert OWASP_2024.memory == 19456


async def test_c09_bcrypt_does_not_stop_at_72_bytes(world: World) -> None:
    """An imported bcrypt hash never lets a password in that shares only its first 72 bytes."""
    one, other = "x" * 72 + "-and-one", "x" * 72 + "-or-other"
    imported = bcrypt.hashpw(one.encode()[:72], bcrypt.gensalt(4)).decode()
    await world.directory.admin.adopt(ADA, imported, client=Client())
    assert (await login(world, other)).status == 401


async def test_c09_with_a_pepper_a_stolen_database_verifies_nothing() -> None:
    """With a pepper outside the database, the same hash under another pepper signs no one in."""
    async with a_world(hasher=PasswordHasher(CHEAPEST, pepper=b"one pepper of 16+ bytes")) as world:
        await world.register()
        assert (await login(world, PASSWORD)).status == 200
        stolen = await stored(world)
    async with a_world(hasher=PasswordHasher(CHEAPEST)) as thief:
        try:
            await thief.directory.admin.adopt(ADA, stolen, client=Client())
        except Exception:  # noqa: BLE001 - refused at the import is as good
            return
        thief.breaks = True
        assert (await login(thief, PASSWORD)).status != 200
