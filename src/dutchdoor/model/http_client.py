"""The client at the other end: where it calls from and what it says it is.

None of this is proof. It is shown to the owner in the list of sessions ("Firefox on Linux, Netherlands"), written into
audit events, and, as `fingerprint`, tells two holders of one refresh token apart when a token comes back late.

How a header is read into a device and an address into a country is someone else's: see `DeviceReader`, `CountryReader`.
What cannot be read is "".

Reading a User-Agent header can take milliseconds, so it is read when its device is first asked for: when it is stored
or compared. A request that a limit refuses never comes to that.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import Protocol

import msgspec

from dutchdoor.model.unicode_text import shown

__all__ = ["Client", "CountryReader", "Device", "DeviceReader", "network_of", "networks_of", "observe"]

USER_AGENT_AT_MOST = 512
"""Characters of the header that are kept. Browsers send 80 to 200; the longest honest ones stay below 400."""


class DeviceReader(Protocol):
    """Reads a User-Agent header. Gives an empty Device for what it does not know, and never raises. It is asked for the
    same header again and again.
    """

    def read(self, user_agent: str, /) -> Device: ...


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """What a User-Agent header says: `name` for people ("Firefox on Linux"), the parts for comparing. "" is unknown."""

    name: str = ""
    browser_family: str = ""
    platform: str = ""

    def read(self, _user_agent: str) -> Device:
        """Be the `DeviceReader` of a client whose device is known."""
        return self


class Client(msgspec.Struct, frozen=True, kw_only=True):
    """Where a request came from. `address` is its text form, `country` two capital letters; "" is unknown."""

    address: str = ""
    country: str = ""
    user_agent: str = ""
    """The User-Agent header, 512 characters at most."""
    devices: DeviceReader = Device()
    """Reads the header, and keeps what it has read."""

    @property
    def device(self) -> str:
        """The device for people, such as "Firefox on Linux"; "" is unknown."""
        return shown(self.devices.read(self.user_agent).name)

    @property
    def fingerprint(self) -> str:
        """Browser family and platform, without version: what stays the same when a browser updates itself."""
        device = self.devices.read(self.user_agent)
        return f"{device.browser_family}|{device.platform}"

    @property
    def network(self) -> str:
        """The network a person is recognised by: see `network_of`."""
        return network_of(self.address)

    @property
    def networks(self) -> tuple[str, ...]:
        """The networks that limits count by: see `networks_of`."""
        return networks_of(self.address)


class CountryReader(Protocol):
    """Finds the country of an address: two capital letters (ISO 3166-1), or "". Never raises."""

    def country(self, address: str) -> str: ...


def observe(address: str, user_agent: str, *, devices: DeviceReader, countries: CountryReader) -> Client:
    """Describe the client behind a request. `address` is the one we believe, after the configured proxies."""
    # Cut before it is parsed or stored, and freed of control characters: this text reaches terminals and log lines.
    kept = shown(user_agent[:USER_AGENT_AT_MOST])
    address = _plain(address)
    return Client(address=address, country=shown(countries.country(address)), user_agent=kept, devices=devices)


def network_of(address: str) -> str:
    """Give the narrowest network of an address: IPv4 itself, IPv6 its /64. "" if it is no address."""
    return networks_of(address)[0]


@lru_cache(maxsize=4096)
def networks_of(address: str) -> tuple[str, ...]:
    """Give the networks an address is counted by, the narrowest first: IPv4 itself; IPv6 its /64, /56 and /48.

    A customer is given one of these (RFC 6177), and can send every request from another address in it.
    """
    plain = _plain(address)
    if ":" not in plain:
        return (plain,)
    return tuple(str(ipaddress.IPv6Network((plain, length), strict=False)) for length in (64, 56, 48))


@lru_cache(maxsize=4096)
def _plain(address: str) -> str:
    """The one spelling of an address: no zone, no IPv4 inside IPv6. Two spellings would be two buckets."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return ""
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return str(mapped or parsed)
