"""Request bodies and response documents of the account API and the admin API.

Bodies refuse unknown fields (`body.py`). Instants are RFC 3339 in UTC. No `repr` shows a secret.
"""

from __future__ import annotations

from datetime import date, timedelta
from functools import lru_cache
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType
from msgspec.structs import asdict

from dutchdoor.credentials.password import MAX_TYPED
from dutchdoor.model.accounts import Account
from dutchdoor.model.departures import Departure
from dutchdoor.model.policy import Mode
from dutchdoor.model.principal import assurance_of
from dutchdoor.model.sessions import Session
from dutchdoor.web.body import Body

Email = Annotated[
    str,
    Meta(
        max_length=320,
        description="An e-mail address with ASCII characters before the @. Upper and lower case are the same account.",
        extra_json_schema={"format": "email"},
    ),
]
Password = Annotated[
    str, Meta(max_length=MAX_TYPED, description="Any characters; up to 1,024 bytes of UTF-8 once composed (NFC).")
]
Name = Annotated[str, Meta(max_length=200)]
OneTime = Annotated[str, Meta(max_length=200, description="The part of a mailed link after the #.")]
Method = Annotated[str, Meta(max_length=32, description="A method of `methods`, such as `totp`.")]
FactorResponse = Annotated[str, Meta(max_length=200, description="What the owner typed.")]
PasskeyAnswer = Annotated[
    dict[str, Any], Meta(description="What a passkey answered: `credential.toJSON()` in a browser (WebAuthn, level 3).")
]
PasskeyId = Annotated[str, Meta(max_length=1364, description="The id of a passkey; empty for another factor.")]
Text = Annotated[str, Meta(max_length=200)]
Transport = Literal["cookie", "body"]
UntilUnused = Annotated[
    str,
    Meta(
        description="When the session expires if it is not used. Each use (in the mode hybrid, each refresh) extends "
        "it, up to the absolute lifetime of the policy."
    ),
]
SecondsUnused = Annotated[
    int,
    Meta(description="Seconds until `session.expires_at`, when the refresh token expires if it is not used."),
]
ShownOnce = Annotated[
    tuple[str, ...], Meta(description="Recovery codes. Each stands in for the second factor once. They are shown once.")
]

_EPOCH = date(1970, 1, 1)


# Request bodies


class Registration(Body, frozen=True):
    email: Email
    password: Password
    name: Name = ""


class Login(Body, frozen=True):
    email: Email
    password: Password
    mode: Mode | UnsetType = UNSET
    transport: Transport | UnsetType = UNSET
    client_id: Text | UnsetType = UNSET


class CodeWanted(Body, frozen=True):
    email: Email


class MailedCode(Body, frozen=True):
    """A mailed code, and the token of the browser that asked for it. A browser's form leaves the token in its
    cookie.
    """

    code: FactorResponse
    token: OneTime | UnsetType = UNSET
    mode: Mode | UnsetType = UNSET
    transport: Transport | UnsetType = UNSET
    client_id: Text | UnsetType = UNSET


class RefreshProof(Body, frozen=True):
    refresh_token: Text | UnsetType = UNSET
    client_id: Text | UnsetType = UNSET


class NameChange(Body, frozen=True):
    name: Name


class PasswordChange(Body, frozen=True):
    current_password: Password
    new_password: Password


class Reauthentication(Body, frozen=True):
    """The password; or the method of a second factor, and the response to it; or the method `mail_code`, the code as
    the response, and the token that came with it.
    """

    password: Password | UnsetType = UNSET
    method: Method | UnsetType = UNSET
    response: FactorResponse | PasskeyAnswer | UnsetType = UNSET
    token: OneTime | UnsetType = UNSET


class BrowserAnswer(Body, frozen=True):
    """What the key of a browser has signed, for a session in doubt."""

    challenge: Annotated[str, Meta(max_length=28, description="The challenge of the page.")]
    signature: Annotated[
        bytes, Meta(min_length=64, max_length=64, description="The signature of it by ECDSA with P-256 and SHA-256.")
    ]


class NextStep(Body, frozen=True):
    """The next proof of a sign-in that is not finished. A browser's form leaves the token in its cookie."""

    method: Method
    response: FactorResponse | PasskeyAnswer
    token: OneTime | UnsetType = UNSET
    enrolment: OneTime | UnsetType = UNSET
    remember: bool = False
    transport: Transport | UnsetType = UNSET


class UnfinishedSignIn(Body, frozen=True):
    token: OneTime | UnsetType = UNSET


class RemovedFactor(Body, frozen=True):
    method: Method
    id: PasskeyId = ""


class PasskeyLogin(Body, frozen=True):
    response: PasskeyAnswer
    mode: Mode | UnsetType = UNSET
    transport: Transport | UnsetType = UNSET
    client_id: Text | UnsetType = UNSET


class NewPasskey(Body, frozen=True):
    """`name` is what its owner calls it; empty for the name of the device."""

    response: PasskeyAnswer
    name: Name = ""


class PasskeyName(Body, frozen=True):
    id: PasskeyId
    name: Name


class FirstCode(Body, frozen=True):
    token: OneTime
    code: FactorResponse


class Forgotten(Body, frozen=True):
    email: Email


class Reset(Body, frozen=True):
    token: OneTime
    new_password: Password


class Verification(Body, frozen=True):
    """`password` becomes the password of the account. Only the browser that registered may omit it."""

    token: OneTime
    password: Password | UnsetType = UNSET


class NewEmail(Body, frozen=True):
    email: Email


class MailedToken(Body, frozen=True):
    token: OneTime


class Acceptance(Body, frozen=True):
    """`name` is the one that people see; empty for the one that the invitation suggests."""

    token: OneTime
    password: Password
    name: Name = ""


class FirstAdmin(Body, frozen=True):
    token: OneTime
    email: Email
    password: Password
    name: Name = ""


# Response documents


class User(Struct):
    id: str
    email: str | None
    name: str
    roles: tuple[str, ...]
    email_verified: bool


Acr = Annotated[str, Meta(description="`aal2` for two kinds of proof, else `aal1`.")]


class SessionView(Struct):
    id: str
    current: bool
    mode: str
    client_id: str
    created_at: str
    last_seen_at: str
    expires_at: UntilUnused
    device: str
    address: str
    country: str
    amr: tuple[str, ...]
    acr: Acr
    bound: Annotated[bool, Meta(description="Whether each use of it needs a proof of its client's key (DPoP).")]


class SignedInView(Struct, omit_defaults=True):
    """A sign-in or a refresh. The mode and the transport decide which fields are present."""

    user: User
    session: SessionView | UnsetType = UNSET
    access_token: str | UnsetType = UNSET
    token_type: str | UnsetType = UNSET
    expires_in: Annotated[int, Meta(description="Lifetime of the access token in seconds.")] | UnsetType = UNSET
    refresh_token: str | UnsetType = UNSET
    refresh_expires_in: SecondsUnused | UnsetType = UNSET
    csrf_token: str | UnsetType = UNSET
    fenced: bool | UnsetType = UNSET
    fenced_in_ms: int | UnsetType | None = UNSET
    recovery_codes: ShownOnce | UnsetType = UNSET

    def __repr__(self) -> str:
        return f"<SignedInView of {self.user.id}>"


class FactorView(Struct, omit_defaults=True):
    """A second factor. `id` is which of several, "" where an account has one. Only passkeys have a name, and may be
    `synchronised` to further devices of their owner.
    """

    method: str
    id: str
    created_at: str
    name: str | UnsetType = UNSET
    last_used_at: str | UnsetType | None = UNSET
    synchronised: bool | UnsetType = UNSET
    set_aside: Annotated[
        bool, Meta(description="Whether it is set aside since the password was reset. Administrators see these, too.")
    ] = False


RemovableAt = Annotated[
    str, Meta(description="From then on a mailed link removes the factors, because they are said to be lost.")
]


class FactorsView(Struct):
    """The second factors of an account. `offered` are the methods that it can enrol, and `needed` says whether it must
    have one.
    """

    factors: list[FactorView]
    recovery_codes_left: int
    offered: tuple[str, ...]
    needed: bool
    removable_at: RemovableAt | None = None


class PasskeyOptions(Struct, rename="camel"):
    """What a passkey is asked for. A browser takes `publicKey` by `PublicKeyCredential.parseRequestOptionsFromJSON`, or
    by `parseCreationOptionsFromJSON` for a new passkey (WebAuthn, level 3).
    """

    public_key: dict[str, Any]


class CodeSent(Struct):
    """The answer to who asks for a code, whether there is an account or not."""

    token: Annotated[str, Meta(description="Half of the proof: the code works with this token alone. It is a secret.")]
    expires_in: Annotated[int, Meta(description="Seconds until the code is void.")]

    def __repr__(self) -> str:
        return "<CodeSent>"


class EnrolmentView(Struct):
    """What an authenticator app is given: a QR code shows the `uri`, and people type the `secret`."""

    token: str
    secret: str
    uri: str
    expires_in: int

    def __repr__(self) -> str:
        return "<EnrolmentView>"


class RecoveryCodesView(Struct):
    recovery_codes: ShownOnce

    def __repr__(self) -> str:
        return "<RecoveryCodesView>"


class UserView(Struct):
    user: User


class Me(Struct):
    """The caller. `session` is null for a stateless token."""

    user: User
    session: SessionView | None
    method: str
    amr: tuple[str, ...]
    """What the sign-in has proved (RFC 8176)."""
    acr: Acr
    auth_time: Annotated[str, Meta(description="When it was proved last.")]


class Sessions(Struct):
    sessions: list[SessionView]


class AccountView(User, omit_defaults=True):
    """`erased_at` is there if the account was deleted: it is erased then."""

    status: str
    created_at: str
    erased_at: str | UnsetType = UNSET


class InvitationView(Struct):
    """What the invited person may know. `invited_by` is empty for a command."""

    email: str
    name: str
    invited_by: str
    expires_at: str


class Fence(Struct, omit_defaults=True):
    """Whether every verifier refuses the revoked sessions and tokens already (`fenced`). If not, `fenced_in_ms` is the
    maximum wait in milliseconds. It is null if a new revocation log began: then revoke again. `ended` counts sessions.
    """

    fenced: bool
    fenced_in_ms: int | None
    ended: int | UnsetType = UNSET


class RemovalBegun(Struct):
    """An account whose lost second factors a mailed link removes from an instant on."""

    user: User
    removable_at: RemovableAt


class ChangedUser(Struct, omit_defaults=True):
    """An account after a change that revoked its earlier tokens, and the fence of that revocation."""

    user: User
    fenced: bool
    fenced_in_ms: int | None


class Departing(Struct):
    """A deleted account: when it is erased, and the fence of what was revoked."""

    erased_at: str
    fenced: bool
    fenced_in_ms: int | None


class CsrfToken(Struct):
    """`mode` says what proved the session: a script of a page refreshes in the mode `hybrid`, and not in `session`."""

    csrf_token: str
    mode: Literal["session", "hybrid"]


class Accepted(Struct):
    accepted: bool = True


def instant(at: float) -> str:
    """Format an instant as RFC 3339 in UTC, to the second."""
    days, seconds = divmod(int(at), 86400)
    minutes, second = divmod(seconds, 60)
    return f"{_date(days)}T{minutes // 60:02}:{minutes % 60:02}:{second:02}Z"


@lru_cache(maxsize=512)
def _date(days: int) -> str:
    # Cached: dates repeat, formatting is slow, and a response to `/auth/me` has three.
    return (_EPOCH + timedelta(days=days)).isoformat()


def user_view(account: Account) -> User:
    return User(account.subject, account.address, account.name, account.roles, account.email_verified_at is not None)


def account_view(account: Account, departure: Departure | None = None) -> AccountView:
    return AccountView(
        **asdict(user_view(account)),
        status=account.status,
        created_at=instant(account.created_at),
        erased_at=UNSET if departure is None else instant(departure.due_at),
    )


def session_view(session: Session, current: str | None) -> SessionView:
    return SessionView(
        id=session.id,
        current=session.id == current,
        mode=session.mode,
        client_id=session.client_id,
        created_at=instant(session.created_at),
        last_seen_at=instant(session.last_seen_at),
        expires_at=instant(min(session.idle_expires_at, session.expires_at)),
        device=session.device,
        address=session.address,
        country=session.country,
        amr=session.amr,
        acr=assurance_of(session.amr),
        bound=bool(session.bound_key),
    )
