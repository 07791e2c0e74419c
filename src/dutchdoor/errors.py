"""Everything dutchdoor raises on purpose, drawn as a tree.

    DutchdoorError
    ├── Refused                    the caller did not prove who it is, or may not do this
    │   ├── NotAuthenticated       no proof, or none that holds: unknown, expired, ended                 401
    │   │   ├── InvalidToken       a token that is malformed, forged, expired or meant for someone else  401
    │   │   │   ├── UnknownKey     it names a key we do not have: there may be a new one                 401
    │   │   │   ├── Misdirected    signed by the right key, for another issuer or audience than expected 401
    │   │   │   └── StaleClaims    good, but what it says of its owner has changed: refresh it           401
    │   │   ├── SignInUnfinished   the proof is right, and another one is needed: `methods` says which       401
    │   │   └── WrongCredentials   unknown address or wrong password: deliberately one and the same      401
    │   ├── StepUpRequired         proven, but too long ago or too weakly for this (RFC 9470)            401
    │   ├── AnotherBrowser         a link that verifies needs a password where nobody registered         403
    │   ├── LastAdministrator      it would leave no active administrator                                403
    │   ├── RegistrationClosed     accounts are not made that way here                                   403
    │   ├── Forbidden              proven, but lacking the right                                         403
    │   └── RateLimited            too many attempts; `retry_after` seconds                              429
    ├── InvalidInput               the input is wrong, and says where                                    422
    │   └── WeakPassword           a new password we do not accept, with a reason for people             422
    ├── Taken                      the e-mail address already has an account                             409
    ├── Superseded                 an older refresh token: read the cookie jar again (R5)                409
    ├── SessionLimitReached        the account has as many sessions as policy allows                     409
    ├── NotFound                   no such thing, or not yours: deliberately one and the same            404
    ├── Conflict                   a conditional write lost its race; nothing was written       tried again inside
    ├── InvalidKey                 a key or key set that must not be used
    ├── Misconfigured              a setting that is unsafe or contradicts another
    └── Unavailable                a dependency is out of reach; `retry_after` seconds                   503

An exception carries two texts. `str(exc)` is one sentence that may be shown to the caller. `reason` is for the log:
it says more, and never holds a secret. The mapping to HTTP is one table in `web/problems.py`.
"""

from __future__ import annotations

__all__ = [
    "AnotherBrowser",
    "Conflict",
    "DutchdoorError",
    "Forbidden",
    "InvalidInput",
    "InvalidKey",
    "InvalidToken",
    "LastAdministrator",
    "Misconfigured",
    "Misdirected",
    "NotAuthenticated",
    "NotFound",
    "RateLimited",
    "Refused",
    "RegistrationClosed",
    "SessionLimitReached",
    "SignInUnfinished",
    "StaleClaims",
    "StepUpRequired",
    "Superseded",
    "Taken",
    "Unavailable",
    "UnknownKey",
    "WeakPassword",
    "WrongCredentials",
]


class DutchdoorError(Exception):
    """Root of the tree. `code` is stable and machine-readable; `message` is for the caller, `reason` for the log."""

    code = "error"
    message = "The request could not be carried out."

    def __init__(self, reason: str = "", *, message: str | None = None) -> None:
        if message is not None:
            self.message = message
        self.reason = reason
        super().__init__(self.message)


class Refused(DutchdoorError):
    code = "refused"
    message = "The request was refused."


class NotAuthenticated(Refused):
    code = "not_authenticated"
    message = "Sign in to continue."


class InvalidToken(NotAuthenticated):
    code = "invalid_token"
    message = "The token is not valid."


class UnknownKey(InvalidToken):
    """A token that names a key its verifier does not have. Worth one look for a new key, at a bounded rate."""


class Misdirected(InvalidToken):
    """A token with a good signature whose `iss` or `aud` is not what its verifier was given: often a wrong setting.
    `claim` is which of them, `found` what the token says and `expected` what it should.
    """

    def __init__(self, claim: str, *, found: str, expected: str) -> None:
        super().__init__(f"{claim} is another")
        self.claim, self.found, self.expected = claim, found, expected


class StaleClaims(InvalidToken):
    """A session's token that is good but for its claims: roles have changed since, or its owner signed out everywhere.
    A refresh brings a token that is right, or none.
    """

    code = "token_stale"
    message = "What this token says is out of date. Refresh it, and try again."


class WrongCredentials(NotAuthenticated):
    code = "wrong_credentials"
    message = "The e-mail address or the password is not right."


class SignInUnfinished(NotAuthenticated):
    """What was proved is right, and not enough. `token` goes on with the sign-in, by one of `methods`; it is a secret
    for the client that gave the first proof.
    """

    code = "sign_in_unfinished"
    message = "Signing in takes another step."

    def __init__(self, reason: str = "", *, token: str, methods: tuple[str, ...]) -> None:
        super().__init__(reason)
        self.token, self.methods = token, methods


class StepUpRequired(Refused):
    """Signed in, but the proof is too old for what was asked. `max_age` is in seconds."""

    code = "step_up_required"
    message = "Confirm who you are to continue."

    def __init__(self, reason: str = "", *, max_age: float) -> None:
        super().__init__(reason)
        self.max_age = max_age


class Forbidden(Refused):
    code = "forbidden"
    message = "You may not do this."


class AnotherBrowser(Refused):
    """The mailbox is proved, and the password is not: a stranger may have registered the address."""

    code = "another_browser"
    message = "This link was opened in another browser than the one that registered. Choose a password."


class LastAdministrator(Refused):
    code = "last_administrator"
    message = "This is the last administrator. Give the role `admin` to another account first."


class RegistrationClosed(Refused):
    code = "registration_closed"
    message = "People do not register here by themselves. Ask an administrator for an invitation."


class RateLimited(Refused):
    """Too many attempts. `retry_after` is in seconds and positive."""

    code = "rate_limited"
    message = "Too many attempts. Wait a little and try again."

    def __init__(self, reason: str = "", *, retry_after: float) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class InvalidInput(DutchdoorError):
    """The input is wrong. `field` names where (empty for the whole), `message` says what, in words for the caller."""

    code = "invalid_input"
    message = "The input is not valid."

    def __init__(self, message: str, *, field: str = "", reason: str = "") -> None:
        super().__init__(reason or message, message=message)
        self.field = field


class WeakPassword(InvalidInput):
    code = "weak_password"
    message = "The password is not strong enough."


class Taken(DutchdoorError):
    code = "email_taken"
    message = "There is already an account with this e-mail address."


class Superseded(DutchdoorError):
    code = "superseded"
    message = "A newer token exists. Read it and try again; if there is none, sign in."


class SessionLimitReached(DutchdoorError):
    code = "session_limit_reached"
    message = "This account is signed in on as many devices as it may be. Sign out on one of them first."


class NotFound(DutchdoorError):
    code = "not_found"
    message = "There is no such thing."


class Conflict(DutchdoorError):
    code = "conflict"
    message = "Something changed meanwhile. Try again."


class InvalidKey(DutchdoorError):
    code = "invalid_key"
    message = "The key must not be used."


class Misconfigured(DutchdoorError):
    """A setting is wrong. The message says which and what to write instead: an operator reads it, and no client."""

    code = "misconfigured"

    def __init__(self, message: str) -> None:
        super().__init__(message, message=message)


class Unavailable(DutchdoorError):
    """A dependency is out of reach. `retry_after` is in seconds and positive."""

    code = "unavailable"
    message = "The service is out of reach for a moment. Try again shortly."

    def __init__(self, reason: str = "", *, retry_after: float = 1.0) -> None:
        super().__init__(reason)
        self.retry_after = retry_after
