"""The browser that tests bring along where the machine has none."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright
from tests import nodejs

pytestmark = pytest.mark.long


def test_t20_tests_bring_a_chromium_that_needs_nothing_of_the_machine() -> None:
    """The Chromium of the pinned package starts with an empty environment, asks the machine for no library but those of
    C, and draws letters by a font of its own.
    """
    program = nodejs.needed(nodejs.chromium_of_npm)
    folder = Path(program).parent
    libraries = {"LD_LIBRARY_PATH": str(folder / "al2023" / "lib")}
    listed = subprocess.run(
        ["ldd", folder / "chromium"], env=libraries, capture_output=True, text=True, check=True
    ).stdout
    of_the_machine = {line.split()[0].split(".so")[0] for line in listed.splitlines() if str(folder) not in line}
    of_c = {"libc", "libdl", "libgcc_s", "libm", "libpthread", "librt", "linux-vdso", "/lib64/ld-linux-x86-64"}
    assert of_the_machine <= of_c
    with (
        sync_playwright() as driver,
        driver.chromium.launch(executable_path=program, args=["--no-sandbox"], env={"HOME": "/tmp"}) as browser,
    ):
        page = browser.new_page()
        page.set_content("<p><span>wide</span> <span>iiii</span>")
        wide, narrow = (page.locator("span").nth(n).bounding_box() for n in (0, 1))
        assert wide is not None
        assert narrow is not None
        assert wide["width"] > narrow["width"] > 0


def test_t20_a_test_that_lacks_its_browser_fails_in_ci_and_is_skipped_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without a Chromium or a network a test is skipped with the reason; with CI in the environment it fails."""

    def missing() -> str:
        raise nodejs.MissingError("no network")

    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no network"):
        nodejs.needed(missing)
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no network"):
        nodejs.needed(missing)
