"""What a person gets wrong at the command line: the message says what is wrong and what to write instead."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from tests.running import Run
from tests.server.conftest import made
from tests.server.running import clean_environment

from dutchdoor.auth.key_file import read_or_make_master_key
from dutchdoor.errors import Misconfigured
from dutchdoor.server.cli import cli


@pytest.mark.parametrize("closed", ["<&- >&- 2>&-", ">&-"], ids=["all", "out"])
def test_p16_a_closed_stream_is_dev_null(tmp_path: Path, closed: str) -> None:
    """A command whose standard streams are closed runs as with /dev/null: no file that it opens takes their place, and
    there is no traceback.
    """
    program = f'exec {sys.executable} -m dutchdoor.server "$@" {closed}'
    ran = subprocess.run(
        ["sh", "-c", program, "sh", "estimate", "--html", "page.html"],
        cwd=tmp_path,
        env=clean_environment(),
        stderr=subprocess.PIPE,
        check=False,
        timeout=60,
    )
    assert (ran.returncode, ran.stderr.decode()) == (0, "" if "2>" in closed else "Wrote page.html.\n")
    assert (tmp_path / "page.html").read_text().rstrip().endswith("</html>")


def test_p16_letters_that_a_terminal_lacks_end_no_command(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """In an encoding without the letters of a name, it is printed with escapes."""
    made(run, "ada@example.com", "--name", "\N{LATIN CAPITAL LETTER L WITH STROKE}ukasz")
    out = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    monkeypatch.setattr(sys, "stdout", out)
    assert run("user", "list").code == 0
    out.flush()
    out.seek(0)
    assert "\\u0141ukasz" in out.read()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("serv",), "Did you mean 'serve'?"),
        (("users",), "Did you mean 'user'?"),
        (("user", "lst"), "Did you mean 'list'?"),
        (("serve", "--prot", "1"), "--port"),
        (("qqqqq",), "No such command 'qqqqq'."),
    ],
)
def test_p16_a_misspelt_command_or_option_gets_the_nearest(run: Run, arguments: tuple[str, ...], says: str) -> None:
    """A wrong word is answered with the word that was probably meant, if one is near."""
    ran = run(*arguments)
    assert ran.code == 2
    assert says in ran.err
    assert ("mean" in ran.err) is (arguments != ("qqqqq",))


def test_p16_every_command_is_found_by_a_slip_of_its_name(run: Run) -> None:
    """The last letter is missing from each command, and the message names the command."""
    for name in cli.list_commands(click.Context(cli)):
        if name[:-1] not in cli.list_commands(click.Context(cli)):
            assert f"'{name}'" in run(name[:-1]).err


def test_p16_help_is_whole(run: Run) -> None:
    """The list of commands has whole sentences, and each example is one line that can be copied."""
    for path in ((), ("user",), ("key",), ("verifier",), ("user", "factors")):
        assert "..." not in run(*path, "--help").out.replace("ARGS]...", "")
    shown = run("audit", "--help").out
    assert "\n    dutchdoor audit --name session_started --since 1d --json\n" in shown


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("import", "none.csv"), "none.csv cannot be read"),
        (("import", "folder"), "folder cannot be read: Is a directory"),
        (("import", "other.csv"), "one of them must be email"),
        (("import", "good.csv", "--refused", "folder"), "folder/refused.jsonl"),
        (("import", "good.csv", "--refused", "none/x"), "there is no directory none"),
        (("verifier", "add", "two words"), "letters, digits"),
        (("client", "add", " "), "empty"),
        (("user", "list", "--database", "sqlite:///folder"), "is a directory, and not a file of a database"),
        (("client", "add", "x", "--database", "sqlite:///folder"), "folder/dutchdoor.db"),
        (("client", "add", "x", "--database", "sqlite:////dev/null"), "is a device or a pipe"),
        (("estimate", "--html", "folder"), "folder is a directory. Name a file in it, such as folder/page.html."),
        (("estimate", "--html", "folder", "--force"), "folder is a directory"),
        (("compare", "--html", "folder"), "folder is a directory"),
        (("estimate", "--html", "none/x"), "there is no directory none"),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, tuple) else "",
)
def test_p16_a_wrong_argument_ends_with_2_and_creates_nothing(run: Run, arguments: tuple[str, ...], says: str) -> None:
    """A file that is not there, a folder in place of a file, or a name that is not allowed: exit code 2, and neither a
    database nor a key exists afterwards.
    """
    Path("folder").mkdir()
    Path("other.csv").write_text("name\nAda\n")
    Path("good.csv").write_text("email\nada@example.com\n")
    ran = run(*arguments)
    assert ran.code == 2
    assert says in ran.err
    assert "link" not in ran.err
    assert sorted(path.name for path in Path().rglob("*")) == ["folder", "good.csv", "other.csv"]


@pytest.mark.parametrize("arguments", [("estimate",), ("estimate", "--json")], ids=["text", "json"])
def test_p16_a_full_disk_is_named(run: Run, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]) -> None:
    """Output that is redirected to a full disk ends with the place, the reason and what to do."""

    def full(*_: object, err: bool = False, **__: object) -> None:
        if not err:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    said: list[str] = []
    monkeypatch.setattr(click, "echo", full)
    monkeypatch.setattr("dutchdoor.server.cli.say", said.append)
    assert run(*arguments).code == 1
    assert said == ["dutchdoor: standard output: No space left on device. Free some space, and run the command again."]


def test_p16_a_full_disk_leaves_no_file_without_its_content(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page, or a master key, that could not be written is not there afterwards: a second call would find it."""

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(Misconfigured, match=r"key file new\.keys cannot be created: No space left"):
            read_or_make_master_key(Path("new.keys"))
    assert list(Path().iterdir()) == []
    if Path("/dev/full").exists():
        ran = run("estimate", "--html", "/dev/full", "--force")
        assert (ran.code, ran.err) == (
            1,
            "dutchdoor: /dev/full: No space left on device. Free some space, and run the command again.\n",
        )


@pytest.mark.parametrize("has_links", [True, False])
def test_p18_of_processes_that_start_at_once_one_makes_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_links: bool
) -> None:
    """While one process writes the file of the master key, another finds none, and makes it: both have one key. Where
    the file system has no hard links, the file is made in place.
    """
    file, others = tmp_path / "new.keys", list[bytes]()
    flush = os.fsync

    def meanwhile(number: int) -> None:
        flush(number)
        monkeypatch.setattr(os, "fsync", flush)
        others.append(read_or_make_master_key(file)[0].current.id)

    def linkless(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    if has_links:
        monkeypatch.setattr(os, "fsync", meanwhile)
    else:
        monkeypatch.setattr(os, "link", linkless)
    keys, is_new = read_or_make_master_key(file)
    assert (others, is_new) == (([keys.current.id], False) if has_links else ([], True))
    assert file.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [file]


UTF_16, LATIN_1, BINARY = "product = 1\n".encode("utf-16"), b'a = 1\nproduct = "M\xfcller"\n', b"\x7fELF\0\0"


@pytest.mark.parametrize(
    ("content", "says"),
    [(UTF_16, "is UTF-16. Save it as UTF-8."), (LATIN_1, "is not UTF-8 in line 2."), (BINARY, "is not a text file.")],
    ids=["utf-16", "latin-1", "binary"],
)
def test_p17_a_file_in_another_encoding_is_named(run: Run, content: bytes, says: str) -> None:
    """A configuration, requirements, a key or a secret that is not UTF-8: the message says which encoding to use."""
    Path("file").write_bytes(content)
    Path("file").chmod(0o600)
    for arguments in (
        ("check", "--config", "file"),
        ("advise", "--from", "file"),
        ("client", "add", "x", "--master-key-file", "file"),
        ("check", "--pepper-file", "file"),
    ):
        ran = run(*arguments)
        assert ran.code == 2
        assert says in ran.err
        assert "file" in ran.err
        assert "ller" not in ran.err


def test_p17_a_byte_order_mark_is_no_part_of_a_file(run: Run) -> None:
    """Editors on Windows put it before UTF-8."""
    Path("door.toml").write_bytes('\ufeffproduct = "Door"\n'.encode())
    assert run("check", "--config", "door.toml").code == 1  # unsafe, but read
    Path("requirements.toml").write_bytes("\ufeffusers = 5\n".encode())
    assert run("estimate", "--from", "requirements.toml").code == 0


def test_p09_check_reads_the_master_key(run: Run) -> None:
    """`check` finds a master key that `serve` would refuse, in a variable or in its file, and repeats none of it."""
    ran = run("check", environment={"DUTCHDOOR_MASTER_KEY": "canary"})
    assert (ran.code, "DUTCHDOOR_MASTER_KEY: " in ran.err, "canary" in ran.err) == (2, True, False)
    Path("door.keys").write_text("canary")
    Path("door.keys").chmod(0o600)
    ran = run("check", "--master-key-file", "door.keys")
    assert ran.code == 1
    assert "UNSAFE   master_key_file: The master key file door.keys: " in ran.out
    assert "canary" not in ran.out


def test_p12_no_mode_of_a_device_is_to_be_changed(run: Run) -> None:
    """/dev/null as a file of keys or of settings: no message asks the administrator to change its mode."""
    for arguments in (("check",), ("client", "add", "x")):
        ran = run(*arguments, "--config", "/dev/null", "--master-key-file", "/dev/null")
        assert "The master key file /dev/null is a device." in ran.out + ran.err
        assert "chmod" not in ran.out + ran.err


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("mail", "pigeon:", "{} must be console:"),
        ("accent", "#ffff00", "{} #ffff00 has a contrast"),
        ("languages", "xx", "{}: there is no catalogue xx.po"),
        ("templates", "none", "{} names none"),
        ("base_path", "x y", "{} 'x y' is not a path"),
        ("cookie_prefix", "x y", "{}: The cookie prefix 'x y'"),
        ("origin", "app", "{}: 'app' is not an origin"),
        ("sign_in_page", "login", "{} 'login' is not a path"),
        ("passkey_domain", "other.example", "{} is 'other.example'"),
        ("webhook_network", "lan", "{}: 'lan'"),
        ("security_contact", "me", "{} is 'me'"),
        ("public_url", "ftp://x", "{} 'ftp://x'"),
        ("access_for", "2h", "{} must be at most an hour"),
        ("idle_for", "90d", "{} must not be longer than absolute_for"),
        ("password_minimum", "4", "{} must be between 8 and 64"),
        ("workers", "0", "{} is 0, and must be at least 1"),
        ("port", "99999", "{} is 99999, and must be at most 65535"),
        ("port", "-1", "{} is -1, and must be at least 0"),
        ("port", "http", "{} must be a whole number, and not 'http'"),
        ("host", "http://localhost", "{}: 'http://localhost' is a URL"),
        ("host", "[::1]:8443", "{}: '[::1]:8443' has a port. Give the address alone, ::1, and --port 8443."),
        ("host", "[::1]", "{}: '[::1]' is an address in brackets. Give it without: ::1."),
        ("alg", "ES265", "{}: 'ES265' is not one of ES256, EdDSA, RS256, HS256. Did you mean ES256?"),
        ("database", "door.db", "{}: A database is a URL"),
        ("redis", "pigeon://x", "{}"),
        ("tls_cert", "cert.pem", "{} needs tls_key, too: --tls-key or DUTCHDOOR_TLS_KEY."),
    ],
)
def test_p17_a_wrong_setting_is_named_as_it_was_written(run: Run, name: str, value: str, says: str) -> None:
    """`check` and `serve` name an option, a variable or a line of the file as the administrator wrote it, also one that
    is only read when the server is built, and neither creates anything.
    """
    Path("door.toml").write_text(f'{name} = "{value}"\n')
    Path("door.toml").chmod(0o600)
    option, variable = f"--{name.replace('_', '-')}", f"DUTCHDOOR_{name.upper()}"
    for command in ("check", "serve"):
        for arguments, environment, written in (
            (("--config", "door.toml"), {}, f"{name} in door.toml"),
            ((option, value), {}, option),
            ((), {variable: value}, variable),
        ):
            ran = run(command, *arguments, environment=environment)
            assert ran.code == 2
            assert says.format(written) in ran.err
    assert [path.name for path in Path().iterdir()] == ["door.toml"]


def test_p17_a_wrong_setting_creates_no_database(run: Run) -> None:
    """The commands that may come before the first server refuse it too, before they create anything."""
    assert "--base-path 'x y'" in run("client", "add", "x", "--base-path", "x y").err
    assert list(Path().iterdir()) == []
