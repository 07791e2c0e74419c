"""The promise of the revocation fence, over seeded schedules of everything that goes wrong."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from tests.fence.runs import outcomes, total

SHORT, LONG, SOAK = 250, 3_000, 100_000


def judge(seeds: range) -> None:
    found = total(outcomes(seeds))
    print(found)
    assert (found.unsafe, found.late, found.failing) == (0, 0, ())
    # A world in which nothing is fenced, or nothing accepted, would be safe too.
    assert found.early > len(seeds) / 2
    assert found.fences - found.early > len(seeds) / 10
    assert found.accepted > len(seeds)
    assert found.stale > len(seeds) / 10


def this_commit() -> int:
    """The first digits of the commit that is checked out, so that each commit tries other schedules."""
    asked = ["git", "rev-parse", "HEAD"]
    commit = subprocess.run(asked, cwd=Path(__file__).parent, capture_output=True, text=True, check=False).stdout
    return int(commit[:8] or "0", 16)


@pytest.mark.timeout(300)
def test_nothing_fenced_is_accepted() -> None:
    """In 250 schedules, others at each commit, no request that starts after a fenced answer is accepted, and no fence
    is late.
    """
    first = LONG + SOAK + this_commit()
    judge(range(first, first + SHORT))


@pytest.mark.long
@pytest.mark.timeout(900)
def test_nothing_fenced_is_accepted_in_three_thousand() -> None:
    """In 3,000 schedules, the same at each commit, nothing fenced is accepted and no fence is late."""
    judge(range(LONG))


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_nothing_fenced_is_accepted_in_long_runs() -> None:
    """In 100,000 further schedules no request that starts after a fenced answer is accepted, and no fence is late."""
    judge(range(LONG, LONG + SOAK))
