"""How programs prove who they are: a client by its secret (HTTP Basic), a verifier by its key (a bearer token)."""

from __future__ import annotations

from binascii import Error as NotBase64

import pybase64

from dutchdoor.errors import InvalidToken, NotAuthenticated
from dutchdoor.model.service_credentials import ClientSecret, RegisteredClient, VerifierKey
from dutchdoor.stores.base import Store
from dutchdoor.texts import mark
from dutchdoor.web.http import Request, UnknownVerifier
from dutchdoor.web.verifiers import Verifiers

__all__ = ["client_of", "is_verifier", "verifier_of"]

_WRONG = mark("The client id or the client secret is not right.")


def is_verifier(request: Request, *, development: bool) -> bool:
    """Whether the client is a verifier, with a key or in development without one, and not a registered client."""
    scheme, _ = request.credentials()
    return scheme == "bearer" or (not scheme and development)


async def verifier_of(request: Request, verifiers: Verifiers, *, development: bool) -> VerifierKey | None:
    """Authenticate a verifier by its key as a bearer token, never by a cookie.

    In development (without a public URL, only this machine is served), a verifier without a key is accepted, and the
    result is None. Raises `NotAuthenticated`, `UnknownVerifier`, `Unavailable`.
    """
    text = request.bearer()
    if text is not None:
        try:
            return await verifiers.recognise(text)
        except InvalidToken as error:
            raise UnknownVerifier(error.reason) from None
    if development and request.header(b"authorization") is None:
        return None
    message = "Send a verifier key as a bearer token. `dutchdoor verifier add` creates a key."
    raise NotAuthenticated("no verifier key", message=message)


async def client_of(request: Request, store: Store) -> RegisteredClient:
    """Authenticate a confidential client by HTTP Basic (RFC 6749, section 2.3.1). Raises `NotAuthenticated`."""
    name, text = _basic(*request.credentials())
    try:
        secret = ClientSecret.parse(text)
    except InvalidToken:
        raise NotAuthenticated("malformed client secret", message=_WRONG) from None
    found = await store.get(RegisteredClient, name)
    # Timing: an unknown client takes the same comparison, so that the time does not reveal which clients exist.
    if not secret.matches(found.secret_hash if found else b"\0" * 32) or found is None:
        raise NotAuthenticated("unknown client or wrong secret", message=_WRONG)
    return found


def _basic(scheme: str, encoded: str) -> tuple[str, str]:
    """Read HTTP Basic credentials (RFC 7617). Raises `NotAuthenticated` if they are missing or malformed."""
    if scheme != "basic" or len(encoded) > 512:  # noqa: PLR2004 - valid ones have 120
        raise NotAuthenticated("no client credentials", message=mark("Authenticate the client by HTTP Basic."))
    try:
        name, colon, secret = pybase64.b64decode(encoded, validate=True).decode("ascii").partition(":")
    except (NotBase64, ValueError):
        raise NotAuthenticated("malformed client credentials", message=_WRONG) from None
    if not colon:
        raise NotAuthenticated("malformed client credentials", message=_WRONG)
    return name, secret
