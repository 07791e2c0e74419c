"""Lines of an import: what other systems export, read one by one into one kind of record.

Read are: CSV with a header, JSON lines, and one JSON array. The columns are ours (`email`, `password_hash`, `name`,
`roles`, `verified`, `disabled`), or those of a dump of Django's user table (`manage.py dumpdata auth.user`, or its rows
as CSV), or those of the user table of fastapi-users. Which of them is told by the names.

Rights are never guessed: Django's staff and superusers, and fastapi-users' superusers, come without a role and are
given one by hand. Who is inactive there is disabled here.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from typing import Any, TextIO

from msgspec import Struct

from dutchdoor.errors import InvalidInput

__all__ = ["Incoming", "Refused", "read_lines"]

NAME_AT_MOST = 200
LINE_AT_MOST = 64 * 1024

OWN = frozenset({"email", "password_hash", "name", "roles", "verified", "disabled"})


class Incoming(Struct, frozen=True, kw_only=True):
    """One account to import. `password_hash` is None for someone who has none, and will choose one by mail."""

    line: int
    email: str
    password_hash: str | None
    name: str
    roles: tuple[str, ...]
    verified: bool
    disabled: bool
    privileged: bool = False
    """It had rights there that it does not get here by itself."""

    def __repr__(self) -> str:
        return f"Incoming(line={self.line})"


class Refused(Struct, frozen=True, kw_only=True):
    """A line that is not imported, and why."""

    line: int
    email: str
    reason: str


def read_lines(file: TextIO) -> Iterator[Incoming | Refused]:
    """Read an import, whichever of the forms it has. Raises `InvalidInput` for a file that is none of them."""
    first = ""
    start = 0
    while not first.strip():
        first = file.readline(LINE_AT_MOST)
        start += 1
        if first == "":
            raise InvalidInput("The file is empty.")
    if first.lstrip().startswith("["):
        rows = _array(first + file.read())
    elif first.lstrip().startswith("{"):
        rows = _json_lines(first, file, start)
    else:
        rows = _csv(first, file, start)
    for line, row in rows:
        yield row if isinstance(row, Refused) else _incoming(line, row)


def _csv(first: str, file: TextIO, start: int) -> Iterator[tuple[int, Mapping[str, Any] | Refused]]:
    names = [name.strip().lower() for name in next(csv.reader([first]))]
    if "email" not in names:
        raise InvalidInput("The first line must name the columns, and one of them must be email.")
    unknown = set(names) - OWN
    if unknown and not _foreign(set(names)):
        # A misspelt `password-hash` would import everybody without a password.
        raise InvalidInput(f"Unknown column {min(unknown)!a}. The columns are: {', '.join(sorted(OWN))}.")
    reader = csv.reader(file, strict=True)
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
            yield line, Refused(line=line, email="", reason=f"it has {len(cells)} columns and not {len(names)}")
        else:
            yield line, dict(zip(names, cells, strict=True))


def _json_lines(first: str, file: TextIO, start: int) -> Iterator[tuple[int, Mapping[str, Any] | Refused]]:
    line, text = start, first
    while text:
        if text.strip():
            try:
                row = json.loads(text)
            except (ValueError, RecursionError):
                row = None
            if isinstance(row, dict):
                yield line, row
            else:
                yield line, Refused(line=line, email="", reason="it is no JSON object")
        text = file.readline(LINE_AT_MOST)
        line += 1


def _array(text: str) -> Iterator[tuple[int, Mapping[str, Any] | Refused]]:
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidInput("The file begins as a JSON array and is none.") from None
    for number, row in enumerate(rows, 1):
        if isinstance(row, dict):
            yield number, row
        else:
            yield number, Refused(line=number, email="", reason="it is no JSON object")


def _foreign(names: set[str]) -> str:
    if {"password", "is_superuser"} <= names or {"password", "date_joined"} <= names:
        return "django"
    return "fastapi-users" if "hashed_password" in names else ""


def _incoming(line: int, row: Mapping[str, Any]) -> Incoming | Refused:
    email = ""
    try:
        if set(row) <= {"model", "pk", "fields"} and isinstance(row.get("fields"), dict):
            row = row["fields"]
        row = {str(name).strip().lower(): value for name, value in row.items()}
        email = _text(row, "email")
        match _foreign(set(row)):
            case "django":
                return _django(line, email, row)
            case "fastapi-users":
                return _fastapi_users(line, email, row)
        unknown = set(row) - OWN
        if unknown:
            return Refused(line=line, email=email, reason=f"unknown column {min(unknown)!a}")
        return Incoming(
            line=line,
            email=email,
            password_hash=_text(row, "password_hash") or None,
            name=_name(_text(row, "name")),
            roles=_roles(row.get("roles")),
            verified=_switch(row, "verified"),
            disabled=_switch(row, "disabled"),
        )
    except InvalidInput as exc:
        return Refused(line=line, email=email, reason=str(exc))


def _django(line: int, email: str, row: Mapping[str, Any]) -> Incoming:
    encoded = _text(row, "password")
    name = " ".join(filter(None, (_text(row, "first_name"), _text(row, "last_name"))))
    return Incoming(
        line=line,
        email=email,
        # "!" and random letters is how Django writes that there is no password.
        password_hash=None if not encoded or encoded.startswith("!") else encoded,
        name=_name(name or _text(row, "username")),
        roles=(),
        verified=False,
        disabled=not _switch(row, "is_active", default=True),
        privileged=_switch(row, "is_superuser") or _switch(row, "is_staff"),
    )


def _fastapi_users(line: int, email: str, row: Mapping[str, Any]) -> Incoming:
    return Incoming(
        line=line,
        email=email,
        password_hash=_text(row, "hashed_password") or None,
        name=_name(_text(row, "name")),
        roles=(),
        verified=_switch(row, "is_verified"),
        disabled=not _switch(row, "is_active", default=True),
        privileged=_switch(row, "is_superuser"),
    )


def _text(row: Mapping[str, Any], column: str) -> str:
    value = row.get(column)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InvalidInput(f"{column} is not text")
    value = value.strip()
    if not value.isprintable() or (not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value)):
        raise InvalidInput(f"{column} holds a line break, a control character, or what is not UTF-8")
    return value


def _name(name: str) -> str:
    if len(name) > NAME_AT_MOST:
        raise InvalidInput(f"name has more than {NAME_AT_MOST} characters")
    return name


def _roles(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, str):
        return tuple(value.replace(",", " ").replace(";", " ").split())
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return tuple(value)
    raise InvalidInput("roles are words with spaces between them, or a list of texts")


def _switch(row: Mapping[str, Any], column: str, *, default: bool = False) -> bool:
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
