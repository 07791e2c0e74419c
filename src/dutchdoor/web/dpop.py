"""The DPoP header of a request, and the URL that its proof must name (RFC 9449).

The URL is the one that the client used: the origin that the edge found behind configured proxies, and the whole path.
`/auth/check` is asked about another request, whose path a configured proxy names.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

from dutchdoor.errors import DpopRequired, InvalidDpopProof
from dutchdoor.jose.dpop import DpopProof
from dutchdoor.model.policy import Mode, Policy
from dutchdoor.web.http import Request, forwarded_method

__all__ = ["DPOP_SCHEME", "check_bound", "proof_about_another", "proof_in"]

DPOP_SCHEME: Final = {
    "type": "http",
    "scheme": "dpop",
    "description": "An access token that is bound to a key, with a proof in the header `DPoP` (RFC 9449).",
}
"""How OpenAPI describes it."""


def proof_in(request: Request, origin: str, path: str) -> DpopProof:
    """Return what a request to a `path` of an `origin` brings of a proof. Raises `BadRequest` for two DPoP headers."""
    return DpopProof(request.header(b"dpop") or "", request.client_method, origin + quote(path))


def proof_about_another(request: Request) -> DpopProof:
    """Return the proof of the request that a configured proxy asks about. Raises `BadRequest`, `InvalidDpopProof`."""
    named = {request.header(name) for name in (b"x-original-uri", b"x-forwarded-uri")} - {None}
    if len(named) != 1:
        # With two, a client could have written one of them: of the request that it copied the proof from.
        raise InvalidDpopProof("the proxy must send the path of the request, in X-Forwarded-Uri or X-Original-URI")
    path = str(named.pop()).partition("?")[0]
    return DpopProof(request.header(b"dpop") or "", forwarded_method(request), request.origin + path)


def check_bound(policy: Policy, mode: Mode, *, in_body: bool, bound: bool) -> None:
    """Refuse to give a client tokens that are bound to no key, where the policy binds each. The refresh cookie of a
    browser is no token that a program could bind. Raises `DpopRequired`.
    """
    if policy.device_binding == "required" and not bound and (mode == "jwt" or (mode == "hybrid" and in_body)):
        raise DpopRequired("device_binding is `required`, and no key was proved")
