"""Every duration and limit of dutchdoor, frozen and checked once.

A duration is given as people write it ("15m", a `timedelta`, seconds) and held as seconds. Presets have names, and each
number has a reason:

- `STANDARD`: ordinary web applications. NIST SP 800-63B allows 30 days without a new sign-in at its first assurance
  level; tokens live 10 minutes, a compromise between few refreshes and a short window for verifiers that do not follow
  the log.
- `HIGH`: money, health, administration. 12 hours and 30 minutes idle stay inside the second level (24 hours, 1 hour),
  passwords have 15 characters because they are the only factor (63B-4), tokens live 5 minutes, and no mail removes a
  second factor.
- `RELAXED`: low-risk sites that sign people in for a quarter. Tokens live 15 minutes, the most we issue without a
  warning.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias, get_args

from msgspec import Struct
from msgspec.structs import force_setattr, replace

from dutchdoor.errors import Misconfigured
from dutchdoor.model.choices import check_choice
from dutchdoor.model.durations import Seconds, read_duration, seconds
from dutchdoor.model.spelling import Spelt
from dutchdoor.model.suspicion import Suspicion

__all__ = [
    "CLOCK_SLACK", "DAY", "HIGH", "HOUR", "LONGEST_ACCESS", "MINUTE", "PRESETS", "RELAXED", "STANDARD", "DeviceBinding",
    "Mode", "Policy", "RegistrationMode", "SecondFactor",
]  # fmt: skip

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0

LONGEST_ACCESS = HOUR
"""No configuration lets an access token live longer. Log entries and verifying keys, which must outlive every token,
are kept by this limit and not by the current policy: a shorter `access_for` must not drop the revocation of a token
that was issued before."""

CLOCK_SLACK = 300.0
"""Seconds by which verifiers' clocks may be wrong: a key verifies this much longer than its last token lives, and a
first key begins to sign this much earlier."""

Mode = Literal["session", "hybrid", "jwt"]
"""How a sign-in is presented: a session cookie, refresh + access token, or a stateless access token."""
AtLimit: TypeAlias = Literal["end_oldest", "refuse"]
Rotation: TypeAlias = Literal["convergent", "strict"]
Fingerprint: TypeAlias = Literal["revoke", "observe", "off"]
RegistrationMode: TypeAlias = Literal["open", "invite", "closed"]
"""Who creates accounts: anyone; administrators, who invite by mail; or only the command line."""
DeviceBinding: TypeAlias = Literal["off", "optional", "required"]
"""Whether sign-ins are bound to a key of their client: none; those of clients that prove one; or each that gets tokens
in a body."""
SecondFactor: TypeAlias = Literal["off", "optional", "admins", "required"]
"""Who needs a second factor: no account, and none is offered; who has one; administrators too; or everyone."""

PasskeyVerification: TypeAlias = Literal["preferred", "required"]

_CHOICES: Final = {
    "at_limit": AtLimit,
    "rotation": Rotation,
    "fingerprint": Fingerprint,
    "suspicion": Suspicion,
    "registration": RegistrationMode,
    "second_factor": SecondFactor,
    "passkey_verification": PasskeyVerification,
    "device_binding": DeviceBinding,
}
_SWITCHES: Final = ("theft_ends_all", "require_verified_email", "sign_in_by_mail")
_COUNTS: Final = ("max_sessions", "max_siblings", "session_data_at_most", "password_minimum")


class Policy(Struct, metaclass=Spelt, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Durations and limits. A duration is "15m", a `timedelta`, or seconds.

    Raises:
        Misconfigured: a value is none of those that its name takes, or two of them contradict each other.
    """

    modes: tuple[Mode, ...] = ("session", "hybrid", "jwt")
    """Which patterns a client may ask for; the first is the default."""

    access_for: Seconds = seconds(10 * MINUTE)
    """Lifetime of an access token: the longest time that a verifier without the log accepts a revoked token."""
    idle_for: Seconds = seconds(14 * DAY)
    """A session that was not used for this long has expired."""
    absolute_for: Seconds = seconds(30 * DAY)
    """A session this old has expired: rotation and use never extend it."""
    touch_every: Seconds = seconds(MINUTE)
    """`last_seen_at` is written at most this often, so that not every request writes."""
    step_up_for: Seconds = seconds(10 * MINUTE)
    """The maximum age of the proof for what an administrator changes, and for what an owner does once: another
    address, an export, the deletion (RFC 9470). `/auth/reauthenticate` renews it.
    """

    second_factor: SecondFactor = "optional"
    """Who needs a second factor to sign in: who has enrolled one; administrators too; or everyone. `off` offers none,
    and still asks for those that were enrolled.
    """
    second_factor_grace: Seconds = seconds(0.0)
    """Where one is needed: how long an account without one may sign in, from the first time that it should have had
    one. After that, signing in enrols one.
    """
    remember_device_for: Seconds = seconds(30 * DAY)
    """How long a browser whose owner asked for it skips the second factor. An administrator's never does. 0: none."""

    passkey_verification: PasskeyVerification = "preferred"
    """Whether a passkey after a password must check its owner too, by a fingerprint, a face or a PIN (`required`), or
    may do with a touch (`preferred`), as older security keys do. A passkey without a password must, always.
    """
    device_binding: DeviceBinding = "optional"
    """Whether a sign-in is bound to a key of its client, so that a copy is worth nothing elsewhere: tokens by DPoP (RFC
    9449), and cookies by what browsers do for them over TLS (DBSC). `optional` binds clients that prove a key, for
    good; `required` also refuses those that prove none. `off` begins to bind no sign-in.
    """

    factor_recovery_after: Seconds = seconds(3 * DAY)
    """Who has lost the second factor and the recovery codes: how long they wait, after the first proof and a mailed
    link, until a second link removes the factors. Three days bring the mails about it to an owner who looks at the
    weekend. 0: never by mail. An administrator's factor never is.
    """
    sign_in_by_mail: bool = False
    """Whether a mailed code signs people in who have no password at hand. Off: the mailbox then is a key to the account
    that leaves no trace, where a new password would be noticed.
    """

    max_sessions: int | None = None
    """Live sessions an account may have; 1 is single device. None: no limit."""
    at_limit: AtLimit = "end_oldest"
    """What one more sign-in does: revoke the least recently used session, or be refused."""

    rotation: Rotation = "convergent"
    """`strict` treats every second use of a refresh token as theft, as ASVS 10.4.5 says: then a lost answer signs a
    user out.
    """
    refresh_window: Seconds = seconds(30.0)
    """W: within this time, every re-presentation of a refresh token converges on one token."""
    max_siblings: int = 16
    """Tokens that one parent may split into when answers keep getting lost."""
    fingerprint: Fingerprint = "revoke"
    """A parent token replayed late from another browser or country: theft, an audit event, or ignored."""
    theft_ends_all: bool = False
    """Whether a proven theft revokes the account's other sessions too. Off by default: one old token must not be enough
    to sign its owner out everywhere.
    """

    suspicion: Suspicion = "quiet"
    """What is done about a live session that is used in a suspicious way, such as from two continents: nothing, a mail
    to its owner (`quiet`), another proof (`standard`), or another proof for less (`strict`). `PRESETS` in
    `model/suspicion.py` is the table.
    """

    session_data_at_most: int = 65_536
    """Bytes of JSON that an application keeps for one session or visitor. Each write stores all of it: a basket and
    a form are a few kilobytes, and what is larger belongs into a table of the application.
    """
    visitor_data_for: Seconds = seconds(14 * DAY)
    """Data of a visitor who has not signed in and does not come back is deleted after this: as long as an unused
    session lives.
    """

    password_minimum: int = 8
    """Characters. NIST SP 800-63B-4 requires 15 if the password is the only factor."""
    reset_for: Seconds = seconds(30 * MINUTE)
    """Lifetime of a link that resets a password."""
    verify_email_for: Seconds = seconds(DAY)
    """Lifetime of a link that verifies an address."""
    restore_email_for: Seconds = seconds(7 * DAY)
    """How long the owner of the former address can undo a change of the address by a mailed link. A week covers an
    absence: a thief who has the password changes the address first, so that no reset reaches the owner.
    """
    invitation_for: Seconds = seconds(7 * DAY)
    """Lifetime of an invitation: a week of absence. An administrator can send it again."""
    keep_deleted_for: Seconds = seconds(14 * DAY)
    """How long an account that its owner has deleted can be kept by a mailed link, before it is erased; 0 erases it at
    once. Two weeks cover a holiday, and are within the month that the GDPR gives (article 12).
    """
    unverified_for: Seconds = seconds(7 * DAY)
    """If a verified address is required: an account whose address is not verified by then is removed."""
    registration: RegistrationMode = "open"
    """Who creates accounts: anyone; administrators, who invite by mail; or only the command line."""
    setup_for: Seconds = seconds(HOUR)
    """Lifetime of the link for the first administrator."""
    require_verified_email: bool = False
    """Sign-in needs a verified address, and registration always answers 202, so that a client cannot learn which
    accounts exist.
    """

    key_publish_for: Seconds = seconds(DAY)
    """A new signing key is published this long before it signs, so that every cached key set has it in time."""
    key_sign_for: Seconds = seconds(30 * DAY)
    """How long a signing key signs before the next key does."""
    max_audit_for: Seconds = seconds(365 * DAY)
    """Audit events are purged after this."""

    def __post_init__(self) -> None:
        self._read()
        for name in (
            "access_for",
            "idle_for",
            "absolute_for",
            "reset_for",
            "verify_email_for",
            "restore_email_for",
            "invitation_for",
            "setup_for",
            "step_up_for",
            "visitor_data_for",
        ):
            if getattr(self, name) <= 0:
                raise Misconfigured(f"{name} must be more than 0 seconds.")
        if self.unverified_for < self.verify_email_for:
            raise Misconfigured("unverified_for must not be shorter than verify_email_for, or links outlive accounts.")
        if not self.modes or len(set(self.modes)) != len(self.modes):
            raise Misconfigured("modes must name at least one pattern, each once.")
        if self.access_for > LONGEST_ACCESS:
            raise Misconfigured("access_for must be at most an hour; 5 to 15 minutes is right for nearly everyone.")
        if self.idle_for > self.absolute_for:
            raise Misconfigured("idle_for must not be longer than absolute_for.")
        if self.touch_every >= self.idle_for:
            raise Misconfigured("touch_every must be shorter than idle_for, or sessions in use would run out.")
        if not 0 <= self.refresh_window <= 5 * MINUTE:
            raise Misconfigured("refresh_window must be between 0 and 300 seconds.")
        if not 1 <= self.max_siblings <= 64:  # noqa: PLR2004 - the message says it
            raise Misconfigured("max_siblings must be between 1 and 64.")
        if self.key_sign_for <= self.access_for + CLOCK_SLACK:
            # A shorter time would end before the next key begins to sign, and no sign-in would get a token.
            raise Misconfigured("key_sign_for must be longer than access_for and 5 minutes; a day or more is usual.")
        if self.key_publish_for > self.key_sign_for:
            raise Misconfigured("key_publish_for must not be longer than key_sign_for, or unused keys pile up.")
        if self.max_sessions is not None and not 1 <= self.max_sessions <= 1000:  # noqa: PLR2004
            raise Misconfigured("max_sessions must be between 1 and 1,000, or not set.")
        if not 1024 <= self.session_data_at_most <= 1_048_576:  # noqa: PLR2004
            raise Misconfigured("session_data_at_most must be between 1,024 and 1,048,576 bytes.")
        if not 8 <= self.password_minimum <= 64:  # noqa: PLR2004
            raise Misconfigured("password_minimum must be between 8 and 64 characters.")

    def _read(self) -> None:
        """Check each value by itself, and turn durations into seconds."""
        for name in DURATIONS:
            force_setattr(self, name, read_duration(getattr(self, name), name))
        for name, known in _CHOICES.items():
            check_choice(getattr(self, name), get_args(known), name)
        for name in _SWITCHES:
            if not isinstance(getattr(self, name), bool):
                raise Misconfigured(f"{name} is True or False, and not {getattr(self, name)!r}.")
        for name in _COUNTS:
            given = getattr(self, name)
            if not (type(given) is int or (given is None and name == "max_sessions")):
                raise Misconfigured(f"{name} is a whole number, and not {given!r}.")
        if isinstance(self.modes, str) or not isinstance(self.modes, tuple | list):
            raise Misconfigured('modes is a list of patterns, such as modes=("session", "hybrid").')
        for mode in self.modes:
            check_choice(mode, get_args(Mode), "modes")
        force_setattr(self, "modes", tuple(self.modes))

    @property
    def default_mode(self) -> Mode:
        """The mode of a client that names none."""
        return self.modes[0]


DURATIONS: Final = tuple(name for name, kind in Policy.__annotations__.items() if kind == "Seconds")
"""The fields of a policy that are durations."""

STANDARD = Policy()
HIGH = replace(
    STANDARD,
    access_for=5 * MINUTE,
    idle_for=30 * MINUTE,
    absolute_for=12 * HOUR,
    password_minimum=15,
    factor_recovery_after=0.0,
)
RELAXED = replace(STANDARD, access_for=15 * MINUTE, idle_for=30 * DAY, absolute_for=90 * DAY)
PRESETS = {"high": HIGH, "standard": STANDARD, "relaxed": RELAXED}
