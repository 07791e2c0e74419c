"""The tests' own rule for a machine that stands still."""

from __future__ import annotations

import pytest
from tests import stalls

pytest_plugins = "pytester"

STANDING = """
import time
import pytest
from tests import stalls

tries, made = [], []

@pytest.fixture(scope="module")
def server():
    made.append(1)
    return len(made)

def test_that_fails_in_a_stall(server, request):
    tries.append("stall")
    if len(tries) == 1:
        began, stalls.STALL = time.monotonic(), 0.0  # each look of the watch is later than that
        while request.config.stash[stalls.WATCH].seen_at < began:
            time.sleep(0.01)
        stalls.STALL = float("inf")
        assert False, "a lease ran out"
    assert server == 2, "what the file shares begins anew"

def test_that_fails():
    tries.append("alone")
    assert False

def test_that_was_tried():
    assert tries == ["stall", "stall", "alone"]
"""


def test_a_test_that_fails_in_a_stall_is_tried_again(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A test that fails while the machine stands still is tried again, with all it shares with its file, and the
    summary says so. One that fails without a stall is not.
    """
    monkeypatch.setattr(stalls, "STALL", stalls.STALL)  # the tests within change it
    pytester.makeconftest("from tests.stalls import *  # noqa: F403")
    pytester.makepyfile(STANDING)
    ran = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    ran.assert_outcomes(passed=2, failed=1)
    ran.stdout.fnmatch_lines(
        ["*test_that_fails_in_a_stall: tried again, since the machine stood still*", "*a lease ran out*"]
    )
