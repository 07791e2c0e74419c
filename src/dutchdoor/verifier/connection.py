"""One connection to the authority, kept alive: HTTP/1.1 (RFC 9112) by the standard library, over TLS or on loopback.

The other end may be slow, broken, or an attacker. So every exchange has one deadline for all of it, every answer has a
bound, and anything but a 200 with a length is an error. Deliberately left out: redirects (a key must not follow one),
proxies from the environment, cookies, compression, HTTP/2, and any way to turn off certificate checks.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse
from io import BufferedReader, RawIOBase
from threading import Lock
from typing import Final, cast

from dutchdoor.errors import Unavailable
from dutchdoor.model.service_credentials import VerifierSecret
from dutchdoor.verifier.origin import PORTS, Origin

__all__ = ["Refusal", "Wire"]

CONNECT_FOR: Final = 2.0
"""Seconds for one address to accept a connection."""
_OK: Final = 200


class Refusal(Unavailable):
    """An answer that is not the one asked for. `status` is its HTTP status."""

    def __init__(self, reason: str, *, status: int, retry_after: float = 1.0) -> None:
        super().__init__(reason, retry_after=retry_after)
        self.status = status


class Wire:
    """A connection. One thread at a time may use it; any thread may `cut` it.

    Args:
        origin: the authority to call.
        key: the bearer token to send, or None.
        tls: how certificates are checked; shared by all connections.
        elapsed: the clock of deadlines.
    """

    def __init__(
        self,
        origin: Origin,
        key: VerifierSecret | None,
        *,
        tls: ssl.SSLContext | None,
        elapsed: Callable[[], float],
    ) -> None:
        self._origin, self._key, self._tls, self._elapsed = origin, key, tls, elapsed
        self._http: _Connection | None = None
        self._lock = Lock()
        self._is_cut = False

    def get(self, path: str, *, limit: int, until: float) -> bytes:
        """Send a GET and return the answer. Raises `Unavailable`."""
        return self._exchange("GET", path, None, "", limit, until)

    def post(self, path: str, body: bytes, content_type: str, *, limit: int, until: float) -> bytes:
        """Send a request and return the answer; send it again once if the idle connection was closed meanwhile. Raises
        `Unavailable`.
        """
        return self._exchange("POST", path, body, content_type, limit, until)

    def cut(self) -> None:
        """Abort the exchange under way, from another thread, and refuse later ones. A waiting thread gets an error at
        once.
        """
        with self._lock:
            self._is_cut = True
            if self._http is not None:
                self._http.cut()

    def close(self) -> None:
        """Close the connection. The next exchange opens another."""
        if self._http is not None:
            self._http.hang_up()
            self._http = None

    def abandon(self) -> None:
        """In the child of a fork: close this process's end. Takes no lock, since the thread that held it does not exist
        here. Sends nothing, since the connection belongs to the parent.
        """
        if self._http is not None:
            self._http.abandon()
            self._http = None

    def _exchange(
        self, method: str, path: str, body: bytes | None, content_type: str, limit: int, until: float
    ) -> bytes:
        """Send one request and read its answer."""
        reused = self._http is not None
        try:
            try:
                return self._once(method, path, body, content_type, limit, until)
            except (ConnectionResetError, BrokenPipeError):  # RemoteDisconnected is one
                # The connection was idle, and the other end has closed it without an answer: the request had no effect.
                if not reused:
                    raise
                self.close()
                return self._once(method, path, body, content_type, limit, until)
        except Unavailable:
            self.close()
            raise
        except (OSError, HTTPException, ValueError) as error:
            self.close()
            # The type says enough. A library's text may quote the request, and with it the key.
            raise Unavailable(f"{method} {path}: {_name(error)}") from None
        except BaseException:  # interrupted: half an answer must not be taken for the next one
            self.close()
            raise

    def _once(self, method: str, path: str, body: bytes | None, content_type: str, limit: int, until: float) -> bytes:
        http = self._connected(until)
        http.until = until
        http.putrequest(method, self._origin.base_path + path)
        http.putheader("Accept", "application/json")
        if self._key is not None:
            http.putheader("Authorization", f"Bearer {self._key.text()}")
        if body is not None:
            http.putheader("Content-Type", content_type)
            http.putheader("Content-Length", str(len(body)))
        http.endheaders(body)
        answer = http.getresponse()
        text = answer.read(limit + 1)
        # The body is complete only if it ends at its own length, not at our bound or where the connection broke.
        if len(text) > limit or not answer.isclosed():
            raise Refusal(f"{method} {path}: too long, cut short, or without a length", status=answer.status)
        if answer.will_close:
            self.close()
        if answer.status != _OK:
            # A redirect is refused too: it would send the key, or our trust, to another server.
            raise Refusal(f"{method} {path}: {answer.status}", status=answer.status, retry_after=_retry_after(answer))
        return text

    def _connected(self, until: float) -> _Connection:
        if self._http is None:
            if self._is_cut:
                raise Unavailable("the verifier is closed")
            http = _Connection(self._origin, self._tls, self._elapsed)
            http.until = until
            http.connect()
            with self._lock:
                self._http = http
                if self._is_cut:
                    http.cut()
        return self._http


class _Connection(HTTPConnection):
    """The standard library's connection, with one deadline over all its reads and writes."""

    def __init__(self, origin: Origin, tls: ssl.SSLContext | None, elapsed: Callable[[], float]) -> None:
        super().__init__(origin.host, origin.port)
        self.default_port = PORTS["https" if origin.secure else "http"]  # so that the Host header omits a default port
        self._tls, self._elapsed = tls, elapsed
        self.until = 0.0
        self._raw: socket.socket | None = None

    def left(self) -> float:
        """Seconds until the deadline. Raises `TimeoutError` when it has passed."""
        left = self.until - self._elapsed()
        if left <= 0:
            raise TimeoutError
        return left

    def connect(self) -> None:
        raw = socket.create_connection((self.host, self.port), timeout=min(CONNECT_FOR, self.left()))
        try:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                raw.settimeout(self.left())
                raw = self._tls.wrap_socket(raw, server_hostname=self.host)
        except BaseException:
            raw.close()
            raise
        self._raw = raw
        self.sock = cast("socket.socket", _Timed(raw, self.left))

    def cut(self) -> None:
        if self._raw is not None:
            with suppress(OSError):
                # The plain socket's shutdown: it wakes a thread that waits in `recv`, which closing does not.
                socket.socket.shutdown(self._raw, socket.SHUT_RDWR)

    def hang_up(self) -> None:
        """Close the socket. `http.client` calls `close` itself before it has read the last answer, so `close` cannot do
        it.
        """
        self.close()
        self.abandon()

    def abandon(self) -> None:
        if self._raw is not None:
            self._raw.close()


class _Timed(RawIOBase):
    """A socket as `http.client` uses it, with one deadline for an exchange: a server that sends a byte every second
    must not block us for ever. A request is sent in one piece when `http.client` begins to read the answer. Each system
    call releases the interpreter to other threads, and in a busy process it takes a while to get it back.
    """

    def __init__(self, raw: socket.socket, left: Callable[[], float]) -> None:
        self._raw, self._left, self._unsent = raw, left, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        self._left()  # or each read would get the time left at the first read
        return self._raw.recv_into(cast("bytearray", buffer))

    def sendall(self, content: bytes) -> None:
        self._unsent += content

    def makefile(self, mode: str) -> BufferedReader:  # noqa: ARG002 - it is asked for "rb" and nothing else
        content, self._unsent = self._unsent, b""
        self._raw.settimeout(self._left())
        self._raw.sendall(content)
        return BufferedReader(_Timed(self._raw, self._left))


def _name(error: BaseException) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is not valid ({error.verify_message})"
    said = f": {error.strerror}" if isinstance(error, OSError) and error.strerror else ""
    return f"{type(error).__name__}{said}"


def _retry_after(answer: HTTPResponse) -> float:
    text = answer.getheader("Retry-After", "")
    return min(float(text), 60.0) if text.isascii() and text.isdigit() and 0 < len(text) <= 4 and int(text) else 1.0  # noqa: PLR2004
