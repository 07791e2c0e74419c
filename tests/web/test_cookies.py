"""Cookies: ours is found exactly, or refused; other people's are left alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dutchdoor.errors import Misconfigured
from dutchdoor.web.cookies import Cookies, Presented
from dutchdoor.web.http import AmbiguousCookie, Request

SECURE, PLAIN = Cookies(secure=True), Cookies(secure=False)
S = "__Host-dd_session"
R = "__Host-dd_refresh"
GOOD = "4fJc0m4mTQmKcF5o0cW3Fw.9k3hFqBqP5hY0v9m1s0W3hYbX2u7QdZr"


def read(line: str, cookies: Cookies = SECURE) -> Presented:
    """What is found in a line. Raises where one of ours is in doubt."""
    found = cookies.present(line.encode("latin-1"))
    if found.doubt is not None:
        raise found.doubt
    return found


@pytest.mark.parametrize(
    "line",
    [
        f"{S}={GOOD}",
        f"{S}={GOOD}; theme=dark",
        f"theme=dark; {S}={GOOD}",
        f"a=1; {S}={GOOD}; b=2",
        f"a=1;{S}={GOOD};b=2",
        f'prefs="light grey"; {S}={GOOD}',
        f'{S}={GOOD}; prefs="light grey"',
        f'{S}={GOOD}; json={{"a":1}}',
        f"{S}={GOOD}; empty=",
        f"{S}={GOOD}; nameless",
        f"{S}={GOOD}; =nameless",
        f"{S}={GOOD}; a=b=c==",
        f"theme={S}; {S}={GOOD}",
        f"{S}={GOOD}; theme={S}",
        f"{S}={GOOD}; theme={S}={GOOD}",
        f"{S}={GOOD}; next=/login?{S}=x",
        f"{S}={GOOD}; copy=a {S}",
        f'{S}={GOOD}; copy={{"{S}":"x"}}',
        f"{S}={GOOD}; {S}2=x; x{S}=x",
        f'prefs="a; {S}={GOOD}',
        f'{S}={GOOD}; prefs="a',
        f'a="; {S}={GOOD}; b="',
        f'a=" ; {S}={GOOD}',
        f'{S}={GOOD}; prefs="',
        f"{S}={GOOD}; $dirty=1",
        f'{S}={GOOD}; long={"x" * 60_000}"',
        f"{S}={GOOD}; b\xe4r=\xff",
        f"{S}={GOOD}; my{S}=not-ours",
        f"dd_session=tossed-by-a-sibling-domain; {S}={GOOD}",
    ],
)
def test_s12_our_cookie_is_found_among_whatever_others_set(line: str) -> None:
    """Other applications' cookies, however odd, do not sign anyone out."""
    assert read(line) == Presented(GOOD, None)


@pytest.mark.parametrize(
    "line",
    [
        *("", "a=1", "nameless", "=x", '"', "$Version=1", "a=1; a=2", ";;;", "\x00", "dd_session=x"),
        *(f"theme={S}", f'theme={S}; prefs="a', f"theme={S}=x", f"seen=a {S}"),
    ],
)
def test_s12_without_our_cookie_nothing_is_refused(line: str) -> None:
    """A visitor without our cookies is anonymous, not in error."""
    assert read(line) == Presented(None, None)


def test_s12_two_session_cookies_are_refused() -> None:
    """The attacker's cookie next to the owner's: neither is believed, in either order, also if they are equal."""
    for line in (f"{S}={GOOD}; {S}=evil", f"{S}=evil; {S}={GOOD}", f"{S}={GOOD}; {S}={GOOD}", f"{S}={GOOD}; a=1; {S}="):
        with pytest.raises(AmbiguousCookie, match="contradict"):
            read(line)


def test_s12_cookies_in_several_headers_are_one_line() -> None:
    """HTTP/2 sends a header for each cookie; two of ours in two headers are two of ours."""
    apart = [(b"cookie", b"a=1"), (b"cookie", f"{S}={GOOD}".encode()), (b"cookie", f"{R}=r".encode())]
    assert SECURE.present(Request("GET", "/", b"", apart, "", "https").cookie()) == Presented(GOOD, "r")
    twice = [*apart, (b"cookie", f"{S}=evil".encode())]
    assert SECURE.present(Request("GET", "/", b"", twice, "", "https").cookie()).doubt


@pytest.mark.parametrize(
    "line",
    [
        f"__host-dd_session={GOOD}",
        f"__HOST-DD_SESSION={GOOD}",
        f"__Host-dd_sessioN={GOOD}",
        f"{S}={GOOD}; __host-dd_session=evil",
        f"__HOST-dd_session=evil; {S}={GOOD}",
    ],
)
def test_s12_a_prefix_in_other_case_is_refused(line: str) -> None:
    """Browsers guard `__Host-`; whether they guard `__host-` depends on their year."""
    with pytest.raises(AmbiguousCookie):
        read(line)


@pytest.mark.parametrize("line", [f"={S}={GOOD}", f"a=1; ={S}={GOOD}", f"{S}={GOOD}; ={S}=evil", f"==; ={S}"])
def test_s12_a_nameless_cookie_that_spells_ours_is_refused(line: str) -> None:
    """A cookie without a name and the value `__Host-dd_session=x` escapes the prefix's rules (RFC 6265bis, 8.8)."""
    with pytest.raises(AmbiguousCookie):
        read(line)


@pytest.mark.parametrize(
    "line",
    [
        f" {S}={GOOD}",
        f"a=1;  {S}={GOOD}",
        f"a=1;\t{S}={GOOD}",
        f"{S} ={GOOD}",
        f"{S}= {GOOD}",
        f"{S}={GOOD} ",
        f"{S}={GOOD} ; a=1",
        f"a=1; {S}\t={GOOD}",
    ],
)
def test_s12_white_space_around_ours_is_refused(line: str) -> None:
    """Some parsers strip it and some do not, so it makes one cookie into two."""
    with pytest.raises(AmbiguousCookie):
        read(line)


@pytest.mark.parametrize(
    "other",
    [
        *("$Version=1", '$Version="1"', "$version=1", "$Path=/", "$Domain=example.com", "$Port"),
        *(f"x=a {S}=evil", f"x=a,{S}=evil", f"x=a, {S} =evil", f'x="{S}=evil"', f'x="a, {S}=evil"', f"x='{S}=evil"),
        *(f'x="b" {S}=evil', f"x\x00{S}=evil", f"x={S}=evil", f"a {S}=evil", f"\xa0{S}=evil", f'"{S}=evil'),
        *(f"\xe2\x80\x80{S}=evil", f"x=\t{S}=evil", f"x=a\x85{S}=evil"),
    ],
)
def test_s12_what_a_sibling_domain_can_set_is_another_cookie(other: str) -> None:
    """A cookie that browsers let every sibling domain set neither becomes ours nor brings ours into doubt: a name of
    RFC 2109, and our name inside another cookie's name or value.
    """
    for line in (f"{other}; {S}={GOOD}", f"{S}={GOOD}; {other}", f"$Version=1; {other}; {S}={GOOD}; $Path=/"):
        assert read(line) == Presented(GOOD, None)
    assert read(other) == Presented(None, None)
    sandwich = f'$Version=1; a="; {S}={GOOD}; b="'
    assert read(sandwich) == Presented(GOOD, None)


@pytest.mark.parametrize(
    "line",
    [
        f"{S}=",
        f"{S}",
        f"{S};a=1",
        f"{S}=a b",
        f"{S}=a,b",
        f"{S}=a%20b",
        f"{S}=a\\b",
        f"{S}=a=b",
        f"{S}=a\x00b",
        f"{S}=a\x7fb",
        f"{S}=a\rb",
        f"{S}=\xe4",
        f"{S}={'a' * 513}",
        f"{S}={GOOD}, {S}={GOOD}",
        f'{S}="{GOOD}"',
        f'{S}="{GOOD}',
    ],
)
def test_s12_what_we_never_set_is_refused(line: str) -> None:
    """Control characters, commas, quotes, escapes, emptiness and length: our cookies hold none of it."""
    with pytest.raises(AmbiguousCookie):
        read(line)


def test_s12_the_refresh_cookie_is_as_strict() -> None:
    """What holds for one cookie holds for the other, also when the first one is in order."""
    assert read(f"{S}={GOOD}; {R}=ddr1_abc-_") == Presented(GOOD, "ddr1_abc-_")
    with pytest.raises(AmbiguousCookie):
        read(f"{S}={GOOD}; {R}=a; {R}=b")
    assert SECURE.session.find(f"{S}={GOOD}; {R}=a; {R}=b".encode()) == GOOD


def test_s12_a_mark_in_doubt_is_no_mark() -> None:
    """The mark only raises a limit, so two of them do not stop a sign-in."""
    assert SECURE.mark.value(b"__Host-dd_mark=abc") == "abc"
    assert SECURE.mark.value(b"__Host-dd_mark=abc; __Host-dd_mark=abd") == ""
    assert SECURE.mark.value(b"") == ""


def test_s12_a_visitors_cookie_in_doubt_is_no_visitors() -> None:
    """Two of them name no one's data, and stop no request."""
    assert SECURE.visitor.value(b"__Host-dd_visitor=abc") == "abc"
    assert SECURE.visitor.value(b"__Host-dd_visitor=abc; __Host-dd_visitor=abd") == ""
    assert SECURE.visitor.value(b"dd_visitor=abc") == "", "a sibling domain can set it"


def test_s12_on_plain_loopback_the_prefixed_cookie_is_not_ours() -> None:
    """A browser that met localhost over TLS before sends both; only the one of this transport is read."""
    assert PLAIN.present(f"{S}=other; dd_session={GOOD}".encode()) == Presented(GOOD, None)
    assert PLAIN.present(f"{S}=other".encode()) == Presented(None, None)
    with pytest.raises(AmbiguousCookie):
        read(f"DD_SESSION=x; dd_session={GOOD}", PLAIN)


def test_s12_one_in_doubt_leaves_the_other() -> None:
    """A cookie that is in doubt is cleared, by its own attributes; the other one of ours is found."""
    found = SECURE.present(f'{S}="{GOOD}"; {R}=ddr1_abc'.encode())
    assert (found.session, found.refresh, found.clearing) == (None, "ddr1_abc", (SECURE.session.cleared,))
    found = SECURE.present(f"{S}={GOOD}; {R}=".encode())
    assert (found.session, found.refresh, found.clearing) == (GOOD, None, (SECURE.refresh.cleared,))
    assert SECURE.present(f"{S}={GOOD}; {R}=r".encode()).clearing == ()


def test_s11_a_prefix_keeps_two_applications_apart() -> None:
    """Servers on one host name, whose browser sends all cookies to each port, read their own alone."""
    shop, blog = Cookies(secure=False, prefix="shop_"), Cookies(secure=False, prefix="my-dd_")
    line = f"dd_session={GOOD}; shop_session=s; shop_refresh=r; my-dd_session=b"
    assert read(line, shop) == Presented("s", "r")
    assert read(line, blog) == Presented("b", None)
    assert read(line, PLAIN) == Presented(GOOD, None)
    assert parts(Cookies(secure=True, prefix="shop_").session.set(GOOD, max_age=60))[0] == "__Host-shop_session"
    for wrong in ("", "__Host-", "Shop_", "1_", "a b", "a=", "a;", "ä", "a" * 33):
        with pytest.raises(Misconfigured, match="prefix"):
            Cookies(secure=True, prefix=wrong)


pieces = st.sampled_from(
    [
        S,
        S.lower(),
        S.upper(),
        R,
        "dd_session",
        "$Path",
        "=",
        "=",
        ";",
        "; ",
        " ",
        '"',
        ",",
        "$Version",
        "$",
        "a",
        GOOD,
        "\t",
        "\x00",
        "\xff",
        "\\",
    ]
)
lines = st.lists(pieces, max_size=16).map("".join).map(lambda s: s.encode("latin-1")) | st.binary(max_size=200)


@given(lines)
def test_s12_any_line_gives_a_cookie_or_our_refusal(line: bytes) -> None:
    """Whatever is sent: no exception but ours, and a value only where strict and lenient readings of RFC 6265 agree."""
    presented = SECURE.present(line)
    if presented.doubt is not None:
        return
    found = presented.session
    if found is None:
        assert not any(p.strip(b" \t").startswith(f"{S}=".encode()) for p in line.split(b";"))
        return
    text = line.decode("latin-1")
    exact = [p for p in text.replace("; ", ";").split(";") if p == f"{S}={found}"]
    lenient = [
        p.partition("=")[2].strip(" \t")
        for p in text.split(";")
        if p.partition("=")[0].strip(" \t").lower() == S.lower()
    ]
    assert (len(exact), lenient) == (1, [found])


@given(lines)
def test_s12_the_quick_reading_and_the_thorough_one_agree(line: bytes) -> None:
    """Speed decides nothing: the short cut finds what the full search finds."""
    kind = SECURE.session
    if kind._lower not in line.lower():
        assert kind.find(line) is None
        return
    results = []
    for way in (kind.find, kind._search):
        try:
            results.append(way(line))
        except AmbiguousCookie:
            results.append("refused")
    assert results[0] == results[1]


def parts(header: tuple[bytes, bytes]) -> tuple[str, str, dict[str, str]]:
    assert header[0] == b"set-cookie"
    first, *rest = header[1].decode("ascii").split("; ")
    name, _, value = first.partition("=")
    return name, value, {p.partition("=")[0].lower(): p.partition("=")[2] for p in rest}


@pytest.mark.parametrize(
    ("which", "same_site"), [("session", "Lax"), ("visitor", "Lax"), ("refresh", "Strict"), ("mark", "Strict")]
)
def test_s11_over_tls_every_cookie_is_host_bound(which: str, same_site: str) -> None:
    """`__Host-`, Secure, HttpOnly, Path=/, no Domain, SameSite, under 4,096 bytes."""
    header = getattr(SECURE, which).set(GOOD, max_age=3600.9)
    name, value, attributes = parts(header)
    assert (name, value) == (f"__Host-dd_{which}", GOOD)
    assert attributes == {"path": "/", "httponly": "", "secure": "", "samesite": same_site, "max-age": "3600"}
    assert len(getattr(SECURE, which).set("a" * 512, max_age=1e9)[1]) < 4096


def test_s11_setting_never_clears() -> None:
    """A session in its last second is set for a second: Max-Age=0 would delete it."""
    assert parts(SECURE.session.set(GOOD, max_age=0.3))[2]["max-age"] == "1"


def test_s11_on_plain_loopback_only_secure_and_the_prefix_go() -> None:
    """Without TLS the cookie still is HttpOnly, for this path and SameSite."""
    name, _, attributes = parts(PLAIN.session.set(GOOD, max_age=60))
    assert (name, attributes) == ("dd_session", {"path": "/", "httponly": "", "samesite": "Lax", "max-age": "60"})


@pytest.mark.parametrize("cookies", [SECURE, PLAIN])
@pytest.mark.parametrize("which", ["session", "refresh", "visitor"])
def test_s06_clearing_names_the_same_attributes(cookies: Cookies, which: str) -> None:
    """A browser keeps a cookie that is cleared with other attributes than it was set with."""
    set_name, _, was = parts(getattr(cookies, which).set(GOOD, max_age=60))
    name, value, now = parts(getattr(cookies, which).cleared)
    assert (name, value, now.pop("max-age"), now.pop("expires")) == (set_name, "", "0", "Thu, 01 Jan 1970 00:00:00 GMT")
    was.pop("max-age")
    assert now == was


@pytest.mark.parametrize("value", ["", "a b", "a;b", "a\r\nSet-Cookie: x=y", '"a"', "ä", "a" * 513, "a,b", "a=b"])
def test_s11_no_value_can_add_an_attribute(value: str) -> None:
    """A value that is not ours is a mistake in our code and never reaches the wire."""
    with pytest.raises(ValueError):  # noqa: PT011
        SECURE.session.set(value, max_age=60)


def test_s11_what_we_set_we_read() -> None:
    """Every value that may be set is found again."""
    _, value, _ = parts(SECURE.session.set(GOOD, max_age=60))
    assert read(f"{S}={value}") == Presented(GOOD, None)
