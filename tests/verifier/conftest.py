from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.verifier.standin import Standin, standing

from dutchdoor import Verifier


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
def following(authority: Standin) -> Iterator[Callable[..., Verifier]]:
    """Makes verifiers that are closed when the test ends."""
    with ExitStack() as stack:

        def make(at: Standin = authority, **how: Any) -> Verifier:
            verifier = Verifier(at.issuer, audience="api", **how)
            stack.callback(verifier.close)
            return verifier

        yield make
