"""`dutchdoor login`, `whoami`, `logout` and `token`, against a real server."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import keyring
import pyotp
import pytest
from keyring.backends.fail import Keyring as NoKeyring
from msgspec.structs import replace
from tests.client.conftest import PASSWORD, Place, Ring
from tests.running import Run

from dutchdoor.client import FileStorage
from dutchdoor.model.http_client import Client
from dutchdoor.server.sign_ins import choose, listed


@pytest.fixture(autouse=True)
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory of settings with nothing in it, on a machine without a keyring."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))
    before = keyring.get_keyring()
    keyring.set_keyring(NoKeyring())
    yield tmp_path / "settings"
    keyring.set_keyring(before)


def sign_in(run: Run, url: str, email: str, *more: str) -> None:
    done = run("login", url, email, "--password-stdin", *more, text=f"{PASSWORD}\n")
    assert done.code == 0, done.err
    assert f"Signed in at {url.rstrip('/')} as {email}." in done.out


def test_a_person_signs_in_with_a_second_factor(place: Place, run: Run) -> None:
    """`login` takes the code of the app, or a recovery code, after the password, and says what is missing."""
    email = place.account()
    secret, codes = place.second_factor(email)
    for typed, says in ((f"{PASSWORD}\n", "The account has a second factor"), (f"{PASSWORD}\n000000\n", "not right")):
        done = run("login", place.url, email, "--password-stdin", text=typed)
        assert done.code != 0 and says in done.err
    for code in (pyotp.TOTP(secret).at(int(time.time()) + 30), codes[0]):
        done = run("login", place.url, email, "--password-stdin", text=f"{PASSWORD}\n{code}\n")
        assert done.code == 0, done.err
    assert email in run("whoami").out


@pytest.mark.long
def test_a_person_signs_in_by_a_mailed_code(place: Place, run: Run) -> None:
    """`login --code` has a code mailed and asks for it in the terminal. Without one it says so, and mails nothing for
    a call that contradicts itself.
    """
    email = place.account()
    both = run("login", place.url, email, "--code", "--password-stdin", text="x\n")
    assert both.code == 2 and "--code or --password-stdin, not both" in both.err
    keyboard, terminal = pty.openpty()
    command = [sys.executable, "-m", "dutchdoor.server", "login", place.url, email, "--code", "--file"]
    with subprocess.Popen(command, stdin=terminal, stdout=-1, stderr=-1, text=True) as asking:
        os.write(keyboard, f"{place.mailed(email)}\n".encode())
        out, err = asking.communicate(timeout=60)
    assert asking.returncode == 0 and "Code from the mail" in err, err
    assert f"as {email}." in out and email in run("whoami").out
    os.close(keyboard)
    os.close(terminal)
    assert "No terminal to ask for the code from the mail" in run("login", place.url, email, "--code").err


def test_a_person_signs_in_uses_tokens_and_signs_out(place: Place, run: Run) -> None:
    """After `login`, `token` prints what the API accepts and `whoami` what the server says; after `logout` neither, and
    the session has ended.
    """
    email = place.account()
    sign_in(run, f"{place.url}/", email)
    token = run("token").out.strip()
    headers = {"authorization": f"Bearer {token}"}
    assert httpx2.get(f"{place.url}/auth/me", headers=headers).json()["user"]["email"] == email
    assert run("token").out.strip() == token
    said = run("whoami")
    assert said.code == 0 and email in said.out and place.url in said.out
    assert run("whoami", "--json").json["user"]["email"] == email
    held = run("token", "--json").json
    assert (held["access_token"], held["server"], held["email"]) == (token, place.url, email)
    assert run("logout").out == f"Signed out {email} at {place.url}.\n"
    assert place.sessions(email) == 0
    for command in ("token", "whoami", "logout"):
        done = run(command)
        assert (done.code, done.out) == (1, "")
        assert done.err == "dutchdoor: Not signed in. Sign in: dutchdoor login https://auth.example.com\n"
    assert httpx2.get(f"{place.url}/auth/me", headers=headers).status_code == 401


def test_the_password_is_asked_for_and_not_shown(place: Place, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a terminal, the address and the password are asked for; without one, the message says what to type."""
    email, asked = place.account(), []
    monkeypatch.setattr("click.termui.hidden_prompt_func", lambda text: asked.append(text) or PASSWORD)
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda _="": email)
    done = run("login", place.url, terminal=True)
    assert done.code == 0, done.err
    assert len(asked) == 1
    assert PASSWORD not in done.out + done.err
    assert "login URL EMAIL" in run("login", place.url).err
    assert "use --password-stdin" in run("login", place.url, email).err
    assert "no password" in run("login", place.url, email, "--password-stdin").err


def test_a_token_is_refreshed_when_it_is_time(place: Place, run: Run) -> None:
    """`token` prints the kept token as long as it is fresh, then another one; roles that changed show at once."""
    email = place.account()
    sign_in(run, place.url, email)
    first = run("token").out
    storage = choose().storage
    assert isinstance(storage, FileStorage)
    tokens = storage.load()
    assert tokens is not None
    storage.save(replace(tokens, refresh_at=0.0))
    second = run("token").out
    assert second not in {"", first}
    assert run("token").out == second

    async def change() -> None:
        async with place.engine() as auth:
            account = await auth.store.account_by_email(email)
            assert account is not None
            await auth.directory.admin.set_roles(account.subject, ["editor"], client=Client(), actor="cli")

    asyncio.run(change())
    assert run("whoami", "--json").json["user"]["roles"] == ["editor"]


def test_several_accounts_are_chosen_by_server_and_address(place: Place, run: Run) -> None:
    """The latest sign-in is meant unless one is named; `--all` lists them, and signs all of them out."""
    one, two = place.account(), place.account()
    sign_in(run, place.url, one)
    sign_in(run, place.url, two)
    assert run("whoami", "--json").json["user"]["email"] == two
    assert run("whoami", "--email", one.upper(), "--json").json["user"]["email"] == one
    assert run("token", "--server", f"{place.url}/", "--email", one, "--json").json["email"] == one
    assert [each["email"] for each in run("whoami", "--all", "--json").json] == [two, one]
    missing = run("token", "--server", "https://auth.example.com")
    assert "Not signed in at https://auth.example.com. Sign in: dutchdoor login https://auth.example.com" in missing.err
    assert "Pass --all, or" in run("logout", "--all", "--email", one).err
    assert run("logout", "--all").out.count("Signed out") == 2
    assert run("whoami", "--all").out == "Not signed in anywhere.\n"
    assert place.sessions(one) == place.sessions(two) == 0


def test_a_second_sign_in_takes_the_place_of_the_first(place: Place, run: Run) -> None:
    """Signing in again leaves one session of this machine, without a URL at the last server."""
    email = place.account()
    sign_in(run, place.url, email)
    assert run("login", "", email, "--password-stdin", text=PASSWORD).code == 0
    assert place.sessions(email) == len(listed()) == 1


def test_tokens_are_in_the_keyring_or_in_a_file_of_their_owner(place: Place, run: Run, settings: Path) -> None:
    """A keyring that takes them has the tokens; else, and with `--file`, a file of mode 0600. A log-out leaves neither,
    and no secret is outside of them.
    """
    email, ring = place.account(), Ring()

    def files() -> dict[str, int]:
        return {each.suffix: stat.S_IMODE(each.stat().st_mode) for each in (settings / "dutchdoor/sign-ins").iterdir()}

    sign_in(run, place.url, email)
    assert files().pop(".tokens") == 0o600
    keyring.set_keyring(ring)
    sign_in(run, place.url, email)
    assert set(files()) == {".json"}
    assert run("token").code == 0
    assert "the system's keyring" in run("whoami", "--all").out
    kept = json.loads(next(iter(ring.kept.values())))
    outside = "".join(file.read_text() for file in settings.rglob("*.json"))
    assert kept["access_token"] not in outside and kept["refresh_token"] not in outside
    sign_in(run, place.url, email, "--file")
    assert (set(files()), ring.kept) == ({".json", ".tokens"}, {})
    keyring.set_keyring(Ring(locked=True))
    sign_in(run, place.url, email)
    assert set(files()) == {".json", ".tokens"}
    assert run("logout").code == 0
    assert files() == {}


def test_each_refusal_is_one_sentence_with_what_to_do(place: Place, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong password, a server that is away, a session that was revoked and a file that others can read are each one
    sentence; exit codes are those of the other commands.
    """
    email = place.account()
    wrong = run("login", place.url, email, "--password-stdin", text="a wrong password")
    assert (wrong.code, wrong.err) == (1, "dutchdoor: The e-mail address or the password is not right.\n")
    plain = run("login", "http://auth.example.com", email, "--password-stdin", text=PASSWORD)
    assert plain.code == 2 and "plain HTTP is for this one only. Use https" in plain.err
    sign_in(run, place.url, email)
    with monkeypatch.context() as patched:
        patched.setattr("dutchdoor.client.session_auth._WAITS_AT_MOST", 0.0)
        away = run("login", "http://localhost:9", email, "--password-stdin", text=PASSWORD)
        assert away.err == "dutchdoor: http://localhost:9 is out of reach. Check the address and the network.\n"
        patched.setattr(httpx2.HTTPTransport, "handle_request", _away)
        gone = run("logout")
        assert (
            gone.code == 1
            and "Still signed in. To forget the tokens all the same: dutchdoor logout --forget" in gone.err
        )
        assert run("token").code == 0
        assert run("logout", "--forget").out == f"Forgot the tokens of {email} at {place.url}.\n"
    sign_in(run, place.url, email)
    storage = choose().storage
    assert isinstance(storage, FileStorage)
    storage.path.chmod(0o644)
    assert "Other users can read" in run("token").err and run("token").code == 2
    storage.path.chmod(0o600)
    place.end(email)
    ended = run("whoami")
    text = f"The session of {email} at {place.url} has ended. Sign in again: dutchdoor login {place.url}"
    assert (ended.code, ended.err) == (1, f"dutchdoor: {text}\n")
    assert listed() == []
    assert "without a command after it" in run("token", "--email", email, "inspect").err


def _away(*_: object) -> None:
    raise httpx2.ConnectError("no route")


WITHOUT = """
import sys
for name in {lacking!r}:
    sys.modules[name] = None
sys.argv = ["dutchdoor", *{arguments!r}]
from dutchdoor.server import main
try:
    main()
finally:
    print(*sorted(name for name in sys.modules if sys.modules[name]), file=sys.stderr)
"""


def without(lacking: list[str], *arguments: str) -> subprocess.CompletedProcess[str]:
    code = WITHOUT.format(lacking=lacking, arguments=arguments)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


SERVER = ["starlette", "uvicorn", "jinja2", "prometheus_client", "zxcvbn_rs_py", "ua_parser", "bcrypt", "cryptography"]


@pytest.mark.long
def test_a_program_needs_no_package_of_the_server(place: Place, run: Run) -> None:
    """`token` starts without the packages of a server, and loads no HTTP client while its token is fresh. Commands that
    lack a package are listed, and say what to install.
    """
    sign_in(run, place.url, place.account())
    done = without(SERVER, "token")
    assert done.returncode == 0 and done.stdout.count(".") == 2, done.stderr
    assert not {"httpx2", "asyncio", "dutchdoor.auth", "dutchdoor.server.options"} & set(done.stderr.split())
    # cryptography comes with every dutchdoor: whoami proves the keys of bound sign-ins with it.
    assert without([each for each in SERVER if each != "cryptography"], "whoami").returncode == 0
    for command in (["serve"], ["token", "inspect", "x"]):
        lacking = without(SERVER, *command)
        assert lacking.returncode == 1
        assert "is not installed: pip install 'dutchdoor[server]'" in lacking.stderr
    listing = without(SERVER, "--help").stdout
    assert "whoami" in listing and "Show who is signed in" in listing and "(needs dutchdoor[server])" in listing
    bare = without(["httpx2"], "whoami")
    assert bare.returncode == 1
    assert "SessionAuth needs httpx2, which is not installed: pip install 'dutchdoor[client]'" in bare.stderr
