"""Node.js, npm, and what npm has for tests: a Chromium, axe, TypeScript. Each is there at its first use.

`make` installs them below `.tools/`, at the versions pinned in `requirements/`; nothing is needed from the machine.
"""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TypeVar

import pytest

T = TypeVar("T")

ROOT = Path(__file__).parents[1]
TOOLS = ROOT / ".tools"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


class MissingError(Exception):
    """A program that tests need is not there, and could not be installed."""


def installed(target: str) -> Path:
    """Let the Makefile install what it names, in one process at a time, and give its folder."""
    ready = TOOLS / target / ".ready"
    TOOLS.mkdir(exist_ok=True)
    with (TOOLS / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            command = ["make", "--silent", str(ready.relative_to(ROOT))]
            made = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True)
        except FileNotFoundError as error:
            raise MissingError("needs make on the PATH") from error
    if made.returncode != 0:
        raise MissingError(f"`make {ready.relative_to(ROOT)}` failed; is there a network?\n{made.stderr.strip()}")
    return ready.parent


@cache
def node_environment() -> dict[str, str]:
    """Give the environment in which `node`, `npm` and `npx` are those that are pinned."""
    programs = installed("node") / "bin"
    cache = {"npm_config_cache": str(TOOLS / "cache" / "npm"), "npm_config_update_notifier": "false"}
    # A mirror may have a certificate that this machine knows, and the authorities inside of Node do not.
    known = {"NODE_EXTRA_CA_CERTS": str(CERTIFICATES)} if CERTIFICATES.is_file() else {}
    return {**known, **os.environ, **cache, "PATH": f"{programs}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}


@cache
def node_modules() -> Path:
    """Give the folder of the packages that `requirements/browser/package.json` names."""
    return installed("browser") / "node_modules"


@cache
def chromium() -> str:
    """Name the Chromium to drive: the one in the environment variable CHROMIUM, else the first on the PATH, else one
    that npm has.
    """
    if named := os.environ.get("CHROMIUM"):
        if not Path(named).is_file():
            pytest.fail(f"CHROMIUM={named} is no file")
        return named
    return next(filter(None, map(shutil.which, BROWSERS)), None) or chromium_of_npm()


def chromium_of_npm() -> str:
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise MissingError(f"needs one of {', '.join(BROWSERS)} on the PATH, or CHROMIUM=/path/to/chromium")
    return str(installed("browser/chromium") / "run")


def needed(program: Callable[[], T]) -> T:
    """Give what a test cannot do without. Where it cannot be had the test is skipped, and in CI it fails."""
    try:
        return program()
    except MissingError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))
