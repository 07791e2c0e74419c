"""Security headers: on every answer, each kind with its own."""

from __future__ import annotations

import itertools

import pytest

from dutchdoor import Auth
from dutchdoor.model.master_key import MasterKey, MasterKeys
from dutchdoor.web.headers import CLEAR_SITE_DATA, Hsts, SecurityHeaders
from dutchdoor.web.http import Request, Response, json_response
from dutchdoor.web.phases import Phases

KINDS = ("api", "page", "public")


def finished(kind: str = "api", *, hsts: Hsts = "host", status: int = 200) -> dict[bytes, bytes]:
    headers = SecurityHeaders(hsts=hsts).finish(Response(status, [], b"abc", kind=kind))  # type: ignore[arg-type]
    assert len(dict(headers)) == len(headers)
    return dict(headers)


def policy(kind: str) -> dict[str, str]:
    return {
        p.partition(" ")[0]: p.partition(" ")[2]
        for p in finished(kind)[b"content-security-policy"].decode().split("; ")
    }


@pytest.mark.parametrize("kind", KINDS)
def test_s21_every_answer_carries_them(kind: str) -> None:
    """nosniff, a year of HSTS, a referrer policy, a content policy that closes base, object, frames and the rest."""
    headers = finished(kind)
    assert headers[b"x-content-type-options"] == b"nosniff"
    assert headers[b"strict-transport-security"] == b"max-age=31536000"
    assert headers[b"referrer-policy"] in {b"no-referrer", b"same-origin"}
    closed = ("default-src", "base-uri", "object-src", "frame-ancestors")
    assert [policy(kind)[name] for name in closed] == ["'none'"] * 4


@pytest.mark.parametrize("kind", KINDS)
def test_s21_hsts_only_where_the_public_url_is_https(kind: str) -> None:
    """On plain loopback it would lock a developer's browser out of localhost."""
    assert b"strict-transport-security" not in finished(kind, hsts="off")


async def test_s21_hsts_covers_subdomains_only_on_request() -> None:
    """HSTS covers the host alone, its subdomains where the administrator asks, and is not sent where a proxy sends it
    or where the public URL is not https.
    """
    for url, options, sent in (
        ("https://auth.example.com", {}, "max-age=31536000"),
        ("https://auth.example.com", {"hsts": "subdomains"}, "max-age=31536000; includeSubDomains"),
        ("https://auth.example.com", {"hsts": "off"}, None),
        ("http://localhost:8000", {"hsts": "subdomains"}, None),
    ):
        auth = Auth("memory:", master_key=MasterKeys.parse(MasterKey.generate().text()), public_url=url, **options)
        headers = dict(Phases(auth.api).finish(Request("GET", "/", b"", [], "", "https"), Response(200)))
        assert headers.get(b"strict-transport-security") == (sent and sent.encode())


def test_s21_pages_run_only_what_we_ship() -> None:
    """No inline script or style, no eval, no foreign origin, no nonce; Trusted Types with no policy allowed."""
    rules = policy("page")
    assert (rules["script-src"], rules["style-src"]) == ("'self'", "'self'")
    assert (rules["require-trusted-types-for"], rules["trusted-types"]) == ("'script'", "'none'")
    words = set(itertools.chain.from_iterable(value.split() for value in rules.values()))
    assert words == {"'none'", "'self'", "'script'", "data:"}
    assert [name for name, value in rules.items() if "data:" in value] == ["img-src"]
    assert finished("page")[b"cross-origin-opener-policy"] == b"same-origin"


def test_s17_a_page_lets_its_forms_name_their_origin() -> None:
    """Under no-referrer a browser sends `Origin: null` with our own forms, and older ones have nothing else to show."""
    assert finished("page")[b"referrer-policy"] == b"same-origin"


def test_s14_nothing_is_stored_unless_it_says_public() -> None:
    """no-store is the default, not a decision of each endpoint."""
    assert finished("api")[b"cache-control"] == finished("page")[b"cache-control"] == b"no-store"
    assert b"cache-control" not in finished("public")
    assert json_response(200, {"access_token": "x"}).kind == "api"


def test_s21_other_sites_load_only_what_is_public() -> None:
    """An answer is no image and no script for another site's page."""
    assert [finished(kind)[b"cross-origin-resource-policy"] for kind in KINDS] == [
        b"same-origin",
        b"same-origin",
        b"cross-origin",
    ]


def test_every_body_has_its_length() -> None:
    """And an answer that can have no body has none."""
    assert finished()[b"content-length"] == b"3"
    assert b"content-length" not in finished(status=204)
    assert b"content-length" not in finished(status=304)


def test_answers_do_not_share_their_headers() -> None:
    """What one answer adds, the next does not carry: a cookie would be everyone's."""
    security = SecurityHeaders(hsts="host")
    first = security.finish(Response(200, [(b"set-cookie", b"a=1")]))
    first.append((b"x", b"y"))
    assert b"set-cookie" not in dict(security.finish(Response(200)))
    assert b"x" not in dict(security.finish(Response(200)))


def test_s06_log_out_clears_what_the_browser_kept_but_not_others_cookies() -> None:
    """`"cookies"` would take every cookie of the registrable domain with it."""
    assert CLEAR_SITE_DATA == (b"clear-site-data", b'"cache", "storage"')
