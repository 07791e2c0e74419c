"""Reach: which addresses a message may be sent to.

Server-side request forgery: the URL of an endpoint is a way to make this server call an address that only it can reach,
such as a database, a neighbour, or the metadata service of a cloud, which hands out credentials. So every address of a
name is looked at, the connection goes to an address that was looked at, and no redirect is followed. A name that
answers otherwise the next time (DNS rebinding) changes nothing: the look and the connection are of one answer.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import TypeAlias

from dutchdoor.errors import Misconfigured

__all__ = ["Reach"]

_Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

_UNICAST = ipaddress.ip_network("2000::/3")
"""All of the IPv6 Internet; what lies outside is local, reserved, or another address in disguise."""
_METADATA = frozenset(
    map(ipaddress.ip_address, ("fd00:ec2::254", "fd20:ce::254", "100.100.100.200", "192.0.0.192", "168.63.129.16"))
)
"""Where clouds have their metadata service besides 169.254.169.254: Amazon and Google by IPv6, Alibaba, Oracle, and the
agent of Azure. They lie in networks that an operator may list for receivers, or in the Internet."""
_NAT64, _TO_4 = ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("2002::/16")


class Reach:
    """The Internet, and the networks of `allowed`, such as `10.0.0.0/8`.

    Raises:
        Misconfigured: one of them is no network.
    """

    def __init__(self, allowed: Iterable[str] = ()) -> None:
        try:
            self._allowed = tuple(ipaddress.ip_network(each) for each in allowed)
        except ValueError as exc:
            raise Misconfigured(f"webhook_network: {exc}. A network is like 10.0.0.0/8 or fd00::/8.") from None

    @property
    def has_networks(self) -> bool:
        """Whether networks besides the Internet are allowed."""
        return bool(self._allowed)

    def refuses(self, text: str, *, plain: bool = False) -> str:
        """Return why no message goes to an address; "" if one may. `plain` says that it would not be encrypted."""
        try:
            address = _meant(ipaddress.ip_address(text.partition("%")[0]))
        except ValueError:
            return f"{text[:64]!a} is no address"
        if address.is_link_local or address.is_multicast or address.is_unspecified or address in _METADATA:
            # The metadata service of most clouds is at 169.254.169.254: no setting allows it.
            return f"{address} is never allowed"
        if any(address in network for network in self._allowed):
            return ""
        if plain:
            return f"{address} is in no network of webhook_network, and http:// is for those alone"
        if address.is_global and (address.version == 4 or (address in _UNICAST and address not in _TO_4)):  # noqa: PLR2004
            return ""
        return f"{address} is a private address, in no network of webhook_network"


def _meant(address: _Address) -> _Address:
    """Return the IPv4 address that an IPv6 address leads to, if it does."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
        if address.sixtofour is not None:
            return address.sixtofour
    return address
