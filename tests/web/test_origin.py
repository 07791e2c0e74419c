"""Cross-site requests: what a browser says of itself decides, and the token where a cookie authenticates."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dutchdoor.errors import Forbidden, Misconfigured
from dutchdoor.web.http import CrossSite, CsrfRefused, listed_origin
from dutchdoor.web.origin import check_csrf, csrf_token, judge, judge_handshake, judge_token_in_body

OWN = "https://auth.example.com"
APP = "https://app.example.com"
EVIL = "https://attacker.example"
LISTED = frozenset({APP, "http://localhost:5173"})

# method, Sec-Fetch-Site, Origin, passes
ROWS = [
    # Sec-Fetch-Site decides where it is sent.
    ("POST", "same-origin", None, True),
    ("POST", "same-origin", OWN, True),
    ("POST", "same-origin", "null", True),  # our own form under Referrer-Policy: no-referrer
    ("POST", "same-origin", "http://localhost:3000", True),  # a development server in front of us changed the Host
    ("POST", "none", None, True),
    ("POST", "none", OWN, True),
    ("POST", "same-site", None, False),
    ("POST", "same-site", OWN, False),
    ("POST", "same-site", "https://forgotten.example.com", False),
    ("POST", "same-site", APP, True),
    ("POST", "same-site", "null", False),
    ("POST", "cross-site", None, False),
    ("POST", "cross-site", OWN, False),
    ("POST", "cross-site", EVIL, False),
    ("POST", "cross-site", APP, True),
    ("POST", "cross-site", "null", False),
    # A value from a later standard, or none at all, is not a yes.
    ("POST", "", None, False),
    ("POST", "", OWN, False),
    ("POST", "Same-Origin", None, False),
    ("POST", "same-origin ", None, False),
    ("POST", "same-origin, cross-site", None, False),
    ("POST", "same-origin,same-origin", None, False),
    ("POST", "some-future-word", None, False),
    ("POST", "null", None, False),
    # Without it, Origin.
    ("POST", None, None, True),  # no browser; a cookie alone does not pass, see the token below
    ("POST", None, OWN, True),
    ("POST", None, APP, True),
    ("POST", None, EVIL, False),
    ("POST", None, "null", False),
    ("POST", None, "", False),
    ("POST", None, "http://auth.example.com", False),  # an attacker on the path can serve this
    ("POST", None, "https://auth.example.com:443", False),  # no browser spells it so
    ("POST", None, "https://auth.example.com:8443", False),
    ("POST", None, "https://auth.example.com/", False),
    ("POST", None, "https://AUTH.example.com", False),
    ("POST", None, "https://auth.example.com.", False),
    ("POST", None, "https://auth.example.com.evil.net", False),
    ("POST", None, "https://auth.example.com@evil.net", False),
    ("POST", None, "https://evilauth.example.com", False),
    ("POST", None, "https://example.com", False),
    ("POST", None, f"{OWN}, {EVIL}", False),
    ("POST", None, f"{EVIL} {OWN}", False),
    ("POST", None, "file://", False),
    ("POST", None, "chrome-extension://abcdef", False),
    ("POST", None, "http://[", False),
    ("POST", None, "*", False),
    ("POST", None, "http://localhost:5173", True),
    ("POST", None, "http://localhost:5174", False),
    # Methods that change nothing pass; all others are unsafe, known or not.
    ("GET", "cross-site", EVIL, True),
    ("HEAD", "cross-site", EVIL, True),
    ("OPTIONS", "cross-site", EVIL, True),
    ("GET", None, "null", True),
    ("PUT", "cross-site", None, False),
    ("PATCH", "cross-site", None, False),
    ("DELETE", "cross-site", None, False),
    ("DELETE", "same-site", None, False),
    ("TRACE", "cross-site", None, False),
    ("CONNECT", "cross-site", None, False),
    ("get", "cross-site", None, False),
    ("QUERY", "cross-site", None, False),
    ("", "cross-site", None, False),
]


@pytest.mark.parametrize(("method", "site", "origin", "passes"), ROWS)
def test_s17_what_browsers_say_decides(method: str, site: str | None, origin: str | None, passes: bool) -> None:
    """Each row: a method, what the browser says of it, and whether it passes."""
    if passes:
        judge(method, sec_fetch_site=site, origin=origin, host_origin=OWN, listed=LISTED)
    else:
        with pytest.raises(CrossSite) as refused:
            judge(method, sec_fetch_site=site, origin=origin, host_origin=OWN, listed=LISTED)
        assert (refused.value.code, isinstance(refused.value, Forbidden)) == ("cross_site", True)


@pytest.mark.parametrize("path", ["/auth/login", "/auth/register", "/auth/logout", "/auth/refresh"])
def test_s18_nothing_is_exempt_by_where_it_goes(path: str) -> None:
    """There is no list of paths that need no proof: the rule does not even see the path (login CSRF)."""
    with pytest.raises(CrossSite):
        judge("POST", sec_fetch_site="cross-site", origin=EVIL, host_origin=OWN, listed=frozenset())


@given(
    st.text(max_size=10).filter(lambda m: m not in {"GET", "HEAD", "OPTIONS"}),
    st.none() | st.sampled_from(["same-site", "cross-site"]) | st.text(max_size=20),
    st.none() | st.sampled_from([OWN, EVIL, "null", "", OWN + ".evil.net", OWN.upper()]) | st.text(max_size=40),
)
def test_s17_an_unsafe_request_passes_for_one_of_four_reasons(
    method: str, site: str | None, origin: str | None
) -> None:
    """Same origin, typed by its user, listed, or no browser: nothing else passes, and only CrossSite is raised."""
    try:
        judge(method, sec_fetch_site=site, origin=origin, host_origin=OWN, listed=LISTED)
        passed = True
    except CrossSite:
        passed = False
    reasons = (site in {"same-origin", "none"}, origin in LISTED, site is None and origin in {None, OWN})
    assert passed == any(reasons)


def test_s17_null_is_refused_even_if_someone_listed_it() -> None:
    """Every sandboxed frame is `null`. The list refuses it, and so does the rule."""
    with pytest.raises(CrossSite):
        judge("POST", sec_fetch_site=None, origin="null", host_origin="null://", listed=frozenset({"null"}))


@pytest.mark.parametrize("site", [None, "same-origin", "same-site", "cross-site", "none"])
@pytest.mark.parametrize("origin", [None, OWN, APP, EVIL, "null"])
def test_s17_a_script_cannot_ask_for_what_the_cookie_hides(site: str | None, origin: str | None) -> None:
    """A browser gets its refresh token in the body only for a listed origin; a program always."""
    if (site, origin) == (None, None) or origin == APP:
        judge_token_in_body(sec_fetch_site=site, origin=origin, listed=LISTED)
    else:
        with pytest.raises(CrossSite):
            judge_token_in_body(sec_fetch_site=site, origin=origin, listed=LISTED)


KEY = bytes(range(32))


def test_s17_the_token_is_bound_to_session_and_key() -> None:
    """One session's token is not another's, and one server's not another's."""
    tokens = {csrf_token(key, sid) for key, sid in itertools.product([KEY, KEY[::-1]], ["a", "b", ""])}
    assert len(tokens) == 6
    assert csrf_token(KEY, "a") == csrf_token(KEY, "a")
    assert {len(t) for t in tokens} == {43}


def test_s17_the_token_is_of_its_own_kind() -> None:
    """The plain HMAC of an id under the same key, wherever it may be shown, is no CSRF token."""
    import base64  # noqa: PLC0415
    import hmac  # noqa: PLC0415

    plain = base64.urlsafe_b64encode(hmac.digest(KEY, b"a", "sha256")).rstrip(b"=").decode()
    with pytest.raises(CsrfRefused):
        check_csrf(KEY, plain, "a")


def test_s17_the_right_token_passes_and_no_other() -> None:
    """Missing, empty, cut, lengthened, in other case, of another session, or no text at all: refused as csrf_token."""
    right = csrf_token(KEY, "session-a")
    check_csrf(KEY, right, "session-a")
    wrong = [
        None,
        "",
        right[:-1],
        right + "A",
        right.swapcase(),
        csrf_token(KEY, "session-b"),
        right + "=",
        " " + right,
        "ä",
        "\ud800",
        "\x00",
        "x" * 100_000,
    ]
    for presented in wrong:
        with pytest.raises(CsrfRefused) as refused:
            check_csrf(KEY, presented, "session-a")
        assert refused.value.code == "csrf_token"


@given(st.text())
def test_s17_any_text_is_refused_as_a_token(text: str) -> None:
    """No text makes the check fail in another way than its own."""
    with pytest.raises(CsrfRefused):
        check_csrf(KEY, text, "session-a")


def test_s17_a_short_key_is_a_mistake() -> None:
    """An empty key would make every token computable by anyone."""
    with pytest.raises(ValueError, match="32"):
        csrf_token(b"short", "a")


@pytest.mark.parametrize(
    "origin",
    [
        "https://example.com",
        "https://example.com:8080",
        "http://localhost",
        "http://localhost:5173",
        "http://127.0.0.1:3000",
        "http://[::1]:3000",
        "https://[2001:db8::1]",
        "https://xn--bcher-kva.example",
    ],
)
def test_s20_an_exact_origin_can_be_listed(origin: str) -> None:
    """What a browser sends is what is written."""
    assert listed_origin(origin) == origin


@pytest.mark.parametrize(
    "origin",
    [
        "",
        "null",
        "*",
        "https://*",
        "https://*.example.com",
        "example.com",
        "//example.com",
        "https://",
        "https:///x",
        "https://example.com/",
        "https://example.com/path",
        "https://example.com?q=v",
        "https://example.com#f",
        "https://ex ample.com",
        "https://user@example.com",
        "https://example.com:443",
        "https://example.com:0",
        "https://example.com:70000",
        "https://example.com:",
        "https://Example.com",
        "HTTPS://example.com",
        "https://example.com.",
        "https://.example.com",
        "https://a..b",
        "https://bücher.example",
        "http://example.com",
        "http://localhost.evil.net",
        "http://127.0.0.1.evil.net",
        "ftp://example.com",
        "file://",
        "https://[::1",
        "https://[2001:DB8::1]",
        "https://[2001:db8:0::1]",
        " https://example.com",
        "https://example.com\n",
        "https://a.example,https://b.example",
    ],
)
def test_s20_what_is_not_exactly_an_origin_cannot_be_listed(origin: str) -> None:
    """Patterns, null, paths, other spellings and plain HTTP are refused when the server starts."""
    with pytest.raises(Misconfigured):
        listed_origin(origin)


@pytest.mark.parametrize(
    ("origin", "by_cookie", "passes"),
    [
        (OWN, True, True),
        (APP, True, True),
        (EVIL, True, False),
        ("null", True, False),
        ("", True, False),
        (OWN.replace("https", "wss"), True, False),
        (f"{OWN}.evil.net", True, False),
        (None, True, False),  # every browser names one
        (None, False, True),  # a program with a token
        (EVIL, False, False),
        (OWN, False, True),
    ],
)
def test_s17_a_handshake_passes_from_our_own_origin(origin: str | None, by_cookie: bool, passes: bool) -> None:
    """A WebSocket handshake passes from our own origin or a listed one; without an origin only if no cookie is its
    proof.
    """
    try:
        judge_handshake(by_cookie=by_cookie, origin=origin, host_origin=OWN, listed=LISTED)
    except CrossSite:
        assert not passes
    else:
        assert passes
