"""The parts of the fence one by one: what a schedule would hit too seldom, or never."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.fence.simulator import Token

from dutchdoor.errors import Misconfigured
from dutchdoor.revocation.fence import Fence
from dutchdoor.revocation.follower import Follower
from dutchdoor.revocation.lease import DRIFT, GUARD, Lease, Terms
from dutchdoor.revocation.lease_table import Holder, Holders
from dutchdoor.revocation.log import COALESCE_ABOVE, FOR_EVER, Entry, Named, Revocation, RevocationLog, coalesced
from dutchdoor.revocation.messages import Answer, Poll
from dutchdoor.revocation.node import Answered, Ask, Node
from dutchdoor.revocation.node_messages import Forget, NodeRow, ReadLog, ReadRows, Register, Renew, Renewed, Rows

SALT = b"salt"
SOON = 2_000_000_000.0


def session(id: str, seq: int = 0, expires_at: float = SOON) -> Revocation:
    return Revocation(kind="session", id=id, expires_at=expires_at, seq=seq)


def named(**given: Any) -> Named:
    usual = {"subject": "ada", "epoch": 1, "session_id": "s", "token_id": "t", "client_id": "app", "key_id": "k"}
    return Named(**(usual | given))


def bearer(sid: str | None = "s", *, sub: str = "ada", epoch: int = 1, jti: str = "t", kid: str = "k") -> Token:
    return Token(sid, sub, epoch, jti, kid, SOON, 0)


# --- the log ----------------------------------------------------------------------------------------------------------

COVERING = [
    (session("s"), "session"),
    (Revocation(kind="subject", id="ada", min_epoch=2, expires_at=SOON), "subject"),
    (Revocation(kind="token", id="t", expires_at=SOON), "token"),
    (Revocation(kind="client", id="app", min_epoch=1, expires_at=SOON), "client"),
    (Revocation(kind="key", id="k", expires_at=FOR_EVER), "key"),
]


@pytest.mark.parametrize(("entry", "kind"), COVERING)
def test_each_kind_covers_what_it_names(entry: Revocation, kind: str) -> None:
    """An entry covers a token that names it, by every way of asking, before and after it has travelled."""
    here, there = RevocationLog(SALT), RevocationLog(SALT)
    wire = msgspec.json.decode(msgspec.json.encode(here.apply([entry])), type=list[Entry])
    there.take(wire)
    for log in (here, there):
        assert log.covering(named()) == log.covering_token(bearer()) == kind
        assert log.covering_token(bearer()) == kind  # remembered
    other = "other"
    away = named(subject=other, session_id=other, token_id=other, client_id=other, key_id=other)
    assert not there.covers(away)
    assert RevocationLog(b"another").covering(named()) is None


def test_an_id_of_one_kind_is_no_id_of_another() -> None:
    """A session's entry covers no subject, token, client or key that happens to be called the same."""
    log = RevocationLog(SALT)
    log.apply([session("x")])
    assert not log.covers(named(subject="x", token_id="x", client_id="x", key_id="x"))


def test_names_tell_nothing_without_the_id() -> None:
    """What travels is 16 bytes that another deployment's salt would make others."""
    one, other = RevocationLog(SALT), RevocationLog(b"pepper")
    (mine,), (theirs,) = one.apply([session("s")]), other.apply([session("s")])
    assert len(mine.name) == 16
    assert mine.name != theirs.name
    assert b"s" * 2 not in msgspec.json.encode(mine)
    assert len(RevocationLog().salt) == 16


def test_nothing_is_un_revoked() -> None:
    """An entry that comes again, lower or sooner, changes nothing."""
    log = RevocationLog(SALT)
    high = Revocation(kind="subject", id="ada", min_epoch=5, expires_at=SOON)
    log.apply([high, replace(high, min_epoch=2, expires_at=1.0), session("s"), session("s", expires_at=1.0)])
    log.drop_expired(SOON - 1, 0)
    assert log.covers(named(epoch=4, session_id=None))
    assert log.covers(named(epoch=9))
    assert not log.covers(named(epoch=5, session_id="other"))


def test_a_token_with_the_jti_of_another_is_judged_by_its_own_names() -> None:
    """Names remembered for a token are not given to another that carries the same jti."""
    log = RevocationLog(SALT)
    log.apply([session("ended")])
    assert log.covering_token(bearer("living")) is None
    assert log.covering_token(bearer("ended")) == "session"


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(1, 100)), max_size=60),
    st.lists(st.integers(0, 120), max_size=12),
    st.integers(1, 7),
)
def test_entries_go_when_they_have_expired_and_never_before(
    entries: list[tuple[int, int]], times: list[int], step: int
) -> None:
    """Dropping a few at a time loses nothing that lives, and leaves nothing that expired after enough calls."""
    log, lives = RevocationLog(SALT), dict[str, int]()
    for number, at in entries:
        log.apply([session(f"s{number}", expires_at=float(at))])
        lives[f"s{number}"] = max(lives.get(f"s{number}", 0), at)
    now = 0.0
    for now in sorted(map(float, times)):
        log.drop_expired(now, 5.0, look_at=step)
        assert all(log.covers(named(session_id=sid)) for sid, at in lives.items() if at > now - 5)
    for _ in range(2 * len(lives) // step + 2):
        log.drop_expired(now, 5.0, look_at=step)
    assert len(log) == sum(at > now - 5 for at in lives.values())


def test_memory_returns_when_entries_expire() -> None:
    """A flood leaves no more room behind than was there before it."""
    log = RevocationLog(SALT)
    log.apply([session(f"s{n}", expires_at=1.0 + n % 60) for n in range(20_000)])
    full = sum(sys.getsizeof(table) for table in log._tables)
    log.drop_expired(700.0, 600.0)
    assert len(log) == 0
    assert sum(sys.getsizeof(table) for table in log._tables) < full / 100


def test_a_key_is_revoked_for_ever() -> None:
    """No time comes at which a killed key is forgotten: its thief chooses exp."""
    log = RevocationLog(SALT)
    log.apply([Revocation(kind="key", id="k", expires_at=FOR_EVER)])
    log.drop_expired(1e15, 600.0)
    assert log.covers(named())


@pytest.mark.parametrize("kind", ["session", "token"])
def test_no_one_floods_the_log_with_their_own_log_outs(kind: Any) -> None:
    """The seventeenth live entry of a subject is one of the subject, which lasts as long as any of its tokens."""
    entry = Revocation(kind=kind, id="x", expires_at=10.0)
    few = coalesced(entry, subject="ada", epoch=7, live=COALESCE_ABOVE - 1, expires_at=99.0)
    many = coalesced(entry, subject="ada", epoch=7, live=COALESCE_ABOVE, expires_at=99.0)
    assert few is entry
    assert many == Revocation(kind="subject", id="ada", min_epoch=8, expires_at=99.0)
    log = RevocationLog(SALT)
    log.apply([many])
    assert log.covers(named(epoch=7))
    assert not log.covers(named(epoch=8))


def test_what_is_of_a_subject_or_a_key_stays_as_it_is() -> None:
    """Only sessions and tokens are folded together."""
    for entry, kind in COVERING:
        folded = coalesced(entry, subject="ada", epoch=1, live=1000, expires_at=SOON)
        assert (folded is entry) == (kind not in {"session", "token"})


# --- leases and messages ----------------------------------------------------------------------------------------------


def test_the_guard_outlasts_every_clock() -> None:
    """When the grantor's clock is fast and the holder's slow, the grantor still waits longer."""
    lease_for, true_time = 10.0, 10.0 / (1 - DRIFT)
    assert lease_for * GUARD >= true_time * (1 + DRIFT) - 1e-9


def test_a_lease_runs_from_the_sending_and_never_gets_shorter() -> None:
    """An answer that was long under way gives a short lease, and takes none away."""
    lease = Lease()
    assert lease.left(0.0) < 0
    lease.extend(5.0, 10.0)
    lease.extend(1.0, 10.0)
    assert lease.until == 15.0
    lease.drop()
    assert lease.left(0.0) < 0


@pytest.mark.parametrize("lease_for", [0.0, 0.9, 301.0, math.nan, math.inf])
def test_a_lease_is_bounded(lease_for: float) -> None:
    """A setting that is no lease is refused."""
    with pytest.raises(Misconfigured):
        Terms(lease_for=lease_for)


GOOD = {"holder": "h" * 22, "log_epoch": 1, "applied_seq": 2, "wait_ms": 2500}


@pytest.mark.parametrize(
    "bad",
    [
        {"holder": "short"}, {"holder": "h" * 65}, {"holder": "h" * 21 + "\n"}, {"applied_seq": -1},
        {"applied_seq": 2**53 + 1}, {"log_epoch": 1.5}, {"wait_ms": 600_001},
    ],
)  # fmt: skip
def test_a_poll_is_bounded_where_it_is_read(bad: dict[str, object]) -> None:
    """No number and no text in a poll is larger than what the node keeps of it."""
    assert msgspec.json.decode(msgspec.json.encode(GOOD), type=Poll).wait_ms == 2500
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(msgspec.json.encode(GOOD | bad), type=Poll)


# --- holders ----------------------------------------------------------------------------------------------------------

TERMS = Terms()
LATE = TERMS.guarded(TERMS.lease_for)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["grant", "grant", "acknowledge", "wait"]),
            st.integers(0, 4),
            st.floats(0, 6),
            st.booleans(),
        ),
        max_size=60,
    )
)
@settings(max_examples=2 * settings.default.max_examples)
def test_the_level_is_what_a_list_of_all_leases_says(steps: list[tuple[str, int, float, bool]]) -> None:
    """The heaps give what one finds by looking at every lease ever granted."""
    holders, now, head = Holders(TERMS), 0.0, 0
    grants, acked = list[tuple[int, int, float]](), dict[int, int]()
    for step, number, span, new in steps:
        who = Holder("c", str(number))
        head += new
        match step:
            case "wait":
                now += span
            case "grant":
                holders.polled(who, now)
                if sum(v == number and until > now for v, _, until in grants) < 8:
                    holders.grant(who, head, now + span, now)
                    grants.append((number, head, now + span))
            case "acknowledge":
                if len(holders) and any(v == number for v, *_ in grants):
                    seen = max(0, head - 1)
                    if who in holders._by_id:
                        acked[number] = max(acked.get(number, -1), seen)
                    holders.acknowledge(who, seen, now)
        acked = {v: seq for v, seq in acked.items() if Holder("c", str(v)) in holders._by_id}
        expected: float = math.inf
        for seq in range(head + 2):
            if any(until > now and carried < seq and acked.get(v, -1) < seq for v, carried, until in grants):
                expected = seq - 1
                break
        assert min(holders.level(now), head + 1) == min(expected, head + 1)


def test_one_that_never_acknowledges_is_soon_given_nothing() -> None:
    """A verifier that polls for ever and acknowledges nothing loses its leases, and gets them back by catching up."""
    holders, who, now = Holders(TERMS), Holder("c", "rogue"), 0.0
    while now < 3 * TERMS.lease_for:
        holders.polled(who, now)
        if holders.may_have(who, now):
            holders.grant(who, 7, now + 5, now)
        now += 1.0
    assert not holders.may_have(who, now)
    holders.acknowledge(who, 7, now)
    assert holders.may_have(who, now)


def test_a_credential_has_a_bounded_number_of_holders() -> None:
    """A stolen key with a new id in every poll fills no memory but its own share, and that is given back."""
    holders = Holders(Terms(leases=10))
    taken = [holders.polled(Holder("stolen", str(n)), 0.0) for n in range(1000)]
    assert sum(taken) == len(holders) == 10
    assert holders.polled(Holder("honest", "h"), 0.0)
    assert not holders.may_have(Holder("stolen", "500"), 0.0)
    holders.level(LATE + 1)
    assert len(holders) == 0
    assert holders._per_credential == {}


def test_the_heaps_stay_small() -> None:
    """Whatever 20 holders do for an hour, what is kept of it is bounded by their number."""
    holders, now = Holders(TERMS), 0.0
    for n in range(40_000):
        now += 0.05
        who = Holder("c", str(n % 20))
        holders.polled(who, now)
        holders.acknowledge(who, n - 20, now)
        holders.grant(who, n, now + 5, now)
        holders.level(now)
    assert len(holders._levels) + len(holders._ends) < 1000


# --- nodes ------------------------------------------------------------------------------------------------------------


class Rig:
    """A node and a store in one hand: questions are answered when the test says so."""

    def __init__(self, terms: Terms = TERMS, *, log_epoch: int = 1) -> None:
        self.node, self.now, self.log_epoch = Node(terms), 100.0, log_epoch
        self.log: list[Revocation] = []
        self.rows: dict[str, NodeRow] = {}
        self.asked: list[Ask] = []
        self.answers: list[Answered] = []
        self.keys = 0
        self.begin()
        self.serve()

    def begin(self) -> None:
        self.node.want_lease(self.now)

    def sort(self) -> None:
        for action in self.node.take_actions():
            match action:
                case Ask():
                    self.asked.append(action)
                case Answered():
                    self.answers.append(action)

    def serve(self) -> None:
        self.sort()
        while self.asked:
            ask = self.asked.pop(0)
            self.node.answered(ask.number, self.answer(ask.question), self.now)
            self.sort()

    def answer(self, question: object) -> Renewed | Rows | None:
        match question:
            case Register(row):
                self.rows[row.id] = row
            case Renew(row, after):
                there = row.id in self.rows
                if there:
                    self.rows[row.id] = row
                head, after = len(self.log), after if row.log_epoch == self.log_epoch else 0
                return Renewed(
                    there=there, log_epoch=self.log_epoch, salt=SALT, after=after, entries=self.log[after:], upto=head,
                    head=head, rows=list(self.rows.values()),
                )  # fmt: skip
            case ReadLog(log_epoch, after):
                head, after = len(self.log), after if log_epoch == self.log_epoch else 0
                return Renewed(
                    there=True, log_epoch=self.log_epoch, salt=SALT, after=after, entries=self.log[after:], upto=head,
                    head=head,
                )  # fmt: skip
            case ReadRows():
                return Rows(log_epoch=self.log_epoch, rows=list(self.rows.values()))
        return None

    def wait(self, seconds: float) -> None:
        until = self.now + seconds
        while self.node.next_at < until:
            self.now = max(self.now, self.node.next_at)
            self.node.tick(self.now)
            self.serve()
        self.now = until
        self.node.tick(self.now)
        self.serve()

    def poll(self, poll: Poll, credential: str = "c") -> Answer | None:
        self.keys += 1
        self.node.polled(self.keys, poll, self.now, credential=credential)
        self.serve()
        for answer in self.answers:
            if answer.key == self.keys:
                return answer.answer
        return None

    def end(self, id: str) -> Fence:
        self.log.append(session(id, seq=len(self.log) + 1))
        longest = max(row.lease_for for row in self.rows.values())
        fence = self.node.fence(len(self.log), self.log_epoch, self.now, longest_lease=longest)
        self.serve()
        return fence


def a_poll(holder: str = "h" * 22, applied: int = 0, *, epoch: int = 1, **given: Any) -> Poll:
    return Poll(**({"holder": holder, "log_epoch": epoch, "applied_seq": applied, "wait_ms": 2500} | given))


def test_an_undisturbed_fence_takes_one_exchange() -> None:
    """With all verifiers there, a fence holds as soon as the last of them has acknowledged."""
    rig = Rig()
    rig.wait(LATE + 1)
    assert rig.poll(a_poll(epoch=0)).lease_ms > 0  # type: ignore[union-attr]
    assert rig.poll(a_poll()) is None  # hangs
    fence = rig.end("s")
    assert not fence.fenced
    assert 0 < fence.due_in(rig.now) <= LATE + 1e-9
    woken = rig.answers[-1].answer
    assert [entry.kind for entry in woken.entries] == [0]
    rig.poll(a_poll(applied=1))
    assert fence.state == "acknowledged"
    assert fence.due_in(rig.now) == 0.0


def test_a_silent_verifier_delays_a_fence_by_the_maximum_wait() -> None:
    """A holder that hangs up with a lease is waited for until that has run out on any clock, and no longer."""
    rig = Rig()
    rig.wait(LATE + 1)
    rig.poll(a_poll(epoch=0))
    fence = rig.end("s")
    rig.wait(5.0)
    assert not fence.fenced
    rig.wait(LATE - 5.0)
    assert fence.fenced


def test_a_fence_that_no_caller_waits_for_leaves_no_timer_behind() -> None:
    """A client that got its 202, or hung up, abandons its fence. When the time of that fence comes, the node must not
    be called again and again: one such log-out would keep a core busy until the next one.
    """
    rig = Rig()
    rig.wait(LATE + 1)
    rig.poll(a_poll(epoch=0))
    rig.node.abandon(rig.end("s"))
    for _ in range(3):
        rig.now += LATE + 1
        rig.node.tick(rig.now)
        rig.serve()
        assert rig.node.next_at > rig.now


def test_without_the_store_no_one_gets_a_lease() -> None:
    """A node cut off from its store answers, with what it knows, and grants nothing beyond its own lease."""
    rig = Rig()
    rig.now += 9.9
    first = rig.poll(a_poll(epoch=0))
    assert first is not None
    assert first.lease_ms < 200
    rig.now += 5
    rig.node.tick(rig.now)
    rig.sort()
    assert not rig.node.leased(rig.now)
    rig.keys += 1
    rig.node.polled(rig.keys, a_poll(), rig.now)
    rig.node.tick(rig.now + 2.6)
    rig.sort()
    assert rig.answers[-1].answer.lease_ms == 0


def test_a_store_that_is_down_is_asked_a_few_times_in_a_lease() -> None:
    """Polls, fences and notices cause no query to a store that refuses: neither a storm nor a busy loop comes of it."""
    rig, asked = Rig(), 0
    rig.wait(LATE + 1)
    rig.rows["other"] = NodeRow(id="other", stamp="1", log_epoch=1, acked_seq=0, lease_for=10.0)
    rig.wait(2)
    rig.node.fence(1, 1, rig.now)
    until = rig.now + 10
    while rig.now < until:
        rig.now = min(max(rig.now + 0.01, rig.node.next_at), rig.now + 0.05)
        rig.node.tick(rig.now)
        rig.node.woken(rig.now)
        rig.node.polled(object(), a_poll(applied=7), rig.now)
        for action in rig.node.take_actions():
            if isinstance(action, Ask):
                asked += 1
                rig.node.failed(action.number, rig.now)
    assert 10 < asked < 70
    rig.wait(2)
    assert rig.node.leased(rig.now)


def test_rows_read_before_the_commit_say_nothing_about_it() -> None:
    """A look at the other nodes that was under way when the commit returned does not settle its fence."""
    rig = Rig()
    rig.wait(LATE + 1)
    rig.log.append(session("a", seq=1))
    rig.node.fence(1, 1, rig.now)
    rig.sort()
    under_way = [ask for ask in rig.asked if isinstance(ask.question, ReadRows)]
    assert len(under_way) == 1
    empty = Rows(log_epoch=1, rows=[])
    rig.log.append(session("b", seq=2))
    second = rig.node.fence(2, 1, rig.now)
    rig.rows["new"] = NodeRow(id="new", stamp="1", log_epoch=1, acked_seq=0, lease_for=10.0)
    rig.node.answered(under_way[0].number, empty, rig.now)
    rig.asked = [ask for ask in rig.asked if ask not in under_way]
    rig.serve()
    assert not second.rows_seen
    assert not second.fenced


def test_the_longest_lease_of_any_row_counts() -> None:
    """A node with a short lease waits for what a node with a long one has granted."""
    rig = Rig(Terms(lease_for=2.0))
    rig.rows["long"] = NodeRow(id="long", stamp="1", log_epoch=1, acked_seq=0, lease_for=60.0)
    fence = rig.end("s")
    rig.wait(60)
    assert not fence.fenced
    rig.wait(61 * GUARD - 60)
    assert fence.fenced
    assert "long" in rig.rows  # this store forgets nothing


def test_a_stopping_node_grants_nothing_and_leaves_its_row() -> None:
    """Polls that hang are answered at once without a lease, and what was granted is still waited for by others."""
    rig = Rig()
    rig.poll(a_poll(epoch=0))
    assert rig.poll(a_poll()) is None
    rig.node.stop(rig.now)
    rig.serve()
    assert rig.answers[-1].answer.lease_ms == 0
    answer = rig.poll(a_poll("i" * 22, epoch=0))
    assert answer is None or answer.lease_ms == 0
    assert rig.node.id in rig.rows


def test_another_log_loses_every_pending_fence() -> None:
    """After a restore a pending fence says false, and nothing that was acknowledged before counts."""
    rig = Rig()
    rig.wait(LATE + 1)
    rig.poll(a_poll(epoch=0))
    fence = rig.end("s")
    rig.log_epoch, rig.log = 2, []
    rig.wait(2)
    assert fence.state == "lost"
    assert not fence.fenced
    assert fence.due_in(rig.now) == math.inf
    assert len(rig.node.followers(rig.now)) == 0


def test_one_process_polls_once_at_a_time() -> None:
    """A second poll of one holder answers the first without a lease: a flood of polls hangs once."""
    rig = Rig()
    rig.poll(a_poll(epoch=0))
    for _ in range(100):
        rig.poll(a_poll())
    assert len(rig.node._hanging) == 1
    assert len(rig.answers) == 100
    assert all(answer.answer.lease_ms == 0 for answer in rig.answers[1:])
    rig.node.gone(rig.keys)
    assert len(rig.node._hanging) == 0


def test_no_lease_for_more_holders_than_a_credential_may_have() -> None:
    """Ids beyond a credential's share are answered at once and get nothing, and those of no other credential do."""
    rig = Rig(Terms(leases=5))
    given = [rig.poll(a_poll(f"{n:022d}", epoch=0)) for n in range(20)]
    assert sum(answer is not None and answer.lease_ms > 0 for answer in given) == 5
    assert rig.poll(a_poll(epoch=0), credential="other").lease_ms > 0  # type: ignore[union-attr]


def test_who_cannot_be_woken_gets_a_short_lease() -> None:
    """A follower on demand is answered at once, with one to two seconds."""
    rig = Rig()
    for n in range(20):
        answer = rig.poll(a_poll(f"{n:022d}", wait_ms=0, epoch=0))
        assert answer is not None
        assert 1000 <= answer.lease_ms <= 2000


def test_a_node_forgets_expired_entries_and_keeps_the_rest() -> None:
    """What is handed out shrinks as entries expire, in steps, and a newcomer still reaches the head."""
    rig = Rig(Terms(page=100))
    rig.log = [session(f"s{n}", seq=n + 1, expires_at=10.0 if n % 3 else SOON) for n in range(90)]
    rig.log.append(Revocation(kind="key", id="k", expires_at=FOR_EVER, seq=91))
    rig.wait(2)
    for _ in range(40):
        rig.node.drop_expired(1000.0, look_at=7)
    answer = rig.poll(a_poll(epoch=0))
    assert answer is not None
    assert (answer.upto_seq, answer.reaches_head, len(answer.entries)) == (91, True, 31)
    assert len(rig.node._pages) == 31


def test_endless_log_outs_fill_no_memory() -> None:
    """Of the entries of one subject, which never expire while he goes on, a node keeps and hands out the newest."""
    rig = Rig(Terms(page=100))
    rig.log = [session("other", seq=1)]
    rig.log += [Revocation(kind="subject", id="ada", min_epoch=n, expires_at=SOON + n, seq=n) for n in range(2, 302)]
    rig.log.insert(150, Revocation(kind="subject", id="bob", min_epoch=1, expires_at=SOON))
    rig.log = [replace(entry, seq=seq) for seq, entry in enumerate(rig.log, 1)]
    rig.wait(2)
    for _ in range(200):
        rig.node.drop_expired(1000.0, look_at=7)
    for _ in range(3):
        rig.node.drop_expired(1000.0, look_at=100)
    answer = rig.poll(a_poll(epoch=0))
    assert answer is not None
    assert (answer.upto_seq, answer.reaches_head, len(answer.entries)) == (302, True, 3)
    assert max(entry.min_epoch for entry in answer.entries) == 301
    assert len(rig.node._pages) == 3
    # Who had read some of it gets the rest.
    behind = rig.poll(a_poll(f"{2:022d}", epoch=1, applied=200))
    assert behind is not None
    assert [entry.min_epoch for entry in behind.entries] == [301]


def test_the_log_comes_in_pages_and_only_the_last_brings_a_lease() -> None:
    """A newcomer has no lease until it has read to the head."""
    rig = Rig(Terms(page=10))
    rig.log = [session(f"s{n}", seq=n + 1) for n in range(25)]
    rig.wait(2)
    follower, leases = Follower(), []
    while not follower.leased_for(rig.now):
        poll = follower.poll(rig.now)
        answer = rig.poll(poll)
        assert answer is not None
        leases.append(answer.lease_ms > 0)
        follower.take(poll, answer, rig.now, 1000.0)
    assert leases == [False, False, True]
    assert all(follower.judge(bearer(f"s{n}", jti=str(n)), rig.now) == "revoked" for n in range(25))


def test_a_row_that_stands_still_is_deleted_where_it_stood() -> None:
    """Another node's row is asked to be forgotten after the maximum wait of its own, with the stamp that was seen."""
    rig, forgets = Rig(), []
    rig.rows["dead"] = NodeRow(id="dead", stamp="last", log_epoch=1, acked_seq=0, lease_for=10.0)
    answer = rig.answer

    def spy(question: Any) -> Any:
        if type(question).__name__ == "Forget":
            forgets.append((question.id, question.stamp, rig.now))
        return answer(question)

    rig.answer = spy  # type: ignore[method-assign]
    began = rig.now
    rig.wait(20)
    assert {forgotten[:2] for forgotten in forgets} == {("dead", "last")}
    assert forgets[0][2] - began > LATE


# --- nodes without a row ----------------------------------------------------------------------------------------------


class Rowless(Rig):
    """A node whose store tells its head: no verifier has asked it for a lease yet."""

    def begin(self) -> None:
        self.node.woken(self.now)


def test_no_row_before_the_first_poll_and_no_lease_before_the_row() -> None:
    """A node that no verifier follows writes nothing and sets no timer; the first poll brings the row, then the log,
    then a lease.
    """
    rig = Rowless()
    assert (rig.rows, rig.node.next_at, rig.node.has_row) == ({}, math.inf, False)
    asked = list[str]()
    answer = rig.answer
    rig.answer = lambda question: (asked.append(type(question).__name__), answer(question))[1]  # type: ignore[method-assign,assignment,return-value]
    first = rig.poll(a_poll())
    assert first is not None
    assert first.lease_ms > 0
    assert asked[:2] == ["Register", "Renew"]
    assert len(rig.rows) == 1


def test_a_fence_of_a_node_without_a_row_looks_at_the_rows_of_others() -> None:
    """Without a row of its own it waits for those who have one, and for none when the commit saw none."""
    rig = Rowless()
    rig.log.append(session("a", seq=1))
    alone = rig.node.fence(1, 1, rig.now, alone=True)
    assert alone.state == "acknowledged"
    rig.sort()
    assert rig.asked == []
    rig.rows["other"] = NodeRow(id="other", stamp="1", log_epoch=1, acked_seq=0, lease_for=10.0)
    rig.log.append(session("b", seq=2))
    fence = rig.node.fence(2, 1, rig.now, longest_lease=10.0)
    rig.wait(1.0)
    assert not fence.fenced
    rig.rows["other"] = replace(rig.rows["other"], stamp="2", acked_seq=2)
    rig.wait(0.5)
    assert fence.state == "acknowledged"
    assert len(rig.rows) == 1


def test_in_a_later_epoch_even_a_fence_alone_waits_once() -> None:
    """After a restore no node knows which rows were lost: that there is none says nothing for the maximum wait."""
    rig = Rowless(log_epoch=7)
    rig.log.append(session("a", seq=1))
    fence = rig.node.fence(1, 7, rig.now, alone=True)
    rig.wait(LATE - 0.1)
    assert not fence.fenced
    rig.wait(0.2)
    assert fence.fenced
    assert rig.node.fence(1, 7, rig.now, alone=True).state == "acknowledged"


def test_a_log_that_began_long_ago_has_outlived_every_lease_from_before() -> None:
    """A node that starts in a later epoch waits for nothing when its number, a time of day, says that it began long
    ago; by clocks that may differ, and by no less.
    """
    began, kept_for = 1_795_000_000, TERMS.kept_for
    rig = Rowless(log_epoch=began * 1000)
    rig.node.see_time_of_day(began + kept_for + LATE - 1)
    assert rig.node.fence(0, began * 1000, rig.now, alone=True).state == "pending"
    rig.node.see_time_of_day(began + kept_for + LATE + 1)
    assert rig.node.fence(0, began * 1000, rig.now, alone=True).state == "acknowledged"


def test_a_question_that_is_never_answered_keeps_no_one_from_a_lease() -> None:
    """When a poll comes while the log is read, and that reading is lost, the row is asked for all the same."""
    rig = Rowless()
    rig.node.woken(rig.now)
    rig.node.take_actions()  # lost on the way
    rig.keys += 1
    rig.node.polled(rig.keys, a_poll(epoch=0), rig.now)
    rig.wait(TERMS.lease_for / 3 + 0.1)
    assert len(rig.rows) == 1
    assert rig.node.leased(rig.now)


def test_a_store_that_is_away_is_not_asked_by_a_node_no_one_needs() -> None:
    """A reading that failed is not tried again before a request comes."""
    rig = Rowless()
    rig.node.woken(rig.now)
    rig.sort()
    (ask,) = rig.asked
    rig.node.failed(ask.number, rig.now)
    assert rig.node.next_at == math.inf
    rig.node.polled(1, a_poll(epoch=0), rig.now)
    assert rig.node.next_at < rig.now + 1


def test_who_follows_on_demand_gets_a_lease_with_the_first_poll() -> None:
    """A request waits for it: it is not answered without a lease while the row is on its way."""
    rig = Rowless()
    answer = rig.poll(a_poll(wait_ms=0, epoch=0))
    assert answer is not None
    assert answer.lease_ms > 0
    away = Rowless()
    away.node.polled(1, a_poll(wait_ms=0, epoch=0), away.now)
    away.node.take_actions()
    away.node.tick(away.now + 0.3)
    away.sort()
    assert [answered.answer.lease_ms for answered in away.answers] == [0]


def test_a_node_that_stops_forgets_the_row_as_it_was_written_last() -> None:
    """A renewal that is under way when a node stops is waited for: forgotten before it, the row would be there again
    with another stamp, and stand for no node.
    """
    rig = Rig()
    rig.node.woken(rig.now)
    rig.sort()
    (renewal,) = [ask for ask in rig.asked if isinstance(ask.question, Renew)]
    rig.asked.clear()
    rig.node.stop(rig.now)
    assert not rig.node.leased(rig.now)
    rig.sort()
    assert rig.asked == []
    rig.node.answered(renewal.number, rig.answer(renewal.question), rig.now)  # type: ignore[arg-type]
    rig.sort()
    (forget,) = [ask.question for ask in rig.asked if isinstance(ask.question, Forget)]
    assert isinstance(renewal.question, Renew)
    assert (forget.id, forget.stamp) == (renewal.question.row.id, renewal.question.row.stamp)


def test_a_node_that_stops_slowly_forgets_its_row_when_the_last_lease_is_over() -> None:
    """While requests are finished the leases from here run out; then no fence has to wait for it."""
    rig = Rig()
    rig.poll(a_poll(epoch=0))
    rig.node.stop(rig.now)
    rig.sort()
    assert not any(isinstance(ask.question, Forget) for ask in rig.asked)
    rig.wait(LATE + 0.1)
    rig.node.tick(rig.now)
    rig.sort()
    assert not rig.node.has_row


# --- followers --------------------------------------------------------------------------------------------------------


def an_answer(
    *entries: Entry, after: int = 0, upto: int = 0, epoch: int = 1, lease_ms: int = 8000, salt: bytes = SALT
) -> Answer:
    return Answer(
        log_epoch=epoch, salt=salt, after_seq=after, upto_seq=upto, entries=list(entries), reaches_head=True,
        lease_ms=lease_ms,
    )  # fmt: skip


def travelled(*entries: Revocation, salt: bytes = SALT) -> Iterable[Entry]:
    return RevocationLog(salt).apply(entries)


def taking(follower: Follower, answer: Answer, now: float = 0.0) -> bool:
    return follower.take(follower.poll(now), answer, now, 1000.0)


def test_without_a_lease_a_follower_accepts_nothing() -> None:
    """Before the first answer, and when its lease is over, a verifier says stale; what it knows as ended stays so."""
    follower = Follower()
    assert follower.judge(bearer(), 0.0) == "stale"
    taking(follower, an_answer(*travelled(session("s")), upto=1))
    assert follower.judge(bearer("other", jti="2"), 7.9) == "accepted"
    assert follower.judge(bearer("other", jti="2"), 8.0) == "stale"
    assert follower.judge(bearer(), 0.0) == follower.judge(bearer(), 100.0) == "revoked"


def test_changed_claims_are_not_taken_for_an_ended_session() -> None:
    """An entry of the subject makes tokens outdated, so that a client knows to refresh; an ended session is revoked."""
    follower = Follower()
    staled = Revocation(kind="subject", id="ada", min_epoch=2, expires_at=SOON)
    taking(follower, an_answer(*travelled(staled, session("s")), upto=2))
    assert follower.judge(bearer("other", jti="2"), 1.0) == "outdated"
    assert follower.judge(bearer("other", jti="3", epoch=2), 1.0) == "accepted"
    assert follower.judge(bearer(epoch=2), 1.0) == "revoked"


def test_an_answer_with_a_gap_changes_nothing() -> None:
    """Entries after what was applied are not taken for the ones before, and bring no lease."""
    follower = Follower()
    taking(follower, an_answer(after=3, upto=9))
    assert (follower.applied_seq, follower.leased_for(0.0)) == (0, 0.0)


def test_an_answer_to_a_poll_given_up_is_dropped() -> None:
    """Only the last poll has an answer; a late one would begin its lease at the wrong sending."""
    follower = Follower()
    first = follower.poll(0.0)
    second = follower.poll(5.0)
    follower.take(first, an_answer(upto=1), 6.0, 1000.0)
    assert follower.leased_for(6.0) == 0
    follower.take(second, an_answer(upto=1), 6.0, 1000.0)
    assert follower.leased_for(6.0) == pytest.approx(7.0)
    follower.take(second, an_answer(upto=1, lease_ms=9000), 6.0, 1000.0)
    assert follower.leased_for(6.0) == pytest.approx(7.0)


def test_a_restore_takes_the_lease_and_no_entry() -> None:
    """When another log begins, nothing is trusted until it has been read, and nothing known as ended comes to life."""
    follower = Follower()
    taking(follower, an_answer(*travelled(session("s")), upto=5))
    taking(follower, an_answer(epoch=2, upto=1, lease_ms=0))
    assert follower.leased_for(0.0) == 0
    assert follower.applied_seq == 1
    assert follower.judge(bearer(), 0.0) == "revoked"
    taking(follower, an_answer(epoch=1, upto=9))  # from a node that has not heard of it
    assert (follower.log_epoch, follower.leased_for(0.0)) == (2, 0.0)


def test_entries_under_another_salt_begin_anew() -> None:
    """A deployment that lost its salt is read from the start; the lease and the entries change in one step."""
    follower = Follower()
    taking(follower, an_answer(*travelled(session("s")), upto=5))
    seen = follower._known
    taking(follower, an_answer(*travelled(session("z"), salt=b"new"), epoch=2, upto=1, salt=b"new"))
    assert follower.judge(bearer("z"), 1.0) == "revoked"
    assert seen.log.covering_token(bearer()) == "session"  # a request in between has a pair that belongs together


def test_a_child_of_a_fork_is_another_holder_without_a_lease() -> None:
    """After fork the child has no lease and a new id; the answer its parent waits for is not the child's."""
    follower = Follower()
    taking(follower, an_answer(upto=5))
    poll, before = follower.poll(1.0), follower.holder
    follower.forked()
    assert follower.holder != before
    assert follower.judge(bearer(), 1.0) == "stale"
    follower.take(poll, an_answer(upto=5), 1.0, 1000.0)
    assert follower.judge(bearer(), 1.0) == "stale"


def test_a_killed_key_is_reported() -> None:
    """An answer that kills a key says so, and only that one."""
    follower = Follower()
    assert not taking(follower, an_answer(*travelled(session("s")), upto=1))
    assert taking(
        follower,
        an_answer(*travelled(Revocation(kind="key", id="k", expires_at=FOR_EVER)), after=1, upto=2),
    )
    assert follower.judge(bearer("other", jti="9"), 1.0) == "revoked"


def test_an_authority_that_is_down_is_asked_ever_more_seldom() -> None:
    """Polls that fail are spread over time: at most one in about two seconds, and at once again after a good one."""
    follower, now, sent = Follower(), 0.0, 0
    while now < 60:
        if now >= follower.poll_at:
            follower.failed(follower.poll(now), now)
            sent += 1
        now += 0.01
    assert 20 < sent < 70
    taking(follower, an_answer(upto=1), now)
    assert follower.poll_at <= now
