"""The OpenAPI 3.1 document, generated from the table of routes that serves the requests."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from dutchdoor.jose.dpop import PROOF_AT_MOST
from dutchdoor.model.audit_entry import EventName, Outcome
from dutchdoor.web.api import ADMIN, Route
from dutchdoor.web.dpop import DPOP_SCHEME
from dutchdoor.web.schemas import SignedInView

__all__ = ["Problem", "document"]

_TITLES = {
    400: "The request is malformed or contradicts itself.",
    401: "The credentials are missing or not valid.",
    403: "The request came from another site, or the caller lacks a right.",
    404: "Not found, or it does not belong to the caller.",
    409: "It exists already, or a newer version exists.",
    413: "The body is too large.",
    415: "The media type of the body is not supported.",
    422: "A field is invalid; `field` says which.",
    429: "Too many attempts; see Retry-After.",
    503: "The store is unavailable; see Retry-After. The caller stays signed in.",
}
_OK = {200: "Success.", 201: "Created.", 202: "Accepted; a mail follows.", 204: "Allowed."}
_OK |= {302: "Redirect.", 303: "Redirect to the sign-in page."}
_NOT_FENCED = "Revoked at this server; every verifier refuses it within `fenced_in_ms`."
_PREFER = {
    "name": "Prefer",
    "in": "header",
    "schema": {"type": "string"},
    "description": "`wait=N`: wait up to N seconds (at most 30) until it is fenced (RFC 7240). The default is 0.25.",
}
_DPOP = {
    "name": "DPoP",
    "in": "header",
    "schema": {"type": "string"},  # without a limit: beside a bearer token the header is not read
    "description": "A proof of the client's key (RFC 9449): the sign-in is bound to it. Beside a bound access token or "
    f"refresh token it is required. At most {PROOF_AT_MOST:,} characters.",
}
_NONCE = {
    "DPoP-Nonce": {
        "schema": {"type": "string"},
        "description": "For the next proofs, if the request has one. With `use_dpop_nonce`, send it again with this.",
    }
}

# Parameters that are not free text.
_QUERY: dict[str, dict[str, Any]] = {
    "except": {"const": "current"},
    "limit": {"type": "integer", "minimum": 1, "maximum": 500},
}
_REQUIRED = frozenset({"except"})
# An empty parameter counts as absent (RFC 6749, section 3.1).
_FORM: dict[str, dict[str, Any]] = {
    "logout_token": {"type": "string", "minLength": 1},
    "grant_type": {"const": "refresh_token"},
    "refresh_token": {"type": "string", "minLength": 1},
    "token": {"type": "string", "minLength": 1},
}


class Problem(Struct, omit_defaults=True):
    """RFC 9457. `code` is stable; `detail` is for people."""

    title: str
    status: int
    code: str
    detail: str | msgspec.UnsetType = msgspec.UNSET
    field: str | msgspec.UnsetType = msgspec.UNSET


class OAuthError(Struct):
    """RFC 6749, section 5.2."""

    error: str
    error_description: str


class EventData(Struct, omit_defaults=True):
    """`address`, `country` and `device` are there if the webhook was added with the place of clients."""

    outcome: Outcome
    subject: str
    actor: str
    session_id: str
    client_id: str
    detail: str
    address: str | msgspec.UnsetType = msgspec.UNSET
    country: str | msgspec.UnsetType = msgspec.UNSET
    device: str | msgspec.UnsetType = msgspec.UNSET


class EventMessage(Struct):
    """What a webhook is sent. More events and fields may come."""

    type: EventName
    timestamp: str
    data: EventData


def document(
    routes: Sequence[Route], *, product: str, issuer: str, version: str, cookie: str, keyless: bool = False
) -> dict[str, Any]:
    """Generate the document for these routes. `cookie` is the name of the session cookie. `keyless` says that verifiers
    need no key, because the server serves only its own machine.
    """
    types: list[Any] = [Problem, OAuthError, EventMessage]
    types += [route.body for route in routes if route.body is not None]
    types += [route.gives for route in routes if route.gives is not None]
    unique = list(dict.fromkeys(types))
    refs, components = msgspec.json.schema_components(unique, ref_template="#/components/schemas/{name}")
    schema = dict(zip(unique, refs, strict=True))
    paths: dict[str, Any] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schema, keyless=keyless)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"{product}: authentication",
            "version": version,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": issuer}],
        "paths": paths,
        "webhooks": {"event": {"post": _event_message(schema[EventMessage])}},
        "components": {
            "schemas": components,
            "securitySchemes": {
                "session": {"type": "apiKey", "in": "cookie", "name": cookie},
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "dpop": DPOP_SCHEME,
                "client": {"type": "http", "scheme": "basic"},
                "verifier": {"type": "http", "scheme": "bearer", "description": "`dutchdoor verifier add` prints it."},
            },
        },
    }


def _event_message(schema: dict[str, Any]) -> dict[str, Any]:
    """Describe the request that a webhook is sent, by Standard Webhooks."""
    headers = {
        "webhook-id": "The id of the event, the same whenever it is sent again.",
        "webhook-timestamp": "When this attempt was made, in seconds since 1970.",
        "webhook-signature": "`v1,` and the base64 of HMAC-SHA-256 over `id.timestamp.body`; several, with spaces "
        "between them, while a secret is replaced.",
    }
    return {
        "operationId": "event",
        "summary": "An audit event, as it is sent to a webhook: at least once, and in order for each account.",
        "security": [],
        "parameters": [
            {"name": name, "in": "header", "required": True, "schema": {"type": "string"}, "description": text}
            for name, text in headers.items()
        ],
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
        "responses": {
            "2XX": {"description": "Taken."},
            "410": {"description": "The endpoint is gone: nothing more is sent."},
            "default": {"description": "Not taken: it is sent again."},
        },
    }


def _takes_proofs(route: Route) -> bool:
    """Return whether a client of this endpoint may prove its key: to use a token, or to get one."""
    gets_tokens = route.gives is SignedInView or route.path == "/oauth2/token"
    return gets_tokens or route.demands in {"caller", ADMIN}


def _operation(route: Route, schema: dict[Any, Any], *, keyless: bool) -> dict[str, Any]:
    oauth = route.path.startswith("/oauth2/")
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"{(\w+)}", route.path)
    ]
    parameters += [
        {"name": name, "in": "query", "required": name in _REQUIRED, "schema": _QUERY.get(name, {"type": "string"})}
        for name in route.query
    ]
    if route.fences:
        parameters.append(_PREFER)
    if _takes_proofs(route):
        parameters.append(_DPOP)
    operation: dict[str, Any] = {
        "operationId": f"{'admin_' * route.path.startswith('/admin/')}{route.method.lower()}_{route.handler.__name__}",
        "summary": route.summary,
        "responses": _responses(route, schema, oauth=oauth),
    }
    if parameters:
        operation["parameters"] = parameters
    if route.demands == "client":
        operation["security"] = [{"client": []}]
    elif route.demands == "verifier":
        operation["security"] = [{"verifier": []}, *([{}] if keyless else [])]
    elif route.demands == "introspection":
        operation["security"] = [{"client": []}, {"verifier": []}, *([{}] if keyless else [])]
    elif route.demands != "anyone":
        operation["security"] = [{"session": []}, {"bearer": []}, {"dpop": []}]
    if route.body is not None:
        operation["requestBody"] = {
            "required": not route.optional_body,
            "content": {"application/json": {"schema": schema[route.body]}},
        }
    elif route.form:
        form = {
            "type": "object",
            "properties": {name: _FORM.get(name, {"type": "string"}) for name in route.form},
            "required": [name for name in route.form if name in _FORM],
            "additionalProperties": {"type": "string"},  # ignored, but refused if repeated
        }
        operation["requestBody"] = {
            "required": True,
            "content": {"application/x-www-form-urlencoded": {"schema": form}},
        }
    return operation


def _responses(route: Route, schema: dict[Any, Any], *, oauth: bool) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": _OK[route.status]}
    if route.gives is not None:
        answer["content"] = {"application/json": {"schema": schema[route.gives]}}
    elif route.status == 200 and not oauth:  # noqa: PLR2004
        answer["content"] = {"text/plain": {"schema": {"type": "string"}}}
    responses = {str(route.status): answer}
    if route.fences and not oauth:
        responses["202"] = {**answer, "description": _NOT_FENCED}
    refused = {400, 429, 503, *route.also}
    if route.demands != "anyone" or route.method == "POST":
        refused |= {401, 403}
    if route.body is not None or route.form:
        refused |= {413, 415}
    if route.body is not None or route.query:
        refused.add(422)
    kind, shape = ("application/json", OAuthError) if oauth else ("application/problem+json", Problem)
    for status in sorted(refused):
        if str(status) in responses:
            continue
        if status in _OK:
            responses[str(status)] = {**answer, "description": _OK[status]}
        else:
            responses[str(status)] = {"description": _TITLES[status], "content": {kind: {"schema": schema[shape]}}}
    if "logout_token" in route.form:  # a refused token is answered as RFC 6749 says; a malformed request as elsewhere
        responses["400"]["content"]["application/json"] = {"schema": schema[OAuthError]}
    if _takes_proofs(route):
        for answered in (str(route.status), "400" if oauth else "401"):
            responses[answered] = {**responses[answered], "headers": _NONCE}
    return responses
