"""Everything dutchdoor raises on purpose, drawn as a tree.

    DutchdoorError
    ├── Refused                    the client did not prove who it is, or may not do this
    │   ├── NotAuthenticated       no proof, or one that is unknown, expired or revoked                  401
    │   │   ├── InvalidToken       malformed, forged, expired, revoked, or for another audience          401
    │   │   │   ├── UnknownKey     its key is unknown: there may be a new one                            401
    │   │   │   ├── Misdirected    correctly signed, but for another issuer or audience                  401
    │   │   │   ├── StaleClaims    valid, but the account has changed: refresh it                        401
    │   │   │   ├── DpopRequired   bound to a key: send it with a proof (RFC 9449)                       401
    │   │   │   └── InvalidDpopProof   the proof is not valid, or by another key                         401
    │   │   ├── DeviceProofRequired   the session is bound to a browser, whose fresh proof is missing    401
    │   │   ├── SignInUnfinished   the proof is right; one more of `methods` is needed                   401
    │   │   └── WrongCredentials   unknown address or wrong password: deliberately one error             401
    │   │       └── ClonedPasskey  a passkey whose counter went back: there is a copy of it              401
    │   ├── DeviceKeyRefused       the key, or the proof, of a browser that binds a session is not accepted  403
    │   ├── UseDpopNonce           the proof needs a newer `nonce`: this one                             401
    │   ├── StepUpRequired         the proof is too old or too weak for this (RFC 9470)                  401
    │   │   └── SessionInDoubt     used in a way that looks like theft; an `InvalidToken`, too           401
    │   ├── IssuerRefused          the log-in by an issuer failed, or does not let this person in         403
    │   ├── AnotherBrowser         a verification link in another browser needs a password               403
    │   ├── LastAdministrator      no active administrator would be left                                 403
    │   ├── RegistrationClosed     this server does not create accounts this way                         403
    │   ├── Forbidden              authenticated, but not allowed to do this                             403
    │   └── RateLimited            too many attempts; `retry_after` seconds                              429
    ├── InvalidInput               the input is wrong; `field` says where                                422
    │   ├── TooMuchData            the session data would be larger than policy allows                   422
    │   └── WeakPassword           a refused new password, with a reason for people                      422
    ├── Taken                      the e-mail address already has an account                             409
    ├── Superseded                 an older refresh token: read the cookie jar again (R5)                409
    ├── SessionLimitReached        the account has as many sessions as policy allows                     409
    ├── NotFound                   it does not exist or is not yours: deliberately one error             404
    ├── Conflict                   a conditional write lost its race; dutchdoor retries it
    ├── InvalidKey                 a key or key set that must not be used
    ├── Misconfigured              a setting that is unsafe or contradicts another
    └── Unavailable                a dependency is out of reach; `retry_after` seconds                   503
        └── IssuerUnavailable      an issuer, such as Google, does not answer as it should               503

An exception carries two texts. `str(exc)` is one sentence that is safe to show to the client. `reason` is for the
log: it says more, and never holds a secret. The mapping to HTTP is one table in `web/problems.py`.
"""

from __future__ import annotations

from typing import Self

from dutchdoor.texts import mark

__all__ = [
    "AnotherBrowser",
    "ClonedPasskey",
    "Conflict",
    "DeviceKeyRefused",
    "DeviceProofRequired",
    "DpopRequired",
    "DutchdoorError",
    "Forbidden",
    "InvalidDpopProof",
    "InvalidInput",
    "InvalidKey",
    "InvalidToken",
    "IssuerRefused",
    "IssuerUnavailable",
    "LastAdministrator",
    "Misconfigured",
    "Misdirected",
    "NotAuthenticated",
    "NotFound",
    "RateLimited",
    "Refused",
    "RegistrationClosed",
    "SessionInDoubt",
    "SessionLimitReached",
    "SignInUnfinished",
    "StaleClaims",
    "StepUpRequired",
    "Superseded",
    "Taken",
    "TooMuchData",
    "Unavailable",
    "UnknownKey",
    "UseDpopNonce",
    "WeakPassword",
    "WrongCredentials",
]


class DutchdoorError(Exception):
    """Root of the tree. `code` is stable and machine-readable; `message` is for the client, `reason` for the log."""

    code = "error"
    message = mark("The request could not be carried out.")

    def __init__(self, reason: str = "", *, message: str | None = None) -> None:
        if message is not None:
            self.message = message
        self.reason = reason
        super().__init__(self.message)


class Refused(DutchdoorError):
    code = "refused"
    message = mark("The request was refused.")


class NotAuthenticated(Refused):
    code = "not_authenticated"
    message = mark("Sign in to continue.")


class InvalidToken(NotAuthenticated):
    code = "invalid_token"
    message = mark("The token is not valid.")


class UnknownKey(InvalidToken):
    """A token that names a key its verifier does not have. The verifier may fetch new keys, at a bounded rate."""


class Misdirected(InvalidToken):
    """A correctly signed token whose `iss` or `aud` is not the one its verifier expects: often a wrong setting. `claim`
    names the claim, `found` is the token's value and `expected` the verifier's.
    """

    def __init__(self, claim: str, *, found: str, expected: str) -> None:
        super().__init__(f"{claim} is not the expected one")
        self.claim, self.found, self.expected = claim, found, expected


class StaleClaims(InvalidToken):
    """A session's token whose claims are out of date: roles have changed, or its owner signed out everywhere. A refresh
    brings a current token, or is refused.
    """

    code = "token_stale"
    message = mark("The token's claims are out of date. Refresh it and try again.")


class DpopRequired(InvalidToken):
    """A token that is bound to a key came without a proof of the key, or a sign-in whose policy demands one did."""

    code = "dpop_required"
    message = mark("Send a DPoP proof with this request: the token is bound to a key, or has to be.")


class InvalidDpopProof(InvalidToken):
    """The DPoP proof of a request is not valid, was used before, or is by another key than the token is bound to."""

    code = "invalid_dpop_proof"

    def __init__(self, reason: str) -> None:
        super().__init__(reason, message=mark("The DPoP proof is not valid: %(reason)s.", reason=reason))


class DeviceProofRequired(NotAuthenticated):
    """A session that is bound to the device of its browser was used without a fresh proof of the device (Device Bound
    Session Credentials), or the policy demands a binding and there is none. `clearing` is the header that has the
    browser give up a proof that is not valid, so that it fetches another one before its next request.
    """

    code = "device_proof_required"
    message = mark("This sign-in belongs to another device, or its proof has run out. Try again, or sign in.")

    def __init__(
        self, reason: str = "", *, message: str | None = None, clearing: tuple[bytes, bytes] | None = None
    ) -> None:
        super().__init__(reason, message=message)
        self.clearing = clearing


class WrongCredentials(NotAuthenticated):
    code = "wrong_credentials"
    message = mark("The e-mail address or the password is not right.")


class ClonedPasskey(WrongCredentials):
    """A passkey signed correctly, but its counter is behind: two devices have the same key, and one is a copy."""

    message = mark("This passkey may have been copied, so it was refused. Sign in another way, and remove it.")


class SignInUnfinished(NotAuthenticated):
    """The proof is right, but one more is needed. `token` goes on with the sign-in, by one of `methods`; it is a secret
    for the client that gave the first proof. `enrol` says that the account has none of them, and has to enrol one now.
    `step` names a step of the application that is to be taken, "" for a proof. `codes` are recovery codes that the step
    before has made; they are shown this once.
    """

    code = "sign_in_unfinished"
    message = mark("Signing in takes another step.")

    def __init__(
        self,
        reason: str = "",
        *,
        token: str,
        methods: tuple[str, ...],
        enrol: bool = False,
        step: str = "",
        codes: tuple[str, ...] = (),
    ) -> None:
        super().__init__(reason)
        self.token, self.methods, self.enrol, self.step, self.codes = token, methods, enrol, step, codes


class DeviceKeyRefused(Refused):
    """The key by which a browser would bind a session to its device, or its proof of that key, is not accepted."""

    code = "device_key_refused"

    def __init__(self, reason: str) -> None:
        super().__init__(
            reason, message=mark("The proof of this browser's key is not accepted: %(reason)s.", reason=reason)
        )


class UseDpopNonce(Refused):
    """The DPoP proof has no `nonce` of this server, or an old one: send another with this one (RFC 9449, section 8).

    It says nothing about the token beside it. So it is no `NotAuthenticated`, which an optional caller would pass over.
    """

    code = "use_dpop_nonce"
    message = mark("Send the DPoP proof again, with the nonce of this answer.")

    def __init__(self, nonce: str) -> None:
        super().__init__("the proof has no nonce, or an old one")
        self.nonce = nonce


class StepUpRequired(Refused):
    """The client is signed in, but the proof is too old for this request, or one more kind of proof is needed.

    `max_age` is the greatest age of the proof in seconds, None if any will do; `factors` is how many kinds of proof it
    takes.
    """

    code = "step_up_required"
    message = mark("Confirm who you are to continue.")

    def __init__(self, reason: str = "", *, max_age: float | None = None, factors: int = 1) -> None:
        super().__init__(reason)
        self.max_age, self.factors = max_age, factors


class SessionInDoubt(StepUpRequired, InvalidToken):
    """The session, or the token, was used in a way that looks like theft: its owner must prove again who they are, in
    it or by a new sign-in. Until then it proves no one, so it is an `InvalidToken`, too.
    """


class Forbidden(Refused):
    code = "forbidden"
    message = mark("You may not do this.")

    @classmethod
    def without_role(cls, role: str) -> Self:
        """Return the error for a caller who lacks a `role`, and name it: its reader has to ask for it."""
        message = mark("This needs the role %(role)s, which your account does not have.", role=role)
        return cls(f"the caller needs the role {role}", message=message)


class AnotherBrowser(Refused):
    """The client has proved the mailbox, but not the password: an attacker may have registered the address."""

    code = "another_browser"
    message = mark("This link was opened in another browser than the one that registered. Choose a password.")


class LastAdministrator(Refused):
    code = "last_administrator"
    message = mark("This is the last administrator. Give the role `admin` to another account first.")


class RegistrationClosed(Refused):
    code = "registration_closed"
    message = mark("You cannot register here yourself. Ask an administrator for an invitation.")


class IssuerRefused(Refused):
    """A person came back from an issuer, such as Google, and cannot sign in by it. The message says why, and what to
    do.
    """

    code = "issuer_refused"
    message = mark("This sign-in did not work. Try again, or sign in another way.")


class RateLimited(Refused):
    """Too many attempts. `retry_after` is in seconds and positive."""

    code = "rate_limited"
    message = mark("Too many attempts. Wait and try again.")

    def __init__(self, reason: str = "", *, retry_after: float) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class InvalidInput(DutchdoorError):
    """The input is wrong. `field` names the field (empty for the whole), `message` is the sentence for the client."""

    code = "invalid_input"
    message = mark("The input is not valid.")

    def __init__(self, message: str, *, field: str = "", reason: str = "") -> None:
        super().__init__(reason or message, message=message)
        self.field = field


class TooMuchData(InvalidInput):
    """The data of a session or of a visitor would have more than `at_most` bytes (`Policy.session_data_at_most`)."""

    code = "too_much_data"

    def __init__(self, at_most: int) -> None:
        super().__init__(
            "This session holds too much. Remove something and try again.",
            reason=f"session data would have more than {at_most} bytes (session_data_at_most)",
        )
        self.at_most = at_most


class WeakPassword(InvalidInput):
    code = "weak_password"
    message = mark("The password is not strong enough.")


class Taken(DutchdoorError):
    code = "email_taken"
    message = mark("There is already an account with this e-mail address.")


class Superseded(DutchdoorError):
    code = "superseded"
    message = mark("A newer token exists. Read it and try again; if there is none, sign in.")


class SessionLimitReached(DutchdoorError):
    code = "session_limit_reached"
    message = mark("This account is signed in on the maximum number of devices. Sign out on one of them first.")


class NotFound(DutchdoorError):
    code = "not_found"
    message = mark("This does not exist, or is not yours.")


class Conflict(DutchdoorError):
    code = "conflict"
    message = mark("Another request changed this at the same time. Try again.")


class InvalidKey(DutchdoorError):
    code = "invalid_key"
    message = mark("The key must not be used.")


class Misconfigured(DutchdoorError):
    """A setting is wrong. The message names it and says what to write instead. It is for an operator, never for a
    client.
    """

    code = "misconfigured"

    def __init__(self, message: str) -> None:
        super().__init__(message, message=message)


class Unavailable(DutchdoorError):
    """A dependency is out of reach. `retry_after` is in seconds and positive."""

    code = "unavailable"
    message = mark("The service is out of reach for a moment. Try again shortly.")

    def __init__(self, reason: str = "", *, retry_after: float = 1.0, message: str | None = None) -> None:
        super().__init__(reason, message=message)
        self.retry_after = retry_after


class IssuerUnavailable(Unavailable):
    """An issuer, such as Google, does not answer, or not as its protocol says."""

    code = "issuer_unavailable"
    message = mark("The other log-in does not answer at the moment. You can sign in another way.")
