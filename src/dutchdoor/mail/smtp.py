"""Sends mail by SMTP (RFC 5321) through aiosmtplib, over TLS (RFC 8314).

A connection always has TLS with a verified certificate: from the first byte (`smtps`, port 465) or by STARTTLS, which
must succeed (`smtp`, port 587). Plain SMTP is used only to a mail server on the same machine. To trust a private
certificate authority, set `SSL_CERT_FILE`, as for all programs that use OpenSSL.

Deliberately left out: retries and queues. The next hop is a mail server, which has a queue; a person who waits for a
link asks again.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Literal
from urllib.parse import SplitResult, unquote, urlsplit

import aiosmtplib

from dutchdoor.errors import Misconfigured, Unavailable
from dutchdoor.mail import Mail, as_message, sender_of
from dutchdoor.model.this_machine import is_this_machine

__all__ = ["SmtpTransport"]

_STEP_FOR = 10.0  # one command and its answer, in seconds
_SEND_FOR = 30.0  # a whole message, in seconds: a server that delays each answer must not block us
_PORTS = {"smtps": 465, "smtp": 587}
_WRONG = (
    "The mail server's address must look like smtps://user:password@host:465. In the user and the password, write %40 "
    "for @, %23 for #, %2F for /, %3A for : and %25 for %."
)


class SmtpTransport:
    """A `Transport` to one mail server. Each message has its own connection, because dutchdoor sends few.

    Raises:
        Misconfigured: the address has no host, another scheme or a path, or `sender` is not valid.
    """

    def __init__(self, url: str, *, sender: str, clock: Callable[[], float] = time.time) -> None:
        """Take `smtps://user:password@host:port` or `smtp://...`; user and password percent-encoded."""
        self._sender, self._clock = sender_of(sender), clock
        parts, self._host, port = _taken_apart(url)
        self._port = port or _PORTS[parts.scheme]
        self._username = unquote(parts.username or "")
        self._password = unquote(parts.password or "")
        self._security: Literal["tls", "starttls", "none"] = "tls" if parts.scheme == "smtps" else "starttls"
        if self._security == "starttls" and is_this_machine(self._host):
            self._security = "none"
        self._loop: asyncio.AbstractEventLoop | None = None

    def __repr__(self) -> str:
        return f"<SmtpTransport {self._host}:{self._port} {self._security}>"

    async def send(self, message: Mail) -> None:
        # Mail has an event loop in its own thread. Certificates and handshakes take milliseconds: in the serving loop
        # they would delay other answers, and this delay would reveal that a mail was sent.
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            threading.Thread(target=self._loop.run_forever, name="mail", daemon=True).start()
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._send(message), self._loop))

    async def _send(self, message: Mail) -> None:
        content = as_message(message, sender=self._sender, now=self._clock())
        context = None if self._security == "none" else ssl.create_default_context()
        client = aiosmtplib.SMTP(
            hostname=self._host,
            port=self._port,
            username=self._username or None,
            password=self._password or None,
            use_tls=self._security == "tls",
            # True and not "if offered": an attacker on the path can strip the offer, and would read every link.
            start_tls=self._security == "starttls",
            tls_context=context,
            timeout=_STEP_FOR,
        )
        try:
            async with asyncio.timeout(_SEND_FOR), client:
                # Passed here and not read from the headers: a header parser may find another mailbox.
                await client.send_message(content, sender=self._sender.addr_spec, recipients=[message.to])
        except Exception as error:  # noqa: BLE001 - a driver has many ways to fail
            raise Unavailable(f"mail not sent: {self._host} port {self._port}: {_why(error)}") from None


def _taken_apart(url: str) -> tuple[SplitResult, str, int | None]:
    """Return the parts of an address, its host and its port. Raises `Misconfigured`."""
    with suppress(ValueError):  # whose message quotes the password: it must not be the cause of ours either
        parts = urlsplit(url)
        port = parts.port
        if parts.scheme in _PORTS and parts.hostname and not (parts.path.strip("/") or parts.query or parts.fragment):
            return parts, parts.hostname, port
    raise Misconfigured(_WRONG)


_REFUSED = {
    aiosmtplib.SMTPAuthenticationError: "refuses the user name or the password",
    aiosmtplib.SMTPSenderRefused: "refuses the sender",
    aiosmtplib.SMTPRecipientRefused: "refuses the recipient",
    aiosmtplib.SMTPDataError: "refuses the message",
}
_ENHANCED = re.compile(r"[245]\.[0-9]{1,3}\.[0-9]{1,3}(?![0-9.])")
_NO_CODE = -1


def _why(error: BaseException) -> str:
    """Describe the failure for the log. Only the codes of the server's answer are logged (RFC 5321, RFC 3463): its text
    may repeat the recipient and the password.
    """
    if isinstance(error, aiosmtplib.SMTPRecipientsRefused) and error.recipients:
        error = error.recipients[0]
    if isinstance(error, aiosmtplib.SMTPResponseException):
        if error.code == _NO_CODE:
            return "the server there does not speak SMTP"
        enhanced = _ENHANCED.match(error.message)
        code = f"{error.code} {enhanced[0]}" if enhanced else str(error.code)
        return f"the server {_REFUSED.get(type(error), 'refuses us')}: {code}"
    below = error.__cause__ or error.__context__
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"TLS: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {error.reason}"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, aiosmtplib.SMTPServerDisconnected):
        return "the server closed the connection"
    if isinstance(below, OSError):  # the library's own exception says less
        return _why(below)
    if isinstance(error, aiosmtplib.SMTPException):
        return error.message
    if isinstance(error, OSError) and error.errno is not None:
        # asyncio replaces the system's message by the address; a resolver has its own message.
        return str(error.strerror) if isinstance(error, socket.gaierror) else os.strerror(error.errno)
    return type(error).__name__
