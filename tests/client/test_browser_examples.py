"""The examples in the browser: a page without a build, React and Vue, each on the packed client."""

from __future__ import annotations

import contextlib
import json
import runpy
import shutil
import socket
import subprocess
import time
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
from tests.ports import free_port

from dutchdoor import Auth, Policy

pytestmark = [pytest.mark.browser, pytest.mark.long]

EXAMPLES = Path(__file__).parents[2] / "examples" / "browser"
BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "browser"


def try_out(page: Page, url: str) -> None:
    """Do what the page of each example is there for."""
    page.context.set_default_timeout(60_000)
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


def wait_for_port(port: int) -> None:
    """Return once a server listens."""
    give_up = time.monotonic() + 60
    while time.monotonic() < give_up:
        with contextlib.suppress(OSError), socket.create_connection(("localhost", port), timeout=1):
            return
        time.sleep(0.05)
    raise TimeoutError(f"nothing listens at port {port}")


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


@pytest.mark.timeout(600)
def test_a_server_of_pages_checks_and_refreshes(browser: Browser, tmp_path: Path, nodejs: dict[str, str]) -> None:
    """Next.js renders a page for the user whose refresh cookie the browser sends: its server refreshes, checks the
    access token with jose, and passes the new cookie on. A client cannot name itself, and a log-out ends it.
    """
    folder = shutil.copytree(EXAMPLES / "next", tmp_path / "example")
    manifest = json.loads((folder / "package.json").read_text())
    assert manifest["dependencies"].pop("dutchdoor").startswith("file:")
    (folder / "package.json").write_text(json.dumps(manifest))
    tarball = packed(tmp_path, nodejs)
    port = free_port()
    shop = f"http://localhost:{port}"
    auth = Auth("memory:", policy=Policy(modes=("hybrid",)), origins=[shop])
    with serving(auth.asgi()) as at:
        url = f"http://localhost:{at}"
        assert httpx2.post(f"{url}/auth/register", json=ADA).status_code == 201
        here = {**nodejs, "AUTH_URL": url, "NEXT_PUBLIC_AUTH_URL": url, "NEXT_TELEMETRY_DISABLED": "1"}
        for command in (
            ["npm", "install", "--ignore-scripts", "--no-audit"],
            ["npm", "install", "--ignore-scripts", "--no-audit", str(tarball)],
            ["npm", "run", "build"],
        ):
            subprocess.run(command, cwd=folder, env=here, check=True, capture_output=True)
        next_js = folder / "node_modules" / "next" / "dist" / "bin" / "next"
        with subprocess.Popen(["node", next_js, "start", "-p", str(port)], cwd=folder, env=here) as pages:
            try:
                wait_for_port(port)
                assert "Who are you?" in httpx2.get(shop, headers={"x-user": "ada"}).text
                assert "Who are you?" in httpx2.get(shop, headers={"cookie": "dd_refresh=ddr1_forged"}).text
                context = browser.new_context()
                context.set_default_timeout(60_000)
                page = context.new_page()
                page.goto(shop)
                page.fill("input[name=email]", ADA["email"])
                page.fill("input[name=password]", PASSWORD)
                page.click("form button")
                for _ in range(3):
                    expect(page.get_by_role("heading")).to_contain_text("Hello")
                    page.goto(shop)
                page.click("text=Sign out")
                expect(page.get_by_role("heading")).to_have_text("Who are you?")
                page.goto(shop)
                expect(page.get_by_role("heading")).to_have_text("Who are you?")
                context.close()
            finally:
                pages.kill()


def test_each_example_is_under_40_lines() -> None:
    """What an application writes to sign people in has under 40 lines, in each framework."""
    for name in ("plain/shop.js", "react/main.jsx", "vue/Shop.vue"):
        assert len((EXAMPLES / name).read_text().splitlines()) < 40, name


@pytest.mark.parametrize("name", ["react", "vue", "next", "benchmark"])
def test_the_lock_files_name_no_registry(name: str) -> None:
    """What is installed is checked by its hash, from whichever registry npm is set up with."""
    folder = BENCHMARK if name == "benchmark" else EXAMPLES / name
    packages = json.loads((folder / "package-lock.json").read_text())["packages"]
    there = {key: value for key, value in packages.items() if key.startswith("node_modules/") and not value.get("link")}
    assert there
    assert all(value["integrity"].startswith("sha512-") and "resolved" not in value for value in there.values())
