"""What a closed verifier leaves behind, and what it loads: nothing."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.verifier.standin import ASK, POLL, Standin, hangs, response, says, stand_still, until

from dutchdoor import Verifier
from dutchdoor.errors import InvalidToken, Unavailable
from dutchdoor.verifier import poller as following_module

Make = Callable[..., Verifier]
Later = Callable[[float], None]


def threads() -> set[threading.Thread]:
    """The threads here, but for those that the standin's loop and store make when they need them."""
    theirs = ("asyncio_", "dutchdoor-sqlite")
    return {thread for thread in threading.enumerate() if not thread.name.startswith(theirs)}


def sockets() -> set[str]:
    """The sockets that are open in this process."""
    found = set()
    for name in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found.add(str(name.readlink()))
    return {each for each in found if each.startswith("socket:")}


def used_in_every_way(authority: Standin, verifier: Verifier, later: Later) -> None:
    assert verifier(authority.token())
    authority.misbehave(POLL, says(response(b"", 500)))
    later(authority.lease_for)
    assert verifier(authority.token())  # asked about, on a connection of its own
    authority.misbehave(POLL, None)

    def fresh_again() -> bool:
        with contextlib.suppress(Unavailable):  # it asks a hundred questions a second, and this loop is faster
            verifier(authority.token())  # on demand it polls when it is used
        return verifier.state == "fresh"

    until(fresh_again)


@pytest.mark.parametrize("follow", ["background", "on demand"])
def test_closing_leaves_no_thread_and_no_connection(authority: Standin, later: Later, follow: str) -> None:
    """After `close`, threads and descriptors are those of before, also when it was stale, and asked about tokens."""
    threads_before, sockets_before = threads(), sockets()
    with Verifier(authority.issuer, audience="api", follow=follow) as verifier:  # type: ignore[arg-type]
        used_in_every_way(authority, verifier, later)
    assert threads() <= threads_before
    until(lambda: sockets() <= sockets_before)  # the authority closes its ends too


async def test_closing_in_a_loop_leaves_nothing_either(authority: Standin, later: Later) -> None:
    """The threads that waited for an event loop end too."""
    threads_before, sockets_before = threads(), sockets()
    async with Verifier(authority.issuer, audience="api") as verifier:
        assert await verifier.check(authority.token())
        authority.misbehave(POLL, says(response(b"", 500)))
        later(authority.lease_for)
        assert await verifier.check(authority.token())
    assert verifier.state == "closed"
    assert threads() <= threads_before
    until(lambda: sockets() <= sockets_before)  # the authority closes its ends too


def test_closing_does_not_wait_for_an_answer(authority: Standin, monkeypatch: pytest.MonkeyPatch) -> None:
    """A poll that hangs, and a question that hangs, are broken off; the caller that waited for them gets an error."""
    for patience in ("ANSWERED_WITHIN", "CLOSES_WITHIN"):
        monkeypatch.setattr(following_module, patience, 100.0)
    monkeypatch.setattr("dutchdoor.verifier.WAITS_FOR", 100.0)
    authority.misbehave(POLL, hangs)
    verifier = Verifier(authority.issuer, audience="api")
    verifier._begin()
    until(lambda: authority.asked[POLL])
    began = time.monotonic()
    verifier.close()
    assert time.monotonic() - began < 60
    other = Verifier(authority.issuer, audience="api")
    authority.misbehave(POLL, says(response(b"", 500)))
    authority.misbehave(ASK, hangs)
    errors: list[Exception] = []

    def ask() -> None:
        try:
            other(authority.token())
        except Unavailable as error:
            errors.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    until(lambda: authority.asked[ASK])
    began = time.monotonic()
    other.close()
    asking.join()
    assert time.monotonic() - began < 60
    assert len(errors) == 1


@pytest.mark.parametrize("follow", ["background", "on demand"])
@pytest.mark.parametrize("stale", ["introspect", "refuse"])
def test_a_closed_verifier_lets_no_one_in(authority: Standin, stale: str, follow: str) -> None:
    """It gets no revocations any more, so it has no lease; closing twice is as good as once."""
    token = authority.token()
    verifier = Verifier(authority.issuer, audience="api", stale=stale, follow=follow)  # type: ignore[arg-type]
    assert verifier(token)
    verifier.close()
    verifier.close()
    for _ in range(2):
        with pytest.raises(Unavailable):
            verifier(token)
    with pytest.raises(Unavailable):
        verifier.start()
    assert verifier.state == "closed"
    never = Verifier(authority.issuer)
    never.close()
    with pytest.raises(Unavailable):
        never(token)


def test_nothing_is_begun_before_it_is_used(authority: Standin) -> None:
    """Creating one calls no server: a module may hold it, and a server fork after."""
    before = threads()
    verifier = Verifier(authority.issuer, audience="api")
    assert verifier.state == "new"
    assert verifier.applied_seq == 0
    assert threads() <= before
    assert authority.accepted == 0


def test_on_demand_has_no_thread(authority: Standin, following: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that runs nothing between two requests checks tokens all the same: the first one after the lease polls,
    the others of that lease do not.
    """
    before = threads()
    verifier = following(follow="on demand")
    token = authority.token(session_id="s" * 22)
    with monkeypatch.context() as stopped:
        stand_still(stopped)
        assert verifier(token)
        polls = authority.asked[POLL]
        for _ in range(100):
            assert verifier(token)
        assert authority.asked[POLL] == polls
        assert {poll.wait_ms for poll in authority.polls} == {0}
        assert threads() <= before
        assert 0 < verifier.lease_left <= 2
    assert authority.revoke("session", "s" * 22).fenced
    with pytest.raises(InvalidToken):
        verifier(token)


@pytest.mark.usefixtures("standing_still")
def test_on_demand_polls_once_for_all_who_wait(authority: Standin, following: Make, later: Later) -> None:
    """Twenty requests that find no lease make one poll."""
    verifier = following(follow="on demand")
    verifier.start()
    tokens = [authority.token() for _ in range(20)]
    for _ in range(3):
        later(authority.lease_for)
        assert not verifier.lease_left
        polls, together, good = authority.asked[POLL], threading.Barrier(20), []

        def check(token: str, together: threading.Barrier = together, good: list[object] = good) -> None:
            together.wait()
            good.append(verifier(token))

        waiting = [threading.Thread(target=check, args=(token,)) for token in tokens]
        for thread in waiting:
            thread.start()
        for thread in waiting:
            thread.join()
        assert len(good) == 20
        assert authority.asked[POLL] == polls + 1
    assert authority.asked[ASK] == 0


ALONE = """
import importlib.abc, sys

before = set(sys.modules)  # what the interpreter begins with is the machine's

class Others(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        allowed = {"dutchdoor", "cryptography", "msgspec", "pybase64", "cffi", "_cffi_backend", "typing_extensions"}
        if top not in allowed and top not in sys.stdlib_module_names:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Others())
from dutchdoor import Verifier
asked = "http.client" in sys.modules, "ssl" in sys.modules, "asyncio" in sys.modules
with Verifier(sys.argv[1], audience="api") as verifier:
    print(verifier(sys.argv[2]).subject, *asked)
    print(*sorted({name.partition(".")[0] for name in sys.modules.keys() - before} - sys.stdlib_module_names))
    print(*sorted(name for name in sys.modules if name.startswith("dutchdoor.")))
"""


def test_it_needs_three_packages(authority: Standin) -> None:
    """Where nothing but cryptography, msgspec and pybase64 can be imported, a verifier works from start to end; and
    importing it loads no HTTP client, no TLS and no event loop.
    """
    done = subprocess.run(
        [sys.executable, "-c", ALONE, authority.issuer, authority.token()], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    checked, packages, ours = done.stdout.splitlines()
    assert checked == "ada False False False"
    assert set(packages.split()) - {"typing_extensions", "cffi"} <= {
        "_cffi_backend", "_openssl", "cryptography", "dutchdoor", "msgspec", "pybase64",
    }  # fmt: skip
    for part in ("web", "stores", "server", "authority", "directory", "store", "credentials"):
        assert not any(name.split(".")[1] == part for name in ours.split())


def test_a_forgotten_one_does_not_keep_the_program(authority: Standin, tmp_path: Path) -> None:
    """A program that never closes its verifier ends all the same, and says nothing."""
    code = (
        "import sys; from dutchdoor import Verifier; print(Verifier(sys.argv[1], audience='api')(sys.argv[2]).subject)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, authority.issuer, authority.token()],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "ada\n", "")
