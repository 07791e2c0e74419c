"""The examples in the browser: a page without a build, React and Vue, each on the packed client."""

from __future__ import annotations

import json
import runpy
import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx2
import pytest
from playwright.sync_api import Browser, Page, expect
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
from tests.client.browser_site import ADA, PASSWORD, serving
from tests.client.test_browser_package import packed

from dutchdoor import Auth

pytestmark = [pytest.mark.browser, pytest.mark.long]

EXAMPLES = Path(__file__).parents[2] / "examples" / "browser"
BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "browser"


def try_out(page: Page, url: str) -> None:
    """Do what the page of each example is there for."""
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(url)
    page.fill("input[name=email]", ADA["email"])
    page.fill("input[name=password]", "not this one")
    page.click("text=Sign in")
    expect(page.get_by_role("alert")).to_contain_text("password")
    page.fill("input[name=password]", PASSWORD)
    page.click("form button")
    expect(page.get_by_role("heading")).to_have_text(f"Hello {ADA['email']}")
    page.click("text=Where am I signed in?")
    expect(page.get_by_role("status")).to_have_text("In 1 places")
    page.reload()
    expect(page.get_by_role("heading")).to_have_text(f"Hello {ADA['email']}")
    page.click("text=Sign out")
    expect(page.get_by_role("button", name="Sign in")).to_be_visible()
    assert wrong == []


def in_browser(browser: Browser, application: Any) -> None:
    with serving(application) as port:
        url = f"http://localhost:{port}"
        assert httpx2.post(f"{url}/auth/register", json=ADA).status_code == 201
        context = browser.new_context()
        try_out(context.new_page(), url)
        context.close()


def test_the_page_without_a_build_works(browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page signs in, says what is wrong, calls, is still signed in after a reload, and signs out."""
    monkeypatch.chdir(tmp_path)
    in_browser(browser, runpy.run_path(str(EXAMPLES / "plain" / "shop.py"))["app"])


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["react", "vue"])
def test_a_framework_builds_on_the_packed_client(
    browser: Browser, tmp_path: Path, nodejs: dict[str, str], name: str
) -> None:
    """The example installs what its lock file names, with the client as npm packs it, builds, and works."""
    folder = shutil.copytree(EXAMPLES / name, tmp_path / "example")
    manifest = json.loads((folder / "package.json").read_text())
    assert manifest["dependencies"].pop("dutchdoor").startswith("file:")
    (folder / "package.json").write_text(json.dumps(manifest))
    tarball = packed(tmp_path, nodejs)
    for command in (
        ["npm", "install", "--ignore-scripts", "--no-audit"],
        ["npm", "install", "--ignore-scripts", "--no-audit", str(tarball)],
        ["npm", "run", "build"],
    ):
        subprocess.run(command, cwd=folder, env=nodejs, check=True, capture_output=True)
    pages = Mount("/app", StaticFiles(directory=folder / "dist", html=True))
    built = (folder / "dist" / "index.html").read_text()
    (folder / "dist" / "index.html").write_text(built.replace('"/assets/', '"/app/assets/'))
    in_browser_at = Starlette(routes=[pages, Mount("/", Auth("memory:").asgi())])
    with serving(in_browser_at) as port:
        url = f"http://localhost:{port}"
        assert httpx2.post(f"{url}/auth/register", json=ADA).status_code == 201
        context = browser.new_context()
        try_out(context.new_page(), f"{url}/app/")
        context.close()


def test_each_example_is_under_40_lines() -> None:
    """What an application writes to sign people in has under 40 lines, in each framework."""
    for name in ("plain/shop.js", "react/main.jsx", "vue/Shop.vue"):
        assert len((EXAMPLES / name).read_text().splitlines()) < 40, name


@pytest.mark.parametrize("folder", [EXAMPLES / "react", EXAMPLES / "vue", BENCHMARK], ids=lambda folder: folder.name)
def test_the_lock_files_name_no_registry(folder: Path) -> None:
    """What is installed is checked by its hash, from whichever registry npm is set up with."""
    packages = json.loads((folder / "package-lock.json").read_text())["packages"]
    there = {key: value for key, value in packages.items() if key.startswith("node_modules/") and not value.get("link")}
    assert there
    assert all(value["integrity"].startswith("sha512-") and "resolved" not in value for value in there.values())
