"""The standard endpoints for other people's programs: token (RFC 6749), introspection (RFC 7662), revocation (RFC
7009).

Forms in, JSON out, parameters in the body and each once. No password grant and no implicit grant: OAuth 2.1 has
neither.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from dutchdoor.errors import InvalidToken, NotAuthenticated
from dutchdoor.model.oauth_clients import RegisteredClient
from dutchdoor.model.rate_limits import bucket_of, by_address
from dutchdoor.model.refresh_tokens import RefreshToken
from dutchdoor.stores.base import Revoked
from dutchdoor.web.api import Call, Route
from dutchdoor.web.fences import applied, wait_for
from dutchdoor.web.http import BadRequest, OAuthRefused, Response, json_response
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
    """More members when `active`; exactly this one when not, whatever the reason."""

    active: bool


_INACTIVE = {"active": False}


async def token(call: Call) -> Response:
    """Exchange a refresh token. A confidential client proves itself; a public one names itself."""
    form = call.form
    grant = form.get("grant_type")
    if grant is None:
        raise BadRequest("grant_type is missing.", code="invalid_request")
    if grant != "refresh_token":
        raise OAuthRefused("unsupported_grant_type", "Only grant_type=refresh_token is offered here.")
    client_id = await _client_of(call)
    text = form.get("refresh_token")
    if text is None:
        raise BadRequest("refresh_token is missing.", code="invalid_request")
    now, limits = call.authority.clock(), call.directory.limits
    try:
        # Ended or another client's is for `refresh` to say, as invalid_grant: neither learns about scopes.
        held = await call.authority.holder(text, even_ended=True)
        call.api.refresh_rate.take([bucket_of(limits.refresh_by_session, held.id)], now)
        if held.client_id == client_id and not set(form.get("scope", "").split()) <= set(held.scope.split()):
            raise OAuthRefused("invalid_scope", "A refresh cannot give more than the sign-in did.")
        signed_in = await call.authority.refresh(text, call.observed(), client_id=client_id)
    except InvalidToken:
        call.api.refresh_rate.take(by_address(limits.bad_refresh_by_address, call.observed().networks), now)
        raise
    return json_response(
        200, TokenAnswer(signed_in.access_token, "Bearer", signed_in.expires_in, signed_in.refresh_token, held.scope)
    )


async def _client_of(call: Call) -> str:
    """The client that speaks: proved by HTTP Basic, or a public one by its name. Raises `NotAuthenticated`."""
    if call.request.header(b"authorization") is not None:
        client = await call.api.service(call)
        named = call.form.get("client_id")
        if named is not None and named != client.id:
            raise BadRequest("client_id is another than the client that authenticated.", code="invalid_request")
        return client.id
    name = call.form.get("client_id", call.authority.client_id)
    if name == call.authority.client_id:
        return name
    client_or_none = await call.authority.store.get(RegisteredClient, name)
    if client_or_none is None or client_or_none.confidential:
        raise NotAuthenticated("this client must authenticate")
    return name


async def introspect(call: Call) -> Response:
    """Say whether a token is good now, and what it says. Whoever asks is a registered client, or a verifier that is
    stale; no other reason is given.
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
        "token_type": "Bearer",
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
        "roles": claims.roles,
    }
    return {name: value for name, value in said.items() if value is not None}


async def _introspect_refresh(call: Call, text: str) -> dict[str, Any] | None:
    """A refresh token is good if exchanging it now would give one; asking changes nothing. No verifier has any business
    with one.
    """
    client = call.service
    if client is None:
        return None
    session = await call.authority.holder(text)
    parsed = RefreshToken.parse(text)
    if parsed.generation != session.generation or parsed.sibling > session.sibling:
        return None
    if session.client_id not in {client.id, call.authority.client_id}:
        return None
    return {
        "active": True, "token_type": "refresh_token", "iss": call.authority.issuer, "sub": session.subject,
        "client_id": session.client_id, "sid": session.id, "exp": int(min(session.idle_expires_at, session.expires_at)),
    }  # fmt: skip


async def revoke(call: Call) -> Response:
    """End what a token stands for. 200 also for one that is unknown or has ended: it is as revoked as can be, and so is
    one whose fence has not fallen yet, since RFC 7009 has one status for all of them. The body says how it stands.
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
            session = await call.authority.holder(text, even_ended=True)
            # A client that ends what is not its own could log anybody out.
            if session.client_id == client_id:
                done = await call.authority.end(session.id, client=client, actor=session.subject)
        else:
            claims = await call.authority.claims_of_any_age(text)
            if claims.client_id == client_id:
                done = await call.authority.end_named(claims, client=client)
    except InvalidToken:
        call.api.refresh_rate.take(by_address(limits.bad_refresh_by_address, client.networks), now)
    # What is not there, or not this client's, looks like what ended a moment ago.
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
        demands="asker",
        gives=Introspection,
        also=(400,),
        form=("token", "token_type_hint"),
        summary="Ask whether a token is good (RFC 7662).",
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
        summary="End what a token stands for (RFC 7009).",
    ),
)
