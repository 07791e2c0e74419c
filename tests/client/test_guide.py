"""The guide and the example for programs, against a real server."""

from __future__ import annotations

import asyncio
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.client.conftest import PASSWORD, Place

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "program.py"


def test_the_guide_does_what_it_says(place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What the page shows signs in, over httpx2's two clients, and says what to do about an error."""
    monkeypatch.setenv("SHOP_LOGIN", place.account())
    monkeypatch.setenv("SHOP_PASSWORD", PASSWORD)
    monkeypatch.setenv("HOME", str(tmp_path))
    page = (ROOT / "docs" / "guides" / "programs.md").read_text().replace("http://localhost:8000", place.url)
    names: dict[str, Any] = {}
    for block in re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL):
        exec(compile(block, "programs.md", "exec"), names)
    email = names["who_am_i"]()
    assert email == asyncio.run(names["who_am_i_asynchronously"]())
    assert names["greeting"]() == f"hello {email}"
    names["auth"].log_out()
    monkeypatch.setitem(names, "auth", names["returning"])
    assert names["greeting"]() == "Sign in again."


@pytest.mark.long
def test_the_example_asks_for_a_password_once(place: Place, tmp_path: Path) -> None:
    """The example signs in by a password, greets, and needs none the next time; a wrong one is one sentence. It is
    under 40 lines, its text of instructions aside.
    """
    email = place.account()

    def run(typed: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(EXAMPLE), email]
        environment = {**os.environ, "AUTHORITY": place.url}
        return subprocess.run(
            command, input=typed, text=True, capture_output=True, cwd=tmp_path, env=environment, check=False
        )

    assert run("wrong\n").stderr == "The e-mail address or the password is not right.\n"
    assert run(f"{PASSWORD}\n").stdout == f"hello {email}\n"
    again = run("")
    assert (again.stdout, again.stderr) == (f"hello {email}\n", "")
    code = inspect.cleandoc(EXAMPLE.read_text().partition('"""\n\nfrom')[2])
    assert len([line for line in code.splitlines() if line.strip()]) < 40
