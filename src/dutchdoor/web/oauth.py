"""The standard endpoints for third-party clients: token (RFC 6749), introspection (RFC 7662), revocation (RFC 7009).

Requests are forms, with each parameter once and in the body. Responses are JSON. There is no password grant and no
implicit grant, as in OAuth 2.1.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from dutchdoor.errors import InvalidToken, NotAuthenticated
from dutchdoor.model.rate_limits import bucket_of, by_address
from dutchdoor.model.refresh_tokens import RefreshToken
from dutchdoor.model.service_credentials import RegisteredClient
from dutchdoor.model.sessions import Session
from dutchdoor.stores.base import Revoked
from dutchdoor.texts import mark
from dutchdoor.web.api import Call, Route
from dutchdoor.web.dpop import check_bound
from dutchdoor.web.fences import applied, wait_for
from dutchdoor.web.http import BadRequest, OAuthRefused, Response, json_response
from dutchdoor.web.program_auth import client_of
from dutchdoor.web.schemas import Fence

__all__ = ["ROUTES"]


class TokenAnswer(Struct):
    access_token: str
    token_type: str
    expires_in: int
    refresh_token: str
    scope: str

    def __repr__(self) -> str:
        return "<TokenAnswer>"


class Introspection(Struct):
    """The response has more fields if the token is active. If it is not, it has only this field, for any reason."""

    active: bool


_INACTIVE = {"active": False}


async def token(call: Call) -> Response:
    """Exchange a refresh token. A confidential client authenticates; a public client sends only its id."""
    form = call.form
    grant = form.get("grant_type")
    if grant is None:
        raise BadRequest("grant_type is missing.", code="invalid_request")
    if grant != "refresh_token":
        raise OAuthRefused("unsupported_grant_type", "Only grant_type=refresh_token is supported.")
    client_id = await _client_of(call)
    text = form.get("refresh_token")
    if text is None:
        raise BadRequest("refresh_token is missing.", code="invalid_request")
    now, limits = call.authority.clock(), call.directory.limits

    def admit(held: Session) -> None:
        call.api.refresh_rate.take([bucket_of(limits.refresh_by_session, held.id)], now)
        call.check_device(held, by_cookie=False)
        check_bound(call.authority.policy, "hybrid", in_body=True, bound=bool(held.bound_to))
        # For a revoked session or one of another client, `refresh` raises invalid_grant, which reveals no scopes.
        if held.client_id == client_id and not set(form.get("scope", "").split()) <= set(held.scope.split()):
            raise OAuthRefused("invalid_scope", "A refresh cannot give more than the sign-in did.")

    try:
        signed_in = await call.authority.refresh(text, call.observed(), client_id=client_id, admit=admit)
    except InvalidToken:
        call.api.refresh_rate.take(by_address(limits.bad_refresh_by_address, call.observed().networks), now)
        raise
    scope = "" if signed_in.session is None else signed_in.session.scope
    kind = "DPoP" if signed_in.bound_to else "Bearer"
    return json_response(
        200, TokenAnswer(signed_in.access_token, kind, signed_in.expires_in, signed_in.refresh_token, scope)
    )


async def _client_of(call: Call) -> str:
    """Return the id of the client: confidential by HTTP Basic, public by its id. Raises `NotAuthenticated`."""
    if call.request.header(b"authorization") is not None:
        client = await client_of(call.request, call.authority.store)
        named = call.form.get("client_id")
        if named is not None and named != client.id:
            raise BadRequest("client_id differs from the client that authenticated.", code="invalid_request")
        return client.id
    name = call.form.get("client_id", call.authority.client_id)
    if name == call.authority.client_id:
        return name
    client_or_none = await call.authority.store.get(RegisteredClient, name)
    if client_or_none is None or client_or_none.confidential:
        raise NotAuthenticated("this client must authenticate", message=mark("Authenticate the client by HTTP Basic."))
    return name


async def introspect(call: Call) -> Response:
    """Return whether a token is valid now, and its content. A verifier asks only when its log is stale.

    An inactive token gets no reason: the response must not help an attacker who tries tokens.
    """
    if call.service is None:
        call.api.verifiers.count_question("" if call.verifier is None else call.verifier.name)
    text = call.form.get("token")
    if text is None:
        raise BadRequest("token is missing.", code="invalid_request")
    try:
        said = await (_introspect_refresh(call, text) if text.startswith("ddr1_") else _introspect_access(call, text))
    except NotAuthenticated:
        said = None
    return json_response(200, _INACTIVE if said is None else said)


async def _introspect_access(call: Call, text: str) -> dict[str, Any]:
    claims = await call.authority.claims(text)
    said = {
        "active": True,
        "token_type": "Bearer" if claims.cnf is None else "DPoP",
        # The client checks the proof of this key: it has the request, and this server has not (RFC 9449, 6.2).
        "cnf": claims.cnf,
        "iss": claims.iss,
        "sub": claims.sub,
        "aud": claims.aud,
        "exp": claims.exp,
        "iat": claims.iat,
        "jti": claims.jti,
        "client_id": claims.client_id,
        "scope": claims.scope,
        "sid": claims.sid,
        "auth_time": claims.auth_time,
        "amr": claims.amr,
        "acr": claims.acr or None,
        "roles": claims.roles,
    }
    return {name: value for name, value in said.items() if value is not None}


async def _introspect_refresh(call: Call, text: str) -> dict[str, Any] | None:
    """Return the content of a refresh token that could be exchanged now. This changes nothing. A verifier gets None."""
    client = call.service
    if client is None:
        return None
    parsed = RefreshToken.parse(text)
    session, _ = await call.authority.holder(parsed)
    if parsed.generation != session.generation or parsed.sibling > session.sibling:
        return None
    if session.client_id not in {client.id, call.authority.client_id}:
        return None
    return {
        "active": True, "token_type": "refresh_token", "iss": call.authority.issuer, "sub": session.subject,
        "client_id": session.client_id, "sid": session.id, "exp": int(min(session.idle_expires_at, session.expires_at)),
    }  # fmt: skip


async def revoke(call: Call) -> Response:
    """Revoke the session of a token, or the token. The status is always 200 (RFC 7009), even if the token is unknown or
    already revoked, or the revocation is not fenced yet. The body has the state of the fence.
    """
    text = call.form.get("token")
    if text is None:
        raise BadRequest("token is missing.", code="invalid_request")
    client_id = await _client_of(call)
    client = call.observed()
    now, limits = call.authority.clock(), call.directory.limits
    done: Revoked | None = None
    try:
        if text.startswith("ddr1_"):
            found = await call.authority.holder(text, even_ended=True)
            session = found[0]
            # A client that could revoke sessions of other clients could sign out any user.
            if session.client_id == client_id:
                done = await call.authority.end(session.id, client=client, actor=session.subject, found=found)
        else:
            claims = await call.authority.claims_of_any_age(text)
            if claims.client_id == client_id:
                done = await call.authority.end_named(claims, client=client)
    except InvalidToken:
        call.api.refresh_rate.take(by_address(limits.bad_refresh_by_address, client.networks), now)
    # An unknown token, or one of another client, gets the same response as a token that was revoked just now.
    shown = await wait_for(call, done or await call.authority.fencing.nothing_left())
    return json_response(200, shown, applied(call))


ROUTES = (
    Route(
        method="POST",
        path="/oauth2/token",
        handler=token,
        own_origin=False,
        gives=TokenAnswer,
        also=(400,),
        form=("grant_type", "refresh_token", "client_id", "scope"),
        summary="Exchange a refresh token (RFC 6749, section 6).",
    ),
    Route(
        method="POST",
        path="/oauth2/introspect",
        handler=introspect,
        own_origin=False,
        demands="introspection",
        gives=Introspection,
        also=(400,),
        form=("token", "token_type_hint"),
        summary="Check whether a token is valid (RFC 7662).",
    ),
    Route(
        method="POST",
        path="/oauth2/revoke",
        handler=revoke,
        own_origin=False,
        gives=Fence,
        fences=True,
        also=(400,),
        form=("token", "token_type_hint", "client_id"),
        summary="Revoke a token and its session (RFC 7009).",
    ),
)
