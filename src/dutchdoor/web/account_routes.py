"""The account API: registering, passwords, addresses, and the first administrator. JSON in and out."""

from __future__ import annotations

from msgspec import UNSET

from dutchdoor.credentials.mail_code import MAIL_CODE
from dutchdoor.credentials.passkey import PASSKEY
from dutchdoor.errors import InvalidInput
from dutchdoor.model.ids import new_id
from dutchdoor.model.rate_limits import MARK_FOR
from dutchdoor.services.passkeys import NO_CEREMONY
from dutchdoor.texts import mark
from dutchdoor.web.api import Call, Route
from dutchdoor.web.fences import fence_of_user, wait_for
from dutchdoor.web.http import Response, json_response
from dutchdoor.web.mail_code_routes import proved_by_code
from dutchdoor.web.passkey_routes import answer_text, ceremony_of
from dutchdoor.web.schemas import (
    Accepted,
    ChangedUser,
    FirstAdmin,
    Forgotten,
    NameChange,
    PasswordChange,
    Reauthentication,
    Registration,
    Reset,
    SignedInView,
    UserView,
    Verification,
    user_view,
)
from dutchdoor.web.sign_in_answer import answer_transport, ongoing, set_mark, signed_in_answer

__all__ = ["ROUTES"]


async def register(call: Call) -> Response:
    body: Registration = call.body
    # One secret per browser: people register again when the mail is late, and both links must recognise the browser.
    browser = (call.cookies.registrant.value(call.request.cookie()) or new_id()) if call.from_browser else ""
    account = await call.directory.registration.register(
        body.email, body.password, body.name, client=call.observed(), browser=browser
    )
    if account is None:
        kept = call.authority.policy.unverified_for
        # Every such answer sets it, whether there is an account or not: the header must not reveal which.
        headers = [call.cookies.registrant.set(browser, max_age=kept)] if browser else []
        return json_response(202, Accepted(), headers)
    return json_response(201, UserView(user_view(account)))


async def change_name(call: Call) -> Response:
    body: NameChange = call.body
    account = await call.directory.profile.change_name(call.actor, body.name, client=call.observed())
    return json_response(200, UserView(user_view(account)))


async def change_password(call: Call) -> Response:
    body: PasswordChange = call.body
    signed_in, mark = await call.directory.recovery.change_password(
        await ongoing(call), body.current_password, body.new_password, marks=call.marks
    )
    fenced = None if signed_in.ended is None else await wait_for(call, signed_in.ended)
    transport = answer_transport(call, signed_in)
    return signed_in_answer(call, signed_in, transport, set_mark(call, mark, signed_in.mode, transport), fenced)


async def remove_password(call: Call) -> Response:
    signed_in = await call.directory.giving_up.give_up(await ongoing(call))
    fenced = None if signed_in.ended is None else await wait_for(call, signed_in.ended)
    return signed_in_answer(call, signed_in, answer_transport(call, signed_in), [], fenced)


async def reauthenticate(call: Call) -> Response:
    body: Reauthentication = call.body
    sign_in, step_up = await ongoing(call), call.directory.step_up
    if body.password is not UNSET:
        signed_in = await step_up.reauthenticate(sign_in, body.password)
    elif body.method == MAIL_CODE:
        signed_in = await proved_by_code(call, sign_in, body)
    elif body.method is not UNSET and body.response is not UNSET:
        ceremony = ceremony_of(call) if body.method == PASSKEY else NO_CEREMONY
        signed_in = await step_up.prove_again(sign_in, body.method, answer_text(body.response), ceremony=ceremony)
    else:
        raise InvalidInput(
            mark("Send the password, or the method of a second factor and the response."), field="password"
        )
    return signed_in_answer(call, signed_in, answer_transport(call, signed_in), [])


async def forgot(call: Call) -> Response:
    body: Forgotten = call.body
    await call.directory.recovery.forget_password(body.email, client=call.observed(), marks=call.marks)
    return json_response(202, Accepted())


async def reset(call: Call) -> Response:
    body: Reset = call.body
    account, mark, done = await call.directory.recovery.reset_password(
        body.token, body.new_password, client=call.observed(), marks=call.marks
    )
    # For any client: failures of others at its address must not refuse the log-in that follows.
    return await fence_of_user(call, done, account, [call.cookies.mark.set(mark, max_age=MARK_FOR)])


async def verify_email(call: Call) -> Response:
    body: Verification = call.body
    if body.password is UNSET:
        browser = call.cookies.registrant.value(call.request.cookie())
        account = await call.directory.recovery.verify_email(body.token, client=call.observed(), browser=browser)
        return await fence_of_user(call, await call.authority.fencing.nothing_left(), account)
    account, mark, done = await call.directory.recovery.reset_password(
        body.token, body.password, client=call.observed(), marks=call.marks, purpose="verify_email"
    )
    headers = [call.cookies.mark.set(mark, max_age=MARK_FOR)] if call.from_browser else []
    return await fence_of_user(call, done, account, headers)


async def setup(call: Call) -> Response:
    body: FirstAdmin = call.body
    account = await call.directory.admin.set_up(
        body.token, body.email, body.password, body.name, client=call.observed()
    )
    return json_response(201, UserView(user_view(account)))


ROUTES = (
    Route(
        method="POST",
        path="/auth/register",
        bundled=True,
        handler=register,
        body=Registration,
        gives=UserView,
        status=201,
        also=(202, 409),
        summary="Make an account. Where a verified address is required: always 202, and the rest goes by mail.",
    ),
    Route(
        method="POST",
        path="/auth/account/name",
        bundled=True,
        handler=change_name,
        demands="caller",
        body=NameChange,
        gives=UserView,
        summary="Change the name that people see.",
    ),
    Route(
        method="POST",
        path="/auth/password",
        bundled=True,
        handler=change_password,
        demands="caller",
        body=PasswordChange,
        gives=SignedInView,
        fences=True,
        summary="Change the password. Ends every other session; the answer carries fresh tokens for this one.",
    ),
    Route(
        method="POST",
        path="/auth/password/remove",
        bundled=True,
        handler=remove_password,
        demands="caller",
        fresh=True,
        gives=SignedInView,
        fences=True,
        also=(404,),
        summary="Give up the password: two other ways in are needed, or a passkey and recovery codes. Ends every other "
        "session; the answer carries fresh tokens for this one.",
    ),
    Route(
        method="POST",
        path="/auth/reauthenticate",
        handler=reauthenticate,
        demands="caller",
        in_doubt=True,
        body=Reauthentication,
        gives=SignedInView,
        summary="Prove the password or a second factor again: a fresh auth_time, and fresh tokens.",
    ),
    Route(
        method="POST",
        path="/auth/password/forgot",
        bundled=True,
        handler=forgot,
        body=Forgotten,
        gives=Accepted,
        status=202,
        summary="Mail a reset link, if the address has an account. The answer is the same either way.",
    ),
    Route(
        method="POST",
        path="/auth/password/reset",
        bundled=True,
        handler=reset,
        body=Reset,
        gives=ChangedUser,
        fences=True,
        also=(401,),
        summary="Set a new password by a mailed token. Ends every session.",
    ),
    Route(
        method="POST",
        path="/auth/email/verify",
        bundled=True,
        handler=verify_email,
        body=Verification,
        gives=ChangedUser,
        fences=True,
        also=(401,),
        summary="Verify an e-mail address by a mailed token. In another browser than the one that registered, with a "
        "password, which becomes the account's; everything that began before is revoked.",
    ),
    Route(
        method="POST",
        path="/auth/setup",
        bundled=True,
        handler=setup,
        body=FirstAdmin,
        gives=UserView,
        status=201,
        also=(401, 409),
        summary="Make the first administrator by the one-time link of the first start.",
    ),
)
