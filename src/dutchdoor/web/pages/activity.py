"""The page of what happened to one's own account: its audit log in words, newest first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from dutchdoor.model.audit_events import AuditEvent, EventName
from dutchdoor.texts import mark
from dutchdoor.web.api import Call, Route
from dutchdoor.web.http import Response
from dutchdoor.web.own_events import events_before, own_event
from dutchdoor.web.pages.site import ACTIVITY_PATH, Pages

__all__ = ["SENTENCES", "routes", "sentence_of"]


class Sentence(NamedTuple):
    """What happened, for the owner. `%(where)s` is a device and its country."""

    text: str
    by_admin: str = ""
    """The same, when an administrator did it; "" if that makes no difference."""
    look: bool = False
    """Whether it is worth a look: it is what an attacker would do, or a change by which one gets in."""


SENTENCES: Mapping[EventName, Sentence] = {
    "account_created": Sentence(mark("The account was created"), mark("An administrator created the account")),
    "account_disabled": Sentence(
        mark("The account was disabled"), mark("An administrator disabled the account"), look=True
    ),
    "account_enabled": Sentence(mark("The account was enabled again"), mark("An administrator enabled the account")),
    "account_erased": Sentence(mark("The account was erased")),
    "account_exported": Sentence(mark("A copy of all data was downloaded"), look=True),
    "account_expired": Sentence(mark("The account expired: its address was not confirmed in time")),
    "account_imported": Sentence(mark("The account was brought here from another system")),
    "roles_changed": Sentence(
        mark("The roles of the account changed"), mark("An administrator changed the roles of the account"), look=True
    ),
    "deletion_cancelled": Sentence(mark("The account was kept, after all")),
    "deletion_requested": Sentence(
        mark("The account was deleted"), mark("An administrator deleted the account"), look=True
    ),
    "device_key_conflict": Sentence(mark("A sign-in was used on two devices: a copy. It was ended"), look=True),
    "device_key_refused": Sentence(mark("Another device tried to take over a sign-in, and was refused"), look=True),
    "email_change_requested": Sentence(mark("Another e-mail address was asked for"), look=True),
    "email_changed": Sentence(mark("The e-mail address was changed"), look=True),
    "email_restored": Sentence(mark("The change of the e-mail address was undone"), look=True),
    "email_verification_sent": Sentence(mark("A mail to confirm the address was sent")),
    "email_verified": Sentence(mark("The address was confirmed")),
    "factor_added": Sentence(mark("A second factor was added"), look=True),
    "factor_renamed": Sentence(mark("A passkey got another name")),
    "factor_removed": Sentence(
        mark("A second factor was removed"), mark("An administrator removed a second factor"), look=True
    ),
    "identity_linked": Sentence(mark("Another log-in was linked"), look=True),
    "identity_unlinked": Sentence(
        mark("Another log-in was unlinked"), mark("An administrator unlinked another log-in"), look=True
    ),
    "ways_set_aside": Sentence(mark("What was added in the week before a new password was set aside"), look=True),
    "way_kept": Sentence(mark("A way to sign in that was set aside was kept"), look=True),
    "factor_removal_begun": Sentence(mark("The waiting time for a lost second factor began"), look=True),
    "factor_removal_cancelled": Sentence(mark("The removal of the second factor was cancelled")),
    "factor_removal_requested": Sentence(
        mark("From %(where)s, someone who can sign in said that the second factor is lost"), look=True
    ),
    "factors_removed": Sentence(mark("The second factor was removed after the waiting time"), look=True),
    "login": Sentence(mark("Signed in from %(where)s")),
    "mail_code_sent": Sentence(mark("A code to sign in was asked for from %(where)s")),
    "logout": Sentence(mark("Signed out"), mark("An administrator ended a sign-in")),
    "logout_all": Sentence(
        mark("Signed out everywhere"), mark("An administrator signed the account out everywhere"), look=True
    ),
    "name_changed": Sentence(mark("The name was changed"), mark("An administrator changed the name")),
    "passkey_cloned": Sentence(mark("A passkey that may have been copied was refused at %(where)s"), look=True),
    "password_changed": Sentence(mark("The password was changed"), look=True),
    "password_removed": Sentence(mark("The password was given up"), look=True),
    "password_rehashed": Sentence(mark("The password is kept in a safer form")),
    "password_reset": Sentence(mark("A new password was chosen by a mailed link"), look=True),
    "password_reset_requested": Sentence(
        mark("A link to choose a new password was mailed"),
        mark("An administrator had a link to choose a new password mailed"),
        look=True,
    ),
    "recovery_code_used": Sentence(mark("A recovery code was used"), look=True),
    "recovery_codes_created": Sentence(mark("New recovery codes were made"), look=True),
    "refresh_replayed": Sentence(mark("An application asked again for an answer that was lost")),
    "refresh_theft": Sentence(mark("A sign-in was used in two places: a copy. It was ended"), look=True),
    "refresh_impossible": Sentence(mark("A forged sign-in was used. It was ended"), look=True),
    "refresh_wrong_client": Sentence(mark("Another program tried to use a sign-in, and was refused"), look=True),
    "session_bound": Sentence(mark("A sign-in was bound to its device")),
    "session_confirmed": Sentence(mark("This browser showed that a sign-in is still its own, in %(where)s")),
    "session_ended": Sentence(mark("A sign-in ended")),
    "session_suspected": Sentence(
        mark("A sign-in was used in another way than before, from %(where)s. Was it you?"), look=True
    ),
    "session_started": Sentence(mark("Signed in from %(where)s")),
    "token_issued": Sentence(mark("A program signed in for a short time")),
    "token_revoked": Sentence(mark("A program signed out")),
}
"""A sentence for each event of an account."""

_ENDED: Mapping[str, Sentence] = {
    "deleted": Sentence(mark("All sign-ins ended: the account was deleted"), look=True),
    "disabled": Sentence(mark("All sign-ins ended: the account was disabled"), look=True),
    "ended_again": Sentence(mark("A sign-in ended again: the server went back to a backup")),
    "ended_by_admin": Sentence(mark("An administrator ended a sign-in"), look=True),
    "ended_by_application": Sentence(mark("The application ended the sign-ins")),
    "ended_by_owner": Sentence(mark("A sign-in elsewhere was ended")),
    "factors_removed": Sentence(mark("All sign-ins ended: the second factor was removed as lost"), look=True),
    "impossible_token": Sentence(mark("A sign-in ended: it was forged"), look=True),
    "limit": Sentence(mark("The oldest sign-in ended: there were too many")),
    "lost_in_restore": Sentence(mark("A sign-in ended: the server went back to a backup")),
    "password_removed": Sentence(mark("All other sign-ins ended: the password was given up"), look=True),
    "password_changed": Sentence(mark("All sign-ins ended: the password was changed"), look=True),
    "replaced": Sentence(mark("A sign-in ended: a new one in the same browser took its place")),
    "suspected": Sentence(mark("A sign-in ended: it was used in a way that looks like theft"), look=True),
    "theft": Sentence(mark("A sign-in ended: it had been copied"), look=True),
}
"""Why a sign-in ended."""

_REFUSED: Mapping[str, Sentence] = {
    "disabled": Sentence(mark("A sign-in from %(where)s was refused: the account is disabled"), look=True),
    "address not verified": Sentence(mark("A sign-in from %(where)s was refused: the address is not confirmed")),
    "wrong password": Sentence(mark("A wrong password was tried from %(where)s"), look=True),
    "wrong current password": Sentence(mark("A wrong password was tried from %(where)s, inside a sign-in"), look=True),
    "wrong code by mail": Sentence(mark("A wrong code by mail was tried from %(where)s"), look=True),
    "wrong recovery_code": Sentence(mark("A wrong recovery code was tried from %(where)s"), look=True),
    "wrong passkey": Sentence(mark("A wrong passkey was tried from %(where)s"), look=True),
    "passkey without verification": Sentence(mark("A passkey did not check who used it, from %(where)s")),
    "wrong totp": Sentence(mark("A wrong code of an app was tried from %(where)s"), look=True),
}
"""Which proof was refused."""

_STOPPED = Sentence(mark("A sign-in was stopped: it was used from %(where)s, which looks like theft"), look=True)
_REFUSED_OTHERWISE = Sentence(mark("A sign-in from %(where)s was refused: a further proof was wrong"), look=True)


def sentence_of(event: AuditEvent) -> Sentence | None:
    """Return what the owner reads of an event; None for one of the server."""
    if event.name == "login" and event.outcome == "refused":
        return _REFUSED.get(event.detail, _REFUSED_OTHERWISE)
    if event.name == "session_suspected" and event.outcome == "refused":
        return _STOPPED
    if event.name == "session_ended":
        return _ENDED.get(event.detail, SENTENCES["session_ended"])
    return SENTENCES.get(event.name)


def routes(pages: Pages) -> list[Route]:
    return [
        pages.own_page(
            ACTIVITY_PATH,
            ActivityPage(pages).show,
            query=("before",),
            summary="Show what happened to one's own account.",
        )
    ]


class ActivityPage:
    def __init__(self, pages: Pages) -> None:
        self.pages = pages

    async def show(self, call: Call) -> Response:
        found, older = await events_before(call)
        lines = [_line(event, sentence) for event in found if (sentence := sentence_of(event)) is not None]
        return await self.pages.show_own(call, "activity", lines=lines, older=older, newest="before" not in call.query)


def _line(event: AuditEvent, sentence: Sentence) -> dict[str, Any]:
    seen = own_event(event)
    by_admin = seen.by == "administrator" and sentence.by_admin
    return {
        "text": by_admin or sentence.text,
        "look": sentence.look,
        "at": event.at,
        # Empty where another person acted.
        "device": seen.device,
        "country": seen.country,
        "address": seen.address,
        "placed": seen.by in {"you", "anyone"},
    }
