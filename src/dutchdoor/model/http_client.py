"""The client of a request: where it calls from and what it says it is.

None of this is proof. The list of sessions shows it to the owner ("Firefox on Linux, Netherlands"), and audit events
record it. The `fingerprint` distinguishes two holders of one refresh token when a token is replayed late.

`DeviceReader` and `CountryReader` read a header into a device and an address into a country. An unreadable value is "".

Reading a User-Agent header can take milliseconds, so it is read at the first use of its device: when it is stored or
compared. A request that a rate limit refuses never costs this time.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import Protocol

import msgspec

from dutchdoor.model.bindings import ProvedKey
from dutchdoor.model.unicode_text import shown

__all__ = ["Client", "CountryReader", "Device", "DeviceReader", "network_of", "networks_of", "observe"]

USER_AGENT_AT_MOST = 512
"""Characters of the header that are kept. Browsers send 80 to 200; the longest honest ones stay below 400."""

LANGUAGES_AT_MOST = 400
"""Characters of the Accept-Language header that are kept. Browsers send some 50."""


class DeviceReader(Protocol):
    """Reads a User-Agent header. Returns an empty Device for an unknown header, and never raises. It is called with the
    same header repeatedly.
    """

    def read(self, user_agent: str, /) -> Device: ...


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """What a User-Agent header says: `name` for people ("Firefox on Linux"), the parts for comparing. "" is unknown."""

    name: str = ""
    browser_family: str = ""
    platform: str = ""

    def read(self, _user_agent: str) -> Device:
        """Act as the `DeviceReader` of a client whose device is known."""
        return self


class Client(msgspec.Struct, frozen=True, kw_only=True):
    """Where a request came from. `address` is the IP address as text, `country` two capital letters; "" is unknown."""

    address: str = ""
    country: str = ""
    user_agent: str = ""
    """The User-Agent header, 512 characters at most."""
    devices: DeviceReader = Device()
    """Reads the header, and caches the result."""
    languages: str = ""
    """The Accept-Language header, 400 characters at most: the language of a mail that this client asks for."""
    proved: ProvedKey | None = None
    """The key that it has proved to hold with this request (DPoP). A sign-in is bound to it."""
    browser_key: str = ""
    """The public key that the script of our pages has put into a cookie. A sign-in keeps it."""

    @property
    def device(self) -> str:
        """The device for people, such as "Firefox on Linux"; "" is unknown."""
        return shown(self.devices.read(self.user_agent).name)

    @property
    def browser(self) -> str:
        """The browser family, without version and platform; "" is unknown."""
        return self.devices.read(self.user_agent).browser_family

    @property
    def fingerprint(self) -> str:
        """Browser family and platform, without version: what stays the same when a browser updates itself."""
        device = self.devices.read(self.user_agent)
        return f"{device.browser_family}|{device.platform}"

    @property
    def network(self) -> str:
        """The network by which an owner is recognised: see `network_of`."""
        return network_of(self.address)

    @property
    def networks(self) -> tuple[str, ...]:
        """The networks that rate limits count by: see `networks_of`."""
        return networks_of(self.address)


class CountryReader(Protocol):
    """Finds the country of an address: two capital letters (ISO 3166-1), or "". Never raises."""

    def country(self, address: str) -> str: ...


def observe(
    address: str, user_agent: str, languages: str = "", *, devices: DeviceReader, countries: CountryReader
) -> Client:
    """Describe the client of a request. `address` is the trusted one, after the configured proxies."""
    # Cut before it is parsed or stored, and without control characters: this text reaches terminals and log lines.
    kept = shown(user_agent[:USER_AGENT_AT_MOST])
    address = _plain(address)
    return Client(
        address=address,
        country=shown(countries.country(address)),
        user_agent=kept,
        devices=devices,
        languages=languages[:LANGUAGES_AT_MOST],
    )


def network_of(address: str) -> str:
    """Return the narrowest network of an address: an IPv4 address itself, the /64 of an IPv6 address. "" if it is no
    address.
    """
    return networks_of(address)[0]


@lru_cache(maxsize=4096)
def networks_of(address: str) -> tuple[str, ...]:
    """Return the networks that rate limits count an address by, narrowest first: IPv4 itself; the /64, /56 and /48 of
    IPv6.

    An IPv6 customer has one of these networks (RFC 6177), and can send every request from another address in it.
    """
    plain = _plain(address)
    if ":" not in plain:
        return (plain,)
    return tuple(str(ipaddress.IPv6Network((plain, length), strict=False)) for length in (64, 56, 48))


@lru_cache(maxsize=4096)
def _plain(address: str) -> str:
    """Return the one spelling of an address: no zone, no IPv4 inside IPv6. Two spellings would have two buckets."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return ""
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return str(mapped or parsed)
