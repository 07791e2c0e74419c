"""Measure what following the revocation log costs: memory and time of the entries, of a check, of a poll.

    python benchmarks/fence.py [--quick]

Prints Markdown. Times are of the process itself (nothing waits), the fastest of several batches. Memory is what the
process holds more than before, by the operating system's count and by Python's, with the entries as they come from the
wire.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from time import clock_gettime

import msgspec

from dutchdoor.jose.access_token import AccessTokenIssuer, AccessTokenVerifier
from dutchdoor.jose.jwk import Key
from dutchdoor.jose.token_cache import TokenCache
from dutchdoor.model.ids import new_id
from dutchdoor.revocation.follower import Follower
from dutchdoor.revocation.lease import Terms
from dutchdoor.revocation.log import Entry, Named, Revocation, RevocationLog
from dutchdoor.revocation.messages import Answer, Poll
from dutchdoor.revocation.node import Answered, Ask, Node
from dutchdoor.revocation.node_messages import ReadLog, Register, Renew, Renewed

SALT = b"0123456789abcdef"
BOOTTIME = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
Call = Callable[[], object]


def elapsed() -> float:
    return clock_gettime(BOOTTIME)


def fastest(call: Call, *, times: int, batches: int = 100) -> float:
    """Seconds of one call: the fastest of several batches."""
    best = float("inf")
    for _ in range(batches):
        start = time.perf_counter()
        for _ in range(times):
            call()
        best = min(best, (time.perf_counter() - start) / times)
    return best


def quickest(call: Callable[..., object], given: list, *, batch: int = 50) -> float:
    """Seconds of one call, each with an argument of its own: of the fastest batch."""
    best = float("inf")
    for at in range(0, len(given) - batch, batch):
        some = given[at : at + batch]
        start = time.perf_counter()
        for each in some:
            call(each)
        best = min(best, (time.perf_counter() - start) / batch)
    return best


def resident() -> int:
    text = Path("/proc/self/statm").read_text().split()[1]
    return int(text) * os.sysconf("SC_PAGESIZE")


# ruff: noqa: SLF001 - it weighs what is inside

# --- entries ----------------------------------------------------------------------------------------------------------


def entries(count: int) -> None:
    """In a process of its own: bytes an entry, nanoseconds a look-up, and what is left when they have gone."""
    sessions = [f"session{number:015d}" for number in range(count)]
    name = RevocationLog(SALT)._names[0].fresh
    encoder, decoder = msgspec.json.Encoder(), msgspec.json.Decoder(list[Entry])
    pages = [
        encoder.encode(
            [Entry(0, name(sid), 0, 1_800_000_000 + at % 3600) for at, sid in enumerate(sessions[n : n + 4096])]
        )
        for n in range(0, count, 4096)
    ]
    log = RevocationLog(SALT)
    gc.collect()
    before, start = resident(), time.perf_counter()
    for page in pages:
        log.take(decoder.decode(page))
    took = time.perf_counter() - start
    gc.collect()
    held = resident() - before
    table = sys.getsizeof(log._tables[0]) + count * (sys.getsizeof(next(iter(log._tables[0]))) + 15) // 16 * 16
    step = max(1, count // 20_000)
    asked = [name(sid) for sid in sessions[::step]]
    there = log._tables[0]
    look_up = fastest(lambda: [each in there for each in asked], times=1, batches=30) / len(asked)
    # As a request does it: with an id whose name is not remembered, and another log of which nothing is in a cache.
    whole = [Named("u", 9, sid, "t", "app", "k") for sid in sessions[::step]]
    fresh = quickest(log.covers, whole)
    few = whole[:1000]
    again = fastest(lambda: [log.covers(each) for each in few], times=1, batches=30) / len(few)
    log.drop_expired(1_800_003_600 + 601, 600)
    print(
        json.dumps(
            {
                "count": count,
                "held": held / count,
                "sized": table / count,
                "take": took / count,
                "look_up": look_up,
                "fresh": fresh,
                "again": again,
                "left": len(log) + sum(sys.getsizeof(table) for table in log._tables),
            }
        )
    )


# --- a check ----------------------------------------------------------------------------------------------------------


def checks(count: int, times: int) -> list[tuple[str, float, float, float]]:
    """Give, for plain verification and for a remembered token, seconds without a follower, with, and the difference."""
    rows = []
    for alg in ("ES256", "EdDSA"):
        key = Key.generate(alg)
        issue = AccessTokenIssuer(issuer="https://auth.example.com", audience="api")
        verify = AccessTokenVerifier(keys=key, issuer="https://auth.example.com", audience="api")
        tokens = [
            issue(
                key=key, now=time.time(), lifetime=600, subject=f"user{n}", client_id="app", epoch=3, amr=("pwd",),
                roles=("user",), session_id=new_id(),
            )
            for n in range(64)
        ]  # fmt: skip
        follower = a_follower(count)

        def judge(claims, judge=follower.judge):
            return judge(claims, clock_gettime(BOOTTIME)) == "accepted"

        claims = [verify(token) for token in tokens]
        assert all(map(judge, claims))
        plain = fastest(lambda verify=verify, tokens=tokens: [verify(t) for t in tokens], times=1) / 64
        cost = fastest(lambda judge=judge, claims=claims: [judge(c) for c in claims], times=times) / 64
        fresh = [msgspec.structs.replace(claims[0], sub=f"new{n}", sid=new_id(), jti=new_id()) for n in range(2000)]
        first = quickest(judge, fresh)  # never seen: its names cost a hash each
        rows.append((f"{alg}, signature checked", plain, cost, first))
        cache = TokenCache(verify)

        def remembered(token, cache=cache):
            return cache.recognise(token, time.time())[0]

        def followed(token, cache=cache, judge=judge):
            return judge(cache.recognise(token, time.time())[0])

        for token in tokens:
            remembered(token), followed(token)
        without = fastest(lambda r=remembered, tokens=tokens: [r(t) for t in tokens], times=times) / 64
        with_it = fastest(lambda f=followed, tokens=tokens: [f(t) for t in tokens], times=times) / 64
        rows.append((f"{alg}, remembered", without, with_it - without, first))
    return rows


def a_follower(count: int) -> Follower:
    follower = Follower()
    poll = follower.poll(elapsed())
    found = [Entry(0, os.urandom(16), 0, 1_900_000_000) for _ in range(count - count // 100)]
    found += [Entry(1, os.urandom(16), 5, 1_900_000_000) for _ in range(count // 100)]
    found += [Entry(2, os.urandom(16), 0, 1_900_000_000), Entry(4, os.urandom(16), 0, 0)]
    answer = Answer(
        log_epoch=1, salt=SALT, after_seq=0, upto_seq=count, entries=found, reaches_head=True, lease_ms=600_000
    )
    follower.take(poll, answer, elapsed(), time.time())
    return follower


# --- a node -----------------------------------------------------------------------------------------------------------


class Store:
    """A store that answers at once."""

    def __init__(self) -> None:
        self.log: list[Revocation] = []
        self.rows: dict[str, object] = {}

    def serve(self, node: Node, now: float) -> list[Answered]:
        answered, pending = [], node.take_actions()
        while pending:
            for action in pending:
                match action:
                    case Ask(number, question):
                        node.answered(number, self.answer(question), now)
                    case Answered():
                        answered.append(action)
            pending = node.take_actions()
        return answered

    def answer(self, question: object) -> Renewed | None:
        if isinstance(question, Register):
            self.rows[question.row.id] = question.row
        if not isinstance(question, Renew | ReadLog):
            return None
        if isinstance(question, Renew):
            self.rows[question.row.id] = question.row
        head = len(self.log)
        return Renewed(
            there=True, log_epoch=1, salt=SALT, after=question.after, entries=self.log[question.after :], upto=head,
            head=head, rows=list(self.rows.values()),
        )  # fmt: skip


def polls(verifiers: int, rounds: int) -> tuple[float, float]:
    """Give seconds of processor time for one hanging poll and its answer, and for waking one verifier and hearing its
    acknowledgement: JSON both ways, without HTTP.
    """
    store, node, now = Store(), Node(Terms()), 1000.0
    encode, decode = msgspec.json.Encoder().encode, msgspec.json.Decoder(Poll).decode
    node.want_lease(now)
    store.serve(node, now)
    ids = [new_id() for _ in range(verifiers)]

    def ask(holder: str, applied: int) -> bytes:
        return encode(Poll(holder=holder, log_epoch=1, applied_seq=applied, wait_ms=2500))

    for number, holder in enumerate(ids):
        node.polled(number, decode(ask(holder, 0)), now, credential="c")
    sum(len(encode(done.answer)) for done in store.serve(node, now))
    quiet = 0.0
    for _ in range(rounds):  # each one polls, waits, and is answered when the wait is over
        texts = [ask(holder, 0) for holder in ids]
        start = time.process_time()
        for number, text in enumerate(texts):
            node.polled(number, decode(text), now, credential="c")
        now += 2.5
        node.tick(now)
        done = [encode(answered.answer) for answered in store.serve(node, now)]
        quiet += time.process_time() - start
        assert len(done) == verifiers
    woken = 0.0
    for seq in range(1, rounds + 1):  # all of them wait, a revocation comes, each one gets it and acknowledges
        for number, holder in enumerate(ids):
            node.polled(number, decode(ask(holder, seq - 1)), now, credential="c")
        store.serve(node, now)
        store.log.append(Revocation(kind="session", id=new_id(), expires_at=1_900_000_000.0, seq=seq))
        texts = [ask(holder, seq) for holder in ids]
        start = time.process_time()
        node.woken(now)
        done = [encode(answered.answer) for answered in store.serve(node, now)]
        for number, text in enumerate(texts):
            node.polled(number, decode(text), now, credential="c")
        woken += time.process_time() - start
        assert len(done) == verifiers
        store.serve(node, now)
        assert node._acked_seq == seq
    return quiet / rounds / verifiers, woken / rounds / verifiers


def main(*, quick: bool) -> None:
    print(f"Python {platform.python_version()}, {platform.machine()}\n")
    print("| live entries | bytes each, resident | by size of objects | take in | look-up | first sight | again |")
    print("|---|---|---|---|---|---|---|")
    for count in (1_000, 10_000, 100_000) if quick else (1_000, 10_000, 100_000, 1_000_000):
        program = [sys.executable, __file__, "--entries", str(count)]
        found = json.loads(subprocess.run(program, check=True, capture_output=True, text=True).stdout)
        cells = [f"{found[key] * 1e9:,.0f} ns" for key in ("take", "look_up", "fresh", "again")]
        held = f"{found['held']:.0f}" if count >= 100_000 else "-"  # a thousand are lost in the rounding to pages
        print(f"| {count:,} | {held} | {found['sized']:.0f} | {' | '.join(cells)} |", flush=True)
        assert found["left"] < 100_000, "memory did not come back"
    print("\n| a check, at 100,000 entries | without following | following costs | where no name is remembered |")
    print("|---|---|---|---|")
    for name, plain, cost, first in checks(100_000, 10):
        print(f"| {name} | {plain * 1e6:.2f} us | {cost * 1e6:.2f} us | {first * 1e6:.2f} us |", flush=True)
    print("\n| verifiers at one node | a poll that hangs, and its answer | woken by an entry, and acknowledged |")
    print("|---|---|---|")
    for verifiers in (20, 2_000):
        quiet, woken = polls(verifiers, 3 if quick else 10)
        print(f"| {verifiers:,} | {quiet * 1e6:.1f} us | {woken * 1e6:.1f} us |", flush=True)


if __name__ == "__main__":
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--quick", action="store_true")
    arguments.add_argument("--entries", type=int)
    given = arguments.parse_args()
    if given.entries:
        entries(given.entries)
    else:
        main(quick=given.quick)
