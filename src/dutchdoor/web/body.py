"""Bodies: bounded before they are read, of the one type the endpoint reads, and of exactly the fields it knows.

JSON endpoints read `application/json` and nothing else. A form on another site can send text/plain, a form or
multipart without asking the browser; JSON it cannot (requirement S19). A field nobody asked for is refused by name,
not ignored: `"role": "admin"` in a registration is either a mistake or an attempt. The same name twice is refused,
because two parsers on the way would each believe another one. No message here repeats a value that was sent: it might
be a password.

Endpoints under /oauth2/ read `application/x-www-form-urlencoded`, each parameter once (RFC 6749, section 3.1), none in
the URL. Left out: multipart, compression, and any charset but UTF-8.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from types import UnionType
from typing import Any, Generic, Literal, TypeVar, Union, get_args, get_origin
from urllib.parse import unquote_to_bytes

import msgspec

from dutchdoor.errors import InvalidInput
from dutchdoor.web.http import BadRequest, Request, TooLarge, UnsupportedMediaType

__all__ = ["BODY_AT_MOST", "Body", "BoundedBody", "JsonBody", "read_form", "read_query"]

BODY_AT_MOST = 64 * 1024
"""Bytes of a body anywhere."""

_PARAMETERS_AT_MOST = 64
_FORM = "application/x-www-form-urlencoded"
_JSON = "application/json"
_CHARSETS: tuple[list[str], ...] = ([], ["charset=utf-8"], ['charset="utf-8"'])

T = TypeVar("T")


# --- length ----------------------------------------------------------------------------------------------------------


class BoundedBody:
    """A body as it arrives. Refuses by its declared length before the first byte, and by its real one at any byte."""

    __slots__ = ("_at_most", "_pieces", "_size")

    def __init__(self, request: Request, *, at_most: int = BODY_AT_MOST) -> None:
        """Look at Content-Length, which a chunked body does not have.

        Raises:
            TooLarge: it announces more than `at_most` bytes.
            BadRequest: it is not a number.
        """
        self._at_most = at_most
        self._pieces: list[bytes] = []
        self._size = 0
        declared = request.header(b"content-length")
        if declared is None:
            return
        if not declared.isascii() or not declared.isdigit():
            raise BadRequest("Content-Length is not a number.")
        # Compared as text where it is long: int() of a megabyte of digits is work, and an error of its own.
        if len(declared.lstrip("0")) > 18 or int(declared) > at_most:  # noqa: PLR2004
            raise TooLarge(f"announced {declared[:20]} bytes of {at_most}")

    def add(self, piece: bytes) -> None:
        """Take the next piece.

        Raises:
            TooLarge: it is one too many.
        """
        self._size += len(piece)
        if self._size > self._at_most:
            self._pieces.clear()
            raise TooLarge(f"more than {self._at_most} bytes")
        self._pieces.append(piece)

    def whole(self) -> bytes:
        return self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)


def _check_type(request: Request, accepts: str) -> None:
    """Refuse any other media type, and any transformation of this one."""
    sent = request.header(b"content-type")
    if sent != accepts:
        kind, *parameters = re.sub(r"[ \t]*;[ \t]*", ";", (sent or "").lower()).split(";")
        # RFC 9110, 5.6.6: a parameter may be empty, as in `application/json;`.
        if kind != accepts or [each for each in parameters if each] not in _CHARSETS:
            raise UnsupportedMediaType(f"content-type {(sent or '')[:100]!a}", accepts=accepts)
    encoding = request.header(b"content-encoding")
    if encoding is not None and encoding.lower() != "identity":
        raise UnsupportedMediaType("a compressed body", accepts=accepts)


# --- JSON ------------------------------------------------------------------------------------------------------------


class Body(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Root of the records that describe bodies, so that none forgets to refuse fields it does not know (P05)."""

    def __repr__(self) -> str:
        # Programs that report errors report the local variables with them, and this one holds passwords.
        return f"<{type(self).__name__}>"


class JsonBody(Generic[T]):
    """Reads bodies of one type: `LOGIN = JsonBody(Login)`, then `LOGIN.read(request)`."""

    __slots__ = ("_at_most", "_choices", "_decode")

    def __init__(self, body: type[T], *, at_most: int = BODY_AT_MOST) -> None:
        if not issubclass(body, Body):
            raise TypeError(f"{body.__name__} does not derive from Body")
        self._decode = msgspec.json.Decoder(body).decode
        self._at_most, self._choices = at_most, _choices(body)

    def read(self, request: Request) -> T:
        """Read the body.

        Raises:
            UnsupportedMediaType: it is not JSON by its declaration.
            TooLarge: it is too long. Both are found before anything is parsed.
            BadRequest: it is not JSON in fact, or names a member twice.
            InvalidInput: a field is missing, unknown or of another type; `field` says which.
        """
        body = request.body
        if len(body) > self._at_most:
            raise TooLarge(f"{len(body)} bytes of {self._at_most}")
        _check_type(request, _JSON)
        try:
            value = self._decode(body)
        except msgspec.ValidationError as error:
            raise _invalid(str(error), self._choices) from None
        # UnicodeDecodeError is a ValueError that msgspec lets through.
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise BadRequest("The body is not valid JSON.", code="malformed_json") from None
        _refuse_repeats(body)
        return value

    def read_if_sent(self, request: Request) -> T | None:
        """Read the body of an endpoint that does without, such as a log-out. Raises as `read` does.

        A type that is declared for an empty body does not matter: libraries declare one, and a log-out that is refused
        for it would leave the session alive.
        """
        return self.read(request) if request.body else None


def _refuse_repeats(body: bytes) -> None:
    """Refuse a member that is named twice. msgspec takes the last one, others the first.

    The standard library is asked because it shows every name. What it reads is small, well-formed and of known shape.
    """
    try:
        _SHOWING_NAMES.decode(body.decode("utf-8"))
    except (ValueError, RecursionError):  # a field of free shape may hold what the two parsers disagree on
        raise BadRequest("The body is not valid JSON.", code="malformed_json") from None


def _each(pairs: list[tuple[str, Any]]) -> None:
    names = [name for name, _ in pairs]
    if len(set(names)) != len(names):
        twice = next(name for n, name in enumerate(names) if name in names[:n])
        shown = twice if _NAME.fullmatch(twice) else "of one name"
        raise BadRequest(f"The field {shown} is there twice.", code="repeated_field")


_SHOWING_NAMES = json.JSONDecoder(object_pairs_hook=_each)
_PATH = re.compile(r" - at `\$\.?([A-Za-z0-9_.\[\]]{1,128})`\Z")
_MISSING = re.compile(r"Object missing required field `([A-Za-z0-9_]{1,64})`")
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_EXPECTED = re.compile(r"Expected `([a-z0-9| ]+)`(?: of length ([<>]= [0-9]+)|, got `)")
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_WORDS = {
    "str": "text",
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "array": "a list",
    "object": "an object",
    "null": "null",
}


def _choices(body: type) -> dict[str, str]:
    """Fields of which some values alone are accepted, with these in words."""
    found: dict[str, str] = {}
    for field in msgspec.structs.fields(body):
        kinds = get_args(field.type) if get_origin(field.type) in {Union, UnionType} else (field.type,)
        values = [value for kind in kinds if get_origin(kind) is Literal for value in get_args(kind)]
        if values:
            found[field.encode_name] = " or ".join(filter(None, [", ".join(values[:-1]), values[-1]]))
    return found


def _invalid(told: str, choices: Mapping[str, str]) -> InvalidInput:
    """Turn msgspec's sentence into ours. Its sentences may quote what was sent; ours are made of what we know."""
    at = _PATH.search(told)
    path = at[1] if at else ""
    if path in choices:
        return InvalidInput(f"This must be {choices[path]}.", field=path)
    missing = _MISSING.match(told)
    if missing:
        return InvalidInput("This field is required.", field=_below(path, missing[1]))
    unknown = _UNKNOWN.match(told[: at.start()] if at else told)
    if unknown:
        # Only a name that looks like one is repeated.
        name = unknown[1] if _NAME.fullmatch(unknown[1]) else ""
        return InvalidInput("This field is not known here.", field=_below(path, name) if name else path)
    expected = _EXPECTED.match(told)
    if expected:
        if expected[2]:
            return InvalidInput(f"This has the wrong length: it must be {expected[2]}.", field=path)
        words = " or ".join(_WORDS.get(word.strip(), "another type") for word in expected[1].split("|"))
        return InvalidInput(f"This must be {words}.", field=path)
    return InvalidInput("This value is not accepted here.", field=path)


def _below(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


# --- forms and queries -----------------------------------------------------------------------------------------------

# The characters of a query, RFC 3986, section 3.4, but for the `&` between two pieces.
_ENCODED = re.compile(rb"(?:[A-Za-z0-9._~!$'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*")


def read_form(request: Request, *, at_most: int = BODY_AT_MOST) -> dict[str, str]:
    """Read the form of an /oauth2/ endpoint. A parameter without a value is as good as absent (RFC 6749, section 3.1).

    Raises:
        UnsupportedMediaType: it is not a form by its declaration.
        TooLarge: it is too long. Both are found before anything is parsed.
        BadRequest: a parameter is repeated, in the URL, or not properly encoded (`invalid_request`, O16).
    """
    if len(request.body) > at_most:
        raise TooLarge(f"{len(request.body)} bytes of {at_most}")
    _check_type(request, _FORM)
    if request.query:
        # Secrets in a URL end up in logs; and a parameter in both places has two values.
        raise BadRequest("Send every parameter in the body.", code="invalid_request")
    return {name: value for name, value in _pairs(request.body) if value}


def read_query(request: Request, *, known: Iterable[str]) -> dict[str, str]:
    """Read the parameters of a URL.

    Raises:
        BadRequest: one is repeated or not properly encoded.
        InvalidInput: one is not among the `known`.
    """
    query = request.query
    if not query:
        return {}
    if len(query) > BODY_AT_MOST:
        raise BadRequest("The URL is too long.")
    allowed = frozenset(known)
    found = dict(_pairs(query))
    for name in found:
        if name not in allowed:
            raise InvalidInput("This parameter is not known here.", field=name if _NAME.fullmatch(name) else "")
    return found


def _pairs(encoded: bytes) -> list[tuple[str, str]]:
    """Read `a=1&b=2`, strictly: what is not properly encoded is refused, not guessed at."""
    if not encoded:
        return []
    pieces = encoded.split(b"&", _PARAMETERS_AT_MOST)
    if len(pieces) > _PARAMETERS_AT_MOST:
        raise BadRequest("There are too many parameters.", code="invalid_request")
    pairs: list[tuple[str, str]] = []
    seen: set[str] = set()
    for piece in pieces:
        if not _ENCODED.fullmatch(piece):
            raise BadRequest("The parameters are not properly encoded.", code="invalid_request")
        raw_name, _, raw_value = piece.partition(b"=")
        try:
            name = unquote_to_bytes(raw_name.replace(b"+", b" ")).decode("utf-8")
            value = unquote_to_bytes(raw_value.replace(b"+", b" ")).decode("utf-8")
        except UnicodeDecodeError:
            raise BadRequest("The parameters are not UTF-8.", code="invalid_request") from None
        if name in seen:
            shown = name if _NAME.fullmatch(name) else "a parameter"
            raise BadRequest(f"The parameter {shown} was sent more than once.", code="invalid_request")
        seen.add(name)
        pairs.append((name, value))
    return pairs
