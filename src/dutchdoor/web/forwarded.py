"""Who is at the other end, and under which name they reached us.

A forwarding header is a claim. It is believed when the connection comes from a proxy that the operator named, and then
only as far back as named proxies reach: the right-most address that is not one of them is the client, because
everything left of it was written by the client. X-Forwarded-For, -Proto and -Host, X-Real-IP and Forwarded (RFC 7239)
are all read, and must not contradict each other: a proxy that writes one and passes the others through unread would
otherwise let its clients choose their address.

Without a public URL the server is in its development setting and answers loopback alone. Behind a proxy on the same
machine *everyone* comes from loopback, so there a request that shows any trace of a proxy, or names any other host, is
refused, with the name of the setting that is missing. A page on the Internet that points its own name at 127.0.0.1 (DNS
rebinding) fails on the Host.

Hosts are an exact list: links in mails, the issuer of tokens and the answer to "is this our own origin?" hang on it.

Left out: X-Forwarded-Port and -Prefix, the PROXY protocol, and vendors' headers such as CF-Connecting-IP.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import urlsplit

from dutchdoor.errors import Misconfigured
from dutchdoor.web.http import BadRequest, Request, canonical_host, is_loopback

__all__ = ["FORWARDING", "Edge"]

FORWARDING = frozenset({
    b"forwarded",
    b"via",
    b"x-client-ip",
    b"x-forwarded",
    b"x-forwarded-by",
    b"x-forwarded-for",
    b"x-forwarded-host",
    b"x-forwarded-method",
    b"x-forwarded-port",
    b"x-forwarded-prefix",
    b"x-forwarded-proto",
    b"x-forwarded-protocol",
    b"x-forwarded-scheme",
    b"x-forwarded-server",
    b"x-forwarded-ssl",
    b"x-forwarded-uri",
    b"x-original-host",
    b"x-original-url",
    b"x-real-ip",
    b"cf-connecting-ip",
    b"true-client-ip",
})  # fmt: skip
"""Headers that only something between the client and us writes."""

_DEVELOPMENT = (
    "Without --public-url (DUTCHDOOR_PUBLIC_URL) this server is for this machine alone, and {why}. "
    "To serve others, set it to the https address that people use, and name the proxy with --proxy."
)
_HEADER_AT_MOST = 2048
_HOPS_AT_MOST = 32
_KEPT_AT_MOST = 256

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Edge:
    """What stands between browsers and this server, as the operator declared it."""

    __slots__ = ("_exact", "_hosts", "_judged", "_networks", "_scheme", "public_origin")

    def __init__(
        self, *, public_url: str | None = None, hosts: Iterable[str] = (), proxies: Iterable[str] = ()
    ) -> None:
        """Check the settings. `hosts`: further names besides the public URL's; `proxies`: addresses and networks.

        Raises:
            Misconfigured: one of them is not what it should be, or hosts or proxies are named without a public URL.
        """
        self.public_origin = None if public_url is None else _public_origin(public_url)
        self._scheme = "http" if self.public_origin is None else self.public_origin.partition(":")[0]
        names = [] if self.public_origin is None else [self.public_origin.partition("://")[2]]
        for host in hosts:
            canonical = canonical_host(host, self._scheme)
            if not canonical:
                raise Misconfigured(f"{host!r} is not a host. Write auth.example.com, with a port only if it has one.")
            names.append(canonical)
        self._hosts = frozenset(names)
        networks = [_network(proxy) for proxy in proxies]
        self._exact = frozenset(_canonical(str(n.network_address)) for n in networks if n.num_addresses == 1)
        self._networks = tuple(n for n in networks if n.num_addresses > 1)
        self._judged = lru_cache(maxsize=2048)(self._judge)
        if self.public_origin is None and (names or networks):
            raise Misconfigured("Hosts and proxies mean something only together with --public-url.")

    @property
    def secure(self) -> bool:
        """Whether browsers reach us over TLS. Decides the names of cookies, Secure and HSTS."""
        return self._scheme == "https"

    @property
    def development(self) -> bool:
        """Whether this is the setting without a public URL: this machine alone, over plain HTTP."""
        return self.public_origin is None

    def admit(self, request: Request) -> None:
        """Decide the request's client, scheme and host, and write them into it.

        Raises:
            BadRequest: the host is not ours, a proxy contradicts itself, or it came over plain HTTP where it must not.
        """
        if self.public_origin is None:
            self._admit_neighbour(request)
        elif self._trusts(request.peer):
            self._believe(request)
        else:
            # Whatever it says of itself, the address is the connection's. The scheme is the operator's word: TLS ends
            # in front of us or here.
            request.client = _canonical(request.peer)
            request.scheme = self._scheme
            request.host = self._listed(request.header(b"host"))

    def came_through_proxy(self, request: Request) -> bool:
        """Whether a configured proxy sent this: the condition for believing what else it says (`/auth/check`)."""
        return self._trusts(request.peer)

    # --- development setting ---

    def _admit_neighbour(self, request: Request) -> None:
        if not FORWARDING.isdisjoint(request.by_name):
            raise _refused("proxy_not_configured", "this request came through a proxy")
        if not _is_loopback_address(request.peer):
            raise _refused("proxy_not_configured", "this request did not come from it")
        host = canonical_host(request.header(b"host") or "", request.scheme)
        if not is_loopback(host):
            raise _refused("unknown_host", "this request names another host than localhost")
        request.client = request.peer
        request.host = host

    # --- behind a proxy ---

    def _trusts(self, peer: str) -> bool:
        if not self._exact and not self._networks:
            return False
        address = _canonical(peer)
        if address in self._exact:
            return True
        parsed = _parsed(address) if self._networks else None
        return parsed is not None and any(parsed in network for network in self._networks)

    def _believe(self, request: Request) -> None:
        claims = (
            request.peer,
            request.header(b"host"),
            request.header_list(b"x-forwarded-for"),
            request.header_list(b"x-real-ip"),
            request.header_list(b"x-forwarded-proto"),
            request.header_list(b"x-forwarded-host"),
            request.header_list(b"forwarded"),
        )
        # A client's requests repeat its claims. Long ones are not kept, or a client could fill the memory with them.
        short = sum(map(len, filter(None, claims))) <= _KEPT_AT_MOST
        request.client, request.scheme, request.host = (self._judged if short else self._judge)(*claims)

    def _judge(
        self,
        peer: str,
        host: str | None,
        x_for: str | None,
        x_real: str | None,
        x_proto: str | None,
        x_host: str | None,
        forwarded: str | None,
    ) -> tuple[str, str, str]:
        """Make client, scheme and host of what a proxy that we trust says."""
        last = _last_forwarded(forwarded)
        client = self._client(_canonical(peer), _split(x_for), last.hops, x_real)

        proto = _agreed("scheme", _last(x_proto), last.proto)
        if proto is not None and proto.lower() not in {"http", "https"}:
            raise _contradiction("names a scheme that is neither http nor https")
        scheme = self._scheme if proto is None else proto.lower()
        if self.secure and scheme == "http":
            raise BadRequest("Use https.", code="https_required", reason="the proxy took this over plain HTTP")

        named = _agreed("host", _last(x_host), last.host)
        return client, scheme, self._listed(host if named is None else named)

    def _client(self, peer: str, hops: list[str], forwarded: list[str], real: str | None) -> str:
        """Find the client, the same in every header that names it."""
        clients = [self._walk(peer, chain) for chain in (hops, forwarded) if chain]
        if len(clients) == 2 and clients[0] != clients[1]:  # noqa: PLR2004
            raise _contradiction("names two clients: X-Forwarded-For and Forwarded differ")
        if real is None:
            return clients[0] if clients else peer
        named = _split(real)
        address = _hop(named[0] if len(named) == 1 else real)
        if not clients:
            return address
        # A proxy writes here what it saw, which is the end of the list it wrote, or the client it made out itself.
        nearest = {_hop(chain[-1]) for chain in (hops, forwarded) if chain}
        if address != clients[0] and address not in nearest:
            raise _contradiction("names two clients: X-Real-IP differs")
        return clients[0]

    def _walk(self, peer: str, chain: list[str]) -> str:
        client = peer
        for hop in reversed(chain):
            client = _hop(hop)
            if not self._trusts(client):
                return client
        return client  # all the way through our own proxies: a neighbour of theirs

    def _listed(self, host: str | None) -> str:
        canonical = canonical_host(host or "", self._scheme)
        if canonical not in self._hosts:
            raise BadRequest(
                "This server does not answer for the host named in this request. "
                "If it should, name it with --other-host; the first is the one of --public-url.",
                code="unknown_host",
                reason=f"host {(host or '')[:100]!a}",
            )
        return canonical


# --- settings --------------------------------------------------------------------------------------------------------


def _public_origin(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:
        raise Misconfigured(f"--public-url {url!r} is not a URL.") from None
    host = canonical_host(parts.netloc, parts.scheme)  # "" also for user:password@host
    if parts.scheme not in {"http", "https"} or not host or parts.query or parts.fragment:
        raise Misconfigured(f"--public-url {url!r} is not a public URL. Write https://auth.example.com.")
    if parts.scheme == "http" and not is_loopback(host):
        raise Misconfigured(f"--public-url {url!r} is plain HTTP. Passwords and cookies need https.")
    if parts.path.strip("/"):
        # Cookies, links and the issuer are the host's: under a path half of it would work.
        raise Misconfigured(
            f"--public-url {url!r} has a path, and this is at the root of its host. Write {parts.scheme}://{host}."
        )
    return f"{parts.scheme}://{host}"


def _network(proxy: str) -> _Network:
    try:
        network = ipaddress.ip_network(proxy)
    except ValueError:
        raise Misconfigured(
            f"{proxy!r} is no address of a proxy. Write 10.0.0.7, or a network such as 10.0.0.0/24."
        ) from None
    # Believing everyone is the opposite of what this list is for.
    if network.prefixlen == 0:
        raise Misconfigured(f"{proxy!r} is everyone. Name the addresses of your proxies.")
    return network


def _refused(code: str, why: str) -> BadRequest:
    return BadRequest(_DEVELOPMENT.format(why=why), code=code)


# --- addresses and hops ----------------------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def _parsed(text: str) -> _Address | None:
    """Read an address: no zone, and an IPv4 address inside IPv6 is IPv4, or it would be two callers to a limit."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


@lru_cache(maxsize=4096)
def _canonical(text: str) -> str:
    """Spell an address the one way, "" if it is none (a Unix socket, a test)."""
    address = _parsed(text)
    return "" if address is None else str(address)


@lru_cache(maxsize=256)
def _is_loopback_address(text: str) -> bool:
    address = _parsed(text)
    return address is not None and address.is_loopback


# A zone (`fe80::1%eth0`, RFC 4007) is the proxy's name for one of its own links: it is read over.
_ZONE = r"(?:%[0-9A-Za-z._~-]{1,32})?"
_HOP = re.compile(
    rf"([0-9.]{{7,15}})(?::[0-9]{{1,5}})?|\[([0-9A-Fa-f:.]{{2,45}}){_ZONE}\](?::[0-9]{{1,5}})?"
    rf"|(?=[0-9A-Fa-f]{{0,4}}:)([0-9A-Fa-f:.]{{2,45}}){_ZONE}"
)


@lru_cache(maxsize=4096)
def _hop(text: str) -> str:
    """Read one hop: an address, with or without port and brackets. `unknown` and `_hidden` are none."""
    found = _HOP.fullmatch(text)
    address = _canonical(found[1] or found[2] or found[3]) if found else ""
    if not address:
        raise _contradiction("names a client that is not an address")
    return address


def _contradiction(what: str) -> BadRequest:
    return BadRequest(
        f"The proxy in front of this server {what}. It has to overwrite every forwarding header.",
        code="forwarding_headers",
    )


def _split(line: str | None) -> list[str]:
    if not line:
        return []
    if len(line) > _HEADER_AT_MOST:
        raise _contradiction("sent a forwarding header that is too long")
    # RFC 9110, 5.6.1: an empty element is none.
    hops = [hop for piece in line.split(",") if (hop := piece.strip(" \t"))]
    if len(hops) > _HOPS_AT_MOST:
        raise _contradiction("names too many hops")
    return hops


def _last(line: str | None) -> str | None:
    """Take the nearest proxy's word of a list."""
    return next(reversed(_split(line)), None)


def _agreed(what: str, one: str | None, other: str | None) -> str | None:
    if one is not None and other is not None and one.lower() != other.lower():
        raise _contradiction(f"names two values for the {what}")
    return other if one is None else one


# --- RFC 7239 --------------------------------------------------------------------------------------------------------


class _Forwarded:
    __slots__ = ("hops", "host", "proto")

    def __init__(self) -> None:
        self.hops: list[str] = []
        self.host: str | None = None
        self.proto: str | None = None


_PAIR = re.compile(
    r"[ \t]*(?:([!#$%&'*+.^_`|~0-9A-Za-z-]+)=(?:([!#$%&'*+.^_`|~0-9A-Za-z:\[\]-]+)|\"((?:[^\"\\]|\\.)*)\"))?"
    r"[ \t]*([;,]|\Z)"
)


def _last_forwarded(line: str | None) -> _Forwarded:
    """Read a Forwarded header: the hops of all its elements, host and scheme of the last.

    A client can open a quote that the proxy's addition closes. Such a line does not read to its end, and is refused
    whole. An empty pair or element is none (RFC 9110, 5.6.1).
    """
    result = _Forwarded()
    if not line:
        return result
    if len(line) > _HEADER_AT_MOST:
        raise _contradiction("sent a forwarding header that is too long")
    element: dict[str, str] = {}
    at = 0
    while True:
        found = _PAIR.match(line, at)
        if found is None:
            raise _contradiction("sent a Forwarded header that cannot be read")
        if found[1]:
            name = found[1].lower()
            if name in element:
                raise _contradiction(f"names {name} twice for one hop")
            element[name] = found[2] if found[2] is not None else re.sub(r"\\(.)", r"\1", found[3])
        at = found.end()
        if found[4] != ";" and element:
            result.hops.append(element.get("for", ""))
            result.host, result.proto = element.get("host"), element.get("proto")
            element = {}
        if found[4] == "":
            break
    if len(result.hops) > _HOPS_AT_MOST:
        raise _contradiction("names too many hops")
    if not any(result.hops):
        result.hops = []
    return result
