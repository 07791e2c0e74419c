"""A test that fails while the machine stands still is tried again, and the run's summary names it.

A virtual machine may get no processor for seconds. Leases run out meanwhile, a store is late, a browser gives up: each
of them is right, and the failure says nothing about the code. A failure without a stall is never tried again.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

import pytest
from _pytest.runner import runtestprotocol

STALL = 0.5
"""Seconds that a thread which wants to run does not. A busy machine with a processor for each run needs some 0.05."""
TRIES = 3
TOO_LATE = 150.0
"""Seconds after which a failed test is not tried again: the limit of pytest-timeout is for all tries."""
AGAIN = "tried again, since the machine stood still"


class Watch:
    """Notes when this process has last stood still."""

    EVERY = 0.05

    def __init__(self) -> None:
        self.seen_at = -float("inf")
        threading.Thread(target=self._look, daemon=True, name="pytest stalls").start()

    def _look(self) -> None:
        while True:
            began = time.monotonic()
            time.sleep(self.EVERY)
            ended = time.monotonic()
            if ended - began - self.EVERY > STALL:
                self.seen_at = ended


def pytest_sessionstart(session: pytest.Session) -> None:
    session.config.stash[WATCH] = Watch()


WATCH = pytest.StashKey[Watch]()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool:
    """Run a test as pytest does, and once more where it may have failed by a stall."""
    watch = item.config.stash[WATCH]
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    first = time.monotonic()
    for left in reversed(range(TRIES)):
        began = time.monotonic()
        reports = runtestprotocol(item, log=False, nextitem=nextitem)
        if not any(each.failed for each in reports):
            break
        time.sleep(2 * watch.EVERY)  # it sees a stall when that is over
        if watch.seen_at < began:
            break
        with contextlib.suppress(Exception):  # servers and browsers that tests share may have suffered: they begin anew
            item.session._setupstate.teardown_exact(None)
        if not left or time.monotonic() > first + TOO_LATE:
            break
        item.user_properties.append((AGAIN, str(next(each.longrepr for each in reports if each.failed))[-2000:]))
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for nodeid, why in dict(_tried_again(terminalreporter)).items():
        terminalreporter.section(f"{nodeid}: {AGAIN}")
        terminalreporter.line(why)


def _tried_again(reporter: pytest.TerminalReporter) -> Iterator[tuple[str, str]]:
    for reports in reporter.stats.values():
        for report in reports:
            for name, why in getattr(report, "user_properties", ()):
                if name == AGAIN:
                    yield report.nodeid, why
