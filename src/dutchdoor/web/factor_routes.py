"""Second factors over HTTP: the next step of a sign-in, and enrolling, listing and removing one's own."""

from __future__ import annotations

from msgspec import UNSET

from dutchdoor.credentials.passkey import PASSKEY
from dutchdoor.model.accounts import Account
from dutchdoor.model.policy import Mode
from dutchdoor.model.rate_limits import MARK_FOR
from dutchdoor.model.sign_in import needs_second
from dutchdoor.services.factors import ENROL_FOR, Enrolment, Factor
from dutchdoor.services.passkeys import NO_CEREMONY
from dutchdoor.web.api import Call, Route
from dutchdoor.web.auth_routes import browser_of, judge_token_in_body, started, token_of_step
from dutchdoor.web.dpop import check_bound
from dutchdoor.web.http import Response, json_response
from dutchdoor.web.passkey_routes import answer_text, ceremony_of
from dutchdoor.web.schemas import (
    EnrolmentView,
    FactorsView,
    FactorView,
    FirstCode,
    NextStep,
    RecoveryCodesView,
    RemovedFactor,
    SignedInView,
    Transport,
    UnfinishedSignIn,
    instant,
)
from dutchdoor.web.sign_in_answer import answer_transport, check_client, ongoing, signed_in_answer

__all__ = ["ROUTES", "factors_view"]


async def take_step(call: Call) -> Response:
    body: NextStep = call.body
    asked: Transport = ("cookie" if call.from_browser else "body") if body.transport is UNSET else body.transport
    if asked == "body":
        # A script injected into our own page must not be able to request what the cookie hides from it.
        judge_token_in_body(call)

    async def admit(client_id: str, mode: Mode) -> None:
        check_bound(call.authority.policy, mode, in_body=asked == "body", bound=call.proved is not None)
        await check_client(call, client_id or call.authority.client_id)

    done = await call.directory.sign_in.proceed(
        token_of_step(call),
        body.method,
        answer_text(body.response),
        await browser_of(call),
        ceremony=ceremony_of(call) if body.method == PASSKEY else NO_CEREMONY,
        enrolment="" if body.enrolment is UNSET else body.enrolment,
        remember=body.remember,
        admit=admit,
    )
    mode = done.signed_in.mode
    transport: Transport = asked if mode == "hybrid" else "cookie"
    headers = started(call, done.mark, mode, transport)
    if done.remembered:
        headers.append(call.cookies.remembered.set(done.remembered, max_age=MARK_FOR))
    return signed_in_answer(call, done.signed_in, transport, headers, codes=done.codes)


async def enrol_in_sign_in(call: Call) -> Response:
    given = await call.directory.sign_in.enrol(token_of_step(call), client=call.observed())
    return json_response(201, _enrolment_view(given))


async def list_factors(call: Call) -> Response:
    account, _ = await call.holding()
    return json_response(200, await factors_view(call, account))


async def factors_view(call: Call, account: Account, *, aside: bool = False) -> FactorsView:
    """Return what the API says of the second factors of an account; with `aside`, also of those that are set aside."""
    factors, left = await call.directory.factors.of(account.subject, aside=aside)
    removable_at = await call.directory.lost_factors.waiting(account)
    return FactorsView(
        factors=[factor_view(each) for each in factors],
        recovery_codes_left=left,
        offered=call.directory.factors.offered,
        needed=needs_second(account, call.authority.policy),
        removable_at=None if removable_at is None else instant(removable_at),
    )


def factor_view(factor: Factor) -> FactorView:
    """Return what the API says of a second factor."""
    view = FactorView(factor.method, factor.handle, instant(factor.created_at), set_aside=factor.set_aside)
    if factor.method == PASSKEY:
        view.name, view.synchronised = factor.name, factor.synchronised
        view.last_used_at = None if factor.used_at is None else instant(factor.used_at)
    return view


async def begin_totp(call: Call) -> Response:
    account, _ = await call.holding()
    given = await call.directory.factors.begin_totp(account, amr=call.required.principal.amr)
    return json_response(201, _enrolment_view(given))


async def confirm_totp(call: Call) -> Response:
    body: FirstCode = call.body
    signed_in, codes = await call.directory.step_up.add_totp(await ongoing(call), body.token, body.code)
    return signed_in_answer(call, signed_in, answer_transport(call, signed_in), [], codes=codes)


async def new_codes(call: Call) -> Response:
    account, _ = await call.holding()
    codes = await call.directory.factors.new_codes(account, amr=call.required.principal.amr, client=call.observed())
    return json_response(201, RecoveryCodesView(codes))


async def remove(call: Call) -> Response:
    body: RemovedFactor = call.body
    account, _ = await call.holding()
    await call.directory.factors.remove(
        account, body.method, body.id, amr=call.required.principal.amr, client=call.observed()
    )
    return Response(204)


def _enrolment_view(given: Enrolment) -> EnrolmentView:
    return EnrolmentView(given.token, given.secret, given.uri, int(ENROL_FOR))


ROUTES = (
    Route(
        method="POST",
        path="/auth/login/step",
        handler=take_step,
        body=NextStep,
        gives=SignedInView,
        also=(401,),
        summary="Continue a sign-in that answered `sign_in_unfinished`, with the next proof.",
    ),
    Route(
        method="POST",
        path="/auth/login/enrol",
        handler=enrol_in_sign_in,
        body=UnfinishedSignIn,
        optional_body=True,
        gives=EnrolmentView,
        status=201,
        also=(401,),
        summary="Begin to enrol an authenticator app in a sign-in that demands one (`enrol`).",
    ),
    Route(
        method="GET",
        path="/auth/factors",
        handler=list_factors,
        demands="caller",
        gives=FactorsView,
        summary="The caller's second factors.",
    ),
    Route(
        method="POST",
        path="/auth/factors/totp/enrol",
        handler=begin_totp,
        demands="caller",
        fresh=True,
        gives=EnrolmentView,
        status=201,
        summary="Begin to enrol an authenticator app. It counts once it has shown a right code.",
    ),
    Route(
        method="POST",
        path="/auth/factors/totp/confirm",
        handler=confirm_totp,
        demands="caller",
        body=FirstCode,
        gives=SignedInView,
        summary="Finish enrolling an authenticator app by its first code. With a first factor come recovery codes.",
    ),
    Route(
        method="POST",
        path="/auth/factors/recovery-codes",
        handler=new_codes,
        demands="caller",
        fresh=True,
        gives=RecoveryCodesView,
        status=201,
        also=(404,),
        summary="Replace the recovery codes.",
    ),
    Route(
        method="POST",
        path="/auth/factors/remove",
        handler=remove,
        demands="caller",
        fresh=True,
        body=RemovedFactor,
        status=204,
        also=(404,),
        summary="Remove a second factor.",
    ),
)
