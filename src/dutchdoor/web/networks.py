"""Find what kind of network an address belongs to, with iporigin: a table of data centres, VPNs and Tor in its wheel.

The table holds what providers publish. It knows most large clouds and a few VPNs; to it, all other networks are homes.
It does not know which networks are carriers of telephones or on board of aeroplanes: a reader of your own may
(`Auth(networks=...)`).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import iporigin

from dutchdoor.model.sightings import Network, NetworkKind

__all__ = ["KnownNetworks"]

_KINDS: Final[dict[str, NetworkKind]] = {
    iporigin.HOSTING: "hosting",
    iporigin.BOT: "hosting",
    iporigin.CDN: "front",
    iporigin.VPN: "vpn",
    iporigin.TOR: "tor",
}
_RENTED: Final = frozenset({"DataCamp", "CDN77", "Gcore"})
"""Content networks that rent machines too: the exits of several VPNs stand there, and thieves behind them."""
_RELAYS: Final = frozenset({"Apple Private Relay"})
"""They keep the country, and hide the network: of homes alone, and from no one who could choose another country."""


class KnownNetworks:
    """A `NetworkReader`."""

    def network(self, address: str) -> Network:
        return _found(address)


@lru_cache(maxsize=4096)
def _found(address: str) -> Network:
    try:
        known = iporigin.classify(address)  # type: ignore[no-untyped-call]
    except ValueError:
        return Network()
    if known.provider in _RELAYS:
        return Network("relay", known.provider)
    if known.provider in _RENTED:
        return Network("hosting", known.provider)
    return Network(_KINDS.get(known.kind, ""), known.provider)
