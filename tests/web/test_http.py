"""Requests: a header that may be sent once is there once, and a list is one list."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec
import pytest

from dutchdoor.web.http import BadRequest, Request, Response, json_response


def request(*headers: tuple[bytes, bytes]) -> Request:
    return Request("GET", "/", b"", headers, "127.0.0.1", "http")


@pytest.mark.parametrize(
    "name", [b"authorization", b"host", b"origin", b"sec-fetch-site", b"content-type", b"x-csrf-token"]
)
def test_s22_a_repeated_header_is_refused(name: bytes) -> None:
    """Two of one name are how a proxy sees one caller and the server another, whether they are equal or not."""
    for second in (b"a", b"b"):
        sent = request((name, b"a"), (b"accept", b"*/*"), (name, second))
        with pytest.raises(BadRequest, match=name.decode()) as refused:
            sent.header(name)
        assert refused.value.code == "repeated_header"
        assert sent.header(b"accept") == "*/*"
        assert sent.header(b"cookie") is None


def test_a_list_may_come_in_several_lines() -> None:
    """RFC 9110, section 5.3: they are one list, in order."""
    sent = request((b"x-forwarded-for", b"a"), (b"accept", b"*/*"), (b"x-forwarded-for", b"b, c"))
    assert sent.header_list(b"x-forwarded-for") == "a,b, c"
    assert sent.header_list(b"accept") == "*/*"
    assert sent.header_list(b"forwarded") is None


def test_p21_white_space_around_a_value_is_no_part_of_it() -> None:
    """P21: a server may leave it on, and then it is taken off here, whatever the header (RFC 9110, 5.5)."""
    for value in (b"a b", b" a b", b"a b\t", b" \t a b \t "):
        sent = request((b"host", value), (b"cookie", value), (b"prefer", value))
        assert (sent.header(b"host"), sent.header_list(b"prefer"), sent.cookie()) == ("a b", "a b", b"a b")
        twice = request((b"cookie", value), (b"cookie", b" c=d "))
        assert twice.cookie() == b"a b; c=d"


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        (b"Bearer abc", ("bearer", "abc")),
        (b"BEARER  abc ", ("bearer", "abc")),
        (b"Basic \x20 YTpi", ("basic", "YTpi")),
        (b"Bearer", ("bearer", "")),
        (b"Bearer a b", ("bearer", "a b")),
        (b"Bearer\tabc", ("bearer\tabc", "")),
        (b"", ("", "")),
        (None, ("", "")),
    ],
)
def test_p21_any_number_of_spaces_ends_the_scheme(sent: bytes | None, read: tuple[str, str]) -> None:
    """P21: the grammar has one space or more between scheme and token (RFC 9110, 11.4)."""
    asked = request() if sent is None else request((b"authorization", sent))
    assert asked.credentials() == read


def test_any_byte_is_a_character() -> None:
    """No header value makes reading fail; who reads it judges it."""
    assert request((b"x", bytes(range(256)))).header(b"x") == bytes(range(256)).decode("latin-1")


def test_cookies_are_one_line() -> None:
    """None, one or several headers."""
    assert request().cookie() == b""
    assert request((b"cookie", b"a=1")).cookie() == b"a=1"
    assert request((b"cookie", b"a=1"), (b"x", b"y"), (b"cookie", b"b=2")).cookie() == b"a=1; b=2"


def test_a_request_has_nothing_to_decide_by_before_it_is_admitted() -> None:
    """The host is empty until it has been judged, so a forgotten judgement compares equal to nothing."""
    assert request((b"host", b"evil.example")).host == ""


def test_json_is_what_an_answer_is_by_default() -> None:
    """Content type, body, own headers; and kept nowhere, being of kind `api`."""
    answer = json_response(201, {"a": 1}, [(b"x-y", b"z")])
    assert (answer.status, msgspec.json.decode(answer.body), answer.kind) == (201, {"a": 1}, "api")
    assert answer.headers == [(b"content-type", b"application/json"), (b"x-y", b"z")]
    assert Response(204).headers == []


async def test_a_header_more_loses_nothing_of_a_long_answer() -> None:
    """An answer that is sent in pieces keeps them beside a cookie that is cleared, and is itself unchanged."""

    async def rest() -> AsyncIterator[bytes]:
        yield b"b"
        yield b"c"

    answer = Response(200, [(b"x", b"y")], b"a", kind="page", pieces=rest())
    more = answer.beside((b"set-cookie", b"gone="))
    assert more.pieces is not None
    assert more.body + b"".join([each async for each in more.pieces]) == b"abc"
    assert (more.status, more.kind, more.headers) == (200, "page", [(b"x", b"y"), (b"set-cookie", b"gone=")])
    assert answer.headers == [(b"x", b"y")]
