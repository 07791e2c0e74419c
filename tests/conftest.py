"""What every test may use: one event loop, and a browser where there is one."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from tests.backing import postgres_url, valkey_url

__all__ = ["postgres_url", "valkey_url"]  # fixtures for every test

pytest.register_assert_rewrite("dutchdoor.testing.conformance")  # so that a broken law says what it saw

ROOM = 4 * 2**30
"""Bytes. All temporary files of a run need some 0.3 GiB at once."""

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find_chromium() -> str | None:
    """Name the Chromium to drive: the one in the environment variable CHROMIUM, else the first on the PATH."""
    named = os.environ.get("CHROMIUM")
    if named:
        return named if Path(named).is_file() else None
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--uvloop", action="store_true", help="run the tests on uvloop, as the server does")


def pytest_configure() -> None:
    """Keep temporary files in memory where there is room. A disk that stalls for five seconds is an outage to whoever
    waits for a commit; a test of what happens then brings an outage of its own.
    """
    memory = Path("/dev/shm")
    if "TMPDIR" in os.environ or not os.access(memory, os.W_OK):
        return
    runs_programs = not os.statvfs(memory).f_flag & os.ST_NOEXEC
    free = min(shutil.disk_usage(memory).free, os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    if runs_programs and free > ROOM:
        os.environ["TMPDIR"] = tempfile.tempdir = str(memory)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("browser") and find_chromium() is None:
        pytest.skip(f"needs a browser: none of {', '.join(BROWSERS)} on the PATH, and CHROMIUM names no file")


@pytest.fixture(scope="session")
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": request.config.getoption("--uvloop")}


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of the Chromium to drive, for tests marked `browser`."""
    found = find_chromium()
    assert found is not None
    return found
