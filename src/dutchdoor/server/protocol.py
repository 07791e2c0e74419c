"""Limits for connections, and one unambiguous reading of each request: uvicorn's httptools protocol has neither.

uvicorn limits neither the size of a request head nor the time until it is complete, and counts a connection only when
a request is complete. Here a head has at most `HEAD_AT_MOST` bytes (431). A request must arrive within a time limit, or
the connection is closed. A connection counts as soon as it is open. Chunk sizes, extensions and trailers of a chunked
body are limited like a head.

Each open connection takes a place. When places run out, the connection that has been idle longest is closed. One
network (an IPv4 address or an IPv6 /64) has at most a quarter of the places. An IPv6 customer may have as much as a /48
(RFC 6177), so a /56 has at most three eighths and a /48 half of the places. A configured proxy carries the requests of
many clients and may have all places.

uvicorn appends trailers to the headers, so a client behind a proxy could set its own X-Forwarded-For. Here every field
after the head is dropped (RFC 9110, 6.5.1). uvicorn also ignores the authority of an absolute request target, so the
Host header alone would count. RFC 9112, 3.2.2 and the proxies in front use the authority of the target instead. Here
this authority replaces the Host header.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, ClassVar

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from dutchdoor.model.http_client import networks_of

__all__ = ["HEAD_AT_MOST", "BoundedProtocol"]

HEAD_AT_MOST = 32 * 1024
"""Limit for request line and headers, in bytes. Browsers stay below 8 KiB, even with cookies of other applications."""

LINGER_FOR = 1.0
"""Seconds after a refusal in which further bytes are read and discarded."""

SHARE_AT_LEAST = 8
"""Connections that one network may always have, even with a low limit: a browser opens six."""

_EIGHTHS = (2, 3, 4)
"""Shares of the networks that an address is in (`networks_of`), the narrowest first."""

_PROBES = frozenset({"/livez", "/readyz"})

_ABSOLUTE = re.compile(rb"https?://([^/?#]+)((?:[/?].*)?)", re.IGNORECASE | re.DOTALL)

_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: text/plain\r\ncontent-length: 36\r\n"
    b"connection: close\r\n\r\nThe head of the request is too long.\n"
)


class _Places:
    """The places of one network, or of all connections together."""

    __slots__ = ("name", "open", "share", "taken", "waiting")

    def __init__(self, name: str, share: int) -> None:
        self.name, self.share = name, share
        self.open = self.taken = 0  # a connection that is refused for lack of a place is open too
        self.waiting: dict[BoundedProtocol, None] = {}
        """Connections with a place that wait for a complete head, the longest wait first."""

    def find(self) -> bool:
        """Whether there is a free place. If there is none, close the connection that has been idle longest."""
        if self.taken < self.share:
            return True
        oldest = next(iter(self.waiting), None)
        if oldest is not None:
            oldest.give_up()
        return oldest is not None


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol with limits. `serve` sets the numbers."""

    request_for: ClassVar[float] = 20.0
    max_connections: ClassVar[int] = 4096
    stopping: ClassVar[list[Callable[[], None]]] = []
    """Called once when the server is asked to stop, to answer long polls that would delay the stop."""
    proxies: ClassVar[Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]] = ()
    """The configured proxies, each of which carries the requests of many clients."""
    plain_from_proxies: ClassVar[bool] = False
    """Whether plain HTTP is accepted only from this machine and the proxies. False: from every address."""

    places: ClassVar[dict[str, _Places]] = {}
    """The places of each network, and under "" those of all connections."""

    _held: tuple[_Places, ...] = ()
    _placed = False
    _arriving = True  # between a request's first byte, or the connection, and the request's last byte
    _in_head = True
    _head_size = 0
    _too_large = False
    _refused = False
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]  # uvicorn narrows it the same way
        address = _address((self.client or ("",))[0])
        proxied = address is not None and any(address in proxy for proxy in self.proxies)
        if address is not None and not proxied:
            for network, eighths in zip(networks_of(str(address)), _EIGHTHS, strict=False):
                self._enter(network, max(SHARE_AT_LEAST, self.max_connections * eighths // 8))
        self._enter("", self.max_connections)
        if any(each.open > 2 * each.share for each in self._held):
            self.give_up()
            return
        if self.plain_from_proxies and self.scheme == "http" and not (proxied or (address and address.is_loopback)):
            self.app = partial(_only_probes, self.app)
        if all(each.find() for each in self._held):
            self._placed = True
            for each in self._held:
                each.taken += 1
            self._wait()
        else:
            self.app = _refuse_busy
        self._deadline = self.loop.call_later(self.request_for, self._too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()
        self._disarm()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        last = not self.pipeline
        super().on_response_complete()
        if last and not self.transport.is_closing():
            self._wait()

    # --- places ---

    def _enter(self, network: str, share: int) -> None:
        places = self.places.setdefault(network, _Places(network, share))
        places.open += 1
        self._held += (places,)

    def _leave(self) -> None:
        self._go_on()
        for places in self._held:
            places.open -= 1
            places.taken -= self._placed
            if not places.open:
                del self.places[places.name]
        self._held = ()

    def _wait(self) -> None:
        if self._placed:
            for places in self._held:
                places.waiting[self] = None

    def _go_on(self) -> None:
        for places in self._held:
            places.waiting.pop(self, None)

    def give_up(self) -> None:
        """Close this connection at once. The kernel has its last response by now, or the client does not read it."""
        self._leave()
        self.transport.abort()

    def shutdown(self) -> None:
        super().shutdown()  # first, so that a long poll that is answered now is the last request on its connection
        while BoundedProtocol.stopping:
            BoundedProtocol.stopping.pop()()

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        self._head_size += len(data)
        super().data_received(data)
        if self._refused or self.transport.is_closing():
            return
        if self._head_size > HEAD_AT_MOST and self._in_head:
            self._refuse_head()
        elif self._head_size > HEAD_AT_MOST and self._arriving:
            self.transport.abort()  # the response may have begun, so no error response is possible
        elif self._arriving:
            if self._deadline is None:
                self._deadline = self.loop.call_later(self.request_for, self._too_slow)
        elif self._deadline is not None:
            self._disarm()

    def on_message_begin(self) -> None:
        self._arriving = self._in_head = True
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        # A proxy does not check names after the head: a client could set its own X-Forwarded-For in a trailer.
        if not self._in_head:
            return
        # As in uvicorn, but without trailing white space. Not `super()`, to save a call for each header.
        name, value = name.lower(), value.rstrip(b" \t")
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        # The bytes may include a body or other requests, so measure the head itself.
        if self._head_size > HEAD_AT_MOST and self._measured() > HEAD_AT_MOST:
            self._too_large = True
            raise httptools.HttpParserError("the head is too long")
        self._in_head, self._head_size = False, 0
        self._go_on()
        if not self.url.startswith(b"/") and self.url != b"*":
            self._read_absolute_target()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._head_size -= len(body)  # the rest is chunk sizes, extensions and trailers
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._arriving, self._head_size = False, 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        if self._too_large:
            self._refuse_head()
        else:
            super().send_400_response(msg)

    def _refuse_head(self) -> None:
        self._refused = True
        self.transport.write(_TOO_LARGE)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        # If the server closed now with unread bytes, the kernel would reset the connection and lose the response.
        self._disarm()
        self._deadline = self.loop.call_later(LINGER_FOR, self._too_slow)

    def _read_absolute_target(self) -> None:
        """Read `http://host/path` as if the client had sent `/path` and `Host: host`.

        A missing Host header stays missing, and a repeated one stays repeated. Both are refused later, as always.
        """
        found = _ABSOLUTE.fullmatch(self.url)
        if found is None:
            raise httptools.HttpParserError("the request target is neither a path nor a URL")
        authority, target = found.groups()
        self.url = target if target.startswith(b"/") else b"/" + target
        self.headers[:] = [(name, authority if name == b"host" else value) for name, value in self.headers]

    def _measured(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _too_slow(self) -> None:
        self._deadline = None
        if not self.transport.is_closing():
            self.transport.abort()

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


_Send = Callable[[dict[str, object]], Awaitable[None]]


async def _only_probes(app: Any, scope: dict[str, Any], receive: object, send: _Send) -> None:
    """Answer the probes of a kubelet, which uses plain HTTP from its own address. Refuse all other requests."""
    if scope["path"] in _PROBES and scope["method"] in {"GET", "HEAD"}:
        await app(scope, receive, send)
        return
    await _refuse(
        send,
        403,
        b'{"type":"about:blank","title":"Forbidden","status":403,"code":"plain_http","detail":"This server accepts '
        b'plain HTTP only from this machine and from its configured proxies (--proxy). Use its https address."}',
    )


async def _refuse_busy(_scope: object, _receive: object, send: _Send) -> None:
    await _refuse(
        send,
        503,
        b'{"type":"about:blank","title":"Service Unavailable","status":503,"code":"unavailable","detail":"Too many '
        b'connections at once. Try again shortly."}',
    )


async def _refuse(send: _Send, status: int, body: bytes) -> None:
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
        (b"connection", b"close"),
    ]
    if status == 503:  # noqa: PLR2004
        headers.append((b"retry-after", b"1"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
