"""An authority's address, read from its URL by its exact spelling."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from dutchdoor.errors import Misconfigured
from dutchdoor.model.base_path import PATTERN

__all__ = ["PORTS", "Origin", "check_public_url"]

PORTS: Final = {"http": 80, "https": 443}
_ORIGIN: Final = re.compile(
    r"(https?)://(?:([a-z0-9._-]{1,253})|\[([0-9a-f:.]{2,45})\])(?::([1-9][0-9]{0,4}))?(" + PATTERN + ")"
)
_THIS_MACHINE: Final = re.compile(r"localhost|127(\.[0-9]{1,3}){3}|::1")


class Origin(NamedTuple):
    """Scheme, host and port of an authority, and the base path of its API."""

    secure: bool
    host: str
    port: int
    base_path: str = ""

    @classmethod
    def of(cls, issuer: str) -> Origin:
        """Read an issuer's URL. Raises `Misconfigured` for anything but https, or http to this machine."""
        # Tokens carry the issuer as the authority spells it, and verifiers compare it character for character.
        found = _ORIGIN.fullmatch(issuer) if isinstance(issuer, str) else None
        port = int(found[4] or 0) if found else 0
        if found is None or port > 65535 or port == PORTS[found[1]]:  # noqa: PLR2004
            # The given URL may hold a password, so the message does not repeat it.
            raise Misconfigured(
                "An issuer is an address as its tokens spell it, without a slash at the end: https://auth.example.com, "
                "or https://example.com/id where the API has a base path."
            )
        scheme, host = found[1], found[2] or found[3]
        if scheme == "http" and not _THIS_MACHINE.fullmatch(host):
            raise Misconfigured("Plain HTTP is only for an authority on this machine. Use https://...")
        return cls(scheme == "https", host, port or PORTS[scheme], found[5])


def check_public_url(url: str) -> str:
    """Return the URL at which clients reach a service. Raises `Misconfigured` for one that no client would name."""
    try:
        Origin.of(url)
    except Misconfigured:
        raise Misconfigured(
            "public_url is the address that clients of this service use, in lower case and without a slash at its end: "
            "https://orders.example.com. Plain HTTP is for this machine only."
        ) from None
    return url
