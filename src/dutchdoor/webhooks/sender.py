"""The sender: one POST to the endpoint of a webhook, over a connection to an address that was looked at."""

from __future__ import annotations

import asyncio
import email.utils
import ipaddress
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Final, NamedTuple, TypeAlias

import httpx2

from dutchdoor.webhooks.reach import Reach

__all__ = ["SENDS_FOR", "Answer", "Resolve", "Sender"]

SENDS_FOR: Final = 15.0
"""Seconds for everything: the name, the connection, the request and the answer."""
CONNECTS_FOR: Final = 5.0
ANSWER_AT_MOST: Final = 8192
"""Bytes of an answer that are read. What it says beyond the status does not matter; a short body is read to its end so
that the connection can be used again."""
ADDRESSES_AT_MOST: Final = 8

Resolve: TypeAlias = Callable[[str, int], Awaitable[list[str]]]
"""Returns the addresses of a name. Raises `OSError`."""

_RESOLVING: Final = ThreadPoolExecutor(4, "dutchdoor-webhook-names")
"""Threads of their own: a name server that does not answer holds up nothing else."""


class Answer(NamedTuple):
    """What became of an attempt."""

    status: int
    """The status of the response; 0 without one."""
    failure: str = ""
    """What is wrong, in words; "" if the endpoint took the message."""
    retry_after: float | None = None
    """Seconds to wait, where the endpoint asks for it."""

    @property
    def ok(self) -> bool:
        return not self.failure


class Sender:
    """Sends messages to one URL, several at once.

    It is one transport for one URL: a connection that was made for the name of one endpoint is never used for another
    name at the same address. The transport alone follows no redirect, keeps no cookie, uses no proxy of the environment
    and logs no URL.

    Args:
        url: the URL, as `check_url` returned it.
        reach: which addresses it may be at.
        resolve: finds the addresses of a name; the system's resolver if not given.
        tls: what certificates are verified by; the system's authorities if not given (`SSL_CERT_FILE`).
    """

    def __init__(
        self, url: str, reach: Reach, *, resolve: Resolve | None = None, tls: ssl.SSLContext | None = None
    ) -> None:
        self._url, self._reach, self._resolve = httpx2.URL(url), reach, resolve or _resolve
        self._tls = tls

    @cached_property
    def _transport(self) -> httpx2.AsyncHTTPTransport:
        limits = httpx2.Limits(max_connections=16, max_keepalive_connections=8, keepalive_expiry=30.0)
        return httpx2.AsyncHTTPTransport(
            verify=self._tls or ssl.create_default_context(), trust_env=False, limits=limits
        )

    async def post(self, headers: Mapping[str, str], body: bytes) -> Answer:
        """Send a message once. Raises nothing for what the network or the endpoint does."""
        try:
            async with asyncio.timeout(SENDS_FOR):
                return await self._post(headers, body)
        except TimeoutError:
            return Answer(0, f"no answer within {SENDS_FOR:.0f} seconds")
        except httpx2.TimeoutException:
            return Answer(0, f"no connection within {CONNECTS_FOR:.0f} seconds")
        except (httpx2.TransportError, OSError, ssl.SSLError) as exc:
            return Answer(0, _words(exc))

    async def _post(self, headers: Mapping[str, str], body: bytes) -> Answer:
        host, port = self._url.host, self._url.port or (80 if self._url.scheme == "http" else 443)
        try:
            found = (await self._resolve(host, port))[:ADDRESSES_AT_MOST]
        except OSError as exc:
            return Answer(0, f"the name has no address: {exc.strerror or type(exc).__name__}")
        # One that is refused refuses all: a name that mixes them is on its way to the one that must not be reached.
        for address in found:
            if refused := self._reach.refuses(address, plain=self._url.scheme == "http"):
                return Answer(0, refused)
        last: Exception | None = None
        for address in found:
            try:
                return await self._post_to(address, headers, body)
            except (httpx2.ConnectError, httpx2.ConnectTimeout) as exc:
                last = exc
        if last is None:
            return Answer(0, "the name has no address")
        raise last

    async def _post_to(self, address: str, headers: Mapping[str, str], body: bytes) -> Answer:
        request = httpx2.Request(
            "POST",
            self._url.copy_with(host=address),
            headers={
                "host": self._url.netloc.decode("ascii"),
                "user-agent": "dutchdoor-webhook",
                "content-type": "application/json",
                "accept-encoding": "identity",
                **headers,
            },
            content=body,
            extensions={
                # The certificate must be for the name, and not for the address that the connection goes to.
                "sni_hostname": self._url.host,
                "timeout": {"connect": CONNECTS_FOR, "read": SENDS_FOR, "write": SENDS_FOR, "pool": SENDS_FOR},
            },
        )
        response = await self._transport.handle_async_request(request)
        try:
            read = 0
            async for chunk in response.aiter_raw():
                read += len(chunk)
                if read > ANSWER_AT_MOST:  # closing it closes the connection
                    break
        finally:
            await response.aclose()
        status = response.status_code
        if 200 <= status < 300:  # noqa: PLR2004
            return Answer(status)
        where = " (redirects are not followed)" if 300 <= status < 400 else ""  # noqa: PLR2004
        return Answer(status, f"status {status}{where}", _seconds(response.headers.get("retry-after", "")))

    async def close(self) -> None:
        """Close the connections that wait for another message."""
        if "_transport" in self.__dict__:
            await self._transport.aclose()


async def _resolve(host: str, port: int) -> list[str]:
    try:
        return [str(ipaddress.ip_address(host))]
    except ValueError:
        pass
    loop = asyncio.get_running_loop()
    found = await loop.run_in_executor(
        _RESOLVING, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    )
    return list(dict.fromkeys(str(each[4][0]) for each in found))


def _seconds(text: str) -> float | None:
    """Read Retry-After (RFC 9110, section 10.2.3): seconds or a date."""
    if text.isascii() and text.isdigit() and len(text) < 10:  # noqa: PLR2004
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return None


def _words(exc: Exception) -> str:
    """Return the text of an error of the network, which names no URL."""
    seen: BaseException | None = exc
    while seen is not None:
        if isinstance(seen, ssl.SSLCertVerificationError):
            return f"the certificate was refused: {seen.verify_message}"
        if isinstance(seen, OSError) and seen.strerror:
            return f"the connection failed: {seen.strerror}"
        seen = seen.__cause__ or seen.__context__
    return f"the connection failed: {type(exc).__name__}"
