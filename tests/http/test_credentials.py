"""Registering and signing in over HTTP: what a password may be, and what an answer may give away."""

from __future__ import annotations

import asyncio
import math
import random
import sqlite3
import statistics
import time
import unicodedata
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal

import bcrypt
import pytest
from msgspec.structs import replace
from tests.http.world import AWAY, HOME, MARK, OTHER_PASSWORD, PASSWORD, Answer, World, a_world
from tests.standins import Watched, endless

from dutchdoor.credentials import legacy
from dutchdoor.credentials.password import CHEAPEST, OWASP_2024, PasswordHasher
from dutchdoor.model.accounts import Credential
from dutchdoor.model.http_client import Client
from dutchdoor.model.policy import DAY, HIGH, STANDARD
from dutchdoor.model.rate_limits import DEFAULT_LIMITS, Limit, Limits
from dutchdoor.stores.memory import MemoryStore
from dutchdoor.stores.sqlite import SqliteStore

ADA = "ada@example.com"


def registration(password: str, email: str = ADA) -> dict[str, str]:
    return {"email": email, "password": password}


async def register(world: World, password: str, email: str = ADA) -> Answer:
    return await world.call("POST", "/auth/register", json=registration(password, email))


async def login(world: World, password: str, email: str = ADA, **more: object) -> Answer:
    return await world.call("POST", "/auth/login", json={"email": email, "password": password, "mode": "jwt"}, **more)


async def forgot(world: World, email: str = ADA, **more: object) -> Answer:
    return await world.call("POST", "/auth/password/forgot", json={"email": email}, **more)


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


async def stored(world: World, email: str = ADA) -> str:
    account = await world.store.account_by_email(email)
    assert account is not None
    credential = await world.store.get(Credential, account.subject, "password", "")
    assert credential is not None
    return credential.proof


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


# --- C10: which accounts exist -------------------------------------------------------------------------------------


async def peopled(world: World) -> None:
    """A known, a disabled and an imported account; `nobody@` has none."""
    await world.register("known@example.com")
    disabled = await world.register("disabled@example.com")
    await world.directory.admin.disable(disabled["id"], client=Client(), actor="cli")
    await world.directory.admin.create("fresh@example.com", client=Client(), actor="cli")


ADDRESSES = ("known@example.com", "disabled@example.com", "fresh@example.com", "nobody@example.com")


async def test_c10_a_refused_log_in_tells_nothing(world: World) -> None:
    """Known, disabled, without a password and unknown: a refused log-in is the same in status, body, headers and
    cookies, the right password for a disabled account included.
    """
    await peopled(world)
    for password in ("🚪" * 300, "\0", "x", OTHER_PASSWORD):
        for mode in ("session", "hybrid", "jwt"):
            seen = [
                (
                    await world.call("POST", "/auth/login", json={"email": email, "password": password, "mode": mode})
                ).sees()
                for email in ADDRESSES
            ]
            assert seen == seen[:1] * 4
    assert (await login(world, PASSWORD, "disabled@example.com")).sees() == seen[0]
    assert seen[0][0] == 401


async def test_c10_asking_for_a_reset_tells_nothing(world: World) -> None:
    """Asking for a reset mail answers the same for every address, and only accounts that may sign in get one."""
    await peopled(world)
    before = len(world.mailbox.mails)
    seen = [(await world.call("POST", "/auth/password/forgot", json={"email": email})).sees() for email in ADDRESSES]
    assert seen == seen[:1] * 4
    assert seen[0][0] == 202
    await world.posted()
    assert sorted(mail.to for mail in world.mailbox.mails[before:]) == ["fresh@example.com", "known@example.com"]


async def test_c10_where_addresses_are_verified_registering_tells_nothing() -> None:
    """With verified addresses required, registering a known and a new address is the same answer, and so is a log-in
    with a wrong password to a verified, an unverified and an unknown one; the rest goes by mail.
    """
    async with a_world(policy=replace(STANDARD, require_verified_email=True)) as world:
        await world.directory.admin.create("known@example.com", client=Client(), actor="cli", password=PASSWORD)
        seen = [(await register(world, OTHER_PASSWORD, email)).sees() for email in ("known@example.com", ADA)]
        assert seen[0] == seen[1]
        assert seen[0][0] == 202
        await world.posted()
        assert {mail.to for mail in world.mailbox.mails} == {"known@example.com", ADA}
        tried = [
            (await login(world, "wrong password", email)).sees()
            for email in ("known@example.com", ADA, "nobody@example.com")
        ]
        assert tried == tried[:1] * 3
        assert (await login(world, OTHER_PASSWORD, "known@example.com")).status == 401, "the newcomer changed nothing"
        tried.append((await login(world, OTHER_PASSWORD, "known@example.com")).sees())
        tried.append((await login(world, OTHER_PASSWORD, ADA)).sees())
        assert tried == tried[:1] * 5, "the password it was registered with does not tell that an address was free"
        assert "not verified yet" in (await login(world, OTHER_PASSWORD)).json["detail"]
        assert len(world.mailbox.mails) == 2, "a log-in sends no mail"


async def calls_of(world: World, watched: Watched, attempt: Callable[[str], Awaitable[object]]) -> list[list[str]]:
    """What an attempt asks of the store, for each of `ADDRESSES`, the work after the answer included."""
    made = []
    for email in ADDRESSES:
        watched.calls.clear()
        await attempt(email)
        await world.posted()
        made.append(list(watched.calls))
    return made


async def test_c10_a_log_in_asks_the_store_the_same_for_every_address() -> None:
    """Wrong, throttled by the account's bucket or refused by the client's address: the store gets the same calls in the
    same order whether there is an account or not. A client that is refused by its address makes one call, the limit's.
    """
    limits = replace(
        DEFAULT_LIMITS, sign_in_by_address=Limit(name="sign_in_by_address", count=1, per_seconds=DAY, burst=60)
    )
    watched = Watched(MemoryStore())
    async with a_world(store=watched, limits=limits) as world:
        await peopled(world)
        await login(world, PASSWORD, "known@example.com", peer=HOME)

        async def attempt(email: str) -> int:
            return (await login(world, OTHER_PASSWORD, email, peer=AWAY)).status

        wrong = await calls_of(world, watched, attempt)
        assert wrong == wrong[:1] * 4
        assert wrong[0] == ["hit", "known", "hit", "commit Log"]
        for email in ADDRESSES:
            for _ in range(9):
                assert await attempt(email) == 401
            assert await attempt(email) == 429
        throttled = await calls_of(world, watched, attempt)
        given_back = ["hit", "commit Forgive"]
        assert throttled == [["hit", "known", "hit", *given_back]] * 4
        for _ in range(60 + limits.refused_by_address.burst):
            assert await attempt("known@example.com") == 429
        assert await calls_of(world, watched, attempt) == [["hit"]] * 4


async def test_c10_throttling_tells_nothing() -> None:
    """Known and unknown addresses are throttled after the same number of attempts with the same answer."""
    async with a_world(limits=replace(endless(Limits()), **_by_account(DEFAULT_LIMITS))) as world:
        await peopled(world)
        rows = [[(await login(world, OTHER_PASSWORD, email)).sees() for _ in range(14)] for email in ADDRESSES]
        assert rows == rows[:1] * 4
        assert [row[0] for row in rows[0]] == [401] * 10 + [429] * 4


def _by_account(limits: Limits) -> dict[str, object]:
    return {
        name: getattr(limits, name)
        for name in (
            *("sign_in_by_stranger", "strangers_in_a_row", "sign_in_by_network", "networks_in_a_row"),
            *("sign_in_by_device", "devices_in_a_row"),
        )
    }


def mann_whitney(one: Sequence[float], other: Sequence[float]) -> float:
    """The two-sided p-value of the Mann-Whitney U test, by its normal approximation with ties."""
    ranked = sorted((value, which) for which, values in enumerate((one, other)) for value in values)
    ranks: list[float] = [0.0] * len(ranked)
    ties = 0.0
    start = 0
    while start < len(ranked):
        end = start
        while end < len(ranked) and ranked[end][0] == ranked[start][0]:
            end += 1
        ranks[start:end] = [(start + end + 1) / 2] * (end - start)
        ties += (end - start) ** 3 - (end - start)
        start = end
    n, m = len(one), len(other)
    u = sum(rank for rank, (_, which) in zip(ranks, ranked, strict=True) if which == 0) - n * (n + 1) / 2
    spread = math.sqrt(n * m / 12 * ((n + m + 1) - ties / ((n + m) * (n + m - 1))))
    return math.erfc(abs(u - n * m / 2) / spread / math.sqrt(2))


def test_c10_the_statistics_can_tell() -> None:
    """The test of times itself sees a shift of a twentieth in noise of a tenth, and none where there is none."""
    draw = random.Random(7)
    one, other = ([draw.gauss(1.0, 0.1) for _ in range(300)] for _ in range(2))
    assert mann_whitney(one, other) > 0.01
    assert mann_whitney(one, [value + 0.05 for value in other]) < 0.01


async def times(rounds: int, kinds: Sequence[Callable[[], Awaitable[object]]]) -> list[list[float]]:
    """Time each kind once a round, in an order drawn anew each round, so that a busy machine hits all alike."""
    taken: list[list[float]] = [[] for _ in kinds]
    draw = random.Random(11)
    for _ in range(rounds):
        for which in draw.sample(range(len(kinds)), len(kinds)):
            start = time.perf_counter()
            await kinds[which]()
            taken[which].append(time.perf_counter() - start)
    return taken


async def log_in_times(rounds: int) -> list[list[float]]:
    async with a_world(hasher=PasswordHasher(workers=1)) as world:
        await peopled(world)

        def attempt(email: str) -> Callable[[], Awaitable[object]]:
            return lambda: login(world, OTHER_PASSWORD, email)

        await times(2, [attempt(email) for email in ADDRESSES])
        return await times(rounds, [attempt(email) for email in ADDRESSES])


@pytest.mark.long
async def test_c10_an_unknown_address_takes_as_long() -> None:
    """A refused log-in takes as long for an unknown address as for a known one: the same hash is computed."""
    for last in (*[False] * 6, True):  # another person's load may fall on one kind; a leak is there every time
        known, disabled, fresh, unknown = await log_in_times(12)
        middle = statistics.median(known)
        apart = max(abs(statistics.median(other) - middle) / middle for other in (disabled, fresh, unknown))
        if apart < 0.25:
            return
        assert not last, f"medians differ by {apart:.0%}"


@pytest.mark.soak
async def test_c10_times_of_300_attempts_are_of_one_distribution() -> None:
    """Over 300 interleaved attempts medians differ by less than 3 %, and a Mann-Whitney test finds no difference."""
    for last in (False, True):
        known, *others = await log_in_times(300)
        middle = statistics.median(known)
        found = [(abs(statistics.median(o) - middle) / middle, mann_whitney(known, o)) for o in others]
        if all(apart < 0.03 and p > 0.01 for apart, p in found):
            return
        assert not last, found


@pytest.mark.soak
async def test_c10_times_of_asking_for_a_reset_are_of_one_distribution() -> None:
    """Asking for a reset mail takes as long for an unknown address as for a known one."""
    async with a_world() as world:
        await peopled(world)

        def ask(email: str) -> Callable[[], Awaitable[object]]:
            async def once() -> None:
                await world.call("POST", "/auth/password/forgot", json={"email": email})

            return once

        for last in (False, True):
            known, unknown = await times(300, [ask("known@example.com"), ask("nobody@example.com")])
            apart = abs(statistics.median(unknown) / statistics.median(known) - 1)
            if apart < 0.15:  # of tenths of a millisecond: the mail itself is sent after the answer
                return
            assert not last, f"medians differ by {apart:.0%}"


# --- C11, C12 --------------------------------------------------------------------------------------------------------


async def test_c11_after_100_wrong_guesses_the_right_one_is_refused() -> None:
    """Guessed at from a hundred addresses over a month, an account takes at most 100 guesses; then the right password
    is refused like a wrong one. Its owner still signs in from the browser that did before, and by a reset.
    """
    async with a_world(limits=DEFAULT_LIMITS) as world:
        await world.register()
        owner = world.browser(peer=HOME)
        await owner.login(mode="session")
        assert any(name.endswith(MARK) for name in owner.jar)
        world.clock.forward(31 * DAY)  # the owner's network is forgotten by now: guessers anywhere are strangers

        evaluated = 0
        for guess in range(400):
            answer = await login(world, f"guess {guess}", peer=f"203.0.{guess % 100}.7")
            evaluated += answer.status == 401
            assert answer.status in {401, 429}
            world.clock.forward(3600.0)
        assert evaluated <= 100
        refused = await login(world, PASSWORD, peer="203.0.113.200")
        assert (refused.status, refused.set_cookies()) == (429, [])

        assert (await owner.login(mode="session")).status == 200, "the owner's own browser is not locked out"


async def test_c11_a_reset_lets_the_owner_in_during_an_attack() -> None:
    """On a new machine, in the middle of an attack that never ends, the owner gets in by a reset mail."""
    async with a_world(limits=DEFAULT_LIMITS) as world:
        await world.register()
        for guess in range(12):
            await login(world, f"guess {guess}", peer=AWAY)
        owner = world.browser(peer="192.0.2.99")
        assert (await login(world, PASSWORD, peer="192.0.2.99")).status == 429
        await owner.call("POST", "/auth/password/forgot", json={"email": ADA})
        await world.posted()
        done = await owner.call(
            "POST", "/auth/password/reset", json={"token": world.mailbox.token(), "new_password": OTHER_PASSWORD}
        )
        assert done.status == 200
        for guess in range(12):
            await login(world, f"guess {guess}", peer=AWAY)
        assert (await owner.login(password=OTHER_PASSWORD, mode="session")).status == 200


@pytest.mark.parametrize(("place", "times"), [("2001:db8:1:2::{:x}", 1), ("2001:db8:1:{:x}::1", 2)])
async def test_c11_one_address_cannot_try_every_account(place: str, times: int) -> None:
    """One customer who tries one password on account after account is throttled by address. All of an IPv6 /64 is one
    address; a /56 gets twice as much, and a /48 four times.
    """
    async with a_world(limits=DEFAULT_LIMITS) as world:
        statuses = [
            (await login(world, "password", f"user{n}@example.com", peer=place.format(n))).status for n in range(1, 200)
        ]
        assert statuses.count(401) == DEFAULT_LIMITS.sign_in_by_address.burst * times
        elsewhere = await login(world, "password", "x@example.com", peer="2001:db8:1:200::1")
        assert elsewhere.status == 401, "another /56 of the same /48"


async def junk(world: World, **more: object) -> None:
    """Log-ins that spend everything an address has."""
    while (await login(world, "password", f"{world.clock()}{len(str(more))}@example.com", **more)).status != 429:
        world.clock.forward(0.001)


async def test_c11_a_known_browser_is_not_refused_for_its_address() -> None:
    """An attacker behind the owner's own address spends all it has, and goes on. The browser that signed in before
    signs in, can ask for a reset, and follows its link; it takes nothing from the address either.
    """
    async with a_world(limits=DEFAULT_LIMITS) as world:
        await world.register()
        owner = world.browser(peer=HOME)
        await owner.login()
        owner.jar = {name: value for name, value in owner.jar.items() if name.endswith(MARK)}
        await junk(world, peer=HOME)
        while (await forgot(world, f"{world.clock()}@example.com", peer=HOME)).status != 429:
            world.clock.forward(0.001)
        for _ in range(30):
            await world.call("POST", "/auth/password/reset", json={"token": "x", "new_password": "x" * 20}, peer=HOME)
        assert (await login(world, PASSWORD, peer=HOME)).status == 429
        await owner.login()
        answer = await owner.call("POST", "/auth/password/forgot", json={"email": ADA})
        assert answer.status == 202
        await world.posted()
        token = {"token": world.mailbox.token(), "new_password": OTHER_PASSWORD}
        assert (await owner.call("POST", "/auth/password/reset", json=token)).status == 200
        await owner.login(password=OTHER_PASSWORD)
        world.clock.forward(60)  # one more may try now, and the owner took none of it
        for _ in range(5):
            await owner.login(password=OTHER_PASSWORD)
        assert (await login(world, "password", "y@example.com", peer=HOME)).status == 401


async def test_c11_a_browser_known_by_an_older_password_may_ask_for_a_reset() -> None:
    """A known-device cookie from before a change of the password signs no one in past the limit of its address. For a
    reset it counts: the letter goes to the owner alone, and the limit of the mailbox holds for this browser too.
    """
    async with a_world(limits=DEFAULT_LIMITS) as world:
        user = await world.register()
        old, new = world.browser(peer=HOME), world.browser(peer=HOME)
        await old.login()
        await new.login()
        changed = {"current_password": PASSWORD, "new_password": OTHER_PASSWORD}
        assert (await new.call("POST", "/auth/password", json=changed)).status in {200, 202}
        old.jar = {name: value for name, value in old.jar.items() if name.endswith(MARK)}
        await junk(world, peer=HOME)
        while (await forgot(world, f"{world.clock()}@example.com", peer=HOME)).status != 429:
            world.clock.forward(0.001)
        refused = await old.call("POST", "/auth/login", json={"email": ADA, "password": OTHER_PASSWORD})
        assert refused.status == 429
        asked = [(await old.call("POST", "/auth/password/forgot", json={"email": ADA})).status for _ in range(9)]
        await world.posted()
        letters = [mail for mail in world.mailbox.mails if mail.to == user["email"] and "reset" in mail.text]
        assert asked.count(202) == len(letters) == DEFAULT_LIMITS.reset_by_mailbox.burst
        assert asked[-1] == 429


async def test_c11_what_an_accounts_bucket_refuses_takes_nothing_from_the_address() -> None:
    """An owner under attack tries again and again on a new machine. The attempts are refused by the account's bucket,
    and other people at the same address have as many attempts as before.
    """
    async with a_world(limits=DEFAULT_LIMITS) as world:
        await world.register()
        for guess in range(DEFAULT_LIMITS.sign_in_by_stranger.burst):
            assert (await login(world, f"guess {guess}", peer=AWAY)).status == 401
        for _ in range(20):
            assert (await login(world, PASSWORD, peer=HOME)).status == 429
        others = [(await login(world, "password", f"user{n}@example.com", peer=HOME)).status for n in range(40)]
        assert others.count(401) == DEFAULT_LIMITS.sign_in_by_address.burst


async def test_c11_a_log_in_after_a_reset_is_not_refused_for_its_address() -> None:
    """A browser that was never seen, behind an address that has nothing left, resets the password by its link and signs
    in at once.
    """
    async with a_world(limits=DEFAULT_LIMITS) as world:
        await world.register()
        await forgot(world, ADA, peer=AWAY)
        await world.posted()
        await junk(world, peer=HOME)
        owner = world.browser(peer=HOME)
        token = {"token": world.mailbox.token(), "new_password": OTHER_PASSWORD}
        assert (await owner.call("POST", "/auth/password/reset", json=token)).status == 200
        await owner.login(password=OTHER_PASSWORD)


@pytest.mark.parametrize("door", ["reset", "password"])
async def test_c11_known_browsers_of_an_old_password_are_strangers(door: str) -> None:
    """A former holder of the password keeps marks of twenty browsers. After the owner resets or changes it, failing
    with them does not refuse the owner's own browser, which is marked anew.
    """
    async with a_world(limits=DEFAULT_LIMITS) as world:
        await world.register()
        thieves = [world.browser(peer=f"203.0.113.{n}") for n in range(20)]
        for thief in thieves:
            await thief.login(mode="jwt")
        owner = world.browser(peer=HOME)
        await owner.login(mode="session")
        if door == "reset":
            await forgot(world, ADA)
            await world.posted()
            body = {"token": world.mailbox.token(), "new_password": OTHER_PASSWORD}
            assert (await owner.call("POST", "/auth/password/reset", json=body)).status == 200
        else:
            body = {"current_password": PASSWORD, "new_password": OTHER_PASSWORD}
            assert (await owner.call("POST", "/auth/password", json=body)).status == 200
        for thief in thieves:
            for _ in range(2):
                answer = await thief.call("POST", "/auth/login", json={"email": ADA, "password": PASSWORD})
                assert answer.status in {401, 429}
        owner.jar = {name: value for name, value in owner.jar.items() if name.endswith(MARK)}
        await owner.login(password=OTHER_PASSWORD)


async def test_c11_roles_and_an_upgraded_hash_leave_the_browser_known() -> None:
    """A change of roles, or a log-in that upgrades the stored hash, leaves the browser that signs in a known one."""
    async with a_world(limits=DEFAULT_LIMITS) as world:
        imported = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
        account = await world.directory.admin.adopt(ADA, imported, client=Client())
        owner = world.browser(peer=HOME)
        await owner.login(mode="jwt")
        assert not (await stored(world)).startswith("$2")
        await world.directory.admin.set_roles(account.subject, ["editor"], client=Client(), actor="cli")
        await junk(world, peer=HOME)
        await owner.login(mode="jwt")


async def test_c11_a_raised_profile_leaves_the_owners_other_browsers_known() -> None:
    """A log-in in one browser hashes the same password anew, under a raised profile. The owner's other browser is still
    a known one; after a change of the password it is not.
    """
    async with a_world(limits=DEFAULT_LIMITS) as world:
        await world.register()
        first, second = world.browser(peer=HOME), world.browser(peer=HOME)
        await second.login(mode="session")
        before = await stored(world)
        world.directory.hasher.profile = OWASP_2024
        await first.login(mode="session")
        assert await stored(world) != before
        second.jar = {name: value for name, value in second.jar.items() if name.endswith(MARK)}
        await junk(world, peer=HOME)
        await second.login(mode="session")
        body = {"current_password": PASSWORD, "new_password": OTHER_PASSWORD}
        assert (await first.call("POST", "/auth/password", json=body)).status == 200
        second.jar = {name: value for name, value in second.jar.items() if name.endswith(MARK)}
        refused = await second.call("POST", "/auth/login", json={"email": ADA, "password": OTHER_PASSWORD})
        assert refused.status == 429


async def test_c11_200_guesses_at_once_count_one_by_one(tmp_path) -> None:
    """200 guesses in parallel are no more than 200 in a row: what is evaluated never exceeds the burst (I-16)."""
    limits = replace(endless(Limits()), **_by_account(DEFAULT_LIMITS))
    async with a_world(store=SqliteStore(tmp_path / "test.db"), limits=limits) as world:
        await world.register()
        answers = await asyncio.gather(*(login(world, f"guess {n}", peer=AWAY) for n in range(200)))
        assert sum(answer.status == 401 for answer in answers) <= DEFAULT_LIMITS.sign_in_by_stranger.burst


NAMES = ("admin", "administrator", "root", "test", "user", "guest", "demo", "operator", "support", "dutchdoor")
WORDS = ("admin", "password", "root", "test", "123456", "changeme", "secret", "guest", "dutchdoor", "letmein")


async def test_c12_no_one_is_there_at_the_start(tmp_path) -> None:
    """A fresh server has no account: 200 pairs that everyone tries are 401, and the database has not one user."""
    path = tmp_path / "test.db"
    async with a_world(store=SqliteStore(path)) as world:
        for name in NAMES:
            for word in WORDS:
                for domain in ("example.com", "localhost.localdomain"):
                    assert (await login(world, word, f"{name}@{domain}")).status == 401
        assert await world.store.accounts() == []
    with sqlite3.connect(path) as rows:
        assert rows.execute("SELECT count(*) FROM accounts").fetchone() == (0,)


async def test_c12_the_first_administrator_comes_by_a_link_used_once(world: World) -> None:
    """The first administrator needs the one-time link; without it, with another's, late, or a second time: 401. No one
    who registers is one.
    """
    admin = {"email": "root@example.com", "password": PASSWORD}
    for token in ("", "ddo1_" + "A" * 48, "admin"):
        assert (await world.call("POST", "/auth/setup", json={"token": token, **admin})).status in {401, 422}
    late = await world.directory.admin.offer_setup()
    assert late is not None
    world.clock.forward(STANDARD.setup_for)
    assert (await world.call("POST", "/auth/setup", json={"token": late.text(), **admin})).status == 401
    secret = await world.directory.admin.offer_setup()
    assert secret is not None
    assert (await world.call("POST", "/auth/setup", json={"token": late.text(), **admin})).status == 401
    made = await world.call("POST", "/auth/setup", json={"token": secret.text(), **admin})
    assert (made.status, made.json["user"]["roles"]) == (201, ["admin"])
    again = {"token": secret.text(), **admin, "email": "second@example.com"}
    assert (await world.call("POST", "/auth/setup", json=again)).status == 401
    assert await world.directory.admin.offer_setup() is None
    assert (await world.register())["roles"] == []


@pytest.mark.parametrize("door", ["register", "forgot", "admin"])
async def test_a02_no_door_takes_an_address_that_is_another_mailbox(door: str) -> None:
    """A02, A01: registering, asking for a reset and an administrator's draft refuse encoded words and source routes."""
    async with a_world() as world:
        root = world.browser()
        await world.make_admin()
        await root.login("root@example.com")
        for address in (
            "=?utf-8?q?x=40evil.example=2c?=@corp.example",
            "=?utf-8?q??=@corp.example",
            "a!b@corp.example",
        ):
            match door:
                case "register":
                    answer = await world.call("POST", "/auth/register", json={"email": address, "password": PASSWORD})
                case "forgot":
                    answer = await world.call("POST", "/auth/password/forgot", json={"email": address})
                case _:
                    answer = await root.call("POST", "/admin/api/accounts", json={"email": address})
            assert (answer.status, answer.json["field"]) == (422, "email")
        await world.posted()
        assert not world.mailbox.mails


async def test_a03_a_strangers_registration_gives_way_to_the_mailbox() -> None:
    """A stranger registers an address first; its owner registers, opens the link, chooses a password and gets in, and
    the stranger's password is nothing. No answer says that anyone came before.
    """
    async with a_world(policy=replace(STANDARD, require_verified_email=True)) as world:
        mallory, ada = world.browser(), world.browser()
        answers = [
            await mallory.call("POST", "/auth/register", json={"email": "ada@example.com", "password": PASSWORD}),
            await ada.call("POST", "/auth/register", json={"email": "Ada@example.com", "password": OTHER_PASSWORD}),
        ]
        await world.posted()
        assert answers[0].status == answers[1].status == 202
        assert answers[0].body == answers[1].body
        shapes = [[line.partition("=")[0] + line[line.index(";") :] for line in each.set_cookies()] for each in answers]
        assert shapes[0] == shapes[1] != []
        token = world.mailbox.token()
        asked = await ada.call("POST", "/auth/email/verify", json={"token": token})
        assert (asked.status, asked.code) == (403, "another_browser")
        taken = await ada.call("POST", "/auth/email/verify", json={"token": token, "password": OTHER_PASSWORD})
        assert taken.json["user"]["email_verified"] is True
        await ada.login("ada@example.com", OTHER_PASSWORD)
        refused = await mallory.call("POST", "/auth/login", json={"email": "ada@example.com", "password": PASSWORD})
        assert refused.status == 401
        again = await mallory.call("POST", "/auth/email/verify", json={"token": token})
        assert again.status == 401


async def test_a03_an_address_that_is_not_verified_blocks_no_one() -> None:
    """Where anyone registers without mail, an owner whose address is taken gets a link, and the stranger is out."""
    async with a_world() as world:
        mallory, ada = world.browser(), world.browser()
        await world.register()
        await mallory.login()
        answer = await ada.call("POST", "/auth/register", json={"email": "ada@example.com", "password": OTHER_PASSWORD})
        assert answer.status == 202
        await world.posted()
        proof = {"token": world.mailbox.token(), "password": OTHER_PASSWORD}
        assert (await ada.call("POST", "/auth/email/verify", json=proof)).status == 200
        assert (await mallory.me()).status == 401
        await ada.login("ada@example.com", OTHER_PASSWORD)
        answer = await ada.call("POST", "/auth/register", json={"email": "ada@example.com", "password": PASSWORD})
        assert (answer.status, answer.code) == (409, "email_taken")


@pytest.mark.parametrize("registration", ["invite", "closed"])
async def test_a06_no_one_registers_where_people_are_invited(registration: Literal["invite", "closed"]) -> None:
    """A closed registration is 403 with a code of its own, before the address or the password is looked at."""
    async with a_world(policy=replace(STANDARD, registration=registration)) as world:
        answer = await world.call("POST", "/auth/register", json={"email": "no address", "password": "x"})
        assert (answer.status, answer.code) == (403, "registration_closed")
        made = await world.directory.admin.create(
            "root@example.com", password=PASSWORD, roles=("admin",), client=Client(), actor="cli"
        )
        root = world.browser()
        await root.login(made.email or "")
        invited = await root.call("POST", "/admin/api/accounts", json={"email": "ada@example.com"})
        assert invited.status == (201 if registration == "invite" else 403)


@pytest.mark.parametrize("name", ["x\0y", "x\x1b[2J", "x\u202ey"])
async def test_a05_the_api_refuses_the_names_that_an_import_refuses(world: World, name: str) -> None:
    """Registering with a control or bidirectional character in the name is 422, and names the field."""
    body = {"email": "ada@example.com", "password": PASSWORD, "name": name}
    answer = await world.call("POST", "/auth/register", json=body)
    assert (answer.status, answer.json["field"]) == (422, "name")
