"""Worlds for the tests over HTTP, and a last look at what the recorder saw."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from tests.http.world import RECORDER, World, a_world


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """A server reached over TLS, with limits that are never reached, and nobody in it."""
    async with a_world() as made:
        yield made


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    seen = RECORDER.seen
    if seen:
        terminalreporter.write_line(
            f"http: {seen['answers']} answers judged, {seen['cookies']} cookies set, {seen['cookies cleared']} cleared"
        )
