"""The client at the other end, as it is shown, counted and compared."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dutchdoor.model.http_client import USER_AGENT_AT_MOST, Client, Device, network_of, networks_of, observe
from dutchdoor.web.geoip import RegistryCountryReader
from dutchdoor.web.user_agent import UserAgentReader

DEVICES, COUNTRIES = UserAgentReader(), RegistryCountryReader()

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:{0}.0) Gecko/20100101 Firefox/{0}.0"
SAFARI = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    "Version/17.5 Mobile/15E148 Safari/604.1"
)
CHROME = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36"
)


def seen(user_agent: str = "", address: str = "") -> Client:
    return observe(address, user_agent, devices=DEVICES, countries=COUNTRIES)


@pytest.mark.parametrize(
    ("user_agent", "expected"),
    [
        (FIREFOX.format(132), "Firefox on Linux"),
        (SAFARI, "Safari on iOS"),
        (CHROME, "Chrome on Windows"),
        ("curl/8.5.0", "curl"),
        ("acme-sync/2.1 (build 7)", "acme-sync"),
        ("dutchdoor.client", "dutchdoor.client"),
        ("MyShop/3.1 (iPhone; iOS 18.2)", "MyShop on iOS"),
        ("MyShop/3.1 (Android 15; Pixel 9)", "MyShop on Android"),
        ("Mozilla/5.0", ""),
        ("nothing anyone knows", ""),
        ("", ""),
    ],
)
def test_a_device_is_named_as_people_name_it(user_agent, expected):
    """The list of sessions says "Firefox on Linux", and nothing where nothing is known."""
    assert seen(user_agent).device == expected


def test_an_update_of_the_browser_is_the_same_client():
    """The fingerprint has no version: an update between two refreshes is no theft."""
    assert seen(FIREFOX.format(132)).fingerprint == seen(FIREFOX.format(140)).fingerprint
    assert seen(FIREFOX.format(132)).fingerprint != seen(CHROME).fingerprint


@given(st.text(max_size=2000))
def test_any_header_is_read_without_an_exception_and_within_bounds(user_agent):
    """What a client says of itself never fails a request, fills a row, or moves a terminal's cursor."""
    client = seen(user_agent)
    assert len(client.user_agent) <= USER_AGENT_AT_MOST
    assert client.user_agent.isprintable() or not client.user_agent


def test_a_long_header_is_cut_before_it_is_read():
    """Reading takes time with the length: 512 characters are kept, and only they are parsed."""
    assert len(seen("x" * 100_000).user_agent) == USER_AGENT_AT_MOST
    assert seen("x" * USER_AGENT_AT_MOST + CHROME).device == ""


@given(st.text(max_size=100))
def test_any_address_has_a_country_or_none(address):
    """An address that cannot be read has no country, no network and no exception."""
    client = seen("", address)
    assert len(client.country) in {0, 2}
    assert COUNTRIES.country(address) in {"", client.country} or len(COUNTRIES.country(address)) == 2


@pytest.mark.parametrize(("address", "country"), [("193.0.6.139", "NL"), ("127.0.0.1", ""), ("::1", ""), ("x", "")])
def test_the_country_is_two_letters_or_nothing(address, country):
    """RIPE's own address is Dutch, loopback is nowhere."""
    assert seen("", address).country == country


@given(st.ip_addresses(v=6), st.integers(0, 2**64 - 1))
def test_all_addresses_of_one_ipv6_customer_are_one_network(address, host):
    """2^64 addresses of one /64 share one bucket."""
    if address.ipv4_mapped:
        return
    other = ipaddress.IPv6Address((int(address) >> 64 << 64) | host)
    if other.ipv4_mapped:
        return
    assert network_of(str(address)) == network_of(str(other))
    assert network_of(str(address)).endswith("/64")


@given(st.ip_addresses(v=6))
def test_c11_ipv6_is_counted_by_every_size_a_customer_has(address):
    """An IPv6 address is counted in its /64, its /56 and its /48 (RFC 6177), the narrowest first."""
    if address.ipv4_mapped:
        return
    found = [ipaddress.IPv6Network(network) for network in networks_of(str(address))]
    assert [network.prefixlen for network in found] == [64, 56, 48]
    assert all(address in network for network in found)
    assert networks_of(str(address))[0] == network_of(str(address))


def test_c11_ipv4_is_counted_by_the_address():
    """An IPv4 address is one customer, also inside IPv6; what is no address is one name."""
    assert networks_of("192.0.2.1") == networks_of("::ffff:192.0.2.1") == ("192.0.2.1",)
    assert networks_of("example.com") == ("",)
    assert Client(address="192.0.2.1").networks == ("192.0.2.1",)


def test_two_spellings_of_an_address_are_one_network():
    """An IPv4 address inside IPv6, a zone or capital letters are no way to a second bucket."""
    assert network_of("::ffff:192.0.2.1") == network_of("192.0.2.1") == "192.0.2.1"
    assert network_of("FE80::1%eth0") == network_of("fe80:0::1")
    assert seen("", "::ffff:192.0.2.1").address == "192.0.2.1"
    assert seen("", "FE80::1%eth0").address == "fe80::1"
    assert network_of("example.com") == network_of("") == ""


def test_a_header_is_parsed_once():
    """Reading a header costs half a millisecond; the second time it costs a look-up."""

    class Counting(UserAgentReader):
        parsed = 0

        def _parse(self, user_agent: str) -> Device:
            self.parsed += 1
            return super()._parse(user_agent)

    reader = Counting()
    for _ in range(5):
        reader.read(CHROME)
    assert reader.parsed == 1


def test_the_cache_of_headers_is_bounded():
    """A client with a new header in every request does not fill the memory."""
    assert UserAgentReader()._read.cache_parameters()["maxsize"] == 2048


def test_p22_a_header_is_read_when_its_device_is_stored_or_compared():
    """P22: a header made to be slow costs milliseconds of the loop. A request that is refused never reads it; one that
    is stored reads it, and a header that was read before costs a look-up.
    """
    read = []

    class Counting(UserAgentReader):
        def _parse(self, user_agent: str) -> Device:
            read.append(user_agent)
            return super()._parse(user_agent)

    client = observe("192.0.2.1", CHROME, devices=Counting(), countries=COUNTRIES)
    assert (client.networks, client.user_agent, read) == (("192.0.2.1",), CHROME, [])
    assert (client.device, client.fingerprint) == ("Chrome on Windows", "Chrome|Windows")
    assert (client.device, read) == ("Chrome on Windows", [CHROME])
