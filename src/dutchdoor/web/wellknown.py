"""The documents at well-known URLs (RFC 8615), and the health checks."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import Struct

from dutchdoor.errors import NotFound
from dutchdoor.jose.dpop import ALGORITHMS
from dutchdoor.web.api import Call, Route
from dutchdoor.web.http import Header, Response

__all__ = ["ROUTES"]

_JSON: Header = (b"content-type", b"application/json")
_JWKS_KEPT_FOR = 300
"""Seconds for which caches keep the key set. A new key is published a day before it signs, so no cache misses it."""

SECURITY_TXT_VALID_FOR = 180 * 86400


class Jwks(Struct):
    keys: list[dict[str, Any]]


class Metadata(Struct, omit_defaults=True):
    """Authorization server metadata (RFC 8414)."""

    issuer: str
    token_endpoint: str
    introspection_endpoint: str
    revocation_endpoint: str
    grant_types_supported: list[str]
    response_types_supported: list[str]
    token_endpoint_auth_methods_supported: list[str]
    introspection_endpoint_auth_methods_supported: list[str]
    revocation_endpoint_auth_methods_supported: list[str]
    dpop_signing_alg_values_supported: list[str]
    jwks_uri: str | msgspec.UnsetType = msgspec.UNSET


def _cached(value: object, seconds: int) -> Response:
    kept = f"public, max-age={seconds}".encode()
    return Response(200, [_JSON, (b"cache-control", kept)], msgspec.json.encode(value), kind="public")


async def jwks(call: Call) -> Response:
    keys = await call.authority.jwks()
    if not keys:
        raise NotFound("symmetric keys are not published")
    return _cached(Jwks(keys), _JWKS_KEPT_FOR)


async def metadata(call: Call) -> Response:
    issuer = call.authority.issuer
    document = Metadata(
        issuer=issuer,
        token_endpoint=f"{issuer}/oauth2/token",
        introspection_endpoint=f"{issuer}/oauth2/introspect",
        revocation_endpoint=f"{issuer}/oauth2/revoke",
        grant_types_supported=["refresh_token"],
        response_types_supported=[],
        token_endpoint_auth_methods_supported=["client_secret_basic", "none"],
        introspection_endpoint_auth_methods_supported=["client_secret_basic"],
        revocation_endpoint_auth_methods_supported=["client_secret_basic", "none"],
        dpop_signing_alg_values_supported=list(ALGORITHMS),
    )
    if not call.authority.symmetric:
        document.jwks_uri = f"{issuer}/.well-known/jwks.json"
    return _cached(document, 3600)


async def change_password(call: Call) -> Response:
    """Redirect to where a person changes the password. Password managers use this URL (W3C change-password)."""
    return Response(302, [(b"location", f"{call.api.site.base_path}/auth/account#password".encode())], kind="page")


async def security_txt(call: Call) -> Response:
    """Return the contact for reports of vulnerabilities (RFC 9116)."""
    contact = call.api.site.security_contact
    if not contact:
        raise NotFound("no security contact is set (--security-contact)")
    until = datetime.fromtimestamp(int(call.authority.clock() + SECURITY_TXT_VALID_FOR), UTC)
    here = f"{call.authority.issuer}/.well-known/security.txt"
    text = f"Contact: {contact}\nExpires: {until:%Y-%m-%dT%H:%M:%SZ}\nCanonical: {here}\n"
    return Response(
        200,
        [(b"content-type", b"text/plain; charset=utf-8"), (b"cache-control", b"public, max-age=86400")],
        text.encode(),
        kind="public",
    )


async def alive(_call: Call) -> Response:
    return Response(200, [(b"content-type", b"text/plain")], b"alive\n")


async def ready(call: Call) -> Response:
    """Answer 200 if the store can be read and written, a key signs, and the node is neither starting nor stopping."""
    if call.api.readiness.handing_over():
        # Planned, so neither logged nor counted as an outage.
        return Response(503, [(b"content-type", b"text/plain"), (b"retry-after", b"1")], b"starting or stopping\n")
    await call.api.readiness.check()
    return Response(200, [(b"content-type", b"text/plain")], b"ready\n")


ROUTES = (
    Route(
        method="GET",
        path="/.well-known/jwks.json",
        handler=jwks,
        gives=Jwks,
        also=(404,),
        summary="Get the public keys to verify access tokens (RFC 7517).",
    ),
    Route(
        method="GET",
        path="/.well-known/oauth-authorization-server",
        handler=metadata,
        gives=Metadata,
        summary="Get the server metadata: endpoints and algorithms (RFC 8414).",
    ),
    Route(
        method="GET",
        path="/.well-known/change-password",
        handler=change_password,
        bundled=True,
        status=302,
        summary="Redirect to the page to change a password.",
    ),
    Route(
        method="GET",
        path="/.well-known/security.txt",
        handler=security_txt,
        also=(404,),
        summary="Get the contact for reports of vulnerabilities (RFC 9116).",
    ),
    Route(method="GET", path="/livez", handler=alive, probe=True, summary="Check that the process answers."),
    Route(
        method="GET",
        path="/readyz",
        handler=ready,
        probe=True,
        also=(503,),
        summary="Check that the store can be read and written, a key signs, and the node does not start or stop.",
    ),
)
