"""Codes by mail over HTTP: asking for one, signing in with it, and proving with it again who one is."""

from __future__ import annotations

from msgspec import UNSET, UnsetType

from dutchdoor.errors import NotAuthenticated
from dutchdoor.services.mail_codes import Asked
from dutchdoor.services.ongoing import Ongoing
from dutchdoor.services.presenting import SignedIn
from dutchdoor.texts import mark
from dutchdoor.web.api import Call, Route
from dutchdoor.web.auth_routes import browser_of, mode_and_transport, started
from dutchdoor.web.http import Response, json_response
from dutchdoor.web.schemas import CodeSent, CodeWanted, MailedCode, Reauthentication, SignedInView
from dutchdoor.web.sign_in_answer import client_for, ongoing, signed_in_answer

__all__ = ["ROUTES", "proved_by_code"]


def _token(call: Call, token: str | UnsetType) -> str:
    """Return the browser's half of the proof, from the body or the cookie. Raises `NotAuthenticated`."""
    found = call.cookies.step.value(call.request.cookie()) if token is UNSET else token
    if not found:
        message = mark("This browser did not ask for a code. Ask for one here, and type it here.")
        raise NotAuthenticated("no code was asked for", message=message)
    return found


def _sent(asked: Asked) -> Response:
    return json_response(202, CodeSent(asked.token, int(asked.expires_in)))


async def ask_for_code(call: Call) -> Response:
    body: CodeWanted = call.body
    return _sent(await call.directory.mailed_codes.ask(body.email, client=call.observed(), marks=call.marks))


async def sign_in_by_code(call: Call) -> Response:
    body: MailedCode = call.body
    mode, transport = mode_and_transport(call, body.mode, body.transport)
    client_id = await client_for(call, "" if body.client_id is UNSET else body.client_id)
    signed_in, mark = await call.directory.mailed_codes.sign_in(
        _token(call, body.token),
        body.code,
        await browser_of(call),
        mode=mode,
        client_id=client_id,
    )
    return signed_in_answer(call, signed_in, transport, started(call, mark, mode, transport))


async def ask_again(call: Call) -> Response:
    sign_in = await ongoing(call)
    await call.directory.step_up.check_enough(sign_in)  # or a code would be mailed that is refused
    return _sent(await call.directory.mailed_codes.ask_again(sign_in.account, client=call.observed()))


async def proved_by_code(call: Call, sign_in: Ongoing, body: Reauthentication) -> SignedIn:
    """Return what replaces the caller's sign-in after a mailed code."""
    code = body.response if isinstance(body.response, str) else ""
    return await call.directory.mailed_codes.prove_again(sign_in, _token(call, body.token), code)


ROUTES = (
    Route(
        method="POST",
        path="/auth/code",
        bundled=True,
        handler=ask_for_code,
        body=CodeWanted,
        gives=CodeSent,
        status=202,
        summary="Mail a code for signing in, if the address has an account. The answer is the same either way.",
    ),
    Route(
        method="POST",
        path="/auth/login/code",
        bundled=True,
        handler=sign_in_by_code,
        body=MailedCode,
        gives=SignedInView,
        also=(401,),
        summary="Sign in by a mailed code, and the token of the browser that asked for it.",
    ),
    Route(
        method="POST",
        path="/auth/reauthenticate/code",
        bundled=True,
        handler=ask_again,
        demands="caller",
        in_doubt=True,
        gives=CodeSent,
        status=202,
        summary="Mail the caller a code by which they prove again who they are, with the method `mail_code`.",
    ),
)
