"""The CSRF token of a form: its field `csrf_token`, found in the first 64 KiB of a body that the application reads.

A script sends the token in a header; a page without a script can only send it in its form.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Final, Protocol
from urllib.parse import parse_qsl

from python_multipart import MultipartParser
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import parse_options_header

from dutchdoor.guard.gates import Message, Receive, Scope

__all__ = ["FIELD", "LOOKED_AT", "find_token", "token_in"]

FIELD: Final = "csrf_token"
LOOKED_AT: Final = 65_536
"""Bytes of the body that are searched. A form with files has the field first."""
_TOKEN_AT_MOST: Final = 200
_FIELDS_AT_MOST: Final = 1000
_BOUNDARY_AT_MOST: Final = 70  # RFC 2046, 5.1.1

_URLENCODED: Final = b"application/x-www-form-urlencoded"
_MULTIPART: Final = b"multipart/form-data"


def _type_of(content_type: bytes) -> bytes:
    return content_type.partition(b";")[0].strip(b" \t").lower()


class HasField(Protocol):
    csrf_field: str | None


async def find_token(visit: HasField, scope: Scope, receive: Receive) -> Receive:
    """Find the token in the form of a request. Returns a `receive` that gives the application the whole body."""
    headers: dict[bytes, bytes] = dict(scope["headers"])
    kind = headers.get(b"content-type", b"")
    if b"cookie" not in headers or b"x-csrf-token" in headers or _type_of(kind) not in (_URLENCODED, _MULTIPART):
        return receive
    seen: list[Message] = []
    start = bytearray()
    more = True
    while more and len(start) < LOOKED_AT:
        message = await receive()
        seen.append(message)
        if message["type"] != "http.request":
            break
        start += message.get("body", b"")
        more = bool(message.get("more_body", False))
    visit.csrf_field = token_in(kind, bytes(start[:LOOKED_AT]), whole=not more and len(start) <= LOOKED_AT)
    seen.reverse()

    async def again() -> Message:
        return seen.pop() if seen else await receive()

    return again


def token_in(content_type: bytes, start: bytes, *, whole: bool) -> str | None:
    """Return the first value of the field in the `start` of a body; None when it is not there.

    `whole` says that there is no more of the body.
    """
    if _type_of(content_type) == _URLENCODED:
        return _in_urlencoded(start, whole=whole)
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if kind != _MULTIPART or not 0 < len(boundary) <= _BOUNDARY_AT_MOST:
        return None
    return _in_multipart(start, boundary)


def _in_urlencoded(start: bytes, *, whole: bool) -> str | None:
    if not whole:
        start = start[: start.rfind(b"&") + 1]  # the last field may be cut
    with suppress(ValueError):
        for name, value in parse_qsl(start.decode("latin-1"), max_num_fields=_FIELDS_AT_MOST):
            if name == FIELD:
                return value
    return None


def _in_multipart(start: bytes, boundary: bytes) -> str | None:
    found = _Field()
    parser = MultipartParser(boundary, found.callbacks())
    with suppress(MultipartParseError):
        parser.write(start)
    return found.value


class _Field:
    """Listens to the parser of a multipart body, and keeps the value of our field."""

    def __init__(self) -> None:
        self.value: str | None = None
        self._name = self._disposition = b""
        self._data: bytearray | None = None

    def callbacks(self) -> Any:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_name,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._part_data,
            "on_part_end": self._part_end,
        }

    def _begin(self) -> None:
        self._name = self._disposition = b""
        self._data = None

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        if self._name.lower() == b"content-disposition":
            self._disposition += data[start:end]

    def _header_end(self) -> None:
        self._name = b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        if self.value is None and options.get(b"name") == FIELD.encode() and b"filename" not in options:
            self._data = bytearray()

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._data is not None and len(self._data) <= _TOKEN_AT_MOST:
            self._data += data[start:end]

    def _part_end(self) -> None:
        if self._data is not None:
            self.value = self._data[: _TOKEN_AT_MOST + 1].decode("latin-1")
            self._data = None
