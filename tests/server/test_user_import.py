"""The lines of an import (server/user_import.py): what each system writes, and files that are not what they seem."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dutchdoor.credentials import legacy
from dutchdoor.errors import InvalidInput
from dutchdoor.server.user_import import LINE_AT_MOST, Incoming, Refused, read_lines

BCRYPT = "$2b$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"
REALM = Path(__file__).parents[1].joinpath("vectors", "keycloak_realm.json").read_text()
REALM_PASSWORD = "pässwörd ✓ 密码"


def read(text: str) -> list[Incoming | Refused]:
    return list(read_lines(io.StringIO(text, newline="")))


def reasons(text: str) -> list[tuple[int, str]]:
    return [(each.line, each.reason) for each in read(text) if isinstance(each, Refused)]


def keycloak(**credential: object) -> dict[str, Any]:
    return {"username": "ada", "email": "ada@example.com", "credentials": [{"type": "password", **credential}]}


@pytest.mark.parametrize("text", [json.dumps(json.loads(REALM)), json.dumps(json.loads(REALM)["users"])])
def test_a_keycloak_realm_is_read_however_it_is_written(text: str) -> None:
    """A realm on one line, or its users alone, is the realm as Keycloak writes it."""
    assert read(text) == read(REALM)


def test_a_keycloak_realm_is_read_as_it_is() -> None:
    """A realm's users come with their passwords, in each of Keycloak's own algorithms, and without their rights."""
    rows = {each.email.partition("@")[0]: each for each in read(REALM) if isinstance(each, Incoming)}
    assert list(rows) == ["argon", "old", "new", "long", "oldest", "none", "gone"]
    formats = ["argon2id", "pbkdf2-sha256", "pbkdf2-sha256", "pbkdf2-sha512", "pbkdf2-sha1"]
    for row, expected in zip(rows.values(), formats, strict=False):
        assert row.password_hash is not None
        assert legacy.recognise(row.password_hash) == expected
        assert legacy.verify(REALM_PASSWORD, row.password_hash)
    assert [name for name, row in rows.items() if row.password_hash is None] == ["none", "gone"]
    assert [name for name, row in rows.items() if row.privileged] == ["none"]
    assert [name for name, row in rows.items() if row.disabled] == ["gone"]
    assert [name for name, row in rows.items() if not row.verified] == ["none"]
    assert {row.roles for row in rows.values()} == {()}
    assert rows["argon"].name == "Argon Doe"


@pytest.mark.parametrize(
    ("credential", "said"),
    [
        ({"value": "hunter2 in the open"}, "plain text"),
        ({"hashedSaltedValue": "aGFzaA==", "salt": "c2FsdA==", "hashIterations": 27500}, "since version 8"),
        ({"secretData": "{", "credentialData": "{}"}, "since version 8"),
        ({"secretData": "[]", "credentialData": "[]"}, "since version 8"),
        ({"secretData": '{"value":5,"salt":"c2FsdA=="}', "credentialData": "{}"}, "since version 8"),
        ({"secretData": '{"value":"aGFzaA==","salt":"c2FsdA=="}', "credentialData": "null"}, "since version 8"),
        (
            {
                "secretData": '{"value":"aGFzaA==","salt":"c2FsdA=="}',
                "credentialData": '{"algorithm":"mpc-bcrypt","hashIterations":5}',
            },
            "not one of Keycloak's own",
        ),
        (
            {
                "secretData": '{"value":"aGFzaA==","salt":"c2FsdA=="}',
                "credentialData": '{"algorithm":["argon2"],"hashIterations":5}',
            },
            "not one of Keycloak's own",
        ),
    ],
)
def test_a_keycloak_password_that_cannot_be_read_is_refused(credential: dict[str, object], said: str) -> None:
    """It is refused with a reason that repeats no part of it."""
    [(line, reason)] = reasons(json.dumps(keycloak(**credential)))
    assert line == 1
    assert said in reason
    assert "aGFzaA" not in reason
    assert "hunter2" not in reason


def test_flask_security_is_refused_by_name() -> None:
    """Its hashes are of an HMAC and would match no password, so they are not imported for nothing."""
    for names in ("id,email,password,active,fs_uniquifier", "id,email,password,active,confirmed_at"):
        [(line, reason)] = reasons(f"{names}\n1,ada@example.com,{BCRYPT},t,2024-01-01\n")
        assert line == 2
        assert "Flask-Security" in reason
        assert "SECURITY_PASSWORD_SALT" in reason


def test_a_refused_line_repeats_only_an_address() -> None:
    """A hash in the column of the address, by a mistake in the order of columns, is shown nowhere."""
    hashes = [BCRYPT, "{pbkdf2@SpringSecurity_v5_8}" + "0" * 96, "d41d8cd98f00b204e9800998ecf8427e"]
    for encoded in hashes:
        for text in (
            f"email,password_hash,verified\n{encoded},ada@example.com,perhaps\n",
            json.dumps({"email": encoded, "verified": "perhaps"}),
            json.dumps({"email": encoded, "password-hash": "ada@example.com"}),
            json.dumps({"email": "ada@example.com", "password_hash": [encoded]}),
            json.dumps({"email": "ada@example.com", "roles": {encoded: encoded}}),
            json.dumps({"email": "ada@example.com", "verified": encoded}),
        ):
            [row] = read(text)
            assert isinstance(row, Refused)
            assert encoded not in row.email + row.reason
            assert row.email in ("", "ada@example.com")


@pytest.mark.parametrize(
    "row",
    [
        '{"email": "ada@example.com", "email": "eve@example.com"}',
        '{"email": "ada@example.com", "EMAIL": "eve@example.com"}',
        '{"email": "ada@example.com", "email ": "eve@example.com"}',
        '{"email": "ada@example.com", "roles": [], "roles": ["admin"]}',
        '{"model": "auth.user", "fields": {"email": "ada@example.com", "email": "eve@example.com"}}',
    ],
)
def test_a_name_that_stands_twice_is_refused(row: str) -> None:
    """Which of the two counts is a matter of the reader, so neither does: in JSON lines, in an array, in CSV."""
    assert [reason for _, reason in reasons(row)] == ["a name occurs in it twice"]
    if "EMAIL" not in row and "email " not in row:
        with pytest.raises(InvalidInput, match="twice"):
            read(f"[{row}]")
    for header in ("email,email", "email,Email", "email,roles,roles "):
        with pytest.raises(InvalidInput, match="Two columns"):
            read(f"{header}\na@example.com,b@example.com\n")


def test_an_overlong_line_is_one_line() -> None:
    """A line of JSON over the bound is refused whole: no piece of it becomes a row, and the lines after it count on."""
    inner = '{"email": "eve@example.com", "roles": "admin"}'
    for size in (LINE_AT_MOST - 1, LINE_AT_MOST, LINE_AT_MOST + 1, 3 * LINE_AT_MOST):
        for end in ("\n", "\r\n"):
            long = '{"email": "' + "x" * (size - 11) + inner
            text = end.join(['{"email": "a@example.com"}', long, '{"email": "b@example.com"}', "{", ""])
            rows = read(text)
            assert [row.line for row in rows] == [1, 2, 3, 4]
            assert [row.email for row in rows if isinstance(row, Incoming)] == ["a@example.com", "b@example.com"]
    [(_, reason)] = reasons("{" + "x" * LINE_AT_MOST + '\n{"email": "a@example.com"}')
    assert "65,536" in reason
    with pytest.raises(InvalidInput, match=r"Line 3 .* 65,536"):
        read("email,name\na@example.com,A\n" + "x" * (LINE_AT_MOST + 1) + "\n")


def test_a_damaged_first_line_is_refused_and_the_rest_is_read() -> None:
    """JSON lines whose first one is damaged are still JSON lines."""
    rows = read('{"email": "a@examp\n{"email": "b@example.com"}\n\n[]\n')
    assert [type(row) for row in rows] == [Refused, Incoming, Refused]
    assert [row.line for row in rows] == [1, 2, 4]


@pytest.mark.parametrize("cut", [10, 200, len(REALM) // 2, len(REALM) - 3])
def test_a_half_written_realm_is_refused_whole(cut: int) -> None:
    """An export that broke off imports nothing, and the message says what the file is not."""
    with pytest.raises(InvalidInput, match="neither JSON lines nor"):
        read(REALM[:cut])
    with pytest.raises(InvalidInput, match="neither JSON lines nor"):
        read(json.dumps(json.loads(REALM) | {"padding": "x" * 2 * LINE_AT_MOST})[:-cut])


def test_a_file_in_utf_16_is_named() -> None:
    """What PowerShell's redirection writes is not taken for CSV without columns."""
    written = "email,name\r\na@example.com,A\r\n".encode("utf-16")
    with pytest.raises(InvalidInput, match="UTF-16"):
        read(written.decode("utf-8-sig", "surrogateescape"))


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from([BCRYPT, "password"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(
    "email password_hash roles verified disabled name password is_superuser hashed_password username credentials "
    "realmRoles clientRoles emailVerified fs_uniquifier fields users".split()
)


@given(st.dictionaries(NAMES, ANYTHING | st.just("ada@example.com"), min_size=1))
def test_no_json_makes_reading_fail_in_another_way(row: dict[str, object]) -> None:
    """Whatever stands in a row, it is read or refused with a reason, or the whole file is refused."""
    for text in (json.dumps(row), json.dumps([row]), json.dumps({"realm": "x", "users": [row]}, indent=1)):
        check(text)


@given(st.lists(st.dictionaries(st.sampled_from(["type", "secretData", "credentialData", "value"]), ANYTHING)))
def test_no_credential_of_keycloak_makes_reading_fail_in_another_way(credentials: list[object]) -> None:
    """Whatever stands in the credentials, the user is read or refused."""
    check(json.dumps({"username": "ada", "email": "ada@example.com", "credentials": credentials}))


@given(
    st.text(max_size=300), st.sampled_from(["", "email,name\n", "email\n", "{}\n", "[", '{"users":[', "email,name\r"])
)
def test_no_text_makes_reading_fail_in_another_way(text: str, start: str) -> None:
    """Whatever stands in a file, with NULs, quotation marks and line ends in any place, the same holds."""
    check(start + text)


def check(text: str) -> None:
    for each in rows_of(text):
        assert isinstance(each, Incoming | Refused)
        if isinstance(each, Refused):
            assert each.reason
            assert BCRYPT not in each.reason + each.email


def rows_of(text: str) -> Iterator[Incoming | Refused]:
    try:
        yield from read_lines(io.StringIO(text, newline=""))
    except InvalidInput as exc:
        assert BCRYPT not in str(exc)
