"""Read the exports of other systems, line by line, into one kind of record.

The formats are CSV with a header, JSON lines, one JSON array, and the file of a Keycloak realm. The columns are those
of dutchdoor (`email`, `password_hash`, `name`, `roles`, `verified`, `disabled`), of a dump of Django's user table
(`manage.py dumpdata auth.user`, or its rows as CSV), of the user table of fastapi-users, or of a Keycloak user. The
column names decide which.

Flask-Security's user table is recognised and refused: Flask-Security hashes an HMAC of the password under its own key,
so no password would match.

Roles are never guessed: an administrator of the other system is imported without a role, and gets one by command. An
account that is inactive in the other system is disabled here.

The file is untrusted input. The length of a line is limited, and a row with a repeated name is refused. A message about
a refused line quotes only its address, and only if it is an address: another column may contain a hash by mistake.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TextIO

from msgspec import Struct

from dutchdoor.errors import InvalidInput
from dutchdoor.model.email_address import canonical
from dutchdoor.model.unicode_text import check_name

__all__ = ["Incoming", "Refused", "read_lines"]

LINE_AT_MOST = 64 * 1024

OWN = frozenset({"email", "password_hash", "name", "roles", "verified", "disabled"})


class Incoming(Struct, frozen=True, kw_only=True):
    """One account to import. If `password_hash` is None, the owner chooses a password with a mailed link."""

    line: int
    email: str
    password_hash: str | None
    name: str
    roles: tuple[str, ...]
    verified: bool
    disabled: bool
    privileged: bool = False
    """The account is an administrator in the other system. The import gives it no role."""

    def __repr__(self) -> str:
        return f"Incoming(line={self.line})"


class Refused(Struct, frozen=True, kw_only=True):
    """A line that is not imported, and the reason. `email` is empty if the line has no address."""

    line: int
    email: str
    reason: str


Row = Mapping[str, Any]
Numbered = tuple[int, Row | Refused]


def read_lines(file: TextIO) -> Iterator[Incoming | Refused]:
    """Read an import in any supported format. Raises `InvalidInput` for a file in another format."""
    first = ""
    start = 0
    while not first.strip():
        first = file.readline(LINE_AT_MOST)
        start += 1
        if first == "":
            raise InvalidInput("The file is empty.")
    if "\0" in first:
        raise InvalidInput("The file is not text in UTF-8. A spreadsheet or PowerShell may have written UTF-16.")
    if first.lstrip().startswith("["):
        rows = _array(first + file.read())
    elif first.lstrip().startswith("{"):
        rows = _objects(first, file, start)
    else:
        rows = _csv(first, file, start)
    for line, row in rows:
        yield row if isinstance(row, Refused) else _incoming(line, row)


def refused(line: int, email: str, reason: str) -> Refused:
    """Refuse a line. The content of its address column is quoted only if it is an address."""
    try:
        canonical(email)
    except InvalidInput:
        email = ""
    return Refused(line=line, email=email, reason=reason)


def _csv(first: str, file: TextIO, start: int) -> Iterator[Numbered]:
    names = [name.strip().lower() for name in next(csv.reader([first]))]
    if "email" not in names:
        raise InvalidInput("The first line must name the columns, and one of them must be email.")
    unknown = set(names) - OWN
    if unknown and not _foreign(set(names)):
        # A misspelt column such as `password-hash` would import all accounts without a password.
        raise InvalidInput(f"Unknown column {min(unknown)!a}. The columns are: {', '.join(sorted(OWN))}.")
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise InvalidInput(f"Two columns have the name {min(twice)!a}.")
    reader = csv.reader(_bounded(file, start), strict=True)
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as exc:
            raise InvalidInput(f"Line {start + reader.line_num} is not CSV: {exc}.") from None
        line = start + reader.line_num
        if not any(cells):
            continue
        if len(cells) != len(names):
            yield line, refused(line, "", f"the line has {len(cells)} columns instead of {len(names)}")
        else:
            yield line, dict(zip(names, cells, strict=True))


def _bounded(file: TextIO, line: int) -> Iterator[str]:
    while text := file.readline(LINE_AT_MOST + 1):
        line += 1
        if len(text) > LINE_AT_MOST:
            # The limit may cut a quoted value, so the lines after it cannot be read reliably.
            raise InvalidInput(f"Line {line} is not CSV: {_TOO_LONG}.")
        yield text


def _objects(first: str, file: TextIO, start: int) -> Iterator[Numbered]:
    """Read JSON lines, or one object with users (a Keycloak realm), on one line or on many."""
    row = _row(start, first)
    if isinstance(row, Refused) or isinstance(row.get("users"), list):
        rest = file.read()
        try:
            users = _users(first + rest)
        except InvalidInput:
            second = (first + rest).partition("\n")[2].lstrip()
            if not second.startswith("{") and (second or _is_cut(first)):
                raise
            # JSON lines with a damaged first line.
            file = io.StringIO(rest, newline="")
        else:
            yield from _numbered(users)
            return
    yield from _json_lines(first, file, start)


def _users(text: str) -> list[Any]:
    try:
        users = _object(_parsed(text)).get("users")
    except InvalidInput as exc:
        raise InvalidInput(f"The file is neither JSON lines nor one JSON object with users: {exc}.") from None
    if not isinstance(users, list):
        raise InvalidInput("The file is neither JSON lines nor one JSON object with users.")
    return users


def _is_cut(text: str) -> bool:
    return len(text) >= LINE_AT_MOST and not text.endswith(("\n", "\r"))


def _json_lines(first: str, file: TextIO, start: int) -> Iterator[Numbered]:
    line, text = start, first
    while text:
        if _is_cut(text):
            # The whole line is skipped: a part of a long line must not become a separate row.
            while text and not text.endswith(("\n", "\r")):
                text = file.readline(LINE_AT_MOST)
            yield line, refused(line, "", _TOO_LONG)
        elif text.strip():
            yield line, _row(line, text)
        text = file.readline(LINE_AT_MOST)
        line += 1


def _array(text: str) -> Iterator[Numbered]:
    try:
        rows = _parsed(text)
    except InvalidInput as exc:
        raise InvalidInput(f"The file begins like a JSON array, but is not valid: {exc}.") from None
    return _numbered(rows)


def _numbered(rows: list[Any]) -> Iterator[Numbered]:
    for number, row in enumerate(rows, 1):
        yield number, row if isinstance(row, dict) else refused(number, "", _NO_OBJECT)


def _row(line: int, text: str) -> Row | Refused:
    try:
        return _object(_parsed(text))
    except InvalidInput as exc:
        return refused(line, "", str(exc))


def _parsed(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_members)
    except (ValueError, RecursionError):
        # Not chained: the original exception carries the text.
        raise InvalidInput(_NO_JSON) from None


def _object(value: object) -> Row:
    if not isinstance(value, dict):
        raise InvalidInput(_NO_OBJECT)
    return value


def _members(pairs: list[tuple[str, Any]]) -> Row:
    # Parsers disagree about which of two members with the same name counts.
    members = dict(pairs)
    if len(members) < len(pairs):
        raise InvalidInput(_TWICE)
    return members


_NO_JSON = "it is not valid JSON"
_NO_OBJECT = "it is not a JSON object"
_TOO_LONG = f"it has more than {LINE_AT_MOST:,} characters"
_TWICE = "a name occurs in it twice"


def _foreign(names: set[str]) -> str:
    for system, (marks, _) in _SYSTEMS.items():
        if any(mark <= names for mark in marks):
            return system
    return ""


def _incoming(line: int, row: Row) -> Incoming | Refused:
    email = ""
    try:
        if set(row) <= {"model", "pk", "fields"} and isinstance(row.get("fields"), dict):
            row = row["fields"]
        named = {str(name).strip().lower(): value for name, value in row.items()}
        if len(named) < len(row):
            raise InvalidInput(_TWICE)
        row = named
        email = _text(row, "email")
        if system := _foreign(set(row)):
            return _SYSTEMS[system][1](line, email, row)
        return _own(line, email, row)
    except InvalidInput as exc:
        return refused(line, email, str(exc))


def _own(line: int, email: str, row: Row) -> Incoming:
    unknown = set(row) - OWN
    if unknown:
        raise InvalidInput(f"unknown column {min(unknown)!a}")
    return Incoming(
        line=line,
        email=email,
        password_hash=_text(row, "password_hash") or None,
        name=check_name(_text(row, "name")),
        roles=_roles(row.get("roles")),
        verified=_switch(row, "verified"),
        disabled=_switch(row, "disabled"),
    )


def _django(line: int, email: str, row: Row) -> Incoming:
    encoded = _text(row, "password")
    name = " ".join(filter(None, (_text(row, "first_name"), _text(row, "last_name"))))
    return Incoming(
        line=line,
        email=email,
        # Django marks an unusable password with "!" and random letters.
        password_hash=None if not encoded or encoded.startswith("!") else encoded,
        name=check_name(name or _text(row, "username")),
        roles=(),
        verified=False,
        disabled=not _switch(row, "is_active", default=True),
        privileged=_switch(row, "is_superuser") or _switch(row, "is_staff"),
    )


def _fastapi_users(line: int, email: str, row: Row) -> Incoming:
    return Incoming(
        line=line,
        email=email,
        password_hash=_text(row, "hashed_password") or None,
        name=check_name(_text(row, "name")),
        roles=(),
        verified=_switch(row, "is_verified"),
        disabled=not _switch(row, "is_active", default=True),
        privileged=_switch(row, "is_superuser"),
    )


def _keycloak(line: int, email: str, row: Row) -> Incoming:
    credentials = row.get("credentials") or []
    if not isinstance(credentials, list) or not all(isinstance(each, dict) for each in credentials):
        raise InvalidInput("credentials is not a list of JSON objects")
    passwords = [each for each in credentials if each.get("type") == "password"]
    if len(passwords) > 1:
        raise InvalidInput("the user has more than one password")
    name = " ".join(filter(None, (_text(row, "firstname"), _text(row, "lastname"))))
    realm_roles, client_roles = row.get("realmroles"), row.get("clientroles")
    return Incoming(
        line=line,
        email=email,
        password_hash=_keycloak_hash(passwords[0]) if passwords else None,
        name=check_name(name or _text(row, "username")),
        roles=(),
        verified=_switch(row, "emailverified"),
        disabled=not _switch(row, "enabled", default=True),
        privileged=(isinstance(realm_roles, list) and "admin" in realm_roles)
        or (isinstance(client_roles, dict) and "realm-management" in client_roles),
    )


def _keycloak_hash(credential: Row) -> str:
    """Convert a Keycloak password, which is JSON in two strings, to the equivalent PHC string."""
    if "value" in credential:
        raise InvalidInput("the password is in plain text")
    try:
        secret, data = json.loads(credential["secretData"]), json.loads(credential["credentialData"])
        salt, tag = (secret[part].rstrip("=") for part in ("salt", "value"))
        algorithm, rounds = data["algorithm"], int(data["hashIterations"])
        if algorithm == "argon2":
            kind, version, memory, lanes = (
                data["additionalParameters"][name][0] for name in ("type", "version", "memory", "parallelism")
            )
            version = {"1.3": 19, "1.0": 16}[version]
            return f"$argon2{kind}$v={version}$m={int(memory)},t={rounds},p={int(lanes)}${salt}${tag}"
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RecursionError):
        # Not chained: the original exception may carry the hash.
        raise InvalidInput("the password is not in the format of Keycloak since version 8") from None
    digests = {"pbkdf2": "sha1", "pbkdf2-sha256": "sha256", "pbkdf2-sha512": "sha512"}
    if not isinstance(algorithm, str) or algorithm not in digests:
        raise InvalidInput("the algorithm of the password hash is not one of Keycloak's own")
    return f"$pbkdf2-{digests[algorithm]}$i={rounds}${salt}${tag}"


def _flask_security(_line: int, _email: str, _row: Row) -> Incoming:
    raise InvalidInput(
        "the account is from Flask-Security, which hashes an HMAC of the password under SECURITY_PASSWORD_SALT, so no "
        "password would match. Import the account without the hash; the owner then chooses a password by mail"
    )


_SYSTEMS: dict[str, tuple[tuple[set[str], ...], Callable[[int, str, Row], Incoming]]] = {
    "flask-security": (({"password", "fs_uniquifier"}, {"password", "active", "confirmed_at"}), _flask_security),
    "django": (({"password", "is_superuser"}, {"password", "date_joined"}), _django),
    "fastapi-users": (({"hashed_password"},), _fastapi_users),
    "keycloak": (({"username", "credentials"}, {"username", "emailverified"}), _keycloak),
}
"""For each other system, the columns by which it is recognised, and the function that reads a row."""


def _text(row: Row, column: str) -> str:
    value = row.get(column)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InvalidInput(f"{column} is not text")
    value = value.strip()
    if not value.isprintable() or (not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value)):
        raise InvalidInput(f"{column} contains a line break, a control character, or invalid UTF-8")
    return value


def _roles(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, str):
        return tuple(value.replace(",", " ").replace(";", " ").split())
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return tuple(value)
    raise InvalidInput("roles must be words separated by spaces, or a list of strings")


def _switch(row: Row, column: str, *, default: bool = False) -> bool:
    value = row.get(column)
    if value is None or value == "":
        return default
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower()
    if word in {"1", "true", "t", "yes", "y"}:
        return True
    if word in {"0", "false", "f", "no", "n"}:
        return False
    raise InvalidInput(f"{column} is neither true nor false")
