"""The promise of the revocation fence, over seeded schedules of everything that goes wrong."""

from __future__ import annotations

import pytest
from tests.fence.runs import outcomes, total

ORDINARY, LONG = 10_000, 100_000


@pytest.mark.timeout(900)
def test_nothing_fenced_is_accepted() -> None:
    """In 10,000 schedules no request that starts after a fenced answer is accepted, and no fence is late."""
    found = total(outcomes(range(ORDINARY)))
    assert (found.unsafe, found.late, found.failing) == (0, 0, ())
    # A world in which nothing is fenced, or nothing accepted, would be safe too.
    assert found.early > ORDINARY / 2
    assert found.fences - found.early > ORDINARY / 10
    assert found.accepted > ORDINARY
    assert found.stale > ORDINARY / 10


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_nothing_fenced_is_accepted_in_long_runs() -> None:
    """In 100,000 further schedules no request that starts after a fenced answer is accepted, and no fence is late."""
    found = total(outcomes(range(ORDINARY, ORDINARY + LONG)))
    print(found)
    assert (found.unsafe, found.late, found.failing) == (0, 0, ())
