"""No answer tells a stranger which accounts exist: not by its words, its calls to the store, or its time."""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence

import pytest
from msgspec.structs import replace
from tests.http.ada import ADA, by_account, login, register
from tests.http.world import AWAY, HOME, OTHER_PASSWORD, PASSWORD, World, a_world
from tests.standins import Watched, endless

from dutchdoor.credentials.password import PasswordHasher
from dutchdoor.model.http_client import Client
from dutchdoor.model.policy import DAY, STANDARD
from dutchdoor.model.rate_limits import DEFAULT_LIMITS, Limit, Limits
from dutchdoor.stores.memory import MemoryStore


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
    async with a_world(limits=replace(endless(Limits()), **by_account(DEFAULT_LIMITS))) as world:
        await peopled(world)
        rows = [[(await login(world, OTHER_PASSWORD, email)).sees() for _ in range(14)] for email in ADDRESSES]
        assert rows == rows[:1] * 4
        assert [row[0] for row in rows[0]] == [401] * 10 + [429] * 4


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
