"""Request bodies: limited before they are read, of one media type, and with only the fields that the endpoint knows.

JSON endpoints read only `application/json`. Cross-site request forgery: a form on another site can send text/plain, a
form or multipart without a preflight, but not JSON (requirement S19). An unknown field is refused by name, not ignored:
`"role": "admin"` in a registration is a mistake or an attack (mass assignment). A repeated name is refused, because two
parsers may choose different values. Messages never repeat a value of the request: it may be a password.

Endpoints under /oauth2/ read `application/x-www-form-urlencoded`, with each parameter once (RFC 6749, section 3.1), and
none in the URL. Not supported: multipart, compression, and charsets other than UTF-8.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from functools import cache
from types import UnionType
from typing import Any, Generic, Literal, TypeVar, Union, get_args, get_origin
from urllib.parse import unquote_to_bytes

import msgspec

from dutchdoor.errors import InvalidInput
from dutchdoor.texts import mark
from dutchdoor.web.http import BadRequest, Request, TooLarge, UnsupportedMediaType

__all__ = ["BODY_AT_MOST", "Body", "BoundedBody", "JsonBody", "read_form", "read_query"]

BODY_AT_MOST = 64 * 1024
"""Default limit for a body, in bytes."""

_PARAMETERS_AT_MOST = 64
_FORM = "application/x-www-form-urlencoded"
_JSON = "application/json"
_CHARSETS: tuple[list[str], ...] = ([], ["charset=utf-8"], ['charset="utf-8"'])

T = TypeVar("T")


# --- length ----------------------------------------------------------------------------------------------------------


class BoundedBody:
    """A body while it arrives. It is refused by its declared length before the first byte, or by its real length."""

    __slots__ = ("_at_most", "_pieces", "_size")

    def __init__(self, request: Request, *, at_most: int = BODY_AT_MOST) -> None:
        """Check Content-Length, which a chunked body does not have.

        Raises:
            TooLarge: the declared length is more than `at_most` bytes.
            BadRequest: Content-Length is not a number.
        """
        self._at_most = at_most
        self._pieces: list[bytes] = []
        self._size = 0
        declared = request.header(b"content-length")
        if declared is None:
            return
        if not declared.isascii() or not declared.isdigit():
            raise BadRequest("Content-Length is not a number.")
        # The number of digits is checked first: int() of a megabyte of digits costs time and raises another error.
        if len(declared.lstrip("0")) > 18 or int(declared) > at_most:  # noqa: PLR2004
            raise TooLarge(f"announced {declared[:20]} bytes of {at_most}", at_most=at_most)

    def add(self, piece: bytes) -> None:
        """Add the next piece.

        Raises:
            TooLarge: the body exceeds the limit.
        """
        self._size += len(piece)
        if self._size > self._at_most:
            self._pieces.clear()
            raise TooLarge(f"more than {self._at_most} bytes", at_most=self._at_most)
        self._pieces.append(piece)

    def whole(self) -> bytes:
        return self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)


def _check_type(request: Request, accepts: str) -> None:
    """Refuse every other media type, and a compressed body."""
    sent = request.header(b"content-type")
    if sent != accepts:
        kind, *parameters = re.sub(r"[ \t]*;[ \t]*", ";", (sent or "").lower()).split(";")
        reason = f"content-type {(sent or '')[:100]!a}"
        if kind != accepts:
            raise UnsupportedMediaType(reason, accepts=accepts)
        # RFC 9110, 5.6.6: a parameter may be empty, as in `application/json;`.
        if [each for each in parameters if each] not in _CHARSETS:
            wanted = mark("Send the body in UTF-8, with %(type)s alone in the header Content-Type.", type=accepts)
            raise UnsupportedMediaType(reason, accepts=accepts, message=wanted)
    encoding = request.header(b"content-encoding")
    if encoding is not None and encoding.lower() != "identity":
        wanted = mark("Send the body without compression, and without the header Content-Encoding.")
        raise UnsupportedMediaType("a compressed body", accepts=accepts, message=wanted)


# --- JSON ------------------------------------------------------------------------------------------------------------


class Body(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base class of all bodies, so that each of them refuses unknown fields (P05)."""

    def __repr__(self) -> str:
        # Error reporters record local variables, and a body may contain passwords.
        return f"<{type(self).__name__}>"


class JsonBody(Generic[T]):
    """Reader for bodies of one type: `LOGIN = JsonBody(Login)`, then `LOGIN.read(request)`."""

    __slots__ = ("_at_most", "_body", "_decode")

    def __init__(self, body: type[T], *, at_most: int = BODY_AT_MOST) -> None:
        if not issubclass(body, Body):
            raise TypeError(f"{body.__name__} does not derive from Body")
        self._body, self._decode = body, msgspec.json.Decoder(body).decode
        self._at_most = at_most

    def read(self, request: Request) -> T:
        """Read the body.

        Raises:
            UnsupportedMediaType: the declared media type is not JSON. Checked before parsing.
            TooLarge: the body exceeds the limit. Checked before parsing.
            BadRequest: the body is not valid JSON, or repeats a name.
            InvalidInput: a field is missing, unknown or of another type; `field` says which.
        """
        body = request.body
        if len(body) > self._at_most:
            raise TooLarge(f"{len(body)} bytes of {self._at_most}", at_most=self._at_most)
        _check_type(request, _JSON)
        try:
            value = self._decode(body)
        except msgspec.ValidationError as error:
            raise _invalid(str(error), self._body) from None
        # UnicodeDecodeError is a ValueError that msgspec lets through.
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise _malformed(body, error, self._body) from None
        _refuse_repeats(body)
        return value

    def take(self, fields: Mapping[str, object]) -> T:
        """Return the body that the fields of a page's form stand for. Raises `InvalidInput`, as `read` does."""
        try:
            return msgspec.convert(fields, self._body)
        except msgspec.ValidationError as error:
            raise _invalid(str(error), self._body) from None

    def read_if_sent(self, request: Request) -> T | None:
        """Read an optional body, such as that of a log-out. Raises the same errors as `read`.

        The declared media type of an empty body is ignored: some libraries declare one, and a refused log-out would
        leave the session alive.
        """
        return self.read(request) if request.body else None


def _malformed(body: bytes, error: Exception, kind: type) -> BadRequest:
    if not body:
        text = f"The body is empty. It is a JSON object with the fields {_fields(kind)}."
    else:
        place = _PLACE.search(str(error))  # of the message nothing else: it may quote the request
        text = f"The body is not valid JSON{f', at byte {place[1]}' if place else ''}."
    return BadRequest(text, code="malformed_json")


def _refuse_repeats(body: bytes) -> None:
    """Refuse a repeated name. msgspec uses the last value, other parsers the first.

    The parser of the standard library reports every name. Its input is small, well-formed and of a known shape by now.
    """
    try:
        _SHOWING_NAMES.decode(body.decode("utf-8"))
    except (ValueError, RecursionError):  # the two parsers may disagree about a field of free shape
        raise BadRequest("The body is not valid JSON.", code="malformed_json") from None


def _each(pairs: list[tuple[str, Any]]) -> None:
    names = [name for name, _ in pairs]
    if len(set(names)) != len(names):
        twice = next(name for n, name in enumerate(names) if name in names[:n])
        shown = twice if _NAME.fullmatch(twice) else "of one name"
        raise BadRequest(f"The field {shown} occurs twice.", code="repeated_field")


_SHOWING_NAMES = json.JSONDecoder(object_pairs_hook=_each)
_PATH = re.compile(r" - at `\$\.?([A-Za-z0-9_.\[\]]{1,128})`\Z")
_MISSING = re.compile(r"Object missing required field `([A-Za-z0-9_]{1,64})`")
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_EXPECTED = re.compile(r"Expected `([a-z0-9| ]+)`(?: of length ([<>]= [0-9]+)|, got `)")
_BOUND = re.compile(r"Expected `(?:int|float)` ([<>]=? -?[0-9.]{1,20})(?: - at |\Z)")
_INSTANT = re.compile(r"Invalid RFC3339 encoded datetime|Expected `datetime`? with")
_PLACE = re.compile(r"\(byte ([0-9]{1,9})\)\Z")
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_WORDS = {
    "str": "text",
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "array": "a list",
    "object": "an object",
    "datetime": "an instant such as 2026-11-30T08:00:00Z",
    "bytes": "base64",
    "null": "null",
}


# Both are asked for when a body is refused: for all bodies they take longer than all else that a start makes of routes.
@cache
def _fields(body: type) -> str:
    """Return the names of all fields, as text."""
    return ", ".join(field.encode_name for field in msgspec.structs.fields(body))


@cache
def _choices(body: type) -> dict[str, str]:
    """Return the fields that accept only certain values, with these values as text."""
    found: dict[str, str] = {}
    for field in msgspec.structs.fields(body):
        kinds = get_args(field.type) if get_origin(field.type) in {Union, UnionType} else (field.type,)
        values = [value for kind in kinds if get_origin(kind) is Literal for value in get_args(kind)]
        if values:
            found[field.encode_name] = " or ".join(filter(None, [", ".join(values[:-1]), values[-1]]))
    return found


def _invalid(problem: str, body: type) -> InvalidInput:
    """Replace the message of msgspec, which may quote the request, by one that contains only known text."""
    at = _PATH.search(problem)
    path = at[1] if at else ""
    if path in (choices := _choices(body)):
        return InvalidInput(f"This must be {choices[path]}.", field=path)
    missing = _MISSING.match(problem)
    if missing:
        return InvalidInput(mark("This field is required."), field=_below(path, missing[1]))
    unknown = _UNKNOWN.match(problem[: at.start()] if at else problem)
    if unknown:
        # The name is repeated only if it looks like a field name.
        name = unknown[1] if _NAME.fullmatch(unknown[1]) else ""
        known = "" if at else f" The fields are {_fields(body)}."
        return InvalidInput(f"This field is not known.{known}", field=_below(path, name) if name else path)
    if _INSTANT.match(problem):
        return InvalidInput(f"This must be {_WORDS['datetime']}.", field=path)
    if problem.startswith("Invalid base64"):
        return InvalidInput("This must be base64.", field=path)
    bound = _BOUND.match(problem)
    if bound:
        return InvalidInput(f"This must be a number {bound[1]}.", field=path)
    expected = _EXPECTED.match(problem)
    if expected:
        if expected[2]:
            return InvalidInput(mark("This has the wrong length: it must be %(bound)s.", bound=expected[2]), field=path)
        words = " or ".join(_WORDS.get(word.strip(), "another type") for word in expected[1].split("|"))
        return InvalidInput(f"{'This' if path else 'The body'} must be {words}.", field=path)
    return InvalidInput(mark("This value is not accepted."), field=path)


def _below(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


# --- forms and queries -----------------------------------------------------------------------------------------------

# The characters of a query (RFC 3986, section 3.4), without the `&` between two pieces.
_ENCODED = re.compile(rb"(?:[A-Za-z0-9._~!$'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*")


def read_form(request: Request) -> dict[str, str]:
    """Read the form of an /oauth2/ endpoint. A parameter without a value counts as absent (RFC 6749, section 3.1).

    Raises:
        UnsupportedMediaType: the declared media type is not a form. Checked before parsing.
        TooLarge: the body exceeds the limit. Checked before parsing.
        BadRequest: a parameter is repeated, in the URL, or not properly encoded (`invalid_request`, O16).
    """
    if len(request.body) > BODY_AT_MOST:
        raise TooLarge(f"{len(request.body)} bytes of {BODY_AT_MOST}", at_most=BODY_AT_MOST)
    _check_type(request, _FORM)
    if request.query:
        # Secrets in a URL end up in logs, and a parameter in the URL and the body would have two values.
        raise BadRequest("Send every parameter in the body.", code="invalid_request")
    return {name: value for name, value in _pairs(request.body) if value}


def read_query(request: Request, *, known: Iterable[str]) -> dict[str, str]:
    """Read the query parameters of a URL.

    Raises:
        BadRequest: a parameter is repeated or not properly encoded.
        InvalidInput: a parameter is not in `known`.
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
            those = f"The parameters are {', '.join(sorted(allowed))}." if allowed else "This path has no parameters."
            raise InvalidInput(f"This parameter is not known. {those}", field=name if _NAME.fullmatch(name) else "")
    return found


def _pairs(encoded: bytes) -> list[tuple[str, str]]:
    """Read `a=1&b=2` strictly: text that is not properly encoded is refused."""
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
