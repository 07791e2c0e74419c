from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.backing import PATIENCE
from tests.verifier.standin import Standin, stand_still, standing

import dutchdoor.verifier
from dutchdoor import Verifier
from dutchdoor.revocation.follower import Follower
from dutchdoor.verifier import poller


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let verifiers of this process wait a minute for what a request waits three seconds for: a busy machine may take
    that.
    """
    monkeypatch.setattr(dutchdoor.verifier, "WAITS_FOR", PATIENCE)
    for name in ("ANSWERED_WITHIN", "SETTLES_WITHIN", "CLOSES_WITHIN"):
        monkeypatch.setattr(poller, name, PATIENCE)


@pytest.fixture
def authority(tmp_path: Path) -> Iterator[Standin]:
    with standing(tmp_path) as one:
        yield one


@pytest.fixture
def hasty(tmp_path: Path) -> Iterator[Standin]:
    """One whose leases are short: long enough for a busy machine, short enough to wait for their end."""
    with standing(tmp_path, lease_for=2.0) as one:
        yield one


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the clock of this process's verifiers ahead by so many seconds, as after a machine slept: leases end, and no
    test waits for it. Their polls are short, since an authority whose clock stood still has no cause to answer at once.
    """
    ahead, running = [0.0], dutchdoor.verifier.elapsed
    monkeypatch.setattr(dutchdoor.verifier, "elapsed", lambda: running() + sum(ahead))
    monkeypatch.setattr(dutchdoor.verifier, "Follower", partial(Follower, wait_for=0.2))
    return ahead.append


@pytest.fixture
def standing_still(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no time pass for this process's verifiers, but what `later` adds."""
    stand_still(monkeypatch)


@pytest.fixture
def following(authority: Standin) -> Iterator[Callable[..., Verifier]]:
    """Makes verifiers that are closed when the test ends."""
    with ExitStack() as stack:

        def make(at: Standin = authority, **how: Any) -> Verifier:
            verifier = Verifier(at.issuer, audience="api", **how)
            stack.callback(verifier.close)
            return verifier

        yield make
