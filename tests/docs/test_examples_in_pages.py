"""The Python in the pages for users and for agents runs as it stands, each page from its first block to its last."""

from __future__ import annotations

import ast
import inspect
import re
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

import dutchdoor

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    page
    for page in (ROOT / "docs").rglob("*.md")
    if "decisions" not in page.parts and "```python\n" in page.read_text()
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
async def test_the_python_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every block runs after those before it, in a folder with nothing in it."""
    monkeypatch.chdir(tmp_path)
    module = types.ModuleType("page")  # frameworks look up where a function comes from
    module.__file__ = str(tmp_path / "page.py")
    monkeypatch.setitem(sys.modules, "page", module)
    names: dict[str, Any] = module.__dict__
    for block in re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        code = compile(block, str(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        done = eval(code, names)
        if inspect.iscoroutine(done):
            await done


def test_pages_that_must_have_code_have_it() -> None:
    """Each way to start, and the skill for agents, shows code that runs."""
    assert {"embedding", "verifying", "own-users", "SKILL"} <= {page.stem for page in PAGES}


def test_llms_txt_names_what_is_public_and_where_it_is_described() -> None:
    """llms.txt lists the public names as they are, and links each page for users."""
    text = (ROOT / "llms.txt").read_text()
    (listed,) = re.findall(r"from dutchdoor import ([\w, ]+)`", text)
    assert sorted(listed.split(", ")) == sorted(dutchdoor.__all__)
    rooms = ("start", "guides", "reference", "operating", "skills")
    pages = {str(page.relative_to(ROOT)) for room in rooms for page in (ROOT / "docs" / room).rglob("*.md")}
    assert pages <= set(re.findall(r"\]\(([^)]+)\)", text))


def test_the_index_links_each_page() -> None:
    """docs/README.md leads to every page but single decisions and the skill, and fits on one screen."""
    text = (ROOT / "docs" / "README.md").read_text()
    linked = set(re.findall(r"\]\(([^)]+)\)", text))
    pages = {
        str(page.relative_to(ROOT / "docs"))
        for page in (ROOT / "docs").rglob("*.md")
        if page.parent.name not in {"decisions", "add-dutchdoor", "docs"}
    }
    assert pages <= linked
    assert len(text.splitlines()) < 50


BLOCKS = re.findall(
    r"^```python\n(.*?)^```", (ROOT / "docs" / "guides" / "own-users.md").read_text(), re.MULTILINE | re.DOTALL
)


def test_users_of_ones_own_take_less_than_30_lines() -> None:
    """The first block of the guide is complete: a table, a check, a look-up, an application."""
    assert len([line for line in BLOCKS[0].splitlines() if line.strip()]) < 30


@pytest.fixture
def guide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names of the guide about users of one's own, with one user."""

    async def is_right(_user: str, password: str) -> bool:
        return password == "right"

    monkeypatch.chdir(tmp_path)
    module = types.ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", module)
    names: dict[str, Any] = module.__dict__
    names["is_right"] = is_right
    for block in BLOCKS:
        exec(compile(block, "own-users.md", "exec"), names)
    names["members"].execute("INSERT INTO members (login, hash) VALUES (?, ?)", ["ada", names["hasher"].hash("right")])
    return names


def test_the_guide_to_users_of_ones_own_signs_in_and_out(guide: dict[str, Any]) -> None:
    """A login of the table signs in, a route gets its object, and a change of the password signs it out."""
    with TestClient(guide["app"]) as client:
        assert client.post("/auth/login", json={"email": "ada", "password": "wrong"}).status_code == 401
        assert client.post("/auth/login", json={"email": "bob", "password": "right"}).status_code == 401
        ada = {"email": "ada", "password": "right", "mode": "session"}
        assert client.post("/auth/login", json=ada).status_code == 200
        assert client.get("/hello").json() == {"hello": "ada"}
        client.portal.call(guide["password_changed"], guide["Member"](1, "ada"))  # type: ignore[union-attr]
        assert client.get("/hello").status_code == 401


async def test_a_proof_of_ones_own_starts_a_session(guide: dict[str, Any]) -> None:
    """The guide's functions start a session for a right password alone, by token and by cookie."""
    async with guide["auth"].engine as auth:
        assert await guide["sign_in"]("1", "wrong", "127.0.0.1", "test") is None
        signed_in = await guide["sign_in"]("1", "right", "127.0.0.1", "test")
        scope = {
            "type": "http", "method": "GET", "path": "/hello", "query_string": b"", "client": ("127.0.0.1", 50000),
            "headers": [(b"host", b"localhost"), (b"authorization", f"Bearer {signed_in.access_token}".encode())],
        }  # fmt: skip
        assert (await auth.principal(scope)).subject == "1"
        sent = {"user_id": "1", "password": "right"}
        client = TestClient(guide["app"], client=("127.0.0.1", 50000))
        assert client.post("/sign-in", json={**sent, "password": "wrong"}).status_code == 401
        assert client.post("/sign-in", json=sent).status_code == 200
        assert client.get("/hello").json() == {"hello": "ada"}


def test_the_skill_says_when_to_use_it() -> None:
    """The skill has the name of its folder, and a description in one line, by which an agent finds it."""
    for skill in (ROOT / "docs" / "skills").glob("*/SKILL.md"):
        head = re.match(r"---\nname: (.+)\ndescription: (.+)\n---\n", skill.read_text())
        assert head is not None
        assert head[1] == skill.parent.name
        assert "Use it when" in head[2]
        assert len(head[2]) <= 1024
