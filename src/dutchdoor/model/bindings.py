"""Bindings: the key of its client that a session is bound to. A copied token of such a session is worth nothing.

The client keeps the private part and proves it: a program with DPoP (RFC 9449), and a browser with Device Bound Session
Credentials (DBSC). Once the key is confirmed it never changes, because a copied token must not be able to bring a key
of its own.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

__all__ = ["Binding", "ProvedKey"]


class Binding(Struct, frozen=True):
    """The public half of a client's key, as a session keeps it."""

    state: Literal["offered", "confirmed"]
    """`confirmed` once the client has proved the key: every use of the session needs it then. An `offered` key may
    still be replaced.
    """
    alg: str
    """The one algorithm of its proofs, such as `ES256`."""
    thumbprint: str
    """Names the key (RFC 7638): 43 characters of base64url."""
    jwk: str = ""
    """The key itself as JSON without spaces, where proofs do not bring it along; else ""."""
    offered_at: int = 0
    """The time of the challenge by which a browser brought the key, in seconds since 1970; 0 for a program."""
    confirmed_at: int = 0
    """When the key of a browser was confirmed, in seconds since 1970; 0 if it was not, and for a program."""
    known_as: str = ""
    """The id of the session in which a browser registered the key, where a proof of its owner has replaced that one: by
    this id the browser knows the key, for good. "" where it is the session's own.
    """

    @property
    def is_of_browser(self) -> bool:
        """Whether the session is bound by its cookies (DBSC), and not by a proof with each request (DPoP)."""
        return self.jwk != ""

    @classmethod
    def parse(cls, text: str) -> Binding:
        """Read what `text` wrote. Raises `ValueError` for something else."""
        word, *parts = text.split(" ")
        state: Literal["offered", "confirmed"] = "confirmed" if word == "confirmed" else "offered"
        if word == state:
            match parts:
                case [alg, thumbprint, ""]:
                    return cls(state, alg, thumbprint)
                case [alg, thumbprint, jwk, offered, confirmed] if jwk:
                    return cls(state, alg, thumbprint, jwk, int(offered), int(confirmed))
                case [alg, thumbprint, jwk, offered, confirmed, known_as] if jwk and known_as:
                    return cls(state, alg, thumbprint, jwk, int(offered), int(confirmed), known_as)
        raise ValueError("not the binding of a session")

    def text(self) -> str:
        """Return the text form, which a store keeps."""
        times = f" {self.offered_at} {self.confirmed_at}" if self.jwk else ""
        known_as = f" {self.known_as}" if self.known_as else ""
        return f"{self.state} {self.alg} {self.thumbprint} {self.jwk}{times}{known_as}"


class ProvedKey(Struct, frozen=True):
    """A key that a client has proved with one request."""

    thumbprint: str
    """Names the key (RFC 7638)."""
    alg: str = ""
    """The algorithm of the proof; "" where the key is that of an access token, and was proved with it."""
    spent_as: str = ""
    """The name of the proof, where it must be taken once over all nodes; else ""."""

    @property
    def came_with_token(self) -> bool:
        """Whether it is the key of the access token of this request, which continues an earlier sign-in."""
        return not self.alg
