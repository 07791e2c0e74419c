"""`dutchdoor check`: each unsafe setting is found, by its name and with its reason; a safe configuration has none."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from certificates import write_certificate

from dutchdoor.errors import Misconfigured
from dutchdoor.model.master_key import MasterKey
from dutchdoor.server.check import Finding, findings, revocation_window
from dutchdoor.server.cli import main
from dutchdoor.server.config import Settings, read_settings


@pytest.fixture
def safe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """A configuration in which nothing is unsafe."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "keys").mkdir(mode=0o700)
    return {
        "public_url": "https://auth.example.com",
        "proxy": ("10.0.0.7",),
        "master_key_file": str(tmp_path / "keys" / "master"),
        "database": f"sqlite:///{tmp_path / 'door.db'}",
        "mail": "smtps://user:canary@mail.example.com",
        "require_verified_email": "true",
        "security_contact": "mailto:security@example.com",
        "password_minimum": "15",
    }


def read(settings: dict[str, object], **changed: object) -> Settings:
    """Read these as arguments, but for the address of the mail server: it holds a password."""
    arguments = {**settings, **changed}
    return read_settings(arguments, {"DUTCHDOOR_MAIL": str(arguments.pop("mail"))})


def found(settings: dict[str, object], **changed: object) -> dict[str, Finding]:
    """The worst of each setting."""
    return {each.setting: each for each in reversed(findings(read(settings, **changed)))}


def test_nothing_is_found_where_nothing_is_unsafe(safe: dict[str, object]) -> None:
    """A configuration fit to serve others has no findings at all."""
    assert found(safe) == {}


@pytest.mark.parametrize(
    ("changed", "setting", "matters"),
    [
        ({"access_for": "16m"}, "access_for", False),
        ({"webhook_network": ("0.0.0.0/0",)}, "webhook_network", False),
        ({"require_verified_email": "false"}, "require_verified_email", True),
        ({"mail": "console:"}, "mail", True),
        ({"mail": "file:outbox"}, "mail", True),
        ({"security_contact": None}, "security_contact", False),
        ({"alg": "HS256"}, "alg", False),
        ({"origin": ("http://localhost:3000",)}, "origin", True),
        ({"public_url": None, "proxy": ()}, "public_url", True),
        ({"proxy": ()}, "proxy", True),
        ({"public_url": None, "proxy": (), "device_binding": "required"}, "device_binding", True),
        ({"proxy": ("10.0.0.0/8",)}, "proxy", False),
        ({"database": "memory:"}, "database", True),
        ({"database": "memory:", "workers": "2"}, "host", True),
        ({"database": "sqlite:///nowhere/door.db"}, "database", True),
        ({"rotation": "strict"}, "rotation", False),
        ({"fingerprint": "off"}, "fingerprint", False),
        ({"host": "0.0.0.0", "proxy": ()}, "host", True),
        ({"password_minimum": "8"}, "password_minimum", False),
        ({"master_key_file": "dutchdoor.keys"}, "master_key_file", False),
        ({"lease": "61s"}, "lease", False),
        ({"breached": "none.txt"}, "breached", True),
    ],
)
def test_each_unsafe_setting_is_found(
    safe: dict[str, object], changed: dict[str, object], setting: str, *, matters: bool
) -> None:
    """Each finding names its setting, and says whether it must not be served so."""
    finding = found(safe, **changed)[setting]
    assert finding.matters is matters
    assert finding.what
    assert finding.why
    assert "canary" not in finding.what + finding.why


@pytest.mark.parametrize("name", ["door.db", "door.db-wal", "keys/master"])
def test_files_that_others_may_read_are_found(safe: dict[str, object], tmp_path: Path, name: str) -> None:
    """The database and the master key are for the server's user alone."""
    (tmp_path / name).write_text(MasterKey.generate().text())
    (tmp_path / name).chmod(0o600)
    assert found(safe) == {}
    (tmp_path / name).chmod(0o640)
    (finding,) = found(safe).values()
    assert finding.matters
    assert f"chmod 600 {tmp_path / name}" in finding.what + finding.why


def test_a_directory_that_every_user_may_write_is_found(safe: dict[str, object], tmp_path: Path) -> None:
    """An attacker who can replace the database decides who has an account."""
    tmp_path.chmod(0o777)
    assert found(safe)["database"].matters
    tmp_path.chmod(0o700)


def test_certificates_are_looked_at(safe: dict[str, object], tmp_path: Path) -> None:
    """A certificate that has expired, expires soon, or is for another name is found before browsers find it."""
    tls = {"tls_cert": str(tmp_path / "cert.pem"), "tls_key": str(tmp_path / "key.pem"), "proxy": ()}
    now = datetime.now(UTC)
    write_certificate(tmp_path, "auth.example.com", until=now + timedelta(days=60))
    assert found(safe, **tls) == {}
    write_certificate(tmp_path, "auth.example.com", until=now + timedelta(days=3))
    assert not found(safe, **tls)["tls_cert"].matters
    write_certificate(tmp_path, "auth.example.com", until=now - timedelta(days=1))
    assert found(safe, **tls)["tls_cert"].matters
    write_certificate(tmp_path, "other.example.com", until=now + timedelta(days=60))
    assert "auth.example.com" in found(safe, **tls)["tls_cert"].what
    write_certificate(tmp_path, "*.example.com", until=now + timedelta(days=60))
    assert found(safe, **tls) == {}
    (tmp_path / "key.pem").chmod(0o644)
    assert found(safe, **tls)["tls_key"].matters


def test_looking_makes_nothing(safe: dict[str, object], tmp_path: Path) -> None:
    """The check neither makes a database nor a key."""
    before = sorted(tmp_path.rglob("*"))
    found(safe)
    assert sorted(tmp_path.rglob("*")) == before


def test_what_serve_would_not_read_is_refused(safe: dict[str, object]) -> None:
    """A public URL that is none is no finding but an error, as it is for `serve`."""
    for changed in (
        {"public_url": "http://auth.example.com"},
        {"origin": ("https://*.example.com",)},
        {"proxy": ("x",)},
        {"database": "postgresql://db.example.com/"},
        {"database": "postgres://db.example.com/door?service=door"},
        {"redis": "redis://valkey.example.com:99999"},
    ):
        with pytest.raises(Misconfigured):
            found(safe, **changed)


@pytest.mark.parametrize(
    ("setting", "url", "is_open"),
    [
        ("database", "postgresql://db.example.com/door", True),
        ("database", "postgresql://db.example.com/door?sslmode=require", True),
        ("database", "postgresql://127.0.0.1,db.example.com/door?sslmode=prefer", True),
        ("database", "postgresql://db.example.com/door?sslmode=verify-full", False),
        ("database", "postgresql://localhost/door", False),
        ("database", "postgresql://127.0.0.1:5433,localhost/door", False),
        ("database", "postgresql:///door?host=/run/postgresql", False),
        ("database", "postgresql:///door?host=db.example.com", True),
        ("redis", "redis://valkey.example.com/0", True),
        ("redis", "redis+sentinel://10.0.0.1,10.0.0.2/door", True),
        ("redis", "rediss+cluster://10.0.0.1,10.0.0.2", False),
        ("redis", "rediss://valkey.example.com/0", False),
        ("redis", "redis://127.0.0.1/0", False),
        ("redis", "unix:///run/valkey.sock", False),
    ],
)
def test_a_way_that_others_can_read_is_found(safe: dict[str, object], setting: str, url: str, is_open: bool) -> None:
    """Connections that leave the machine without TLS that is verified are a choice to know about."""
    findings_of_it = found(safe, **{setting: url})
    assert (setting in findings_of_it) == is_open
    assert not is_open or not findings_of_it[setting].matters


def test_j18_the_revocation_window_is_a_number(safe: dict[str, object]) -> None:
    """J18: what was ended is refused here at once, by followers within the maximum wait, and elsewhere after at most
    the life of a token; an outage is survived for what is left of a lease. All of it is said, in numbers.
    """
    said = revocation_window(read(safe, access_for="5m", lease="20s"))
    lines = said.splitlines()
    assert lines[1].endswith("in each of its processes        0 s")
    assert "24.4 s at most (a lease of 20 s plus the clock margin)" in said
    assert "until the access token expires: 5 minutes at most" in said
    assert lines[-1].endswith("accept tokens for 8.6 to 13.9 s, then refuse.")


def test_exit_codes(
    safe: dict[str, object], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """0 with nothing that matters, 1 with something that does, 2 for what cannot be read."""

    def code(**changed: Any) -> int:
        values = {**safe, **changed}
        (tmp_path / "keys" / "door.toml").write_text(
            "\n".join(f"{name} = {json.dumps(value)}" for name, value in values.items())
        )
        (tmp_path / "keys" / "door.toml").chmod(0o600)  # it holds the password of the mail server
        monkeypatch.setattr(
            sys, "argv", ["dutchdoor", "check", "--json", "--config", str(tmp_path / "keys" / "door.toml")]
        )
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0)

    safe["require_verified_email"] = True
    safe["password_minimum"] = 15
    assert code() == 0
    assert json.loads(capsys.readouterr().out)["revocation"] == {
        "this_server_s": 0,
        "lease_s": 10.0,
        "following_verifier_s": pytest.approx(12.2, abs=0.1),
        "unfollowed_verifier_s": 600.0,
    }
    assert code(rotation="strict") == 0
    assert code(mail="console:") == 1
    assert code(public_url="nonsense") == 2
    assert "Traceback" not in capsys.readouterr().err


def test_each_doubtful_issuer_is_found(safe: dict[str, object], tmp_path: Path) -> None:
    """An issuer of the machine itself in production, one without a secret, and one that is trusted for each address."""
    file = tmp_path / "door.toml"
    local = '[issuers.corp]\npreset = "openid"\nurl = "http://localhost:9"\nclient_id = "c"\nclient_secret = "canary"\n'
    file.write_text(local)
    finding = found(safe, config=str(file))["issuers.corp"]
    assert finding.matters and "plain HTTP" in finding.what
    file.write_text('[issuers.google]\nclient_id = "c"\n')
    assert "no client_secret" in found(safe, config=str(file))["issuers.google"].what
    file.write_text('[issuers.google]\nclient_id = "c"\nclient_secret = "canary"\ntrusted_for = ["*"]\n')
    finding = found(safe, config=str(file))["issuers.google"]
    assert "trusted_for" in finding.what and "canary" not in finding.what + finding.why
    file.write_text('[issuers.google]\nclient_id = "c"\nclient_secret = "canary"\n')
    assert "issuers.google" not in found(safe, config=str(file))
