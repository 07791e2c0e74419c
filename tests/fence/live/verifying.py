"""Verifiers in processes of their own, that check tokens without pause and remember when they last accepted each.

All processes of one machine read one monotonic clock, so "began after the fenced answer" compares two numbers.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import random
import resource
import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from dutchdoor import Verifier
from dutchdoor.errors import InvalidToken, Unavailable

BATCH = 40
ENDS_WITHIN = 60.0

_processes = multiprocessing.get_context("forkserver")


class Seen(NamedTuple):
    """What one verifier did."""

    checks: int
    accepted: dict[int, float]
    """By the place of its token: when the last check began that accepted it."""
    answers: Counter[str]
    asked: int
    """Checks that took longer than a lease's worth of looking: they waited for the authority."""
    memory: int
    """Kilobytes, at most."""
    entries: int


def check_without_pause(
    pipe: Connection, issuer: str, key: str, tokens: Sequence[str], pause: float, options: dict[str, Any]
) -> None:
    """Check tokens at random until asked to stop, and then until some token was accepted; then say what was seen."""
    os.nice(5)
    logging.getLogger("dutchdoor.verifier").setLevel(logging.CRITICAL)  # it is meant to be stale
    lots = random.Random(os.getpid())
    accepted: dict[int, float] = {}
    answers: Counter[str] = Counter()
    checks = asked = 0
    deaf = options.pop("deaf", False)
    with Verifier(issuer, key=key, **options) as verify:
        if deaf:  # it acknowledges and does not listen: what the judgement must notice
            verify._judge = lambda _claims, _now: "accepted"
        pipe.send(verify.state)
        places = range(len(tokens))
        last: tuple[int, float] | None = None
        until = 0.0
        # One that got no processor yet goes on until it has seen both sorts of token.
        while last is None or (
            time.monotonic() < until
            and not (accepted.get(last[0], 0.0) > last[1] and answers["accepted"] and (deaf or answers["refused"]))
        ):
            if last is None and pipe.poll():
                last, until = pipe.recv(), time.monotonic() + ENDS_WITHIN
                continue
            for place in lots.choices(places, k=BATCH):
                began = time.monotonic()
                try:
                    verify(tokens[place])
                except InvalidToken:
                    answers["refused"] += 1
                except Unavailable:
                    answers["unavailable"] += 1
                else:
                    answers["accepted"] += 1
                    accepted[place] = began
                checks += 1
                asked += time.monotonic() - began > 0.05
            time.sleep(pause)
        entries = verify.entries
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pipe.send(Seen(checks, accepted, answers, asked, memory, entries))
    pipe.close()


class Process:
    """One verifier's process."""

    def __init__(self, issuer: str, key: str, tokens: Sequence[str], pause: float, options: dict[str, Any]) -> None:
        self.pipe, theirs = _processes.Pipe()
        self.process = _processes.Process(
            target=check_without_pause, args=(theirs, issuer, key, tokens, pause, options), daemon=True
        )
        self.process.start()
        theirs.close()

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def wait_ready(self) -> str:
        assert self.pipe.poll(60), "a verifier did not start"
        state: str = self.pipe.recv()
        return state

    def pause(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def stop(self, place: int = 0, since: float = -1.0) -> Seen:
        """Ask it to stop, once it has accepted a token after a time."""
        self.go_on()
        self.pipe.send((place, since))
        assert self.pipe.poll(120), "a verifier does not answer"
        seen: Seen = self.pipe.recv()
        self.process.join(60)
        assert self.process.exitcode == 0
        return seen


@contextlib.contextmanager
def verifiers(
    count: int, issuer: str, key: str, tokens: Sequence[str], *, pause: float = 0.02, **options: Any
) -> Iterator[list[Process]]:
    """So many verifiers that follow; every second one refuses when stale, the others ask."""
    made = [
        Process(issuer, key, tokens, pause, {"stale": "refuse" if n % 2 else "introspect", **options})
        for n in range(count)
    ]
    try:
        for each in made:
            each.wait_ready()
        yield made
    finally:
        for each in made:
            if each.process.is_alive():
                each.process.kill()
            each.process.join(10)
            each.pipe.close()
