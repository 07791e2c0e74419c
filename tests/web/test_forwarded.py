"""Client, scheme and host: a header is a claim, and believed only from a proxy that the operator named."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dutchdoor.errors import Misconfigured
from dutchdoor.model.http_client import network_of
from dutchdoor.web.forwarded import FORWARDING, Edge
from dutchdoor.web.http import BadRequest, Request, canonical_host, is_loopback

PUBLIC = "https://auth.example.com"
DEV = Edge()
DIRECT = Edge(public_url=PUBLIC)
BEHIND = Edge(
    public_url=PUBLIC,
    hosts=["app.example.com", "alt.example.com:8443"],
    proxies=["10.0.0.1", "10.1.0.0/16", "2001:db8:a::/48"],
)


def request(
    *headers: tuple[str, str], peer: str = "10.0.0.1", host: str | None = "auth.example.com", scheme: str = "http"
) -> Request:
    sent = [] if host is None else [(b"host", host.encode("latin-1"))]
    sent += [(name.encode(), value.encode("latin-1")) for name, value in headers]
    return Request("POST", "/auth/login", b"", sent, peer, scheme)


def admitted(edge: Edge, *headers: tuple[str, str], **more: str | None) -> tuple[str, str]:
    made = request(*headers, **more)  # type: ignore[arg-type]
    edge.admit(made)
    return made.client, made.origin


# --- development setting ---


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("localhost:8000", "http://localhost:8000"),
        ("LOCALHOST:8000", "http://localhost:8000"),
        ("localhost", "http://localhost"),
        ("localhost:80", "http://localhost"),
        ("localhost.:8000", "http://localhost:8000"),
        ("127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("127.9.9.9", "http://127.9.9.9"),
        ("[::1]:8000", "http://[::1]:8000"),
        ("[0:0:0:0:0:0:0:1]", "http://[::1]"),
    ],
)
def test_s22_the_development_setting_serves_this_machine(host: str, origin: str) -> None:
    """Loopback by any of its names, from loopback."""
    assert admitted(DEV, peer="127.0.0.1", host=host) == ("127.0.0.1", origin)
    assert admitted(DEV, peer="::1", host=host) == ("::1", origin)


@pytest.mark.parametrize("name", sorted(FORWARDING))
def test_s22_without_a_public_url_any_trace_of_a_proxy_is_refused(name: bytes) -> None:
    """Behind nginx, "loopback" is everyone. The refusal names the setting that is missing."""
    with pytest.raises(BadRequest, match="--public-url") as refused:
        admitted(DEV, (name.decode(), "127.0.0.1"), peer="127.0.0.1", host="localhost:8000")
    assert refused.value.code == "proxy_not_configured"


@pytest.mark.parametrize(
    "host",
    [
        None,
        "",
        "evil.example",
        "auth.example.com",
        "localhost.evil.net",
        "127.0.0.1.evil.net",
        "a.localhost",
        "10.0.0.1",
        "0.0.0.0",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "127.0.0.01",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::1",
        "::1",
        "localhost:",
        "localhost:99999",
        "localhost:0",
        "localhost:08",
        "localhost:8000:1",
        "localhost..",
        "user@localhost",
        "localhost/",
        "localhost#",
        "local\x00host",
        "localhost evil",
        "localhost,evil",
        "loc\u00e4lhost",
        "[fe80::1%lo]",
    ],
)
def test_s22_without_a_public_url_any_other_host_is_refused(host: str | None) -> None:
    """A page on the Internet that points its own name here (DNS rebinding) fails on the Host."""
    with pytest.raises(BadRequest, match="--public-url") as refused:
        admitted(DEV, peer="127.0.0.1", host=host)
    assert refused.value.code == "unknown_host"


@pytest.mark.parametrize("peer", ["", "10.0.0.5", "203.0.113.7", "::2", "not-an-address", "127.0.0.1.evil"])
def test_s22_without_a_public_url_any_other_machine_is_refused(peer: str) -> None:
    """A Unix socket or another address means that something else stands in front of us."""
    with pytest.raises(BadRequest, match="--public-url"):
        admitted(DEV, peer=peer, host="localhost:8000")


# --- not from a proxy of ours ---

SPOOFS = [
    ("x-forwarded-for", "6.6.6.6"),
    ("x-forwarded-for", "127.0.0.1"),
    ("x-forwarded-for", "10.0.0.1"),
    ("x-real-ip", "6.6.6.6"),
    ("forwarded", "for=6.6.6.6;host=evil.example;proto=http"),
    ("x-forwarded-proto", "http"),
    ("x-forwarded-host", "evil.example"),
    ("x-forwarded-host", "app.example.com"),
    ("x-forwarded-for", "\xff garbage \x00"),
    ("forwarded", 'for="unclosed'),
]


@pytest.mark.parametrize("header", SPOOFS)
@pytest.mark.parametrize("edge", [DIRECT, BEHIND])
@pytest.mark.parametrize("peer", ["203.0.113.7", "127.0.0.1", "10.0.0.2", "10.2.0.1"])
def test_s22_spoofed_headers_change_nothing(edge: Edge, header: tuple[str, str], peer: str) -> None:
    """From anyone who is not a configured proxy, loopback and neighbours included, they are as if not sent."""
    assert admitted(edge, header, peer=peer) == (peer, PUBLIC)


# --- from a proxy of ours ---


@pytest.mark.parametrize(
    ("headers", "client"),
    [
        ([("x-forwarded-for", "203.0.113.7")], "203.0.113.7"),
        ([("x-forwarded-for", "6.6.6.6, 203.0.113.7")], "203.0.113.7"),
        ([("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", "203.0.113.7")], "203.0.113.7"),
        ([("x-forwarded-for", "6.6.6.6, 203.0.113.7, 10.1.2.3")], "203.0.113.7"),
        ([("x-forwarded-for", "6.6.6.6,203.0.113.7,10.1.2.3,10.0.0.1")], "203.0.113.7"),
        ([("x-forwarded-for", "garbage, 203.0.113.7")], "203.0.113.7"),
        ([("x-forwarded-for", ", 203.0.113.7")], "203.0.113.7"),
        ([("x-forwarded-for", "203.0.113.7:51234")], "203.0.113.7"),
        ([("x-forwarded-for", "[2001:db8::7]:51234")], "2001:db8::7"),
        ([("x-forwarded-for", "2001:DB8:0::7")], "2001:db8::7"),
        ([("x-forwarded-for", "::ffff:203.0.113.7")], "203.0.113.7"),
        ([("x-forwarded-for", "6.6.6.6, 2001:db8:a:1::2")], "6.6.6.6"),
        ([("x-forwarded-for", "10.1.2.3, 10.1.2.4")], "10.1.2.3"),
        ([("x-forwarded-for", "203.0.113.7, ::ffff:10.1.2.3")], "203.0.113.7"),
        ([("x-real-ip", "203.0.113.7")], "203.0.113.7"),
        ([("x-real-ip", " 203.0.113.7 ")], "203.0.113.7"),
        ([("x-real-ip", "203.0.113.7"), ("x-forwarded-for", "6.6.6.6, 203.0.113.7")], "203.0.113.7"),
        ([("x-real-ip", "10.1.2.3"), ("x-forwarded-for", "203.0.113.7, 10.1.2.3")], "203.0.113.7"),
        ([("forwarded", "for=203.0.113.7")], "203.0.113.7"),
        ([("forwarded", "for=6.6.6.6, for=203.0.113.7;by=10.0.0.1")], "203.0.113.7"),
        ([("forwarded", "for=_secret, for=203.0.113.7")], "203.0.113.7"),
        ([("forwarded", 'For="[2001:db8:cafe::17]:4711"')], "2001:db8:cafe::17"),
        ([("forwarded", 'for="203.0.113.7:80";proto=https , for=10.1.0.9')], "203.0.113.7"),
        ([("forwarded", 'for=6.6.6.6;x="a,b;c=\\"d\\""'), ("forwarded", "for=203.0.113.7")], "203.0.113.7"),
        ([("forwarded", "for=203.0.113.7"), ("x-forwarded-for", "203.0.113.7")], "203.0.113.7"),
        ([("forwarded", "proto=https"), ("x-forwarded-for", "203.0.113.7")], "203.0.113.7"),
        ([("via", "1.1 caddy")], "10.0.0.1"),
        ([], "10.0.0.1"),
    ],
)
def test_s22_the_right_most_hop_that_is_not_ours_is_the_client(headers: list[tuple[str, str]], client: str) -> None:
    """What stands left of it was written by the client and may say anything."""
    assert admitted(BEHIND, *headers) == (client, PUBLIC)


@pytest.mark.parametrize(
    ("headers", "client"),
    [
        # An empty element of a list is none (RFC 9110, 5.6.1).
        ([("x-forwarded-for", "203.0.113.7,")], "203.0.113.7"),
        ([("x-forwarded-for", "6.6.6.6,, 203.0.113.7 , ,\t")], "203.0.113.7"),
        ([("x-forwarded-for", "203.0.113.7"), ("x-forwarded-for", "")], "203.0.113.7"),
        ([("x-forwarded-for", ",")], "10.0.0.1"),
        ([("x-real-ip", ",203.0.113.7,")], "203.0.113.7"),
        ([("forwarded", "for=203.0.113.7;")], "203.0.113.7"),
        ([("forwarded", ",for=6.6.6.6,,;for=203.0.113.7;;proto=https , ;")], "203.0.113.7"),
        ([("forwarded", ",")], "10.0.0.1"),
        ([("x-forwarded-proto", "http, https,"), ("x-forwarded-host", "evil.example, auth.example.com, ")], "10.0.0.1"),
        # A zone names a link of the proxy's machine (RFC 4007), and is no part of the address.
        ([("x-forwarded-for", "fe80::1%eth0")], "fe80::1"),
        ([("x-forwarded-for", "6.6.6.6, [fe80::1%25eth0]:4711")], "fe80::1"),
        ([("x-real-ip", "fe80::1%wlan-0.1")], "fe80::1"),
        ([("forwarded", 'for="[fe80::1%25eth0]"')], "fe80::1"),
        ([("forwarded", 'for="[fe80::1%eth0]:80"'), ("x-forwarded-for", "fe80::1%2")], "fe80::1"),
    ],
)
def test_p21_empty_elements_and_zones_are_read_over(headers: list[tuple[str, str]], client: str) -> None:
    """P21: proxies leave commas and zones behind. Neither is a hop, and neither gets an honest request refused."""
    assert admitted(BEHIND, *headers) == (client, PUBLIC)


@pytest.mark.parametrize(
    "headers",
    [
        # A proxy that writes one header and passes another through unread.
        [("x-forwarded-for", "6.6.6.6"), ("x-real-ip", "203.0.113.7")],
        [("x-forwarded-for", "203.0.113.7"), ("forwarded", "for=6.6.6.6")],
        [("x-forwarded-for", "203.0.113.7"), ("x-real-ip", "6.6.6.6"), ("forwarded", "for=203.0.113.7")],
        [("x-real-ip", "203.0.113.7"), ("forwarded", "for=6.6.6.6")],
        [("x-real-ip", "6.6.6.6"), ("x-real-ip", "203.0.113.7")],
        [("x-forwarded-proto", "https"), ("forwarded", "proto=http;for=6.6.6.6")],
        [("x-forwarded-host", "auth.example.com"), ("forwarded", "host=app.example.com;for=6.6.6.6")],
        # No address where one is needed.
        [("x-forwarded-for", "unknown")],
        [("x-forwarded-for", "_hidden")],
        [("x-forwarded-for", "203.0.113.7 6.6.6.6")],
        [("x-forwarded-for", "203.0.113.256")],
        [("x-forwarded-for", "203.0.113.07")],
        [("x-forwarded-for", "3405803783")],
        [("x-forwarded-for", "203.0.113.7%eth0")],
        [("x-forwarded-for", "fe80::1%")],
        [("x-forwarded-for", "fe80::1%eth0/..")],
        [("x-forwarded-for", "fe80::1%" + "a" * 40)],
        [("x-real-ip", ",")],
        [("x-forwarded-for", "unknown, 10.1.2.3")],
        [("x-forwarded-for", "203.0.113.7\x00")],
        [("x-real-ip", "")],
        [("x-real-ip", "evil")],
        # Bounds.
        [("x-forwarded-for", "1.1.1.1," * 33 + "203.0.113.7")],
        [("x-forwarded-for", "1" * 3000)],
        [("forwarded", "for=1.1.1.1," * 33 + "for=203.0.113.7")],
        [("forwarded", "a=" + "1" * 3000)],
        # RFC 7239 that does not read to its end: a quote the client opened and the proxy's addition closed.
        [("forwarded", 'for="evil, for=203.0.113.7')],
        [("forwarded", 'for=x;a=", for=203.0.113.7;b="')],
        [("forwarded", "for=6.6.6.6;for=203.0.113.7")],
        [("forwarded", "for")],
        [("forwarded", "for = 203.0.113.7")],
        [("forwarded", "for=unknown")],
        [("forwarded", "for=6.6.6.6, proto=https")],
        # Schemes.
        [("x-forwarded-proto", "gopher")],
        [("x-forwarded-proto", "https, ws")],
    ],
)
def test_s22_a_proxy_that_contradicts_itself_is_refused(headers: list[tuple[str, str]]) -> None:
    """Rather no answer than a wrong address in a limit and in the audit log. The refusal says what to fix."""
    with pytest.raises(BadRequest) as refused:
        admitted(BEHIND, *headers)
    assert refused.value.code == "forwarding_headers"
    assert "overwrite every forwarding header" in str(refused.value)


@pytest.mark.parametrize(
    ("headers", "host", "origin"),
    [
        ([("x-forwarded-host", "app.example.com")], "127.0.0.1:8000", "https://app.example.com"),
        ([("x-forwarded-host", "App.Example.Com.:443")], "127.0.0.1:8000", "https://app.example.com"),
        ([("x-forwarded-host", "evil.example, app.example.com")], "127.0.0.1:8000", "https://app.example.com"),
        ([("forwarded", "for=203.0.113.7;host=app.example.com")], "127.0.0.1:8000", "https://app.example.com"),
        ([("forwarded", 'for=203.0.113.7;host="alt.example.com:8443"')], "x", "https://alt.example.com:8443"),
        ([("x-forwarded-proto", "HTTPS")], "auth.example.com", PUBLIC),
        ([("x-forwarded-proto", "http, https")], "auth.example.com", PUBLIC),
        ([], "AUTH.example.com.", PUBLIC),
        ([], "auth.example.com:443", PUBLIC),
    ],
)
def test_s22_the_proxys_host_and_scheme_are_believed_within_the_list(
    headers: list[tuple[str, str]], host: str, origin: str
) -> None:
    """The nearest proxy's word, in any spelling of a listed host."""
    assert admitted(BEHIND, *headers, host=host)[1] == origin


@pytest.mark.parametrize(
    "host",
    [
        None,
        "",
        "evil.example",
        "auth.example.com.evil.net",
        "evilauth.example.com",
        "example.com",
        "auth.example.com:80",
        "auth.example.com:8443",
        "auth.example.com:443:443",
        "alt.example.com",
        "auth.example.com, evil.example",
        "evil.example auth.example.com",
        "auth.example.com/evil",
        "user@auth.example.com",
        "auth.example.com..",
        ".auth.example.com",
        "auth..example.com",
        "auth.example.com\x00",
        "127.0.0.1:8000",
        "localhost",
        "[::1]",
    ],
)
@pytest.mark.parametrize("edge", [DIRECT, BEHIND])
def test_c16_a_host_that_is_not_listed_is_refused(edge: Edge, host: str | None) -> None:
    """Links in mails and the issuer of tokens hang on it; a poisoned Host gets no answer at all."""
    with pytest.raises(BadRequest) as refused:
        admitted(edge, host=host)
    assert refused.value.code == "unknown_host"
    if edge is BEHIND and host:
        with pytest.raises(BadRequest):
            admitted(edge, ("x-forwarded-host", host))


def test_s22_two_host_headers_are_refused() -> None:
    """The proxy would route by one, and we would answer for the other."""
    with pytest.raises(BadRequest) as refused:
        admitted(BEHIND, ("host", "auth.example.com"))
    assert refused.value.code == "repeated_header"


def test_s22_plain_http_through_the_proxy_is_refused() -> None:
    """A password that already crossed the network in the clear is not a reason to answer."""
    with pytest.raises(BadRequest) as refused:
        admitted(BEHIND, ("x-forwarded-proto", "http"))
    assert refused.value.code == "https_required"


def test_s22_only_a_configured_proxy_may_say_more() -> None:
    """What `/auth/check` believes of the original request hangs on this."""
    peers = [
        "10.0.0.1",
        "::ffff:10.0.0.1",
        "10.1.255.255",
        "2001:db8:a::9",
        "10.0.0.2",
        "127.0.0.1",
        "",
        "2001:db8:b::9",
    ]
    assert [BEHIND.came_through_proxy(request(peer=p)) for p in peers] == [True] * 4 + [False] * 4
    assert not any(edge.came_through_proxy(request(peer="127.0.0.1")) for edge in (DEV, DIRECT))


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                ["x-forwarded-for", "x-real-ip", "forwarded", "x-forwarded-proto", "x-forwarded-host", "host"]
            ),
            st.text(alphabet=st.characters(max_codepoint=255), max_size=60)
            | st.lists(
                st.sampled_from(
                    [
                        "for=",
                        "host=",
                        "proto=",
                        "203.0.113.7",
                        "10.1.2.3",
                        "https",
                        '"',
                        ",",
                        ";",
                        "[",
                        "]",
                        ":",
                        "::1",
                        " ",
                        "\\",
                        "auth.example.com",
                    ]
                ),
                max_size=12,
            ).map("".join),
        ),
        max_size=5,
    ),
    st.sampled_from(["10.0.0.1", "203.0.113.9", "", "127.0.0.1"]),
)
def test_s22_any_claim_gives_an_address_or_our_refusal(headers: list[tuple[str, str]], peer: str) -> None:
    """Whatever is sent: no exception but ours, an origin from the list, and an address in its one spelling."""
    for edge in (BEHIND, DIRECT, DEV):
        try:
            client, origin = admitted(edge, *headers, peer=peer)
        except BadRequest:
            continue
        assert client == "" or network_of(client) != ""
        assert origin in {PUBLIC, "https://app.example.com", "https://alt.example.com:8443"}
        if edge is DIRECT:
            assert client == peer


@given(
    st.lists(st.sampled_from(["6.6.6.6", "10.1.2.3", "evil", "_x", "unknown", "10.0.0.1", "203.0.113.9"]), max_size=5)
)
def test_s22_a_client_cannot_move_its_address_by_what_it_sends(claimed: list[str]) -> None:
    """A proxy that appends the address it saw: whatever the client put before it, that address is the client."""
    line = ", ".join([*claimed, "203.0.113.7"])
    assert admitted(BEHIND, ("x-forwarded-for", line))[0] == "203.0.113.7"


def test_s22_a_long_claim_is_judged_but_not_kept() -> None:
    """Claims are remembered to save time; long ones would let a client fill the memory."""
    edge = Edge(public_url=PUBLIC, proxies=["10.0.0.1"])
    line = "1.1.1.1," * 30 + "203.0.113.7"
    assert admitted(edge, ("x-forwarded-for", line))[0] == "203.0.113.7"
    assert edge._judged.cache_info().currsize == 0
    admitted(edge, ("x-forwarded-for", "203.0.113.7"))
    assert edge._judged.cache_info().currsize == 1


# --- settings ---


@pytest.mark.parametrize(
    ("url", "origin", "secure"),
    [
        ("https://auth.example.com", "https://auth.example.com", True),
        ("https://Auth.Example.com:443/", "https://auth.example.com", True),
        ("https://auth.example.com:8443", "https://auth.example.com:8443", True),
        ("http://localhost:8000", "http://localhost:8000", False),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000", False),
    ],
)
def test_s22_the_public_url_decides_origin_and_security(url: str, origin: str, secure: bool) -> None:
    """One setting; the rest is derived."""
    edge = Edge(public_url=url)
    assert (edge.public_origin, edge.secure, edge.development) == (origin, secure, False)
    assert (DEV.public_origin, DEV.secure, DEV.development) == (None, False, True)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "auth.example.com",
        "http://auth.example.com",
        "ftp://auth.example.com",
        "https://",
        "https://u:p@auth.example.com",
        "https://auth.example.com?x=1",
        "https://auth.example.com#x",
        "https://auth.example.com/base",
        "https://auth.example.com:99999",
        "https://b\u00fccher.example",
        "https://[::1",
        "https://*.example.com",
        "http://0.0.0.0:8000",
        "http://a.localhost",
    ],
)
def test_p09_a_public_url_that_is_not_one_stops_the_server(url: str) -> None:
    """Plain HTTP off loopback above all."""
    with pytest.raises(Misconfigured, match=r"^public_url"):
        Edge(public_url=url)


@pytest.mark.parametrize("proxy", ["", "nginx", "10.0.0.1/8", "0.0.0.0/0", "::/0", "10.0.0.256", "*", "10.0.0.1:80"])
def test_s22_a_proxy_is_named_by_address(proxy: str) -> None:
    """Names resolve differently from day to day, and everyone is no proxy."""
    with pytest.raises(Misconfigured):
        Edge(public_url=PUBLIC, proxies=[proxy])


def test_s22_hosts_and_proxies_need_a_public_url() -> None:
    """In the development setting they would silently mean nothing."""
    for more in ({"hosts": ["a.example"]}, {"proxies": ["10.0.0.1"]}):
        with pytest.raises(Misconfigured, match="public_url"):
            Edge(**more)
    with pytest.raises(Misconfigured, match="not a host"):
        Edge(public_url=PUBLIC, hosts=["https://a.example"])


@given(st.text(max_size=40), st.sampled_from(["http", "https", "x"]))
def test_s22_a_canonical_host_is_its_own_spelling(host: str, scheme: str) -> None:
    """Spelling it twice changes nothing, and what is no host is ""."""
    once = canonical_host(host, scheme)
    assert canonical_host(once, scheme) == once
    assert is_loopback(once) in {True, False}
    assert once == once.lower()


@given(st.ip_addresses(v=6))
def test_s22_ipv6_hosts_have_one_spelling(address: object) -> None:
    """However its zeros are written, an IPv6 host is one host."""
    assert canonical_host(f"[{address.exploded}]:443", "https") == f"[{address.compressed}]"  # type: ignore[attr-defined]


def test_s22_limits_count_an_address_once() -> None:
    """IPv4 whole, IPv6 by /64, IPv4 inside IPv6 as IPv4: what this file gives is what `network_of` reads."""
    seen = [
        admitted(BEHIND, ("x-forwarded-for", a))[0]
        for a in ("::ffff:203.0.113.7", "203.0.113.7", "2001:db8::1", "2001:db8::ffff:1")
    ]
    networks = [network_of(a) for a in seen]
    assert networks[0] == networks[1] == "203.0.113.7"
    assert networks[2] == networks[3] == "2001:db8::/64"
