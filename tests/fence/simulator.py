"""Discrete-event simulation of the revocation fence: the real `Node`, `Follower` and `RememberedSessions`, in a world
of bad networks and clocks.

A world is one seeded schedule in virtual time, in which nothing waits. Messages are delayed, lost, doubled, reordered
and cut off; processes are stopped, killed and forked; clocks run at different rates and wall clocks step; the store is
restored from a backup, a replica of it lags, and nodes come back with another setting. Whatever a server or a verifier
would do around the real code is done here: carrying messages, reading clocks, the store's transactions.

In half of the worlds the store tells the head of its log at once, and nodes have no row until a verifier polls; in the
others every node judges under a lease of its own. Some revocations come from commands, which commit and fence and are
gone. Some worlds begin in the first log epoch, some in a later one.

*Safety*: no request that starts after a revocation was reported fenced is accepted with what it revoked. What was
revoked is ground truth (a session's id; for a subject, the store's version at which the proof was read), never the
claims. *Liveness*: a node that stays up reports a fence within the maximum wait of the commit's answer, on its clock.

`World(seed, drop)` runs with rules taken out: those that the harness keeps, here by `on`; those that the product keeps,
by the mutants in `mutants.py`.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from dutchdoor.model.accounts import external_account
from dutchdoor.model.sessions import Session
from dutchdoor.revocation.fence import Fence
from dutchdoor.revocation.follower import Follower
from dutchdoor.revocation.lease import DRIFT, GUARD, Terms
from dutchdoor.revocation.log import Entry, Named, Revocation, RevocationLog
from dutchdoor.revocation.messages import Answer, Poll
from dutchdoor.revocation.node import Answered, Ask, Node, Settled
from dutchdoor.revocation.node_messages import (
    FIRST_EPOCH,
    Forget,
    NodeRow,
    Question,
    ReadLog,
    ReadRows,
    Register,
    Renew,
    Renewed,
    Rows,
    row_of_the_gone,
)
from dutchdoor.services import session_cache
from dutchdoor.services.session_cache import RememberedSessions

from .mutants import FOLLOWERS, NODES

LEASE, LIFE, SKEW = 10.0, 15.0, 2.0
"""Seconds: a lease; an access token's life; how far a wall clock is from true. Rates are within DRIFT."""
KEEP = 4 * SKEW
HANG = LEASE / 4
END = 48.0
FOREVER = 1e9

_encode = msgspec.json.Encoder().encode
_decode_poll = msgspec.json.Decoder(Poll).decode
_decode_answer = msgspec.json.Decoder(Answer).decode

USERS = ("u0", "u1")
SESSIONS = ("s0", "s1", "s2", "s3")
OWNER = {"s0": "u0", "s1": "u1", "s2": "u0", "s3": "u1"}


class Token(NamedTuple):
    sid: str | None
    sub: str
    epoch: int
    jti: str
    kid: str
    exp: float
    version: int
    """The store's, when the proof was read."""
    client_id: str = "app"

    @property
    def named(self) -> Named:
        return Named(self.sub, self.epoch, self.sid, self.jti, "app", self.kid)


class Revoked:
    """Ground truth about one revocation."""

    def __init__(self, kind: str, id: str) -> None:
        self.kind, self.id = kind, id
        self.version: int | None = None
        self.fenced_at: float | None = None
        self.lost = False

    def covers(self, token: Token) -> bool:
        if self.lost or self.version is None:
            return False
        match self.kind:
            case "session":
                return token.sid == self.id
            case "token":
                return token.jti == self.id
            case "key":
                return token.kid == self.id
        return token.sub == self.id and token.version < self.version


def a_session(id: str) -> Session:
    return Session(
        id=id, subject=OWNER[id], mode="session", client_id="app", scope="", secret_hash=b"", salt=b"",
        master_key_id=b"", epoch=1, amr=("pwd",), auth_time=0.0, created_at=0.0, last_seen_at=0.0,
        idle_expires_at=FOREVER, expires_at=FOREVER, fingerprint="", device="", address="", country="",
    )  # fmt: skip


SESSION_ROWS = {sid: a_session(sid) for sid in SESSIONS}
ACCOUNT_ROWS = {sub: replace(external_account(sub, 0.0), epoch=1) for sub in USERS}


class World:
    """One schedule."""

    def __init__(self, seed: int, drop: frozenset[str] = frozenset(), *, verbose: bool = False) -> None:
        self.r = r = random.Random(seed)
        self.seed, self.drop, self.verbose = seed, drop, verbose
        self.now, self.heap, self.count, self.ids = 0.0, [], itertools.count(), itertools.count(1)
        self.violations: list[tuple[float, str, str, str]] = []
        self.accepted = self.fences = self.fast = self.stale = self.late = 0
        self.delay = r.choice([(0.001, 0.01), (0.01, 0.2), (0.001, 2.0), (0.05, 0.6)])
        self.loss, self.dup = r.choice([0, 0, 0.05, 0.25]), r.choice([0, 0.1, 0.3])
        self.sticky = r.random() < 0.5
        self.old = r.random() < 0.7
        """Whether its first nodes have been up for long: no lease of an earlier life is left."""
        self.settings = r.choice([(LEASE,)] * 4 + [(LEASE, LEASE / 5)])
        self.tokens: list[Token] = []
        self.revoked: list[Revoked] = []
        start = r.uniform(2, 18)
        self.lag = start, start + r.choice([2, 20])
        self.direct = r.random() < 0.5
        """Whether the store tells the head of its log at once."""
        self.began = r.choice([FIRST_EPOCH, FIRST_EPOCH, 7])
        self.commands: list[Server] = []
        self.store = Store(self)
        self.nodes = [Server(self) for _ in range(r.choice([1, 1, 2, 2, 3]))]
        self.verifiers = [Verifier(self) for _ in range(r.randint(1, 3))]
        if r.random() < 0.25:
            self.verifiers.append(Verifier(self, rogue=True))
        self.plan()

    def on(self, rule: str) -> bool:
        return rule not in self.drop

    def new_id(self) -> str:
        return f"{next(self.ids):022d}"

    def at(self, t: float, fn: Callable[[], object]) -> None:
        heapq.heappush(self.heap, (t, next(self.count), fn))

    def after(self, d: float, fn: Callable[[], object]) -> None:
        self.at(self.now + d, fn)

    def say(self, *words: object) -> None:
        if self.verbose:
            print(f"{self.now:8.3f}", *words)

    def send(self, a: Process, b: Process, fn: Callable[[], object], *, dup: bool = True) -> None:
        """One message from a to b: delay, loss, duplication, cuts; reordering follows from them."""
        r = self.r
        if a.cut > self.now or b.cut > self.now or r.random() < self.loss:
            return
        if self.store in (a, b) and max(a.cut_store, b.cut_store) > self.now:
            return
        for _ in range(2 if dup and r.random() < self.dup else 1):
            d = r.uniform(*self.delay)
            if r.random() < 0.03:
                d += r.uniform(0, 12)
            self.after(d, lambda: b.run(fn))

    def rpc(self, server: Server, op: Callable[[], object], then: Callable[[object], object]) -> None:
        """One transaction of the store; the answer reaches this life of the server only."""
        life = server.life

        def arrive() -> None:
            out = op()
            self.send(self.store, server, lambda: then(out) if server.life == life else None, dup=False)

        self.send(server, self.store, arrive, dup=False)

    def plan(self) -> None:
        """Draw faults, most of them around the revocations, and mints and look-ups that race each of those."""
        r, both = self.r, [*self.nodes, *self.verifiers]
        for _ in range(r.randint(0, 3)):
            who, t = r.choice(both), r.uniform(2, 22)
            match r.choice(["crash", "cut", "apart", "pause", "pause", "fork"]):
                case "crash":
                    self.at(t, partial(who.crash, r.choice([0.01, 1, 5])))
                case "cut":
                    self.at(t, partial(who.cut_off, r.choice([1, 5, 15, 30])))
                case "apart":
                    self.at(t, partial(r.choice(self.nodes).cut_off_store, r.choice([5, 15, 30])))
                case "pause":
                    self.at(t, partial(who.pause, r.choice([1, 5, 12, 25])))
                case "fork":
                    self.at(t, self.verifiers[0].fork)
        for p in [*both, self.store]:
            if r.random() < 0.4:
                self.at(r.uniform(1, 40), lambda p=p: setattr(p, "skew", r.uniform(-SKEW, SKEW)))
        if r.random() < 0.2:
            self.at(r.uniform(6, 20), self.store.restore)
        if r.random() < 0.2:
            self.at(r.uniform(2, 18), partial(r.choice(self.nodes).crash, r.choice([0.01, 0.5])))
        for _ in range(r.choice([1, 2, 3, 4, 4, 8])):
            self.plan_revocation(r.uniform(3, 18), r.choice(["session"] * 8 + ["subject"] * 4 + ["token", "key"]))
        if r.random() < 0.05:
            self.plan_repeated_epoch(r.uniform(5, 14))

    def plan_revocation(self, t: float, kind: str) -> None:
        r = self.r
        sid = r.choice(SESSIONS) if kind == "session" else None
        sub = OWNER[sid] if sid else r.choice(USERS)
        rev = Revoked(kind, sid or sub)
        self.revoked.append(rev)
        by = self.plan_trap(t, sid) if r.random() < 0.4 else self.nodes
        if r.random() < 0.2:
            self.at(t, lambda: self.command(rev))
        else:
            self.at(t, lambda: r.choice(by).revoke(rev))
        if kind == "session" and r.random() < 0.6:
            again = Revoked(kind, rev.id)
            self.revoked.append(again)
            self.at(t + r.choice([0.05, 0.5, 3]), lambda: r.choice(self.nodes).revoke(again))
        for _ in range(4):
            self.at(max(0, t - r.choice([0.02, 0.2, 2, 8])), lambda: r.choice(self.nodes).mint(sid, sub))
        cookie = sid or SESSIONS[0]
        self.at(max(0, t - r.choice([0.01, 0.1, 1, 5])), lambda: r.choice(self.nodes).cookie(cookie, None))

    def command(self, rev: Revoked) -> None:
        """A process that revokes, waits for the fence, and is gone."""
        command = Server(self, lasting=False)
        self.commands.append(command)
        command.revoke(rev)
        command.later(30, lambda: Server.crash(command, FOREVER))

    def plan_trap(self, t: float, sid: str | None) -> list[Server]:
        """What hurts most when it happens around a revocation. Gives the nodes of which one revokes."""
        r, node, verifier = self.r, self.r.choice(self.nodes), self.r.choice(self.verifiers)
        others = [other for other in self.nodes if other is not node] or self.nodes
        match r.randrange(10):
            case 0:  # a node comes back at once, and does not know who holds its leases
                self.at(t - r.uniform(1.5, 3), partial(verifier.cut_off, r.choice([5, 12])))
                self.at(t - r.uniform(0.2, 1.5), lambda: node.crash(0.01))
                return others
            case 1:  # a new verifier has just got a lease
                self.at(t - r.uniform(0, 0.5), lambda: verifier.crash(0.01))
            case 2:  # a node or a verifier stops in the middle of an action
                self.at(t - r.uniform(0, 1), partial(r.choice([node, verifier]).pause, r.choice([1, 5, 12])))
            case 3:  # the others cannot tell a node from a dead one, and the store's wall clock leaps
                self.at(t - 3, lambda: setattr(self.store, "skew", -SKEW))
                self.at(t - 3, lambda: node.cookie(sid or SESSIONS[0], None))
                self.at(t - r.uniform(0, 2), partial(node.cut_off_store, r.choice([5, 12, 20])))
                self.at(t + r.uniform(2, 9), lambda: setattr(self.store, "skew", SKEW))
                return others
            case 4:  # all verifiers begin again, with a long log to read
                for after in r.sample([0.1, 1, 2, 4, 6], 2):
                    self.at(t + after, lambda: node.crash(0.01))
                    self.at(t + after + r.uniform(0, 0.2), lambda: verifier.crash(0.01))
            case 5:  # a child is born with all that its parent knew
                self.at(t - r.uniform(0, 4), verifier.fork)
            case 6:  # a node has just joined, and is cut off again
                self.at(t - r.uniform(0.2, 1), lambda: node.crash(0.01))
                self.at(t - r.uniform(0, 0.1), lambda: node.cut_off_store(8))
                self.at(t - r.uniform(0, 0.2), lambda: verifier.crash(0.01))
                return others
            case 7:  # no verifier gets the news by itself
                for other in self.nodes:
                    self.at(t - 1, lambda other=other: setattr(other, "deaf_until", self.now + 3))
            case 8:  # the rows and entries of a moment ago have never been
                self.at(t - r.uniform(2, 4), partial(verifier.cut_off, r.choice([5, 12])))
                self.at(t - r.uniform(0.2, 2), self.store.restore)
            case 9:  # a node without a waiting poll is asked to stop, and takes its time
                homes = {verifier.home for verifier in self.verifiers} if self.sticky else set()
                node = r.choice([node for node in self.nodes if node not in homes] or self.nodes)
                self.at(t - r.uniform(0.5, 3), lambda: node.cookie(sid or SESSIONS[0], None))
                self.at(t - r.uniform(0.05, 0.5), lambda: node.stop(8, 1))
                return [other for other in self.nodes if other is not node] or self.nodes
        return self.nodes

    def plan_repeated_epoch(self, t: float) -> None:
        """An epoch is raised, used and lost in a restore; then the next revocation raises it again."""
        r, sub = self.r, self.r.choice(USERS)
        first, second = Revoked("subject", sub), Revoked("subject", sub)
        self.revoked += [first, second]
        self.at(t, lambda: self.nodes[0].revoke(first))
        for _ in range(4):
            self.at(t + r.uniform(0.5, 2), lambda: r.choice(self.nodes).mint(None, sub))
        self.at(t + 2.5, self.store.restore)
        self.at(t + r.uniform(3, 5), lambda: self.nodes[0].revoke(second))

    def fenced(self, rev: Revoked, how: str) -> None:
        rev.fenced_at = self.now
        self.fences += 1
        self.fast += how == "acknowledged"
        self.say("FENCED", rev.kind, rev.id, how)
        r, late = self.r, LIFE + KEEP
        soon = [
            1e-6,
            0.02,
            0.1,
            r.uniform(0, 1),
            r.uniform(0, 12),
            r.uniform(0, 12),
            r.uniform(8, late),
            r.uniform(8, late),
        ]
        for d in soon:
            self.after(d, lambda: self.probe(rev))

    def probe(self, rev: Revoked) -> None:
        """Requests that start now, everywhere, with everything revoked."""
        for verifier in self.verifiers:
            self.probe_one(verifier, rev)
        if rev.kind == "session":
            for node in self.nodes:
                node.cookie(rev.id, self.now)

    def probe_one(self, verifier: Verifier, rev: Revoked) -> None:
        for token in [token for token in self.tokens if rev.covers(token)][-6:]:
            verifier.request(token)

    def accept(self, token: Token, start: float, where: str) -> None:
        self.accepted += 1
        for rev in self.revoked:
            if rev.fenced_at is not None and rev.fenced_at < start and rev.covers(token):
                self.violations.append((self.now, where, rev.kind, rev.id))
                self.say("VIOLATION", where, token, rev.kind)

    def run(self) -> World:
        with short_memory(FOREVER if "cache_age" in self.drop else LIFE):
            while self.heap and self.heap[0][0] <= END:
                self.now, _, fn = heapq.heappop(self.heap)
                fn()
        bound = GUARD * max(self.settings) + 0.5
        for node in [*self.nodes, *self.commands]:  # nothing may be left waiting at a node that stayed up
            if node.up and node.awake <= self.now:
                self.late += sum(node.clock() > since + bound for _, since in node.fences.values())
        return self


@contextmanager
def short_memory(seconds: float) -> Iterator[None]:
    """Remember sessions for as long as tokens live here: the real minute is to an hour what this is to LIFE."""
    real = session_cache.REMEMBERED_FOR
    session_cache.REMEMBERED_FOR = seconds
    try:
        yield
    finally:
        session_cache.REMEMBERED_FOR = real


class Process:
    """Something with clocks, that can be cut off, stopped and killed."""

    def __init__(self, w: World) -> None:
        r = w.r
        self.w = w
        self.cut = self.cut_store = self.awake = self.slept = self.swept_at = 0.0
        self.life, self.up = 0, True
        self.rate = r.choice([1 - DRIFT, 1 + DRIFT, r.uniform(1 - DRIFT, 1 + DRIFT)])
        self.skew = r.uniform(-SKEW, SKEW)

    def clock(self) -> float:
        """Elapsed time."""
        return self.rate * (self.w.now - (0 if self.w.on("sleep_clock") else self.slept))

    def wall(self) -> float:
        return self.w.now + self.skew

    def run(self, fn: Callable[[], object]) -> None:
        """A stopped process runs nothing until it is continued."""
        if self.awake > self.w.now:
            self.w.at(self.awake, lambda: self.run(fn))
        elif self.up:
            fn()

    def is_sweeping(self) -> bool:
        """Whether it is time to look for entries that have expired: twice a second."""
        if self.w.now - self.swept_at < 0.5:
            return False
        self.swept_at = self.w.now
        return True

    def later(self, d: float, fn: Callable[[], object]) -> None:
        """A timer of this life of the process, on its own clock."""
        life = self.life
        self.w.after(d / self.rate, lambda: self.run(lambda: fn() if self.life == life else None))

    def pause(self, d: float) -> None:
        self.awake = max(self.awake, self.w.now + d)
        self.slept += d
        self.w.say("PAUSE", type(self).__name__, d)

    def cut_off(self, d: float) -> None:
        self.cut = max(self.cut, self.w.now + d)
        self.w.say("CUT OFF", type(self).__name__, d)

    def cut_off_store(self, d: float) -> None:
        self.cut_store = max(self.cut_store, self.w.now + d)
        self.w.say("APART FROM STORE", type(self).__name__, d)

    def crash(self, d: float) -> None:
        self.w.say("CRASH", type(self).__name__)
        self.life += 1
        self.up = False
        life = self.life
        self.w.after(d, lambda: self.start() if self.life == life else None)

    def start(self) -> None:
        self.up, self.awake = True, 0.0
        self.boot()

    def boot(self) -> None:
        raise NotImplementedError


class Backup(NamedTuple):
    head: int
    log: list[Revocation]
    rows: dict[str, NodeRow]
    live: dict[str, bool]
    epochs: dict[str, int]
    version: int
    key: int


class Store(Process):
    """The linearizable store; every method is one transaction."""

    def __init__(self, w: World) -> None:
        super().__init__(w)
        self.log_epoch, self.base, self.head, self.seq, self.version, self.key = w.began, 0, 0, 0, 0, 1
        self.salt = b"salt"
        self.log: list[Revocation] = []
        self.shown: dict[int, float] = {}
        self.rows: dict[str, NodeRow] = {}
        self.until: dict[str, float] = {}
        self.since: dict[str, float] = {}
        self.live = dict.fromkeys(SESSIONS, True)
        self.epochs = dict.fromkeys(USERS, 1)
        self.saved: list[Backup] = []

    def boot(self) -> None: ...

    def ask(self, question: Question) -> Renewed | Rows | None:
        match question:
            case Register(row):
                self.write(row)
            case Renew(row, after):
                return self.renew(row, after)
            case ReadLog(log_epoch, after):
                return self.read_log(log_epoch, after)
            case ReadRows():
                return Rows(log_epoch=self.log_epoch, rows=list(self.rows.values()))
            case Forget(id, stamp):
                if id in self.rows and self.rows[id].stamp == stamp:
                    del self.rows[id]
        return None

    def write(self, row: NodeRow) -> None:
        self.rows[row.id] = row
        self.since.setdefault(row.id, self.w.now)
        self.until[row.id] = self.wall() + GUARD * row.lease_for

    def renew(self, row: NodeRow, after: int) -> Renewed:
        there = row.id in self.rows
        if there:
            self.write(row)
        return replace(self.read_log(row.log_epoch, after), there=there, rows=list(self.rows.values()))

    def read_log(self, log_epoch: int, after: int) -> Renewed:
        if log_epoch != self.log_epoch:
            after = 0
        log, head = self.log, self.head
        if not self.w.on("primary"):  # a replica that stands still while the lag lasts
            start, end = self.w.lag
            log = [e for e in log if not (start < self.shown[e.seq] and self.w.now < end)]
            head = max([after, *(e.seq for e in log)])
        new = sorted((e for e in log if e.seq > after), key=lambda e: e.seq)
        page = new[:2]  # stores read in pages, too
        return Renewed(
            there=True,
            log_epoch=self.log_epoch,
            salt=self.salt,
            after=after,
            entries=page,
            upto=head if len(page) == len(new) else page[-1].seq,
            head=head,
        )

    def read(self, sid: str | None, sub: str) -> tuple[bool, int, float, int, str]:
        live = sid is None or self.live[sid]
        return live, self.epochs[sub] + self.base, self.wall(), self.version, f"k{self.key}"

    def end(self, rev: Revoked) -> tuple[bool, int, int, int, float]:
        """A revoking transaction: state and entry together."""
        self.saved.append(
            Backup(
                self.head, list(self.log), dict(self.rows), dict(self.live), dict(self.epochs), self.version, self.key
            )
        )
        # Without the rule, as they stood some seconds before the commit.
        before = self.w.now - (0 if self.w.on("rows_in_commit") else 3)
        longest = max((row.lease_for for row in self.rows.values() if self.since[row.id] <= before), default=0.0)
        entry = self.entry_for(rev)
        if entry is None:
            rev.version = self.version
            self.w.say("NOTHING TO END", rev.kind, rev.id)
            return False, self.seq, self.log_epoch, self.head, longest
        self.version += 1
        rev.version = self.version
        self.seq = max(self.seq, self.head) + 1
        entry = replace(entry, seq=self.seq)
        if self.w.on("commit_order") or self.w.r.random() < 0.3:
            self.show(entry)
        else:
            self.w.after(self.w.r.uniform(0.01, 1), lambda: self.show(entry))
        self.w.say("COMMIT", entry)
        return True, self.seq, self.log_epoch, self.head, longest

    def entry_for(self, rev: Revoked) -> Revocation | None:
        expires_at = self.wall() + LIFE
        match rev.kind:
            case "session":
                if not self.live[rev.id]:
                    return None
                self.live[rev.id] = False
            case "subject":
                self.epochs[rev.id] += 1
                epoch = self.epochs[rev.id] + self.base
                return Revocation(kind="subject", id=rev.id, min_epoch=epoch, expires_at=expires_at)
            case "token":
                mine = [token for token in self.w.tokens if token.sub == rev.id and token.sid is None]
                if not mine:
                    return None
                token = self.w.r.choice(mine)
                rev.id = token.jti
                return Revocation(kind="token", id=token.jti, expires_at=token.exp)
            case "key":
                rev.id = f"k{self.key}"
                self.key += 1
                return Revocation(kind="key", id=rev.id, expires_at=float("inf"))
        return Revocation(kind="session", id=rev.id, expires_at=expires_at)

    def show(self, entry: Revocation) -> None:
        self.shown[entry.seq] = self.w.now
        self.log.append(entry)
        self.head = max(self.head, entry.seq)
        for node in self.w.nodes:
            node.notice()

    def restore(self) -> None:
        """A backup comes back: the last transactions never happened. The operator says so, which begins a new log."""
        if not self.saved:
            return
        backup = self.saved[-min(len(self.saved), self.w.r.randint(1, 2))]
        self.head, self.log, self.rows, self.live, self.epochs, version, _ = backup
        self.seq, self.saved = self.head, []
        for rev in self.w.revoked:
            newer = rev.version is not None and rev.version > version
            rev.lost |= newer or (rev.fenced_at is not None and rev.version is None)
        if self.w.on("log_epoch"):
            self.log_epoch += 1
            if self.w.r.random() < 0.3:
                self.salt += b"!"
            # Where nodes have different leases, and in half of the other worlds, as `dutchdoor restored` does it, which
            # was given the longest. Else as the promotion of a copy without rows: no row stands for them.
            rows, self.rows = list(self.rows.values()), {}
            if len(self.w.settings) > 1 or self.w.seed % 2:
                self.write(row_of_the_gone(rows, self.log_epoch, max(self.w.settings)))
        if self.w.on("epoch_base"):
            self.base += 1000
        self.version += 1
        self.w.say("RESTORED to", self.head)


class Server(Process):
    """A server process: the real node and the real memory of sessions, and what carries their messages."""

    def __init__(self, w: World, *, lasting: bool = True) -> None:
        super().__init__(w)
        self.lasting = lasting
        self.first_id = ""
        self.deaf_until = 0.0
        self.boot()

    def boot(self) -> None:
        w, r = self.w, self.w.r
        self.terms = Terms(
            lease_for=r.choice(w.settings),
            guard=GUARD if w.on("guard") else 1.0,
            kept_for=KEEP if w.on("keep") else 0.0,
            page=2,
        )
        self.node = node_class(w.drop)(self.terms, new_id=w.new_id, draw=r.random)
        self.node.server = self  # type: ignore[attr-defined] - for the mutants
        self.memory = RememberedSessions()
        self.epoch_seen = 0
        self.seen_entries = 0
        self.polls: dict[int, Callable[[Answer], None]] = {}
        self.fences: dict[Fence, tuple[Revoked, float]] = {}
        self.keys = itertools.count()
        self.armed_for = FOREVER
        self.stopping = False
        if w.direct or not self.lasting:
            self.do(lambda: self.node.woken(self.clock()))
        else:
            self.do(lambda: self.node.want_lease(self.clock()))

    def crash(self, d: float) -> None:
        if self.w.r.random() < 0.5:
            self.stop(self.w.r.choice([0.0, 0.1, 2.0]), d)  # asked to stop, and not just killed
        else:
            super().crash(d)

    def stop(self, lasts: float, d: float) -> None:
        """Get the request to stop, do so a while later, and start again."""
        if not self.up or self.awake > self.w.now:
            return
        self.w.say("STOP", self.node.id[-3:])
        self.stopping = True
        self.do(lambda: self.node.stop(self.clock()))
        life = self.life
        self.w.after(lasts, lambda: Process.crash(self, d) if self.life == life else None)

    def do(self, call: Callable[[], object]) -> object:
        """Call the node, and carry out what it asks for."""
        node = self.node
        out = call()
        for action in node.take_actions():
            match action:
                case Ask(number, question):
                    self.w.rpc(
                        self,
                        lambda question=question: self.w.store.ask(question),
                        lambda answer, number=number: self.do(lambda: node.answered(number, answer, self.clock())),
                    )
                case Answered(key, answer):
                    if answer.lease_ms:
                        self.w.say("GRANT node", node.id[-3:], "up to", answer.upto_seq, answer.lease_ms)
                    self.polls.pop(key)(answer)
                case Settled(fence):
                    self.settled(fence)
        if node.log_epoch != self.epoch_seen:
            self.memory.forget()
            old = self.w.old and self.lasting and not self.epoch_seen and not self.life
            if old and node.log_epoch == self.w.began:
                node._since = -FOREVER
            self.epoch_seen = node.log_epoch
        at = node.next_at
        if at < self.armed_for:  # a timer that rings too early does no harm
            self.armed_for = at
            self.later(max(at - self.clock(), 0) + 1e-6, lambda: self.tick() if self.armed_for == at else None)
        return out

    def tick(self) -> None:
        self.armed_for = FOREVER
        if self.is_sweeping():
            self.node.drop_expired(self.wall())
        self.do(lambda: self.node.tick(self.clock()))

    def notice(self) -> None:
        """The store's NOTIFY. Nothing depends on it."""
        if self.w.r.random() < 0.8 and self.deaf_until < self.w.now:
            self.w.after(0.002, lambda: self.run(lambda: self.do(lambda: self.node.woken(self.clock()))))

    def poll(self, poll: Poll, reply: Callable[[Answer], None]) -> None:
        key = next(self.keys)
        self.polls[key] = reply
        self.do(lambda: self.node.polled(key, poll, self.clock(), credential="all"))

    # Revoking

    def revoke(self, rev: Revoked) -> None:
        if self.awake > self.w.now or not self.up:
            return

        def done(out: object) -> None:
            fresh, seq, log_epoch, head, longest = out  # type: ignore[misc]
            if rev.lost:
                return
            if not fresh and not self.w.on("wait_head"):
                self.w.fenced(rev, "acknowledged")
                return
            since = self.clock()

            def begin() -> None:
                target = seq if fresh else max(head, seq)
                fence = self.node.fence(target, log_epoch, since, longest_lease=longest, alone=longest == 0)
                self.fences[fence] = rev, since

            self.do(begin)

        self.w.rpc(self, lambda: self.w.store.end(rev), done)

    def settled(self, fence: Fence) -> None:
        rev, _ = self.fences.pop(fence)
        if fence.fenced and not rev.lost:
            self.w.fenced(rev, fence.state)

    # Tokens and cookies

    def mint(self, sid: str | None, sub: str) -> None:
        """A refresh (with sid) or a stateless log-in: read, dawdle, sign."""
        if self.awake > self.w.now or not self.up:
            return
        w, r = self.w, self.w.r

        def got(out: object) -> None:
            live, epoch, wall, version, kid = out  # type: ignore[misc]
            if not live:
                return

            def sign(epoch: int) -> None:
                exp = (wall if w.on("exp_from_read") else self.wall()) + LIFE
                w.tokens.append(Token(sid, sub, epoch, f"t{len(w.tokens)}", kid, exp, version))

            late = r.choice([0, 0.05, 0.5, 5, 20])
            if w.on("proof_epoch"):
                self.later(late, lambda: sign(epoch))
            else:
                self.later(late, lambda: w.rpc(self, lambda: w.store.read(None, sub), lambda o: sign(o[1])))

        w.rpc(self, lambda: w.store.read(sid, sub), got)

    def is_current(self) -> bool:
        """Whether the node knows the log as it was at some moment since a request came that comes now."""
        if not self.w.direct:
            return self.node.leased(self.clock())
        store = self.w.store
        known = (store.log_epoch, store.head) == (self.node.log_epoch, self.node.applied_seq)
        return not self.stopping and (known or not self.w.on("head"))

    def follow(self, judge: Callable[[], object]) -> None:
        """Judge a request when the log is known well enough; at once under a lease, or at the head."""
        if self.is_current():
            judge()
        elif not self.stopping:
            self.read_on(judge)

    def read_on(self, judge: Callable[[], object]) -> None:
        node = self.node

        def got(out: object) -> None:
            assert isinstance(out, Renewed)
            if out.log_epoch < node.log_epoch:
                return  # of a log that is over: as `Fencing` does, the caller that waited gets `Unavailable`
            self.do(lambda: node.read(out, self.clock()))
            if out.upto >= out.head:
                judge()
            else:
                self.read_on(judge)

        self.w.rpc(self, lambda: self.w.store.read_log(node.log_epoch, node.applied_seq), got)

    def cookie(self, sid: str, start: float | None) -> None:
        """A session cookie presented here: a memory hit, or else a look-up."""
        if self.awake > self.w.now or not self.up:
            return
        start = self.w.now if start is None else start
        self.follow(lambda: self.judge_cookie(sid, start))

    def judge_cookie(self, sid: str, start: float) -> None:
        w, node = self.w, self.node
        token = Token(sid, OWNER[sid], 1 << 30, "", "", FOREVER, 1 << 30)
        node.drop_expired(self.wall())
        held = self.memory.get(sid, self.log_for_cookies(), self.wall())
        if held is not None:
            w.accept(token, start, "cookie")
            return
        read_at, log_epoch = self.wall(), node.log_epoch

        def got(out: object) -> None:
            if not out[0]:  # type: ignore[index]
                return
            if node.log_epoch == log_epoch:
                account = replace(ACCOUNT_ROWS[OWNER[sid]], epoch=out[1])  # type: ignore[index]
                self.memory.keep(SESSION_ROWS[sid], account, read_at)
            w.accept(token, start, "cookie miss")

        w.rpc(self, lambda: w.store.read(sid, token.sub), got)

    def log_for_cookies(self) -> RevocationLog:
        if self.w.on("cache_check"):
            return self.node.log
        if len(self.node.log) != self.seen_entries:  # forgets when something is applied, and looks no further
            self.seen_entries = len(self.node.log)
            self.memory.forget()
        return RevocationLog(b"")

    def introspect(self, token: Token, reply: Callable[[bool], object]) -> None:
        """A stale verifier asks about a token."""

        def judge() -> None:
            self.node.drop_expired(self.wall())
            reply(not self.node.covers(token.named) and self.wall() < token.exp)

        self.follow(judge)


class Verifier(Process):
    """A verifier process: the real follower, and what carries its messages."""

    def __init__(self, w: World, *, rogue: bool = False) -> None:
        super().__init__(w)
        self.rogue = rogue
        self.on_demand = not rogue and w.r.random() < 0.2
        self.home = w.r.choice(w.nodes)
        self.boot()

    def boot(self) -> None:
        w = self.w
        self.follower = (Rogue if self.rogue else follower_class(w.drop))(
            on_demand=self.on_demand,
            wait_for=HANG,
            kept_for=KEEP if w.on("keep") else 0.0,
            new_id=w.new_id,
            draw=w.r.random,
        )
        self.follower.process = self  # type: ignore[attr-defined] - for the mutants
        self.number = 0
        self.waiting: list[Callable[[], object]] = []
        self.poll()

    def fork(self) -> None:
        """A child is born with all that the parent's memory held; its follower thread is not."""
        w, parent = self.w, self.follower
        if not self.up:
            return
        w.say("FORK")
        child = Verifier(w)
        w.verifiers.append(child)
        child.home, child.rate, child.skew, child.slept = self.home, self.rate, self.skew, self.slept
        child.on_demand = child.follower.on_demand = self.on_demand
        child.follower._wait_ms = parent._wait_ms
        child.follower.holder = parent.holder
        child.follower.log_epoch, child.follower.applied_seq = parent.log_epoch, parent.applied_seq
        log = RevocationLog(parent._known.log.salt)
        for kind, table in enumerate(parent._known.log._tables):
            log.take([Entry(kind, name, mark[0], int(min(mark[1], FOREVER))) for name, mark in table.items()])
        child.follower._known = parent._known._replace(log=log)
        child.number = 99  # what was asked before is not answered to it
        if w.on("fork"):
            child.follower.forked()
        child.later(w.r.uniform(1, 12), child.poll)

    def poll(self) -> None:
        """One at a time; the answer to a poll given up is dropped."""
        w, now = self.w, self.clock()
        self.number += 1
        number, life = self.number, self.life
        if now < self.follower.poll_at:
            self.later(self.follower.poll_at - now + 1e-6, lambda: self.poll() if self.number == number else None)
            return
        poll = self.follower.poll(now)
        server = self.home if w.sticky else w.r.choice(w.nodes)

        def reply(answer: Answer) -> None:
            text = _encode(answer)
            w.send(
                server,
                self,
                lambda: (
                    self.answered(poll, _decode_answer(text)) if (self.life, self.number) == (life, number) else None
                ),
            )

        text = _encode(poll)
        w.send(self, server, lambda: server.poll(_decode_poll(text), reply))
        self.later(HANG + 1, lambda: self.gave_up(poll) if self.number == number else None)

    def gave_up(self, poll: Poll) -> None:
        self.follower.failed(poll, self.clock())
        self.next()

    def answered(self, poll: Poll, answer: Answer) -> None:
        had = self.follower.leased_for(self.clock())
        self.follower.take(poll, answer, self.clock(), self.wall())
        if not had and self.follower.leased_for(self.clock()):  # the moment to find out what it does not know
            for rev in [rev for rev in self.w.revoked if rev.fenced_at is not None][-4:]:
                self.w.after(1e-6, lambda rev=rev: self.w.probe_one(self, rev))
        self.next()

    def next(self) -> None:
        self.number += 1
        waiting, self.waiting = self.waiting, []
        for again in waiting:
            again()
        if self.rogue:
            self.later(0.5, self.poll)
        elif not self.on_demand:
            self.poll()

    def request(self, token: Token) -> None:
        """A request that starts now. Time may pass between any two of its steps: threads, signals, the interpreter."""
        if not self.rogue:
            self.run(lambda start=self.w.now: self.checked(token, start, once=True))

    def checked(self, token: Token, start: float, *, once: bool) -> None:
        follower, gap = self.follower, self.w.r.choice([0, 0, 0.01, 0.2])
        now = self.clock()
        early = follower.judge(token, FOREVER) if not self.w.on("lease_first") else None

        def rest() -> None:
            if self.is_sweeping():
                follower._known.log.drop_expired(self.wall(), follower._kept_for)
            verdict = follower.judge(token, now)
            if early is not None:  # without the rule: the entries of before, and a lease of now
                leased = follower.leased_for(self.clock()) > 0
                verdict = early if early != "stale" else "accepted" if leased else "stale"
            if self.wall() >= token.exp:
                return
            if verdict == "accepted":
                self.w.accept(token, start, "verifier")
            elif verdict == "stale" and self.on_demand and once:
                self.follow_and(lambda: self.checked(token, start, once=False))
            elif verdict == "stale":
                self.ask(token, start)

        if gap:
            self.later(gap, rest)
        else:
            rest()

    def follow_and(self, again: Callable[[], object]) -> None:
        """Follow on demand: one poll serves all requests that wait for it."""
        if self.clock() < self.follower.poll_at:
            again()
            return
        self.waiting.append(again)
        if len(self.waiting) == 1:
            self.poll()

    def ask(self, token: Token, start: float) -> None:
        """Introspect: the policy of a verifier whose lease has run out."""
        w = self.w
        w.stale += 1
        server = w.r.choice(w.nodes)

        def answer(good: bool) -> None:
            if good:
                w.send(server, self, lambda: w.accept(token, start, "introspection"), dup=False)

        w.send(self, server, lambda: server.introspect(token, answer), dup=False)


class Rogue(Follower):
    """Polls for ever and acknowledges nothing."""

    def poll(self, now: float) -> Poll:
        poll = replace(super().poll(now), applied_seq=0)
        self._sent = self._sent._replace(poll=poll) if self._sent else None
        return poll


def node_class(drop: frozenset[str]) -> type[Node]:
    return NODES.build(Node, drop) if drop else Node


def follower_class(drop: frozenset[str]) -> type[Follower]:
    return FOLLOWERS.build(Follower, drop) if drop else Follower
