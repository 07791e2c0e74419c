"""Django's own tests of sessions and of its users pass over our engine and middleware, but for those listed here."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import django
import pytest

ROOT = Path(__file__).parents[2]
KEPT = ROOT / ".tools" / "cache" / f"django-{django.__version__}"
"""Where the source distribution is unpacked. It is never committed."""

EXCEPT = {
    # It reads Django's table of sessions, where ours are not.
    "sessions_tests.tests.SessionMiddlewareTests.test_empty_session_saved",
    # It wants the key of the session data to stay when the same user signs in a second time. With us, that log-in is
    # another session, which ends the first: its data moves under another key.
    "auth_tests.test_views.LoginTest.test_session_key_flushed_on_login_after_password_change",
}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution of the Django that is installed, with a hash of requirements/test.txt."""
    unpacked = KEPT / f"django-{django.__version__}"
    if not (unpacked / "tests" / "runtests.py").is_file():
        folder = tmp_path_factory.mktemp("source")
        pip = [Path(sys.base_prefix) / "bin" / "python3", "-m", "pip", "download", "--quiet", "--no-deps"]
        wanted = ["--no-binary", ":all:", "--dest", folder, f"django=={django.__version__}"]
        ran = subprocess.run([*pip, *wanted], capture_output=True, text=True, check=False)
        found = [*folder.glob("*.tar.gz")]
        if ran.returncode or not found:
            last = (ran.stderr.strip().splitlines() or ["no file"])[-1]
            pytest.skip(f"the source distribution of Django could not be fetched: {last}")
        digest = hashlib.sha256(found[0].read_bytes()).hexdigest()
        assert digest in (ROOT / "requirements" / "test.txt").read_text(), "not the distribution that is pinned"
        KEPT.mkdir(parents=True, exist_ok=True)
        with tarfile.open(found[0]) as packed:
            packed.extractall(KEPT, filter="data")
    return unpacked


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("label", ["sessions_tests", "auth_tests"])
def test_djangos_own_tests_pass(label: str, source: Path, tmp_path: Path) -> None:
    """Every test of Django's own but those of hashes, unchanged, passes with our application, middleware and engine of
    sessions, and so do its laws for engines; those that do not are listed above, each with its reason.
    """
    program = Path(__file__).parent / "djangos_tests.py"
    ran = subprocess.run(
        [sys.executable, program, source, label],
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    said = ran.stderr + ran.stdout
    count = re.search(r"^Ran (\d+) tests", said, re.MULTILINE)
    assert count is not None and int(count[1]) > 600, said[-3000:]
    failed = set(re.findall(r"^(?:FAIL|ERROR): \w+ \(([\w.]+)\)", said, re.MULTILINE))
    assert failed == {name for name in EXCEPT if name.startswith(label)}, said[-5000:]
    if label == "sessions_tests":
        assert "dutchdoor_sessions.DutchdoorSessionTests.test_save" in said


@pytest.mark.long
def test_allauth_works_beside_it(tmp_path: Path) -> None:
    """A log-in through the view of django-allauth is a session of ours, its log-out ends it, and its change of the
    password keeps this browser and ends the others.
    """
    program = Path(__file__).parent / "with_allauth.py"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(
        [sys.executable, program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout.splitlines()[-1]) == {
        "signed up": 302,
        "who": {"who": "ada", "amr": []},
        "after": "",
        "signed in": 302,
        "sessions": [True],
        "changed": 302,
        "still in": "ada",
        "other": "",
    }
