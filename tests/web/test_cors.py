"""CORS: an exact list, and nothing at all for anyone else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dutchdoor.errors import Misconfigured
from dutchdoor.web.cors import Cors
from dutchdoor.web.http import BadRequest, Request

APP = "https://app.example.com"
CORS = Cors([APP, "http://localhost:5173"])


def request(origin: str | None, path: str = "/auth/login", method: str = "POST", **more: str) -> Request:
    headers = [] if origin is None else [(b"origin", origin.encode("utf-8"))]
    headers += [(name.replace("_", "-").encode(), value.encode()) for name, value in more.items()]
    return Request(method, path, b"", headers, "127.0.0.1", "https")


def test_s20_a_listed_origin_reads_the_answer() -> None:
    """It is named exactly, with credentials, and never as a star."""
    assert dict(CORS.headers(request(APP))) == {
        b"vary": b"origin",
        b"access-control-allow-origin": APP.encode(),
        b"access-control-allow-credentials": b"true",
        b"access-control-expose-headers": b"dpop-nonce, preference-applied, retry-after, www-authenticate",
    }


STRANGERS = [
    None, "", "null", "*", "https://evil.example", "https://app.example.com.evil.net", "https://evilapp.example.com",
    "https://app.example.comevil.net", "http://app.example.com", "https://app.example.com:443", "https://app.example.com:8443",
    "https://app.example.com/", "https://APP.example.com", "https://app.example.com.", "https://example.com",
    "https://x.app.example.com", "https://app_example.com", "https://app.example.com@evil.net", f"{APP}, {APP}",
    f"{APP} https://evil.example", "https://app.example.com\x00", "http://localhost:5174", "http://localhost",
]  # fmt: skip


@pytest.mark.parametrize("origin", STRANGERS)
def test_s20_anyone_else_gets_nothing(origin: str | None) -> None:
    """Null, prefixes, suffixes, other ports and schemes: no CORS header but Vary, on preflight and answer."""
    assert CORS.headers(request(origin)) == [(b"vary", b"origin")]
    asked = CORS.preflight(request(origin, method="OPTIONS", access_control_request_method="POST"))
    assert asked is None if origin is None else asked is not None and asked.headers == [(b"vary", b"origin")]
    assert asked is None or asked.status == 403


@given(st.text(alphabet=st.characters(max_codepoint=255), max_size=60))
def test_s20_no_text_but_a_listed_one_is_allowed(origin: str) -> None:
    """The list is exact for any text."""
    sent = Request("POST", "/auth/login", b"", [(b"origin", origin.encode("latin-1"))], "", "https")
    assert (len(CORS.headers(sent)) > 1) == (origin in CORS.origins)


def test_s20_an_empty_list_says_nothing() -> None:
    """By default there is no CORS, and OPTIONS is a method like any other."""
    assert Cors().headers(request(APP)) == []
    assert Cors().preflight(request(APP, method="OPTIONS", access_control_request_method="POST")) is None


def test_s20_a_preflight_names_what_the_api_needs() -> None:
    """Methods and headers are ours, not an echo of what was asked for."""
    answer = CORS.preflight(
        request(APP, method="OPTIONS", access_control_request_method="PUT", access_control_request_headers="x-evil")
    )
    assert answer is not None
    assert answer.status == 204
    assert dict(answer.headers) == {
        b"vary": b"origin",
        b"access-control-allow-origin": APP.encode(),
        b"access-control-allow-credentials": b"true",
        b"access-control-allow-methods": b"GET, POST, DELETE",
        b"access-control-allow-headers": b"authorization, content-type, dpop, prefer, x-csrf-token",
        b"access-control-max-age": b"600",
    }


def test_s20_an_options_request_that_is_no_preflight_goes_on() -> None:
    """Without Access-Control-Request-Method it is an ordinary request."""
    assert CORS.preflight(request(APP, method="OPTIONS")) is None
    assert CORS.preflight(request(APP, access_control_request_method="POST")) is None


@pytest.mark.parametrize(
    "path",
    ["/admin/api/accounts", "/admin", "/auth/revocations/poll", "/auth/check", "/", "/docs", "/metrics", "//auth/login",
     "/Auth/login", "/livez", ""],
)  # fmt: skip
def test_s20_poll_administration_and_check_are_never_opened(path: str) -> None:
    """Not even for a listed origin: a page that may sign people in may not run the administration."""
    assert CORS.headers(request(APP, path)) == [(b"vary", b"origin")]
    answer = CORS.preflight(request(APP, path, method="OPTIONS", access_control_request_method="POST"))
    assert answer is not None
    assert (answer.status, answer.headers) == (403, [(b"vary", b"origin")])


@pytest.mark.parametrize("path", ["/auth/me", "/oauth2/token", "/.well-known/jwks.json"])
def test_s20_the_rest_of_the_api_is_open_to_listed_origins(path: str) -> None:
    """What a single-page application on a listed origin needs, it gets."""
    assert (b"access-control-allow-origin", APP.encode()) in CORS.headers(request(APP, path))


def test_s20_two_origin_headers_are_refused() -> None:
    """A request that names two origins has none."""
    twice = Request("POST", "/auth/login", b"", [(b"origin", APP.encode()), (b"origin", b"https://evil")], "", "https")
    with pytest.raises(BadRequest):
        CORS.headers(twice)


def test_s20_a_pattern_cannot_be_listed() -> None:
    """`*` in the list is a mistake that stops the server, not a wish."""
    with pytest.raises(Misconfigured):
        Cors(["https://*.example.com"])


OPEN = ("/.well-known/jwks.json", "/.well-known/oauth-authorization-server")
PREFLIGHT = {
    "method": "OPTIONS",
    "access_control_request_method": "GET",
    "access_control_request_headers": "traceparent",
}


@pytest.mark.parametrize("path", OPEN)
def test_s24_keys_and_metadata_are_open_to_any_origin(path: str) -> None:
    """S24: what verifies tokens is public. Any page reads it, without credentials, though no one is listed."""
    assert Cors().headers(request("https://any.example", path, "GET")) == [(b"access-control-allow-origin", b"*")]
    assert Cors().headers(request(None, path, "GET")) == [(b"access-control-allow-origin", b"*")], "a cache keeps it"
    answer = Cors().preflight(request("https://any.example", path, **PREFLIGHT))
    assert answer is not None
    assert (answer.status, dict(answer.headers)) == (
        204,
        {
            b"access-control-allow-origin": b"*",
            b"access-control-allow-methods": b"GET",
            b"access-control-allow-headers": b"*",
            b"access-control-max-age": b"600",
        },
    )
    assert CORS.headers(request("null", path, "GET")) == [(b"vary", b"origin"), (b"access-control-allow-origin", b"*")]
    assert dict(CORS.headers(request(APP, path, "GET")))[b"access-control-allow-origin"] == APP.encode()


@pytest.mark.parametrize("path", ["/.well-known/", "/.well-known/security.txt", "/.well-known/jwks.json/", "/auth/me"])
def test_s24_nothing_else_is_open_to_any_origin(path: str) -> None:
    """S24: the two documents are named one by one."""
    assert Cors().headers(request("https://any.example", path, "GET")) == []
    assert Cors().preflight(request("https://any.example", path, **PREFLIGHT)) is None


def test_s20_further_headers_are_the_operators() -> None:
    """Pages of listed origins may send the headers that are configured, each once, in lower case; other pages none."""
    cors = Cors([APP], headers=["traceparent", "TraceState", "prefer"])
    answer = cors.preflight(request(APP, **PREFLIGHT))
    assert answer is not None
    allowed = dict(answer.headers)[b"access-control-allow-headers"]
    assert allowed == b"authorization, content-type, dpop, prefer, x-csrf-token, traceparent, tracestate"
    refused = cors.preflight(request("https://evil.example", **PREFLIGHT))
    assert refused is not None
    assert (refused.status, refused.headers) == (403, [(b"vary", b"origin")])


@pytest.mark.parametrize("name", ["*", "", "x y", "x:", "x,y", "x\r\ny", "\u00e4", "x" * 65])
def test_s20_a_further_header_is_a_name(name: str) -> None:
    """A pattern stops the server, and so does what would be two headers."""
    with pytest.raises(Misconfigured, match="header"):
        Cors([APP], headers=[name])
