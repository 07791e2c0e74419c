"""Passkeys over HTTP: options, sign-in, making one and naming one, in the JSON of WebAuthn level 3.

The second step of a sign-in and `/auth/reauthenticate` take a passkey as they take a code: as the response of a method.
Each challenge is bound to the browser that got it, by a cookie, and to the origin of the page.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from dutchdoor.errors import InvalidToken, NotFound
from dutchdoor.model.ids import new_id
from dutchdoor.model.policy import HOUR
from dutchdoor.services.passkeys import Ceremony
from dutchdoor.texts import mark
from dutchdoor.web.api import Call, Route
from dutchdoor.web.auth_routes import browser_of, mode_and_transport, started, token_of_step
from dutchdoor.web.http import Header, Response, json_response
from dutchdoor.web.schemas import (
    NewPasskey,
    PasskeyLogin,
    PasskeyName,
    PasskeyOptions,
    SignedInView,
    UnfinishedSignIn,
)
from dutchdoor.web.sign_in_answer import answer_transport, client_for, ongoing, signed_in_answer

__all__ = ["ROUTES", "answer_text", "ceremony_of"]

_BROWSER_FOR = HOUR
"""Seconds that a browser keeps the cookie of a ceremony: longer than any challenge lives."""


class RelatedOrigins(Struct):
    """WebAuthn, level 3, 5.11."""

    origins: list[str]


def ceremony_of(call: Call) -> Ceremony:
    """Return where a passkey has answered. Raises `InvalidToken` for a browser that was given no challenge."""
    if not _keeps_cookie(call):
        return Ceremony("", call.request.header(b"origin") or "", call.request.origin)
    secret = call.cookies.browser.value(call.request.cookie())
    if not secret:
        raise InvalidToken(
            "no cookie of a ceremony",
            message=mark("Try again. If this comes back, your browser does not keep the cookies of this site."),
        )
    return Ceremony(secret, call.request.header(b"origin") or "", call.request.origin)


def _new_ceremony(call: Call) -> tuple[Ceremony, list[Header]]:
    """Return where a passkey is asked for, with the cookie by which this browser is recognised afterwards."""
    own, origin = call.request.origin, call.request.header(b"origin") or ""
    if not _keeps_cookie(call):
        return Ceremony("", origin, own), []
    # The same for all tabs of a browser: each of them may have a challenge of its own.
    secret = call.cookies.browser.value(call.request.cookie()) or new_id()
    return Ceremony(secret, origin, own), [call.cookies.browser.set(secret, max_age=_BROWSER_FOR)]


def _keeps_cookie(call: Call) -> bool:
    """Whether the client keeps our cookie: a browser, on a page of this site. On a listed page of another site it does
    not: there, the origin alone binds a challenge.
    """
    return call.from_browser and call.request.header(b"sec-fetch-site") != "cross-site"


def answer_text(answer: object) -> str:
    """Return what a passkey answered as JSON again: services take each kind of response as text."""
    return answer if isinstance(answer, str) else msgspec.json.encode(answer).decode()


async def sign_in_options(call: Call) -> Response:
    ceremony, headers = _new_ceremony(call)
    return json_response(200, PasskeyOptions(call.directory.factors.passkeys.sign_in_options(ceremony)), headers)


async def sign_in(call: Call) -> Response:
    body: PasskeyLogin = call.body
    mode, transport = mode_and_transport(call, body.mode, body.transport)
    signed_in, marks = await call.directory.sign_in.by_passkey(
        answer_text(body.response),
        ceremony_of(call),
        await browser_of(call),
        mode=mode,
        client_id=await client_for(call, "" if body.client_id is msgspec.UNSET else body.client_id),
    )
    return signed_in_answer(call, signed_in, transport, started(call, marks, mode, transport))


async def step_options(call: Call) -> Response:
    ceremony, headers = _new_ceremony(call)
    asked = await call.directory.sign_in.passkey_options(token_of_step(call), ceremony, client=call.observed())
    return json_response(200, PasskeyOptions(asked), headers)


async def enrolment_options(call: Call) -> Response:
    ceremony, headers = _new_ceremony(call)
    asked = await call.directory.sign_in.enrol_passkey(token_of_step(call), ceremony, client=call.observed())
    return json_response(200, PasskeyOptions(asked), headers)


async def reauthentication_options(call: Call) -> Response:
    account, _ = await call.holding()
    ceremony, headers = _new_ceremony(call)
    asked = await call.directory.factors.passkeys.factor_options(account, ceremony, "prove again", "")
    return json_response(200, PasskeyOptions(asked), headers)


async def creation_options(call: Call) -> Response:
    account, _ = await call.holding()
    ceremony, headers = _new_ceremony(call)
    asked = await call.directory.factors.passkeys.creation_options(account, ceremony)
    return json_response(200, PasskeyOptions(asked), headers)


async def register_passkey(call: Call) -> Response:
    body: NewPasskey = call.body
    signed_in, codes = await call.directory.step_up.add_passkey(
        await ongoing(call), answer_text(body.response), body.name, ceremony_of(call)
    )
    return signed_in_answer(call, signed_in, answer_transport(call, signed_in), [], codes=codes)


async def rename_passkey(call: Call) -> Response:
    body: PasskeyName = call.body
    account, _ = await call.holding()
    await call.directory.factors.passkeys.rename(account, body.id, body.name, client=call.observed())
    return Response(204)


async def related_origins(call: Call) -> Response:
    """Return the other origins whose pages may use the passkeys of this domain."""
    origins = [each for each in call.directory.factors.passkeys.party.origins if each.startswith("https://")]
    if not origins:
        raise NotFound("no related origins are set")
    return Response(
        200,
        [(b"content-type", b"application/json"), (b"cache-control", b"public, max-age=3600")],
        msgspec.json.encode(RelatedOrigins(origins)),
        kind="public",
    )


ROUTES = (
    Route(
        method="POST",
        path="/auth/passkeys/login/options",
        handler=sign_in_options,
        gives=PasskeyOptions,
        summary="Begin to sign in by a passkey, without a name. The answer is the same for everyone.",
    ),
    Route(
        method="POST",
        path="/auth/passkeys/login",
        handler=sign_in,
        body=PasskeyLogin,
        gives=SignedInView,
        also=(401,),
        summary="Sign in by what a passkey answered.",
    ),
    Route(
        method="POST",
        path="/auth/passkeys/step/options",
        handler=step_options,
        body=UnfinishedSignIn,
        optional_body=True,
        gives=PasskeyOptions,
        also=(401, 404),
        summary="Begin to prove a passkey in an unfinished sign-in: `/auth/login/step` takes what it answers as "
        "the `response` of the method `passkey`.",
    ),
    Route(
        method="POST",
        path="/auth/passkeys/enrol/options",
        handler=enrolment_options,
        body=UnfinishedSignIn,
        optional_body=True,
        gives=PasskeyOptions,
        also=(401,),
        summary="Begin to make a passkey in a sign-in that demands a second factor (`enrol`): `/auth/login/step` takes "
        "what it answers.",
    ),
    Route(
        method="POST",
        path="/auth/passkeys/reauthenticate/options",
        handler=reauthentication_options,
        demands="caller",
        by_refresh_cookie=True,
        in_doubt=True,
        gives=PasskeyOptions,
        also=(404,),
        summary="Begin to prove a passkey again: `/auth/reauthenticate` takes what it answers as the `response` of the "
        "method `passkey`.",
    ),
    Route(
        method="POST",
        path="/auth/passkeys/register/options",
        handler=creation_options,
        demands="caller",
        by_refresh_cookie=True,
        fresh=True,
        gives=PasskeyOptions,
        summary="Begin to make a passkey.",
    ),
    Route(
        method="POST",
        path="/auth/passkeys/register",
        handler=register_passkey,
        demands="caller",
        fresh=True,
        body=NewPasskey,
        gives=SignedInView,
        summary="Finish making a passkey. With a first second factor come recovery codes.",
    ),
    Route(
        method="POST",
        path="/auth/passkeys/rename",
        handler=rename_passkey,
        demands="caller",
        body=PasskeyName,
        status=204,
        also=(404,),
        summary="Give a passkey another name.",
    ),
    Route(
        method="GET",
        path="/.well-known/webauthn",
        handler=related_origins,
        gives=RelatedOrigins,
        also=(404,),
        summary="Get the other origins whose pages may use the passkeys of this domain.",
    ),
)
