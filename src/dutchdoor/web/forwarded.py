"""The address of the client, and the scheme and host of the request.

Any client can send a forwarding header, so it is trusted only from a configured proxy. The client is the right-most
address that is not a configured proxy, because a client can forge all addresses left of it. X-Forwarded-For, -Proto and
-Host, X-Real-IP and Forwarded (RFC 7239) are all read and must agree. Otherwise a proxy that writes one of them and
passes the others through would let its clients choose their address.

Without a public URL, the server is in development and answers only loopback addresses. Behind a proxy on the same
machine, *every* request comes from loopback. So a request with a trace of a proxy, or for another host, is refused with
the name of the missing setting. DNS rebinding (a page on the Internet whose name resolves to 127.0.0.1) fails because
of its Host header.

Hosts are an exact list: links in mail, the issuer of tokens and the check of the origin depend on the host.

Not supported: X-Forwarded-Port and -Prefix, the PROXY protocol, and vendor headers such as CF-Connecting-IP.
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
"""Headers that only a proxy writes."""

_DEVELOPMENT = (
    "Without public_url (--public-url, DUTCHDOOR_PUBLIC_URL), this server serves only its own machine, and {why}. "
    "To serve others, set it to the https URL that users open, and name the proxy's address in proxies (--proxy)."
)
_TEST_HOSTS = frozenset({"testserver", "testserver.local"})
_HEADER_AT_MOST = 2048
_HOPS_AT_MOST = 32
_KEPT_AT_MOST = 256

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Edge:
    """The public URL, the host names and the proxies, as configured."""

    __slots__ = ("_exact", "_hosts", "_judged", "_networks", "_scheme", "public_origin")

    def __init__(
        self, *, public_url: str | None = None, hosts: Iterable[str] = (), proxies: Iterable[str] = ()
    ) -> None:
        """Check the settings. `hosts` are names besides that of the public URL; `proxies` are addresses and networks.

        Raises:
            Misconfigured: a value is invalid, or hosts or proxies are set without a public URL.
        """
        self.public_origin = None if public_url is None else _public_origin(public_url)
        self._scheme = "http" if self.public_origin is None else self.public_origin.partition(":")[0]
        names = [] if self.public_origin is None else [self.public_origin.partition("://")[2]]
        for host in hosts:
            canonical = canonical_host(host, self._scheme)
            if not canonical:
                raise Misconfigured(f"{host!r} is not a host. Use a name such as auth.example.com, with any port.")
            names.append(canonical)
        self._hosts = frozenset(names)
        networks = [_network(proxy) for proxy in proxies]
        self._exact = frozenset(_canonical(str(n.network_address)) for n in networks if n.num_addresses == 1)
        self._networks = tuple(n for n in networks if n.num_addresses > 1)
        self._judged = lru_cache(maxsize=2048)(self._judge)
        if self.public_origin is None and (names or networks):
            raise Misconfigured("hosts and proxies (--other-host, --proxy) need public_url (--public-url).")

    @property
    def secure(self) -> bool:
        """Whether browsers use TLS. This decides the names of cookies, Secure and HSTS."""
        return self._scheme == "https"

    @property
    def development(self) -> bool:
        """Whether there is no public URL: the server then serves only its own machine, over plain HTTP."""
        return self.public_origin is None

    def admit(self, request: Request) -> None:
        """Find the client, scheme and host of the request, and store them in the request.

        Raises:
            BadRequest: the host is not configured, a proxy contradicts itself, or the request used plain HTTP instead
                of https.
        """
        if self.public_origin is None:
            self._admit_neighbour(request)
        elif self._trusts(request.peer):
            self._believe(request)
        else:
            # Forwarding headers are ignored: the address is that of the connection. The scheme is that of the public
            # URL, because TLS ends at the server or in front of it.
            request.client = _canonical(request.peer)
            request.scheme = self._scheme
            request.host = self._listed(request.header(b"host"))

    def came_through_proxy(self, request: Request) -> bool:
        """Whether a configured proxy sent this. Only then may its other headers be trusted (`/auth/check`)."""
        return self._trusts(request.peer)

    # --- development setting ---

    def _admit_neighbour(self, request: Request) -> None:
        if not FORWARDING.isdisjoint(request.by_name):
            raise _refused("proxy_not_configured", "this request came through a proxy")
        # What the TestClients of Starlette and Litestar name themselves. It is no address, so no connection has it.
        is_test = request.peer == "testclient"
        if not is_test and not _is_loopback_address(request.peer):
            raise _refused("proxy_not_configured", "this request did not come from it")
        host = canonical_host(request.header(b"host") or "", request.scheme)
        if not is_loopback(host) and not (is_test and host in _TEST_HOSTS):
            raise _refused("unknown_host", "this request is for another host than localhost")
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
        # Requests of a client repeat the same headers. Long ones are not cached: a client could fill the memory.
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
        """Read client, scheme and host from the headers of a trusted proxy."""
        last = _last_forwarded(forwarded)
        client = self._client(_canonical(peer), _split(x_for), last.hops, x_real)

        proto = _agreed("scheme", _last(x_proto), last.proto)
        if proto is not None and proto.lower() not in {"http", "https"}:
            raise _contradiction("names a scheme that is neither http nor https")
        scheme = self._scheme if proto is None else proto.lower()
        if self.secure and scheme == "http":
            raise BadRequest(
                "Use https. If you did, the proxy must say so in X-Forwarded-Proto.",
                code="https_required",
                reason="the proxy took this over plain HTTP",
            )

        named = _agreed("host", _last(x_host), last.host)
        return client, scheme, self._listed(host if named is None else named)

    def _client(self, peer: str, hops: list[str], forwarded: list[str], real: str | None) -> str:
        """Find the client. All headers must name the same one."""
        clients = [self._walk(peer, chain) for chain in (hops, forwarded) if chain]
        if len(clients) == 2 and clients[0] != clients[1]:  # noqa: PLR2004
            raise _contradiction("names two clients: X-Forwarded-For and Forwarded differ")
        if real is None:
            return clients[0] if clients else peer
        named = _split(real)
        address = _hop(named[0] if len(named) == 1 else real)
        if not clients:
            return address
        # A proxy writes the address of its peer, which is the last in its list, or the client that it found itself.
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
        return client  # only configured proxies: the client is on one of them

    def _listed(self, host: str | None) -> str:
        canonical = canonical_host(host or "", self._scheme)
        if canonical not in self._hosts:
            raise BadRequest(
                "This server does not accept the host of this request. "
                "To accept another host than that of public_url, name it in hosts (--other-host).",
                code="unknown_host",
                reason=f"host {(host or '')[:100]!a}",
            )
        return canonical


# --- settings --------------------------------------------------------------------------------------------------------


def _public_origin(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:
        raise Misconfigured(f"public_url {url!r} is not a URL.") from None
    host = canonical_host(parts.netloc, parts.scheme)  # "" also for user:password@host
    if parts.scheme not in {"http", "https"} or not host or parts.query or parts.fragment:
        raise Misconfigured(f"public_url {url!r} is not a public URL. Use a URL such as https://auth.example.com.")
    if parts.scheme == "http" and not is_loopback(host):
        raise Misconfigured(f"public_url {url!r} is plain HTTP. Passwords and cookies need https.")
    if parts.path.strip("/"):
        # Cookies and the check of the origin belong to the whole host.
        raise Misconfigured(
            f"public_url {url!r} has a path. Use {parts.scheme}://{host} and base_path {parts.path.rstrip('/')}."
        )
    return f"{parts.scheme}://{host}"


def _network(proxy: str) -> _Network:
    try:
        network = ipaddress.ip_network(proxy)
    except ValueError:
        raise Misconfigured(
            f"{proxy!r} is not the address of a proxy. Use an address such as 10.0.0.7, or a network: 10.0.0.0/24."
        ) from None
    # Every client could then forge its address.
    if network.prefixlen == 0:
        raise Misconfigured(f"{proxy!r} contains all addresses. List the addresses of your proxies.")
    return network


def _refused(code: str, why: str) -> BadRequest:
    return BadRequest(_DEVELOPMENT.format(why=why), code=code)


# --- addresses and hops ----------------------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def _parsed(text: str) -> _Address | None:
    """Read an address without its zone. An IPv4 address inside IPv6 becomes IPv4, so that a limit counts it once."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


@lru_cache(maxsize=4096)
def _canonical(text: str) -> str:
    """Normalise an address; "" for text that is not an address (a Unix socket, a test)."""
    address = _parsed(text)
    return "" if address is None else str(address)


@lru_cache(maxsize=256)
def _is_loopback_address(text: str) -> bool:
    address = _parsed(text)
    return address is not None and address.is_loopback


# A zone (`fe80::1%eth0`, RFC 4007) names a network interface of the proxy. It is ignored.
_ZONE = r"(?:%[0-9A-Za-z._~-]{1,32})?"
_HOP = re.compile(
    rf"([0-9.]{{7,15}})(?::[0-9]{{1,5}})?|\[([0-9A-Fa-f:.]{{2,45}}){_ZONE}\](?::[0-9]{{1,5}})?"
    rf"|(?=[0-9A-Fa-f]{{0,4}}:)([0-9A-Fa-f:.]{{2,45}}){_ZONE}"
)


@lru_cache(maxsize=4096)
def _hop(text: str) -> str:
    """Read one hop: an address, with or without port and brackets. `unknown` and `_hidden` are refused."""
    found = _HOP.fullmatch(text)
    address = _canonical(found[1] or found[2] or found[3]) if found else ""
    if not address:
        raise _contradiction("names a client that is not an address")
    return address


def _contradiction(what: str) -> BadRequest:
    return BadRequest(
        f"The proxy in front of this server {what}. The proxy must overwrite every forwarding header.",
        code="forwarding_headers",
    )


def _split(line: str | None) -> list[str]:
    if not line:
        return []
    if len(line) > _HEADER_AT_MOST:
        raise _contradiction("sent a forwarding header that is too long")
    # RFC 9110, 5.6.1: empty elements are ignored.
    hops = [hop for piece in line.split(",") if (hop := piece.strip(" \t"))]
    if len(hops) > _HOPS_AT_MOST:
        raise _contradiction("names too many hops")
    return hops


def _last(line: str | None) -> str | None:
    """Return the last element of a list, which the nearest proxy wrote."""
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
    """Read a Forwarded header: the hops of all elements, and host and scheme of the last.

    Header injection: a client can open a quote that the text of the proxy closes. Such a line cannot be read to its end
    and is refused as a whole. Empty pairs and elements are ignored (RFC 9110, 5.6.1).
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
