"""The wheel: what each extra brings is enough for what it is there for, and what is missing is named.

Each environment here is a fresh one, with the wheel and what its extra asks for, at the versions that the tests use.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dutchdoor import __all__ as public_names

ROOT = Path(__file__).parents[2]
UV = ROOT / ".tools" / "uv" / "bin" / "uv"
README = (ROOT / "README.md").read_text()

SIGN_IN = """
from starlette.testclient import TestClient
ada = {"email": "ada@example.com", "password": "a door in two halves"}
with TestClient(app, base_url="http://localhost", client=("127.0.0.1", 50000)) as client:
    assert client.get("/hello").status_code == 401
    assert client.post("/auth/register", json=ada).status_code == 201
    assert client.post("/auth/login", json={**ada, "mode": "session"}).status_code == 200
    print(client.get("/hello").json())
"""


def uv(*arguments: str | Path) -> None:
    """Run uv on what `make` has downloaded already; with the network, where that is not enough."""
    environment = {"UV_CACHE_DIR": str(ROOT / ".tools" / "cache"), "UV_NO_CONFIG": "1", **os.environ}
    for more in (["--offline"], []):
        done = subprocess.run(
            [UV, *arguments, *more], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
        )
        if done.returncode == 0:
            return
    pytest.fail(done.stderr)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not UV.is_file():
        pytest.skip("needs uv, which `make test` installs")
    folder = tmp_path_factory.mktemp("dist")
    pinned = ("--build-constraints", "requirements/build.txt", "--require-hashes")
    uv("build", "--quiet", "--wheel", *pinned, "--out-dir", folder)
    (built,) = folder.glob("*.whl")
    return built


def install(wheel: Path, folder: Path, extra: str, *others: str) -> Path:
    """Put the wheel and what an extra asks for into an environment, and give its Python."""
    if not folder.exists():
        uv("venv", "--quiet", "--python", sys.executable, folder)
    named = f"dutchdoor{extra} @ {wheel.as_uri()}"
    uv("pip", "install", "--quiet", "--python", folder, "--constraint", "requirements/test.txt", named, *others)
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def app(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(wheel, tmp_path_factory.mktemp("app") / "venv", "[app]", "fastapi", "httpx2")


def run(python: Path, code: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run code outside the checkout, so that nothing but the wheel is found."""
    return subprocess.run([python, "-I", "-c", code], cwd=cwd, capture_output=True, text=True, check=False)


def command(python: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = [python.parent / "dutchdoor", *arguments]
    return subprocess.run(program, cwd=cwd, capture_output=True, text=True, check=False)


@pytest.mark.long
def test_p30_the_first_program_of_the_readme_runs_on_the_wheel(app: Path, tmp_path: Path) -> None:
    """The extra `app` brings all that an application needs: the README's program signs a person in and greets them."""
    code = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[0]
    done = run(app, code + SIGN_IN, tmp_path)
    assert done.stdout == "{'hello': 'ada@example.com'}\n", done.stderr


def test_p30_a_driver_that_is_missing_names_its_extra(app: Path, tmp_path: Path) -> None:
    """A database whose driver is not installed is refused with the command that installs it."""
    for arguments, extra in (("'postgresql://db/door'", "postgres"), ("redis='redis://cache'", "redis")):
        done = run(app, f"from dutchdoor import Auth; Auth({arguments})", tmp_path)
        assert done.stderr.endswith(f"pip install 'dutchdoor[{extra}]'\n"), done.stderr


def test_p30_the_extra_server_brings_the_command(wheel: Path, app: Path, tmp_path: Path) -> None:
    """Without the extra `server` the command names it; with it the command runs."""
    done = command(app, tmp_path, "check")
    assert done.returncode == 1
    assert done.stderr == (
        "dutchdoor: the commands need click, which is not installed: pip install 'dutchdoor[server]'\n"
    )
    install(wheel, app.parents[1], "[server]")
    done = command(app, tmp_path, "check")
    assert "There is no https public URL." in done.stdout + done.stderr


def test_p30_without_extras_tokens_are_checked(wheel: Path, tmp_path: Path) -> None:
    """The wheel alone checks tokens. `Auth` and the look of its pages name the extra that they need."""
    python = install(wheel, tmp_path / "venv", "")
    names = ", ".join(name for name in public_names if name not in {"Auth", "Branding"})
    done = run(python, f"from dutchdoor import {names}; Verifier('http://localhost:8000')", tmp_path)
    assert done.returncode == 0, done.stderr
    for name in ("Auth", "Branding"):
        done = run(python, f"from dutchdoor import {name}", tmp_path)
        missing = rf"^ImportError: dutchdoor\.{name} needs \w+, .*pip install 'dutchdoor\[app\]'$"
        assert re.search(missing, done.stderr, re.MULTILINE), done.stderr
