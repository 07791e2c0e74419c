"""Programs that fork with a verifier in them: run by test_forks.py, each in a process of its own.

    python -m tests.verifier.forking NAME ISSUER TOKEN DEAD

They print one line of JSON. DEAD is a token of a session that is ended between a fork and a check when the program says
`end` on its standard output and waits for a line on its standard input.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import sys
import threading
import time
from pathlib import Path

import dutchdoor.verifier
from dutchdoor import Verifier
from dutchdoor.errors import InvalidToken, Unavailable
from dutchdoor.verifier import _alive, poller


def outcome(verifier: Verifier, token: str) -> str:
    try:
        return verifier(token).subject
    except (InvalidToken, Unavailable) as error:
        return f"{type(error).__name__} {error.reason}"


def described(verifier: Verifier, *tokens: str) -> dict[str, object]:
    found = {"before": verifier.state, "holder": verifier._follower.holder}
    found["outcomes"] = [outcome(verifier, token) for token in tokens]
    found["threads"] = sorted(thread.name for thread in threading.enumerate())
    found["after"] = verifier.state
    verifier.close()
    return found


def in_child(work) -> object:
    """Fork, and give what the work gave there. A child that does not answer in time is ended, and gives None."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(read)
            os.write(write, json.dumps(work()).encode())
        finally:
            os._exit(0)
    os.close(write)
    os.set_blocking(read, False)
    end, got = time.monotonic() + 60, b""
    while time.monotonic() < end:
        try:
            piece = os.read(read, 65536)
        except BlockingIOError:
            time.sleep(0.01)
            continue
        if not piece:
            break
        got += piece
    else:
        os.kill(pid, 9)
    os.close(read)
    os.waitpid(pid, 0)
    return json.loads(got) if got else None


def ask_to_end() -> None:
    print("end", flush=True)
    sys.stdin.readline()


def plain(verifier: Verifier, token: str, dead: str) -> object:
    """Fork a process that follows: parent and child go on, each with a holder of its own."""
    verifier(token), verifier(dead)
    holder = verifier._follower.holder

    def child() -> object:
        first = outcome(verifier, dead)
        ask_to_end()
        return {"first": first, **described(verifier, token, dead)}

    found = in_child(child)
    return {
        "child": found, "holder": holder, "same": verifier._follower.holder == holder,
        "outcomes": [outcome(verifier, token), outcome(verifier, dead)],
    }  # fmt: skip


def without_a_lease(verifier: Verifier, token: str, dead: str) -> object:
    """The first thing a child knows: it has no lease, whatever its parent had."""
    verifier(token)
    return in_child(lambda: [verifier.lease_left, verifier.state, verifier._at_once(token) is None])


def locked(verifier: Verifier, token: str, dead: str) -> object:
    """Fork while another thread holds every lock there is."""
    verifier(token)
    following = verifier._following
    locks = [
        verifier._lock, verifier._cache._lock, following._round, following._fetching, following._saying,
        following._counting, following._poller._lock,
    ]  # fmt: skip
    held, go = threading.Event(), threading.Event()

    def hold() -> None:
        for lock in locks:
            lock.acquire(timeout=60)
        for _ in range(8):
            following._turns.acquire(timeout=60)
        held.set()
        go.wait()
        for lock in locks:
            lock.release()

    holding = threading.Thread(target=hold)
    holding.start()
    held.wait()
    found = in_child(lambda: described(verifier, token, dead))  # the second one is new to it
    go.set()
    holding.join()
    return found


def children_of_children(verifier: Verifier, token: str, dead: str) -> object:
    """A child of a child, each of which follows."""
    verifier(token)

    def child() -> object:
        mine = outcome(verifier, token)
        return [mine, verifier._follower.holder, in_child(lambda: described(verifier, token))]

    return [verifier._follower.holder, *in_child(child)]


def many(verifier: Verifier, token: str, dead: str) -> object:
    """As a preforking server does: the application is loaded once, four workers fork, and each serves in threads."""

    def worker() -> object:
        found: list[str] = []
        threads = [threading.Thread(target=lambda: found.append(outcome(verifier, token))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return {"found": found, "holder": verifier._follower.holder}

    return [in_child(worker) for _ in range(4)]


def _pool_worker(token: str) -> list[str]:
    (verifier,) = _alive
    return [outcome(verifier, token), verifier._follower.holder]


def pool(verifier: Verifier, token: str, dead: str) -> object:
    """multiprocessing, whose workers are forks."""
    verifier(token)
    with multiprocessing.get_context("fork").Pool(2) as workers:
        return [[outcome(verifier, token), verifier._follower.holder], *workers.map(_pool_worker, [token] * 2)]


def while_busy(verifier: Verifier, token: str, dead: str) -> object:
    """Fork again and again while threads check and follow: no child hangs, and the parent notices nothing."""
    verifier(token)
    stop, wrong = threading.Event(), []

    def check() -> None:
        while not stop.is_set():
            said = outcome(verifier, token)
            if said != "ada":
                wrong.append(said)

    threads = [threading.Thread(target=check) for _ in range(3)]
    for thread in threads:
        thread.start()
    found = [in_child(lambda: outcome(verifier, token)) for _ in range(20)]
    stop.set()
    for thread in threads:
        thread.join()
    return {"children": found, "wrong": wrong}


def files(verifier: Verifier, token: str, dead: str) -> object:
    """A child closes its ends of its parent's connections, at once."""
    verifier(token)

    def sockets() -> int:
        found = 0
        for name in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(OSError):
                found += str(name.readlink()).startswith("socket:")
        return found

    return {"parent": sockets(), "child": in_child(sockets)}


def main() -> None:
    name, issuer, token, dead = sys.argv[1:]
    # A busy machine may take that long, in a child too.
    dutchdoor.verifier.WAITS_FOR = poller.ANSWERED_WITHIN = poller.SETTLES_WITHIN = 60.0  # type: ignore[misc]
    with Verifier(issuer, audience="api") as verifier:
        print(json.dumps(globals()[name](verifier, token, dead)), flush=True)


if __name__ == "__main__":
    main()
