"""Sightings: from where a live session, or a stateless token, was used.

A sighting is coarse on purpose: a network of 256 addresses or of one customer, a country, a browser family. It is
compared at each use, and only a change costs anything. A history is bounded and expires. It belongs to one session or
token, and outlives it, because the places that were proved once stay familiar to the account.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import Final, Literal, NamedTuple, Protocol, TypeAlias

import msgspec
from msgspec import Struct
from msgspec.structs import replace

__all__ = [
    "AGAIN_AFTER",
    "CHANGES_AT_MOST",
    "KEPT_FOR",
    "PLACES_AT_MOST",
    "Change",
    "History",
    "Network",
    "NetworkKind",
    "NetworkReader",
    "Place",
    "Question",
    "Sighting",
    "Sightings",
    "browser_family",
    "coarse_network",
    "first_history",
]

NetworkKind: TypeAlias = Literal["", "hosting", "vpn", "tor", "front", "relay", "mobile", "satellite"]
"""What a network is:

- "": nothing is known; mostly a home, an office or a telephone.
- `hosting`: a data centre.
- `vpn`: an exit of a VPN.
- `tor`: an exit of Tor.
- `front`: a content network. It is a proxy that was not configured, and says nothing of the client.
- `relay`: a relay of a browser's maker, which keeps the country and changes the network.
- `mobile`: a carrier of telephones, whose customers abroad come from the carrier's own country.
- `satellite`: on board, where the country is that of the ground station.
"""

KEPT_FOR: Final = 30 * 86_400.0
"""Seconds that a history is kept after its last change. A month covers who works in another place once a month."""
AGAIN_AFTER: Final = 60.0
"""Seconds in which the return to a place that was looked at is no change: browsers use an IPv4 and an IPv6 network of
one home by turns, and would write a history at each request."""
PLACES_AT_MOST: Final = 16
CHANGES_AT_MOST: Final = 8
_MOVED_BY: Final = 24
_CUSTOMER: Final = 48


class Network(NamedTuple):
    """What is known of a network: its kind, and the name of its provider ("" is unknown)."""

    kind: NetworkKind = ""
    provider: str = ""


class NetworkReader(Protocol):
    """Finds what kind of network an address belongs to. Never raises, and asks no other machine."""

    def network(self, address: str) -> Network: ...


class Sighting(Struct, frozen=True, array_like=True, gc=False):
    """Where and by what something was used. "" is unknown; without a network there is no sighting."""

    network: str
    """The /24 of an IPv4 address, the /48 of an IPv6 address."""
    country: str = ""
    browser: str = ""
    """The browser family, without version and platform."""
    kind: NetworkKind = ""
    provider: str = ""


class Place(Struct, frozen=True, array_like=True, gc=False):
    """One network of a history."""

    sighting: Sighting
    since: float
    """When it was seen first."""
    until: float
    """When it was last known to be in use."""
    proved: bool
    """Whether its user proved who they are there."""


class Change(NamedTuple):
    """One change of the network."""

    network: str
    at: float


class Question(Struct, frozen=True, array_like=True):
    """A use about which the owner is asked."""

    seen: Sighting
    reasons: tuple[str, ...]


class History(Struct, frozen=True, array_like=True):
    """What one session or token was seen as, the newest last."""

    places: tuple[Place, ...]
    changes: tuple[Change, ...]
    reported: tuple[str, ...] = ()
    """Networks and countries that the owner got a mail about: there is no other."""
    question: Question | None = None
    """What the owner is asked about, while the session is in doubt."""

    @property
    def last(self) -> Sighting:
        """The newest sighting."""
        return self.places[-1].sighting

    def knows(self, network: str) -> bool:
        """Whether it has been there."""
        return any(place.sighting.network == network for place in self.places)

    def has_proved(self, network: str) -> bool:
        """Whether its user proved who they are there."""
        return any(place.proved and place.sighting.network == network for place in self.places)

    def moved(self, seen: Sighting, now: float, *, last_use: float, proved: bool = False) -> History:
        """Return the history after a sighting in another place; `last_use` is when it was last used at the place
        before. The oldest places that were not proved go first.
        """
        before = next((place for place in self.places if place.sighting.network == seen.network), None)
        since, was_proved = (now, False) if before is None else (before.since, before.proved)
        left = replace(self.places[-1], until=max(last_use, self.places[-1].until))
        places = [place for place in (*self.places[:-1], left) if place.sighting.network != seen.network]
        places.append(Place(seen, since, now, proved or was_proved))
        if len(places) > PLACES_AT_MOST:
            places.remove(next((place for place in places[:-1] if not place.proved), places[0]))
        return replace(
            self, places=tuple(places), changes=(*self.changes, Change(seen.network, now))[-CHANGES_AT_MOST:]
        )

    def reporting(self) -> History:
        """Return the history after the owner got a mail about its two newest networks."""
        networks = [change.network for change in self.changes[-2:]]
        countries = [place.sighting.country for place in self.places[-2:]]
        now = dict.fromkeys((*self.reported, *networks, *filter(None, countries)))
        return replace(self, reported=tuple(now)[-PLACES_AT_MOST:])

    def asking(self, seen: Sighting, reasons: tuple[str, ...]) -> History:
        """Return the history while the owner is asked about a use. It is no place of theirs yet."""
        return replace(self, question=Question(seen, reasons))

    def encode(self) -> bytes:
        return _encode(self)


class Sightings(Struct, frozen=True, kw_only=True):
    """The stored history of one session, stateless token or account. Nothing personal is in it but networks and
    countries.
    """

    id: str
    """The id of the session, or the `jti` of the token; the subject for the places that its account has proved."""
    subject: str
    history: bytes
    expires_at: float
    revision: int = 0

    def read(self) -> History | None:
        """Return the history; None if another version wrote it."""
        try:
            return _decode(self.history)
        except msgspec.MsgspecError:
            return None


def first_history(seen: Sighting, now: float) -> History:
    """Begin a history at a sign-in, which has proved its place."""
    return History((Place(seen, now, now, proved=True),), (Change(seen.network, now),))


@lru_cache(maxsize=4096)
def coarse_network(address: str) -> str:
    """Return the network of an address as it is kept: the /24 of IPv4, the /48 of IPv6.

    "" for an address that says nothing about its client: none, or one of a private network or of this machine. Then a
    proxy stands in front that was not configured, or everyone is in one house.
    """
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return ""
    if not parsed.is_global:
        return ""
    length = _MOVED_BY if parsed.version == 4 else _CUSTOMER  # noqa: PLR2004
    return str(ipaddress.ip_network((parsed, length), strict=False))


@lru_cache(maxsize=1024)
def browser_family(family: str) -> str:
    """Return one name for a browser on a telephone and on a desk: "Mobile Safari" and "Safari" are one cookie jar, when
    a page is asked for as on a desk.
    """
    words = [word for word in family.split() if word not in {"Mobile", "iOS", "Desktop", "Webview", "WebView"}]
    return " ".join(words)


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(History).decode
