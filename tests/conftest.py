"""What every test may use: one event loop, and a browser where there is one."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from tests.backing import postgres_url, valkey_url

__all__ = ["postgres_url", "valkey_url"]  # fixtures for every test

pytest.register_assert_rewrite("dutchdoor.testing.store_laws")  # so that a broken law says what it saw

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find_chromium() -> str | None:
    """Name the Chromium to drive: the one in the environment variable CHROMIUM, else the first on the PATH."""
    named = os.environ.get("CHROMIUM")
    if named:
        return named if Path(named).is_file() else None
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--uvloop", action="store_true", help="run the tests on uvloop, as the server does")


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
