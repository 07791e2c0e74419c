"""What every test may use: one event loop, a browser, and Node.js."""

from __future__ import annotations

import gc
import multiprocessing
import os
import shutil
import signal
import ssl
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import httpcore2
import pytest
from httpx2._config import DEFAULT_TIMEOUT_CONFIG
from hypothesis import HealthCheck, settings
from playwright.sync_api import Browser, expect, sync_playwright
from tests.backing import PATIENCE, patience, patient_verifiers, postgres_url, prepared_url, valkey_url
from tests.nodejs import chromium, needed, node_environment
from tests.running import run
from tests.stalls import pytest_runtest_protocol, pytest_sessionstart, pytest_terminal_summary

__all__ = [
    "patience",
    "patient_verifiers",
    "postgres_url",
    "prepared_url",
    "run",
    "valkey_url",
]  # fixtures for all
__all__ += ["pytest_runtest_protocol", "pytest_sessionstart", "pytest_terminal_summary"]

pytest.register_assert_rewrite("dutchdoor.testing.conformance")  # so that a broken law says what it saw

gc.disable()  # while tests are imported, which makes much and drops nothing; see `pytest_collection_finish`

ROOM = 4 * 2**30
"""Bytes. All temporary files of a run need some 0.3 GiB at once."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--uvloop", action="store_true", help="run the tests on uvloop, as the server does")


# Processes that have imported this much start in a hundredth of a second.
multiprocessing.get_context("forkserver").set_forkserver_preload([
    *("hypothesis", "pytest", "tests.backing", "tests.standins", "tests.server.running"),
    *("dutchdoor.server.cli", "dutchdoor.stores.postgres", "dutchdoor.stores.redis", "dutchdoor.testing.conformance"),
])  # fmt: skip

# A busy machine makes any test slow now and then; that one took long is no finding. In CI the examples are the same
# each time: a change fails by what it does, and not by what was drawn.
for _profile, _examples in (("short", 20), ("long", 100)):
    settings.register_profile(
        _profile, deadline=None, max_examples=_examples, derandomize="CI" in os.environ,
        suppress_health_check=[HealthCheck.too_slow],
    )  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    """Try few examples of each property where the long tests do not run, wait for a busy machine, and let Ctrl-C end
    what tests start.
    """
    settings.load_profile("short" if "not long" in config.option.markexpr else "long")
    # A client or a browser that gives up after its five seconds says nothing about the server.
    for wait in ("connect", "read", "write", "pool"):
        setattr(DEFAULT_TIMEOUT_CONFIG, wait, PATIENCE)
    expect.set_options(timeout=PATIENCE * 1000)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell's background job ignores Ctrl-C, and so would every program that tests start and stop by it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    keep_temporary_files_in_memory()


def pytest_collection_finish() -> None:
    """Take what was imported out of the garbage collector's sight: each of its runs would look at all of it. What was
    dropped meanwhile, some 80,000 small things, stays: to look for it takes half a second.
    """
    gc.freeze()
    gc.enable()


def keep_temporary_files_in_memory() -> None:
    """Keep temporary files in memory where there is room. A disk that stalls for five seconds is an outage to a caller
    that waits for a commit; a test of what happens then brings an outage of its own.
    """
    memory = Path("/dev/shm")
    if "TMPDIR" in os.environ or not os.access(memory, os.W_OK):
        return
    runs_programs = not os.statvfs(memory).f_flag & os.ST_NOEXEC
    free = min(shutil.disk_usage(memory).free, os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    if runs_programs and free > ROOM:
        os.environ["TMPDIR"] = tempfile.tempdir = str(memory)


read_authorities = httpcore2.default_ssl_context


@cache
def authorities_of(*paths: str | None) -> ssl.SSLContext:
    return read_authorities()


# Each HTTP client reads all authorities that the machine trusts, in 19 ms: here it takes what the first one has read.
httpcore2.default_ssl_context = lambda **_: authorities_of(*map(os.environ.get, ("SSL_CERT_FILE", "SSL_CERT_DIR")))


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("browser"):
        needed(chromium)


@pytest.fixture(scope="session")
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": request.config.getoption("--uvloop")}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A Chromium, for tests marked `browser`. Each test takes a context of its own."""
    flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
    with sync_playwright() as driver, driver.chromium.launch(executable_path=chromium(), args=flags) as browser:
        yield browser


@pytest.fixture(scope="session")
def nodejs() -> dict[str, str]:
    """The environment to run `node`, `npm` and `npx` in: `subprocess.run(["npm", "pack"], env=nodejs)`."""
    return needed(node_environment)
