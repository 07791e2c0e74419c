"""One connection, bounded: what uvicorn's httptools protocol leaves open to whoever connects and is in no hurry.

uvicorn bounds neither the size of a request's head nor the time it may take to arrive, and counts connections only when
a request on them is complete. Here a head has at most `HEAD_AT_MOST` bytes (431), a request must arrive within a time
(the connection is closed), and connections are counted when they are made. What a chunked body has besides its content
(chunk sizes, extensions, trailers) is bounded like a head: uvicorn would keep trailers as headers, without end.

Requests that arrive in one piece, as nearly all do, cost two comparisons more.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable, Sequence
from typing import ClassVar

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["HEAD_AT_MOST", "BoundedProtocol"]

HEAD_AT_MOST = 32 * 1024
"""Bytes of request line and headers. Browsers stay below 8 KiB, their cookies of all applications included."""

LINGER_FOR = 1.0
"""Seconds for which what still comes after a refusal is read and thrown away."""

_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: text/plain\r\ncontent-length: 36\r\n"
    b"connection: close\r\n\r\nThe head of the request is too long.\n"
)


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol within bounds. `serve` sets the numbers."""

    request_for: ClassVar[float] = 20.0
    max_connections: ClassVar[int] = 4096
    stopping: ClassVar[list[Callable[[], None]]] = []
    """Called once, when the server was asked to stop: what hangs is answered, or it would be waited for."""
    plain_from: ClassVar[Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network] | None] = None
    """Where plain HTTP may come from besides this machine; None: from anywhere the socket is bound to."""

    _arriving = True  # between a request's first byte, or the connection, and the request's last byte
    _in_head = True
    _head_size = 0
    _too_large = False
    _refused = False
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]  # uvicorn narrows it the same way
        if len(self.connections) > 2 * self.max_connections:
            self.transport.abort()
            return
        if self.plain_from is not None and self.scheme == "http" and not self._may_speak_plain():
            self.app = _refuse_plain
        elif len(self.connections) > self.max_connections:
            self.app = _refuse_busy
        self._deadline = self.loop.call_later(self.request_for, self._too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        super().shutdown()  # first, so that what is answered now is the last on its connection
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
            self.transport.abort()  # an answer to this request may have begun: there is no other to give
        elif self._arriving:
            if self._deadline is None:
                self._deadline = self.loop.call_later(self.request_for, self._too_slow)
        elif self._deadline is not None:
            self._disarm()

    def on_message_begin(self) -> None:
        self._arriving = self._in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        # It came in one piece with a body, or with other requests, or is too long: count.
        if self._head_size > HEAD_AT_MOST and self._measured() > HEAD_AT_MOST:
            self._too_large = True
            raise httptools.HttpParserError("the head is too long")
        self._in_head, self._head_size = False, 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._head_size -= len(body)  # what is left is what stands around the content
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
        # Closed at once with bytes unread, the connection would be reset, and the answer lost before it is seen.
        self._disarm()
        self._deadline = self.loop.call_later(LINGER_FOR, self._too_slow)

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

    def _may_speak_plain(self) -> bool:
        try:
            address = ipaddress.ip_address((self.client or ("",))[0].partition("%")[0])
        except ValueError:
            return False
        plain = getattr(address, "ipv4_mapped", None) or address
        return plain.is_loopback or any(plain in network for network in self.plain_from or ())


_Send = Callable[[dict[str, object]], Awaitable[None]]


async def _refuse_plain(_scope: object, _receive: object, send: _Send) -> None:
    await _refuse(
        send,
        403,
        b'{"type":"about:blank","title":"Forbidden","status":403,"code":"plain_http","detail":"This server takes plain '
        b'HTTP only from this machine and from the proxies it was told of (--proxy). Use its https address."}',
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
