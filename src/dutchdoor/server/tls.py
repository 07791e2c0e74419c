"""The certificate of the server, which is loaded again when its files change."""

from __future__ import annotations

import asyncio
import logging
import ssl
from pathlib import Path

import uvicorn

from dutchdoor.errors import Misconfigured
from dutchdoor.server.config import Settings

__all__ = ["context_for", "tls_context"]

CERTIFICATE_EVERY = 1.0
"""Seconds between two checks of the certificate files. A check costs microseconds."""

log = logging.getLogger("dutchdoor")


def tls_context(settings: Settings) -> ssl.SSLContext:
    """Create the TLS context for the configured certificate. Raises `Misconfigured` with the error."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    _load(context, settings)
    return context


def _load(context: ssl.SSLContext, settings: Settings) -> None:
    cert, key = str(settings.tls_cert), str(settings.tls_key)
    try:
        context.load_cert_chain(cert, key, _no_passphrase)
    except OSError as exc:  # ssl.SSLError is one
        if isinstance(exc, ssl.SSLError):
            raise Misconfigured(
                f"--tls-cert {cert} and --tls-key {key} are not a certificate and its key "
                f"({exc.reason or 'not PEM'}). "
                "Both must be PEM, and the key must not be encrypted."
            ) from None
        raise Misconfigured(f"--tls-cert {cert} and --tls-key {key}: {exc.strerror}.") from None


def _no_passphrase() -> str:
    # Without this, OpenSSL asks on the terminal, and the server hangs until a person types a passphrase.
    return ""


def context_for(settings: Settings, _config: uvicorn.Config, _default: object) -> ssl.SSLContext:
    """Create the TLS context, and watch its files. uvicorn calls this in the serving loop."""
    context = tls_context(settings)
    watching = asyncio.get_running_loop().create_task(_watch(settings, context))
    _WATCHING.add(watching)  # a loop alone does not keep its tasks alive
    watching.add_done_callback(_WATCHING.discard)
    return context


_WATCHING: set[asyncio.Task[None]] = set()


async def _watch(settings: Settings, context: ssl.SSLContext) -> None:
    """Load the certificate again when its files change. Open connections keep the old certificate.

    This runs in the serving loop and not in a thread: while a certificate is being loaded, the context has no key, and
    a handshake at that moment would fail.
    """
    loaded = _stamp(settings)
    while True:
        await asyncio.sleep(CERTIFICATE_EVERY)
        found = _stamp(settings)
        if found == loaded or found is None:
            continue
        try:
            # First into a separate context: if only one file is written yet, the pair does not match, and must not
            # replace a working pair.
            tls_context(settings)
            _load(context, settings)
        except Misconfigured as exc:
            log.warning("certificate files changed but cannot be used yet: %s", exc)
        else:
            log.info("certificate reloaded")
        loaded = found


def _stamp(settings: Settings) -> object:
    try:
        return [
            (stat.st_ino, stat.st_mtime_ns, stat.st_size)
            for stat in (Path(str(path)).stat() for path in (settings.tls_cert, settings.tls_key))
        ]
    except OSError:
        return None  # being replaced
