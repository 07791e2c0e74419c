from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.verifier.standin import Standin, stand_still, standing

import dutchdoor.verifier
from dutchdoor import Verifier
from dutchdoor.revocation.follower import Follower


@pytest.fixture(autouse=True)
def verifiers_are_patient(patient_verifiers: None) -> None:
    """A busy machine is no outage."""


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
