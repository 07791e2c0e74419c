"""The key ring: states by time alone, rotation by itself and by hand, and keys killed in an emergency."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace
from tests.standins import HOME, MASTER, T0, Clock, Gate, Wrapped, authority, make, opened, proof_of

from dutchdoor.errors import InvalidKey, InvalidToken, Misconfigured, NotFound, Unavailable
from dutchdoor.jose import jws, signing_keys
from dutchdoor.jose.jwk import Key
from dutchdoor.jose.signing_keys import KeyRing, StoredKey, new_key, revoked, state_of, with_states
from dutchdoor.model.master_key import MasterKey, MasterKeys
from dutchdoor.model.policy import CLOCK_SLACK, DAY, HOUR, LONGEST_ACCESS, STANDARD
from dutchdoor.services.fencing import Fencing
from dutchdoor.services.sessions import Authority
from dutchdoor.services.tokens import RING_FRESH_FOR
from dutchdoor.stores.sqlite import SqliteStore

SIGNS = STANDARD.key_sign_for
PUBLISHED = STANDARD.key_publish_for
ES256 = Key.generate("ES256")


def row(number: int = 1, signs_at: float = T0, alg: str = "ES256") -> StoredKey:
    return new_key(Key.generate(alg), MASTER, number=number, signs_at=signs_at, now=T0, policy=STANDARD)


@pytest.fixture(params=[pytest.param("memory", marks=pytest.mark.long), "sqlite"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def over(kind: str, tmp_path: Path, clock: Clock) -> AsyncIterator[Authority]:
    async with opened(kind, tmp_path, clock) as authority:
        yield authority


@pytest.mark.parametrize(
    ("at", "state"),
    [
        (-0.001, "upcoming"),
        (0, "signing"),
        (SIGNS - 0.001, "signing"),
        (SIGNS, "verifying"),
        (SIGNS + LONGEST_ACCESS + CLOCK_SLACK - 0.001, "verifying"),
        (SIGNS + LONGEST_ACCESS + CLOCK_SLACK, "retired"),
    ],
)
def test_a_state_follows_from_time_alone(at: float, state: str) -> None:
    """What a key may do follows from its times, so that processes that read the same rows agree without talking."""
    assert state_of(row(), T0 + at) == state
    assert state_of(revoked(row(), T0), T0 + at) == "revoked"


def test_the_newest_signs_and_all_verify() -> None:
    """Of two keys whose time it is the newer signs; an upcoming one is published and signs nothing."""
    old, new, next_ = row(1), row(2, T0 + 10), row(3, T0 + 20)
    ring = KeyRing([next_, old, new], MASTER)
    assert ring.signing(T0 + 5, "ES256").kid == old.kid
    assert ring.signing(T0 + 15, "ES256").kid == new.kid
    assert ring.signing(T0 + 25, "ES256").kid == next_.kid
    assert {key.kid for key in ring.published(T0 + 5)} == {old.kid, new.kid, next_.kid}
    assert [state for _, state in with_states([old, new, next_], T0 + 15)] == ["verifying", "signing", "upcoming"]
    assert [state for _, state in with_states([old, row(2, alg="HS256")], T0)] == ["signing", "signing"], (
        "each algorithm has its own"
    )


def test_a_token_is_accepted_for_all_its_life() -> None:
    """I-22: what a key signed in its last second verifies until it expires, on a clock that is behind as well."""
    key = row()
    last_token_dies = key.signs_until + STANDARD.access_for
    assert state_of(key, last_token_dies + CLOCK_SLACK - 0.001) == "verifying"


def test_one_key_always_signs() -> None:
    """Making each key when it is due, one signs at every later hour, and each was published a day before."""
    rows = [row()]
    ring = KeyRing(rows, MASTER)
    for hour in range(200 * 24):
        now = T0 + 3600 * hour
        due = ring.due(now, STANDARD, "ES256")
        if due is not None:
            assert due - now >= PUBLISHED - 3600
            rows.append(row(len(rows) + 1, due))
            ring = KeyRing(rows, MASTER)
        assert state_of(rows[-1], now) == "signing" or state_of(rows[-2], now) == "signing"
        assert ring.due(now, STANDARD, "ES256") is None
    assert len(rows) == 7


def test_p41_a_shorter_time_to_sign_begins_with_the_present_key() -> None:
    """A server that is given a shorter `key_sign_for` creates the next key in time for it, published as long as any,
    and does not wait for the end that the present key was created with.
    """
    daily = replace(STANDARD, key_sign_for=2 * DAY, key_publish_for=6 * HOUR)
    ring = KeyRing([row()], MASTER)
    assert ring.due(T0 + DAY, daily, "ES256") is None
    assert ring.due(T0 + 2 * DAY - 6 * HOUR, daily, "ES256") == T0 + 2 * DAY
    assert ring.due(T0 + 9 * DAY, daily, "ES256") == T0 + 9 * DAY + 6 * HOUR
    late = T0 + SIGNS - HOUR
    assert ring.due(late, daily, "ES256") == T0 + SIGNS - daily.access_for, "before the present key ends"


@pytest.mark.parametrize(
    "times",
    [
        {"key_sign_for": 60.0, "key_publish_for": 40.0},
        {"key_sign_for": STANDARD.access_for + CLOCK_SLACK, "key_publish_for": 60.0},
        {"key_sign_for": DAY, "key_publish_for": DAY + 1},
    ],
)
def test_p41_times_with_which_no_key_would_sign_are_refused(times: dict[str, float]) -> None:
    """A key signs longer than a token lives and clocks differ, and is not published longer than it signs: otherwise a
    server would start, and answer each sign-in with an error.
    """
    with pytest.raises(Misconfigured, match="key_"):
        replace(STANDARD, **times)


def test_p41_with_the_shortest_times_a_key_signs_at_every_moment() -> None:
    """The shortest times that are accepted leave no moment without a key that signs, and no pile of keys."""
    short = replace(STANDARD, access_for=60.0, key_sign_for=361.0, key_publish_for=361.0)
    rows: list[StoredKey] = []
    for second in range(0, 4000, 5):
        now = T0 + second
        due = KeyRing(rows, MASTER).due(now, short, "ES256")
        if due is not None:
            rows.append(new_key(ES256, MASTER, number=len(rows) + 1, signs_at=due, now=now, policy=short))
        assert KeyRing(rows, MASTER).signing(now, "ES256")
        assert len([row for row in rows if state_of(row, now) == "upcoming"]) <= 2


def test_a_first_key_is_due_at_once() -> None:
    """Where nothing signs a key is due at once, by every clock within the slack: none yet, all killed, or all past."""
    for rows in ([], [revoked(row(), T0)], [row(1, T0 - 10 * SIGNS)]):
        due = KeyRing(rows, MASTER).due(T0, STANDARD, "ES256")
        assert due is not None
        assert due <= T0 - CLOCK_SLACK


def test_a_key_killed_while_the_next_is_upcoming_is_replaced() -> None:
    """An upcoming key is of no use until its time: when the signing one is killed, another must sign now."""
    ring = KeyRing([revoked(row(1), T0), row(2, T0 + DAY)], MASTER)
    with pytest.raises(Misconfigured):
        ring.signing(T0, "ES256")
    due = ring.due(T0, STANDARD, "ES256")
    assert due is not None
    assert due <= T0


def test_each_algorithm_has_its_own_signer() -> None:
    """J02: after a change of algorithm and back, what signs is of the algorithm that our own check accepts."""
    symmetric, asymmetric = row(1, alg="HS256"), row(2)
    ring = KeyRing([symmetric, asymmetric], MASTER)
    assert ring.signing(T0, "HS256").kid == symmetric.kid
    assert ring.signing(T0, "ES256").kid == asymmetric.kid
    assert ring.due(T0, STANDARD, "EdDSA") == T0 - CLOCK_SLACK


def test_a_row_opens_with_its_master_key_and_name_only() -> None:
    """S15: private parts are sealed: another master key opens none, and a row cannot be put in another's place."""
    key = row()
    assert key.sealed not in repr(key).encode()
    with pytest.raises(InvalidKey):
        KeyRing([key], MasterKeys(MasterKey(bytes(range(32)))))
    with pytest.raises(InvalidKey):
        KeyRing([replace(key, kid=row().kid)], MASTER)
    with pytest.raises(InvalidKey):
        KeyRing([replace(key, sealed=key.sealed[:-1] + bytes([key.sealed[-1] ^ 1]))], MASTER)


def test_a_secret_that_was_handed_out_is_not_ours() -> None:
    """J02: our own API accepts no symmetric key that a verifier holds as well, and never the other kind of key."""
    mine, given_away, asymmetric = row(1, alg="HS256"), row(2, alg="HS256"), row(3)
    ring = KeyRing([mine, replace(given_away, exported_at=T0), asymmetric], MASTER)
    assert [key.kid for key in ring.own(T0, symmetric=True)] == [mine.kid]
    assert [key.kid for key in ring.own(T0, symmetric=False)] == [asymmetric.kid]


async def signed_in(over: Authority) -> str:
    started = await over.start(await proof_of(over), mode="hybrid", client=HOME)
    return started.access_token


async def test_keys_rotate_by_themselves(over: Authority, clock: Clock) -> None:
    """I-22: in half a year no token is refused in its life, each key is published a day ahead, retired ones go."""
    tokens: list[tuple[float, str]] = []
    kids = set()
    published: dict[str, float] = {}
    for _ in range(180 * 4):
        clock.forward(6 * 3600)
        for jwk in await over.jwks():
            published.setdefault(str(jwk["kid"]), clock())
        token = await signed_in(over)
        await over.verify(token)
        tokens.append((clock(), token))
        kid = over.ring.signing(clock(), "ES256").kid
        if kid not in kids and kids:
            assert clock() - published[kid] >= PUBLISHED - 6 * 3600 - STANDARD.access_for
        kids.add(kid)
        clock.forward(STANDARD.access_for - 1)
        await over.verify(token)
        clock.forward(1 + 60)
        with pytest.raises(InvalidToken):
            await over.verify(token)
    assert 6 <= len(kids) <= 8
    assert len(await over.jwks()) <= 3


async def test_rotation_by_hand_overlaps(over: Authority, clock: Clock) -> None:
    """P08: a key made by hand signs after it was published for a day, and tokens of the one before stay good."""
    before = await signed_in(over)
    made = await over.rotate(client=HOME, actor="cli")
    assert made.signs_at == clock() + PUBLISHED
    assert over.ring.signing(clock(), "ES256").kid != made.kid
    await over.verify(before)
    clock.forward(PUBLISHED)
    after = await signed_in(over)
    assert over.ring.signing(clock(), "ES256").kid == made.kid
    await over.verify(after)


async def test_rotation_at_once(over: Authority, clock: Clock) -> None:
    """A key made to sign at once does, and what the one before signed is still accepted."""
    before = await signed_in(over)
    made = await over.rotate(client=HOME, actor="cli", at_once=True)
    assert over.ring.signing(clock(), "ES256").kid == made.kid
    await over.verify(before)
    await over.verify(await signed_in(over))


@pytest.mark.parametrize("upcoming", [False, True], ids=["alone", "with an upcoming key"])
async def test_a_killed_key_is_refused_at_once(over: Authority, clock: Clock, upcoming: bool) -> None:
    """I-22: nothing that a killed key signed is accepted from that moment, and another key signs what follows."""
    if upcoming:
        await over.rotate(client=HOME, actor="cli")
    token = await signed_in(over)
    killed = over.ring.signing(clock(), "ES256").kid
    await over.kill_key(killed, client=HOME, actor="cli")
    with pytest.raises(InvalidToken):
        await over.verify(token)
    fresh = await signed_in(over)
    assert over.ring.signing(clock(), "ES256").kid != killed
    await over.verify(fresh)
    assert killed not in {jwk["kid"] for jwk in await over.jwks()}
    seq = (await over.kill_key(killed, client=HOME, actor="cli")).seq
    assert seq >= 1, "killing it again is fine"
    with pytest.raises(NotFound):
        await over.kill_key("nobody", client=HOME, actor="cli")


@pytest.mark.parametrize("upcoming", [False, True], ids=["alone", "with an upcoming key"])
async def test_a_killed_key_is_refused_by_other_processes_at_once(
    over: Authority, clock: Clock, upcoming: bool
) -> None:
    """I-01, I-22: a process that read its keys a moment ago refuses a killed one, and does not sign with it either."""
    other = authority(over.store, clock)
    if upcoming:
        await over.rotate(client=HOME, actor="cli")
    await other._read_ring(clock(), force=True)
    token = await signed_in(other)
    await over.kill_key(over.ring.signing(clock(), "ES256").kid, client=HOME, actor="cli")
    with pytest.raises(InvalidToken):
        await other.verify(token)
    await other.verify(await signed_in(other))


async def test_a_process_that_checks_nothing_signs_with_no_killed_key(over: Authority, clock: Clock) -> None:
    """I-22: signing looks at the log too, or a worker that only signs people in would hand out dead tokens."""
    other = authority(over.store, clock)
    await other._read_ring(clock(), force=True)
    await over.kill_key(over.ring.signing(clock(), "ES256").kid, client=HOME, actor="cli")
    await over.verify(await signed_in(other))


async def test_a_new_key_of_another_process_is_found(over: Authority, clock: Clock) -> None:
    """I-22: a token signed with a key that another process made a moment ago is accepted, not after half a minute."""
    other = authority(over.store, clock)
    await other._read_ring(clock(), force=True)
    clock.forward(2)
    await over.rotate(client=HOME, actor="cli", at_once=True)
    await other.verify(await signed_in(over))


async def test_unknown_kids_cost_one_look_a_second(
    over: Authority, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I-24: a flood of tokens that name keys we never had reads the rows once a second, not once a token."""
    looks = 0
    real = over.store.select

    async def counted(kind: type[StoredKey]) -> list[StoredKey]:
        nonlocal looks
        looks += 1
        return await real(kind)

    monkeypatch.setattr(over.store, "select", counted)
    forged = jws.sign(b"{}", Key.generate("ES256"), typ="at+jwt")
    clock.forward(5)
    for _ in range(200):
        with pytest.raises(InvalidToken):
            await over.verify(forged)
    assert looks <= 1


@pytest.mark.parametrize("waits", ["for a key it lacks", "for a look that is due"])
async def test_a_crowd_reads_the_keys_once(over: Authority, clock: Clock, waits: str) -> None:
    """I-24: however many come while the rows are being read, they are read once; and the caller that began it and hung
    up does not take it from the others.
    """
    gate = Gate(over.store, "select")
    looks = 0

    class Counted(Wrapped):
        async def select(self, kind: type[StoredKey]) -> list[StoredKey]:
            nonlocal looks
            looks += 1
            return await gate.select(kind)  # type: ignore[no-any-return]

    other = authority(over.store, clock)
    await other._read_ring(clock(), force=True)
    clock.forward(2 if waits == "for a key it lacks" else RING_FRESH_FOR)
    if waits == "for a key it lacks":
        await over.rotate(client=HOME, actor="cli", at_once=True)
    token = await signed_in(over)
    other.store = Counted(over.store)  # type: ignore[assignment]
    first = asyncio.create_task(other.verify(token))
    await gate.reached.wait()
    crowd = [asyncio.create_task(other.verify(token)) for _ in range(50)]
    for _ in range(5):
        await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    gate.open.set()
    assert {principal.subject for principal in await asyncio.gather(*crowd)} == {"alice"}
    assert first.cancelled()
    assert looks == 1


async def test_a_key_that_was_killed_while_the_keys_were_read(over: Authority, clock: Clock) -> None:
    """I-22: a caller that shares a reading that began before a key was killed reads again: it signs with another."""
    gate = Gate(over.store, "select", after=True)
    other = authority(over.store, clock)
    await other._read_ring(clock(), force=True)
    clock.forward(RING_FRESH_FOR)
    other.store = gate  # type: ignore[assignment]
    slow = asyncio.create_task(signed_in(other))
    await gate.reached.wait()
    await over.kill_key(over.ring.signing(clock(), "ES256").kid, client=HOME, actor="cli")
    await other.fencing.follow()
    signing = asyncio.create_task(signed_in(other))
    for _ in range(5):
        await asyncio.sleep(0)
    gate.open.set()
    await over.verify(await signing)
    await slow


class Together(Wrapped):
    """Those who read the keys wait until all have: so that there is a race."""

    def gather(self, count: int) -> None:
        self.barrier, self.coming = asyncio.Event(), count

    async def select(self, kind: type[StoredKey]) -> list[StoredKey]:
        rows = await self.inner.select(kind)
        self.coming -= 1
        if not self.coming:
            self.barrier.set()
        await self.barrier.wait()
        return rows


async def test_racing_rotations_make_one_key(tmp_path: Path, kind: str) -> None:
    """I-22: however many callers find a key due at the same moment, exactly one is created."""
    store = make(kind, tmp_path)
    await store.open()
    clock, meeting = Clock(), Together(store)
    crowd = [authority(meeting, clock) for _ in range(20)]  # type: ignore[arg-type]
    meeting.gather(len(crowd))
    await asyncio.gather(*(one._read_ring(clock(), force=True) for one in crowd))
    assert len(await store.select(StoredKey)) == 1
    clock.forward(SIGNS - PUBLISHED + 1)
    meeting.gather(len(crowd))
    await asyncio.gather(*(one._read_ring(clock(), force=True) for one in crowd))
    assert len(await store.select(StoredKey)) == 2
    events = await store.events(name="key_created")
    assert len(events) == 2
    assert len({one.ring.signing(clock(), "ES256").kid for one in crowd}) == 1
    await store.close()


PROCESS = """
import asyncio, sys
sys.path[:0] = {paths!r}
from dutchdoor.services.sessions import Authority
from dutchdoor.model.master_key import MasterKey, MasterKeys
from dutchdoor.jose.signing_keys import StoredKey
from dutchdoor.stores.sqlite import SqliteStore
async def main():
    store = SqliteStore({file!r})
    await store.open()
    print("ready", flush=True)
    for line in sys.stdin:
        master, now = MasterKeys(MasterKey(bytes(range(100, 132)))), float(line)
        one = Authority(store, master=master, issuer="https://a.example", clock=lambda: now)
        await one._read_ring(now, force=True)
        print(len(await store.select(StoredKey)), flush=True)
    await store.close()
asyncio.run(main())
"""


async def test_racing_processes_make_one_key(tmp_path: Path) -> None:
    """I-22: the same over processes: several on one empty file make one key, and one more on the day it is due."""
    file = str(tmp_path / "test.db")
    code = PROCESS.format(paths=[entry for entry in sys.path if entry], file=file)
    racing = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(3)
    ]
    pipes = [(one.stdin, one.stdout) for one in racing if one.stdin and one.stdout]
    assert [await out.readline() for _, out in pipes] == [b"ready\n"] * 3
    for made, at in enumerate([T0, T0 + SIGNS - PUBLISHED + 1], 1):
        for into, _ in pipes:
            into.write(f"{at}\n".encode())
        assert [await out.readline() for _, out in pipes] == [f"{made}\n".encode()] * 3
    for one, (into, _) in zip(racing, pipes, strict=True):
        into.close()
        assert await one.wait() == 0
    store = SqliteStore(file)
    await store.open()
    assert [key.number for key in await store.select(StoredKey)] == [1, 2]
    await store.close()


# Broken once, to see these tests fail.


async def test_the_race_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The race test can fail: with key numbers that never meet, every process makes a key of its own."""
    numbers = iter(range(1, 1000))
    monkeypatch.setattr(KeyRing, "next_number", property(lambda _: next(numbers)))
    with pytest.raises((AssertionError, Unavailable)):
        await test_racing_rotations_make_one_key(tmp_path, "sqlite")


def test_the_upcoming_gap_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test of a killed key can fail: were upcoming keys counted as signing, nothing would sign for a day."""
    real = signing_keys.state_of
    monkeypatch.setattr(
        signing_keys, "state_of", lambda key, now: "signing" if real(key, now) == "upcoming" else real(key, now)
    )
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        test_a_key_killed_while_the_next_is_upcoming_is_replaced()


async def test_a_deaf_signer_is_noticed(over: Authority, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test of killed keys can fail: an authority that does not follow the log signs on with a killed key."""

    async def deaf(self: Fencing) -> None:
        return

    other = authority(over.store, clock)
    await other._read_ring(clock(), force=True)
    await over.kill_key(over.ring.signing(clock(), "ES256").kid, client=HOME, actor="cli")
    with monkeypatch.context() as broken:
        broken.setattr(Fencing, "follow", deaf)
        token = await signed_in(other)
    with pytest.raises(InvalidToken):
        await over.verify(token)
