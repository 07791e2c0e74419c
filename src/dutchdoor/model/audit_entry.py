"""One entry of the audit log: what listeners get, also in a process without the packages that keep accounts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from msgspec import Struct

from dutchdoor.errors import Misconfigured
from dutchdoor.model.choices import check_choice

__all__ = ["AuditEvent", "EventName", "Outcome", "check_events"]

EventName = Literal[
    "account_created", "account_disabled", "account_enabled", "account_erased", "account_expired", "account_exported",
    "account_imported", "accounts_exported", "roles_changed",
    "client_added", "client_removed", "client_secret_changed",
    "deletion_cancelled", "deletion_requested",
    "device_key_conflict", "device_key_refused",
    "email_change_requested", "email_changed", "email_restored", "email_verification_sent", "email_verified",
    "factor_added", "factor_removal_begun", "factor_removal_cancelled", "factor_removal_requested",
    "factor_removed", "factor_renamed", "factors_removed",
    "identity_linked", "identity_unlinked",
    "invitation_sent", "invitation_withdrawn",
    "key_created", "key_exported", "key_revoked",
    "log_begun", "login", "logout", "logout_all",
    "mail_code_sent",
    "name_changed",
    "passkey_cloned",
    "password_changed", "password_rehashed", "password_removed", "password_reset", "password_reset_requested",
    "recovery_code_used", "recovery_codes_created",
    "refresh_replayed", "refresh_theft", "refresh_impossible", "refresh_wrong_client",
    "session_bound", "session_confirmed", "session_ended", "session_started", "session_suspected",
    "token_issued", "token_revoked",
    "verifier_added", "verifier_key_changed", "verifier_removed",
    "way_kept", "ways_set_aside",
    "webhook_added", "webhook_disabled", "webhook_enabled", "webhook_given_up", "webhook_removed", "webhook_replayed",
    "webhook_secret_changed",
]  # fmt: skip
Outcome = Literal["ok", "refused"]


class AuditEvent(Struct, frozen=True, kw_only=True):
    """What happened to which account: an entry of the audit log, and what listeners (`Auth.on`) get."""

    id: str
    """Unique; a listener that must not act twice remembers it."""
    at: float
    """When it happened, in seconds since 1970."""
    name: EventName
    """What happened, such as `account_created`."""
    outcome: Outcome
    """`ok`, or `refused`, such as a log-in with a wrong password."""
    subject: str
    """The account it concerns; empty if there is none."""
    actor: str
    """Who did it: a subject, `system`, or `cli`; empty for a client that is not authenticated."""
    session_id: str
    """The public id of the session; empty if there is none."""
    client_id: str
    """The registered client that the sign-in belongs to."""
    address: str
    """The address of the client that asked."""
    country: str
    """Its country."""
    device: str
    """Its device, such as `Firefox on Linux`."""
    detail: str
    """One short sentence or word; never a secret."""


def check_events(names: Sequence[object]) -> None:
    """Check the names of audit events. Raises `Misconfigured` for a wrong one, or for none."""
    # A decorator without parentheses passes the function itself.
    if not names or callable(names[0]):
        raise Misconfigured('Name the event to listen to: @auth.on("account_created").')
    for name in names:
        check_choice(name, get_args(EventName), "auth.on", noun="an audit event")
