"""Processes that fork, and that are stopped: with real processes, since that is what they are about."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

import pytest
from tests.verifier.standin import Standin, until

from dutchdoor.model.ids import new_id

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")


def forking(authority: Standin, name: str) -> Any:
    """Run one of the programs in forking.py, and give what it printed."""
    dead = new_id()
    process = subprocess.Popen(
        [sys.executable, "-W", "error::ResourceWarning", "-m", "tests.verifier.forking", name, authority.issuer,
         authority.token(), authority.token(session_id=dead)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        line = process.stdout.readline()
        if line == "end\n":
            assert authority.revoke("session", dead).fenced
            process.stdin.write("\n")
            process.stdin.flush()
            line = process.stdout.readline()
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    # A machine that is busy with other things may be late with a lease, and that is logged.
    assert [line for line in errors.splitlines() if not line.startswith("stale: ")] == []
    return json.loads(line)


def test_a_child_follows_by_itself(authority: Standin) -> None:
    """After a fork both go on: the child with a new holder, a thread and a connection of its own; and what is ended is
    refused by both when the fence holds.
    """
    found = forking(authority, "plain")
    child = found["child"]
    assert child["first"] == "ada"
    assert child["outcomes"] == ["ada", "InvalidToken revoked"]
    assert found["outcomes"] == ["ada", "InvalidToken revoked"]
    assert found["same"]
    assert child["holder"] != found["holder"]
    assert child["threads"] == ["MainThread", "dutchdoor-verifier"]
    holders = [poll.holder for poll in authority.polls]
    assert {child["holder"], found["holder"]} == set(holders)


def test_a_child_has_no_lease(authority: Standin) -> None:
    """What the parent acknowledges from now on the child has not seen, so it trusts nothing before it has asked."""
    assert forking(authority, "without_a_lease") == [0.0, "new", True]


def test_a_fork_while_locks_are_held(authority: Standin) -> None:
    """A lock that another thread held at the fork is never released in the child; no call waits for it there."""
    found = forking(authority, "locked")
    assert found is not None, "the child hung"
    assert found["outcomes"] == ["ada", "ada"]
    assert found["after"] == "fresh"


def test_a_child_of_a_child(authority: Standin) -> None:
    """Each generation has a holder of its own."""
    parent, said, child, grandchild = forking(authority, "children_of_children")
    assert said == "ada"
    assert grandchild["outcomes"] == ["ada"]
    assert len({parent, child, grandchild["holder"]}) == 3


def test_preforked_workers(authority: Standin) -> None:
    """An application that is loaded before its workers fork, as with `gunicorn --preload`: each worker follows, from
    whichever of its threads comes first.
    """
    workers = forking(authority, "many")
    assert [worker["found"] for worker in workers] == [["ada"] * 8] * 4
    assert len({worker["holder"] for worker in workers}) == 4


def test_a_pool_of_processes(authority: Standin) -> None:
    """The workers of multiprocessing are forks too."""
    found = forking(authority, "pool")
    assert [said for said, _ in found] == ["ada"] * 3
    assert len({holder for _, holder in found}) >= 2


def test_forks_in_the_middle_of_everything(authority: Standin) -> None:
    """Twenty forks while threads check and follow."""
    assert forking(authority, "while_busy") == {"children": ["ada"] * 20, "wrong": []}


def test_a_child_keeps_no_connection_of_its_parent(authority: Standin) -> None:
    """A connection that two processes held would end when both have ended, and be written to by either."""
    found = forking(authority, "files")
    assert found == {"parent": 1, "child": 0}


# --- stopped ----------------------------------------------------------------------------------------------------------

CHECKING = """
import sys, time
from dutchdoor import Verifier
from dutchdoor.errors import InvalidToken, Unavailable
verifier = Verifier(sys.argv[1], audience="api", stale=sys.argv[3])
print("begun", flush=True)
while True:
    began = time.monotonic()
    try:
        verifier(sys.argv[2])
        said = "accepted"
    except InvalidToken:
        said = "refused"
    except Unavailable:
        said = "unavailable"
    sys.stdout.write(f"{began} {said}\\n")
    sys.stdout.flush()
    if said == "refused":
        break
"""


@pytest.mark.parametrize("stale", ["introspect", "refuse"])
def test_a_process_that_was_stopped_accepts_nothing_after_the_fence(hasty: Standin, stale: str) -> None:
    """Stopped with a good lease, and continued when the fence is confirmed: its clock has run on, so not one check that
    began afterwards accepts.
    """
    sid = new_id()
    process = subprocess.Popen(
        [sys.executable, "-c", CHECKING, hasty.issuer, hasty.token(session_id=sid), stale],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "begun\n"
        first = next(line for line in process.stdout if "accepted" in line)
        time.sleep(0.3)  # it accepts, and fills the pipe
        process.send_signal(signal.SIGSTOP)
        fence = hasty.revoke("session", sid)
        assert fence.fenced
        fenced_at = time.monotonic()
        process.send_signal(signal.SIGCONT)
        lines = [line.split() for line in (first, *process.stdout)]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    after = [said for began, said in lines if float(began) > fenced_at]
    assert "accepted" not in after
    assert lines[-1][1] == "refused"
    assert [said for began, said in lines if float(began) < fenced_at].count("accepted") > 0


def test_a_stopped_verifier_delays_a_fence_by_a_lease_at_most(hasty: Standin) -> None:
    """While it is stopped, fences take the maximum wait: not one exchange, and no longer."""
    process = subprocess.Popen(
        [sys.executable, "-c", CHECKING, hasty.issuer, hasty.token(), "refuse"], stdout=subprocess.DEVNULL
    )
    try:
        until(lambda: len(hasty.polls) >= 3)
        assert hasty.revoke("session", new_id()).fenced
        process.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        assert hasty.revoke("session", new_id(), wait=30).fenced
        assert time.monotonic() - began < 15, "a lease of it is two seconds"
        process.send_signal(signal.SIGCONT)
    finally:
        process.kill()
        process.wait()
