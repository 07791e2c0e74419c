"""The text of every mail, and the links in it.

Three rules. A link starts with the configured public URL, never with a value from a request: a forged Host header must
not send the owner's token to an attacker. The token comes after the `#`: a browser sends that part neither to a server
nor in a Referer header. A mail never repeats text that a stranger chose: a display name or a User-Agent such as "call
+1 555 0100" would appear as our own words.

A letter is a row of texts. Two templates give all of them one look, as HTML and as plain text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit

from dutchdoor.errors import Misconfigured
from dutchdoor.mail import Mail
from dutchdoor.model.http_client import Client
from dutchdoor.texts import mark
from dutchdoor.texts.languages import Languages
from dutchdoor.texts.templates import environment

__all__ = [
    "CHANGE_PATH",
    "CODE_PATH",
    "CONFIRM_CODE_PATH",
    "FORGOT_PATH",
    "INVITATION_PATH",
    "JOIN_PATH",
    "KEEP_FACTORS_PATH",
    "KEEP_PATH",
    "LOST_PATH",
    "REMOVE_FACTORS_PATH",
    "RESET_PATH",
    "RESTORE_PATH",
    "VERIFY_PATH",
    "Accent",
    "Done",
    "Letters",
    "Notice",
]

ACCOUNT_PATH, FORGOT_PATH, RESET_PATH = "/auth/account", "/auth/forgot", "/auth/reset"
INVITATION_PATH, VERIFY_PATH = "/auth/invitation", "/auth/verify"
CHANGE_PATH, RESTORE_PATH = "/auth/email/confirm", "/auth/email/restore"
KEEP_PATH, JOIN_PATH = "/auth/account/keep", "/auth/join"
LOST_PATH = "/auth/factors/lost"
REMOVE_FACTORS_PATH, KEEP_FACTORS_PATH = f"{LOST_PATH}/remove", f"{LOST_PATH}/keep"
CODE_PATH, CONFIRM_CODE_PATH = "/auth/login/code", "/auth/confirm?by=mail_code"

_TEMPLATES = Path(__file__).parent / "templates"
# No dot, slash, colon, @ or row of digits: mail programs turn these into links and telephone numbers.
_DEVICE = re.compile(r"(?!.*[0-9]{4})[A-Za-z0-9 +()-]{1,60}")
# An administrator chose it for themselves: letters of any language, without what reads as a link or a number; or an
# address.
_NAME = re.compile(r"(?!.*[0-9]{4})(?:[\w '\u2019-]|\.(?= )){1,60}|[A-Za-z0-9._+-]{1,64}@[A-Za-z0-9.-]{1,190}")
_PRODUCT_AT_MOST = 60


class _Letter(NamedTuple):
    """What a letter says: its subject, the paragraphs before its button, the button, and those after it. Where and when
    something was done stands below the first paragraph.
    """

    subject: str
    before: tuple[str, ...]
    button: str
    after: tuple[str, ...] = ()
    path: str = FORGOT_PATH
    """Where the button of a notice leads."""


_NEW_PASSWORD = mark("Choose a new password")
_WAS_IT_YOU = mark(
    "If it was you, there is nothing to do. If not, choose a new password now, which signs everyone else out."
)

VERIFY_EMAIL = _Letter(
    mark("Confirm your e-mail address"),
    (mark("Someone, hopefully you, gave this address to %(product)s. Confirm that it is yours."),),
    mark("Confirm the address"),
    (
        mark(
            "The link works once, within %(valid)s. If you open it in another browser than the one that registered, "
            "the page asks for a password, which becomes the password of the account."
        ),
        mark("If it was not you, do nothing."),
    ),
)
RESET_PASSWORD = _Letter(
    _NEW_PASSWORD,
    (mark("Someone, hopefully you, asked to choose a new password for your %(product)s account."),),
    _NEW_PASSWORD,
    (
        mark("The link works once, within %(valid)s. You will then be signed out everywhere."),
        mark("If it was not you, do nothing: your password stays as it is, and only you can see this link."),
    ),
)
INVITATION = _Letter(
    mark("You have an account"),
    (mark("An administrator created an account at %(product)s for this address. Choose its password."),),
    mark("Choose a password"),
    (
        mark("The link works once, within %(valid)s. Later, ask for another one on the same page."),
        mark("If you do not know %(product)s, do nothing."),
    ),
)
_YOU_CHOOSE = mark("You choose a name and a password.")
INVITED = _Letter(
    mark("You are invited"),
    (mark("%(inviter)s invites you to %(product)s."), _YOU_CHOOSE),
    mark("Accept the invitation"),
    (mark("The link works once, within %(valid)s. If you do not know %(product)s, do nothing."),),
)
INVITED_BY_ADMINISTRATOR = INVITED._replace(before=(mark("An administrator invites you to %(product)s."), _YOU_CHOOSE))
_CODE_AFTER = (
    mark("The code works once, within %(valid)s, and only in the browser that asked for it. So does the link."),
    mark(
        "Do not read the code out to anyone, and type it on no other page. If it was not you who asked, do nothing: "
        "without this code, no one gets in."
    ),
)
MAIL_CODE = _Letter(
    mark("Your code to sign in"),
    (
        mark(
            "Someone, hopefully you, wants to sign in to %(product)s. Type this code in the browser that asked for it:"
        ),
    ),
    mark("Go to the page for the code"),
    _CODE_AFTER,
)
CONFIRM_CODE = _Letter(
    mark("Your code to confirm that it is you"),
    (
        mark(
            "Someone who is signed in to your %(product)s account, hopefully you, has to confirm that it is you. Type "
            "this code in the browser that asked for it:"
        ),
    ),
    mark("Go to the page for the code"),
    _CODE_AFTER,
)
ALREADY_REGISTERED = _Letter(
    mark("You already have an account"),
    (
        mark(
            "Someone, hopefully you, tried to register at %(product)s with this address. It already has an account, so "
            "nothing was changed. Sign in as usual, or choose a new password."
        ),
    ),
    _NEW_PASSWORD,
    (mark("If it was not you, do nothing."),),
)
CHANGE_EMAIL = _Letter(
    mark("Confirm your new e-mail address"),
    (
        mark(
            "Someone, hopefully you, wants to use this address for a %(product)s account. Confirm it only if the "
            "account is yours."
        ),
    ),
    mark("Confirm the new address"),
    (
        mark(
            "The link works once, within %(valid)s. After that you sign in with this address. If it was not you, do "
            "nothing."
        ),
    ),
)
ADDRESS_TAKEN = _Letter(
    mark("You already have an account"),
    (
        mark(
            "Someone, hopefully you, wanted to use this address for another %(product)s account. It already has an "
            "account, so nothing was changed. Sign in to that one, or choose a new password for it."
        ),
    ),
    _NEW_PASSWORD,
    (mark("If it was not you, do nothing."),),
)
EMAIL_CHANGED = _Letter(
    mark("Your e-mail address was changed"),
    (
        mark("Your %(product)s account has another e-mail address now. This one no longer signs you in."),
        mark(
            "If it was you, there is nothing to do. If not, undo the change now. You choose a new password, and "
            "everyone else is signed out."
        ),
    ),
    mark("Undo the change"),
    (mark("The link works once, within %(valid)s."),),
)
ACCOUNT_DELETED = _Letter(
    mark("Your account will be deleted"),
    (
        mark(
            "Your %(product)s account was deleted, and you are signed out everywhere. On %(when)s we erase it with all "
            "that belongs to it."
        ),
        mark("Until then you can keep it. If it was not you who deleted it, keep it now, and choose a new password."),
    ),
    mark("Keep my account"),
    (mark("If it was you, there is nothing to do."),),
)

LOST_FACTORS = _Letter(
    mark("You have lost your second factor"),
    (
        mark(
            "Someone, hopefully you, has passed the first step of signing in to your %(product)s account, and says "
            "that the second factor and the recovery codes are lost."
        ),
        mark("If it is you, begin the waiting time of %(valid)s. After it, another link removes the second factor."),
    ),
    mark("Begin the waiting time"),
    (
        mark("The link works once, within an hour."),
        mark("If it is not you, someone has your password: sign in, and choose a new one."),
    ),
)
FACTORS_IN_DANGER = _Letter(
    mark("The second factor of your account will be removed"),
    (
        mark(
            "Someone who can sign in to your %(product)s account and read your mail says that the second factor is "
            "lost. From %(when)s on they can remove it."
        ),
        mark("If it is not you, cancel that now. Signing in with the second factor cancels it too."),
    ),
    mark("Keep the second factor"),
    (
        mark(
            "Then choose a new password: someone knows yours, or reads your mail. If it is you, there is nothing to do."
        ),
    ),
)
FACTORS_REMOVABLE = _Letter(
    mark("Keep this mail: its link removes your second factor"),
    (
        mark("From %(when)s on, this link removes the second factor of your %(product)s account, for a week."),
        mark("Until then it does nothing. A sign-in with the second factor, or a new password, makes it void."),
    ),
    mark("Remove the second factor"),
    (mark("After it, sign in with your password, and set up a new second factor on the page of your account."),),
)


class Notice(Enum):
    """What the owner of an account is sent after something was done to it, with the place of the client that did it."""

    PASSWORD_CHANGED = _Letter(
        mark("Your password was changed"),
        (mark("The password of your %(product)s account was changed."), _WAS_IT_YOU),
        _NEW_PASSWORD,
    )
    PASSWORD_CHANGED_ALONE = PASSWORD_CHANGED._replace(
        before=(
            mark("The password of your %(product)s account was changed."),
            mark(
                "In the week before, something else was added to the account, such as a passkey or another log-in, and "
                "still works. If you do not know it, remove it on the page of your account."
            ),
            _WAS_IT_YOU,
        )
    )
    """To an owner whose account has young ways to sign in. They are not named: a thief may have chosen their names."""
    PASSWORD_REMOVED = _Letter(
        mark("The password of your account was given up"),
        (
            mark(
                "No password signs in to %(product)s any more. Your passkeys and the log-ins that you have linked do."
            ),
            mark(
                "If it was you, there is nothing to do. If not, choose a new password, which signs everyone else out."
            ),
        ),
        _NEW_PASSWORD,
        (mark("If you want a password again later, choose one in the same way."),),
    )
    PASSWORD_RESET = PASSWORD_CHANGED._replace(
        before=(
            mark("The password of your %(product)s account was changed."),
            mark(
                "What was added to the account in the week before, such as a passkey or another log-in, does not sign "
                "in any more until you say that it is yours: sign in, and look at the page of your account."
            ),
            _WAS_IT_YOU,
        )
    )
    """To an owner whose account had ways to sign in that were set aside. They are not named either."""
    NEW_DEVICE = _Letter(
        mark("New sign-in to your account"),
        (
            mark("Your %(product)s account was just used to sign in from a device we have not seen before."),
            _WAS_IT_YOU,
        ),
        _NEW_PASSWORD,
    )
    SIGN_IN_COPIED = _Letter(
        mark("Someone else may have used your sign-in"),
        (
            mark(
                "Two programs used the same sign-in to your %(product)s account. One of them may belong to someone who "
                "copied it, so we have revoked that sign-in. It was last used here:"
            ),
            mark(
                "Sign in again to continue. If you do not recognise this, choose a new password now, which signs "
                "everyone out."
            ),
        ),
        _NEW_PASSWORD,
        (mark("This can also happen when a device is restored from a backup."),),
    )
    """A refresh token was used twice. The client presented it last."""
    USED_ELSEWHERE = _Letter(
        mark("Your sign-in is used in another place"),
        (
            mark("A sign-in to your %(product)s account is now used in a way that it was not used before:"),
            mark(
                "Was it you? Then there is nothing to do. A journey, another network or a VPN looks like this. If it "
                "was not you, choose a new password now, which signs everyone out."
            ),
        ),
        _NEW_PASSWORD,
    )
    """A client uses a session in another way than before."""
    USE_REFUSED = _Letter(
        mark("We have stopped a sign-in to your account"),
        (
            mark(
                "A sign-in to your %(product)s account was used in a way that looks like theft, so it does not work "
                "any more until you confirm who you are, or sign in again:"
            ),
            mark(
                "Was it you? Then confirm it where you are signed in. If it was not you, choose a new password now, "
                "which signs everyone out."
            ),
        ),
        _NEW_PASSWORD,
        (mark("A VPN that you use for the first time can look like this, too."),),
    )
    """A client used a session, and was refused."""
    FACTOR_ADDED = _Letter(
        mark("An authenticator app was added to your account"),
        (mark("Signing in to %(product)s now asks for a code of this app."), _WAS_IT_YOU),
        _NEW_PASSWORD,
    )
    FACTOR_REMOVED = _Letter(
        mark("The authenticator app was removed from your account"),
        (mark("Signing in to %(product)s no longer asks for a code. The password alone is enough."), _WAS_IT_YOU),
        _NEW_PASSWORD,
    )
    PASSKEY_ADDED = _Letter(
        mark("A passkey was added to your account"),
        (mark("This passkey now signs in to %(product)s, without a password."), _WAS_IT_YOU),
        _NEW_PASSWORD,
    )
    PASSKEY_REMOVED = _Letter(
        mark("A passkey was removed from your account"),
        (mark("It no longer signs in to %(product)s."), _WAS_IT_YOU),
        _NEW_PASSWORD,
    )
    IDENTITY_LINKED = _Letter(
        mark("Another log-in was linked to your account"),
        (
            mark("You can sign in to %(product)s by it now. The page of your account shows which one it is."),
            mark("If it was not you, unlink it there, and choose a new password."),
        ),
        mark("See your account"),
        path=ACCOUNT_PATH,
    )
    IDENTITY_UNLINKED = _Letter(
        mark("A log-in was unlinked from your account"),
        (mark("It no longer signs in to %(product)s. The page of your account shows which ones do."), _WAS_IT_YOU),
        mark("See your account"),
        path=ACCOUNT_PATH,
    )
    RECOVERY_CODES_CREATED = _Letter(
        mark("New recovery codes for your account"),
        (
            mark("New recovery codes for %(product)s were made. Those from before do not work any more."),
            _WAS_IT_YOU,
        ),
        _NEW_PASSWORD,
        (mark("If it was not you, make new codes on the page of your account as well: someone has these."),),
    )
    RECOVERY_CODE_USED = _Letter(
        mark("A recovery code of your account was used"),
        (
            mark("Someone, hopefully you, signed in to %(product)s with a recovery code in place of the app."),
            mark("If it was not you, someone has your password and your codes. Choose a new password now."),
        ),
        _NEW_PASSWORD,
        (mark("A recovery code works once. On your account page you can set up the app again, and make new codes."),),
    )
    FACTORS_KEPT = _Letter(
        mark("The second factor of your account stays"),
        (
            mark(
                "The second factor of your %(product)s account was about to be removed. That is cancelled: you signed "
                "in, or someone who reads your mail cancelled it."
            ),
            mark("If you did not ask for the removal, choose a new password: someone knows yours, or reads your mail."),
        ),
        _NEW_PASSWORD,
    )
    FACTORS_REMOVED = _Letter(
        mark("The second factor of your account was removed"),
        (
            mark("The waiting time was over, and the second factor of your %(product)s account was removed by mail."),
            _WAS_IT_YOU,
        ),
        _NEW_PASSWORD,
    )


class Done(Protocol):
    """What the owner of an account did as an administrator, or a thief did in their name."""

    @property
    def text(self) -> str:
        """What it was; of the catalogues."""
        ...

    @property
    def at(self) -> float: ...


_DEEDS_AT_MOST = 20


class Accent(NamedTuple):
    """The colour of links and buttons in each theme, and of what stands on a button."""

    light: str = "#1f4e8c"
    dark: str = "#8cb4ec"
    on_light: str = "#ffffff"
    on_dark: str = "#0d1a2b"


class Letters:
    """Writes mail in the name of `product`, with links below `public_url`.

    Each letter takes a `language`: a tag, or the Accept-Language header of the person who asked for it; "" is the
    first of the `languages`.

    Raises:
        Misconfigured: the URL is not an http or https address, or the name is not one short line.
    """

    def __init__(
        self, *, product: str, public_url: str, languages: Languages | None = None, accent: Accent | None = None
    ) -> None:
        parts = urlsplit(public_url)
        if parts.scheme not in {"https", "http"} or not parts.netloc or parts.query or parts.fragment:
            raise Misconfigured("The public URL must look like https://login.example.com.")
        if not product.strip() or not product.isprintable() or len(product) > _PRODUCT_AT_MOST:
            raise Misconfigured("The product's name must be one line of at most 60 characters.")
        self._product, self.public_url = product.strip(), public_url.rstrip("/")
        self.languages, self._accent = languages or Languages(), accent or Accent()

    def notice(
        self, notice: Notice, to: str, *, client: Client, at: float, language: str = "", deeds: Sequence[Done] = ()
    ) -> Mail:
        """Write of what a `client` did at an instant, `at`. `deeds` are what the reader did as an administrator before:
        the newest are listed, without the names in them, which a thief may have chosen.
        """
        letter = notice.value
        return self._write(letter, to, language, self._link(letter.path), client=client, at=at, deeds=deeds)

    def verify_email(self, to: str, *, token: str, valid_for: float, language: str = "") -> Mail:
        return self._write(VERIFY_EMAIL, to, language, self._link(VERIFY_PATH, token), valid_for=valid_for)

    def reset_password(self, to: str, *, token: str, valid_for: float, language: str = "") -> Mail:
        return self._write(RESET_PASSWORD, to, language, self._link(RESET_PATH, token), valid_for=valid_for)

    def mail_code(self, to: str, *, code: str, valid_for: float, client: Client, at: float, language: str = "") -> Mail:
        """Write the code with which its reader signs in. `client` asked for it, so that a reader who did not ask sees
        where it was.
        """
        link = self._link(CODE_PATH, code)
        return self._write(MAIL_CODE, to, language, link, valid_for=valid_for, client=client, at=at, code=code)

    def confirm_code(
        self, to: str, *, code: str, valid_for: float, client: Client, at: float, language: str = ""
    ) -> Mail:
        """Write the code with which a person who is signed in proves again who they are."""
        link = self._link(CONFIRM_CODE_PATH, code)
        return self._write(CONFIRM_CODE, to, language, link, valid_for=valid_for, client=client, at=at, code=code)

    def invitation(self, to: str, *, token: str, valid_for: float, language: str = "") -> Mail:
        """Write to the owner of an account that an administrator created: the link leads to the choice of a first
        password.
        """
        return self._write(INVITATION, to, language, self._link(INVITATION_PATH, token), valid_for=valid_for)

    def invited(self, to: str, *, token: str, valid_for: float, inviter: str, language: str = "") -> Mail:
        """Write to a person who may create an account. The administrator who invites is named, unless the name could be
        taken for our own words: a link, or a telephone number.
        """
        letter = INVITED if _NAME.fullmatch(inviter) else INVITED_BY_ADMINISTRATOR
        link = self._link(JOIN_PATH, token)
        return self._write(letter, to, language, link, valid_for=valid_for, inviter=inviter)

    def already_registered(self, to: str, *, language: str = "") -> Mail:
        """Write to an address that is registered a second time: only its mailbox may learn that the account exists, not
        the page.
        """
        return self._write(ALREADY_REGISTERED, to, language, self._link(FORGOT_PATH))

    def change_email(self, to: str, *, token: str, valid_for: float, language: str = "") -> Mail:
        """Write to an address that is to become that of an account."""
        return self._write(CHANGE_EMAIL, to, language, self._link(CHANGE_PATH, token), valid_for=valid_for)

    def address_taken(self, to: str, *, language: str = "") -> Mail:
        """Write to an address that was to become that of another account: only its mailbox may learn that it has one
        already.
        """
        return self._write(ADDRESS_TAKEN, to, language, self._link(FORGOT_PATH))

    def email_changed(
        self, to: str, *, token: str, valid_for: float, client: Client, at: float, language: str = ""
    ) -> Mail:
        """Write to the former address of an account. The new one is not named: a thief chose it, or its owner left the
        old mailbox to others.
        """
        link = self._link(RESTORE_PATH, token)
        return self._write(EMAIL_CHANGED, to, language, link, valid_for=valid_for, client=client, at=at)

    def account_deleted(self, to: str, *, token: str, until: float, language: str = "") -> Mail:
        """Write to the owner of an account that is to be erased at the instant `until`."""
        return self._write(ACCOUNT_DELETED, to, language, self._link(KEEP_PATH, token), at=until)

    def lost_factors(
        self, to: str, *, token: str, valid_for: float, client: Client, at: float, language: str = ""
    ) -> Mail:
        """Write to a person who has lost the second factor: the link begins the waiting time, `valid_for` seconds."""
        link = self._link(LOST_PATH, token)
        return self._write(LOST_FACTORS, to, language, link, valid_for=valid_for, client=client, at=at)

    def factors_in_danger(self, to: str, *, token: str, until: float, language: str = "") -> Mail:
        """Write to each mailbox of an account whose second factor can be removed from the instant `until` on."""
        return self._write(FACTORS_IN_DANGER, to, language, self._link(KEEP_FACTORS_PATH, token), at=until)

    def factors_removable(self, to: str, *, token: str, until: float, language: str = "") -> Mail:
        """Write to the address of an account: from the instant `until` on, the link removes its second factor."""
        return self._write(FACTORS_REMOVABLE, to, language, self._link(REMOVE_FACTORS_PATH, token), at=until)

    def _write(
        self,
        letter: _Letter,
        to: str,
        language: str,
        link: str,
        *,
        valid_for: float = 0.0,
        client: Client | None = None,
        at: float = 0.0,
        inviter: str = "",
        code: str = "",
        deeds: Sequence[Done] = (),
    ) -> Mail:
        """Write a letter in a language, with its values. A `client` is named as the place where something was done."""
        spoken = self.languages.of(language)
        subject = spoken.text(letter.subject)
        facts: list[tuple[str, str]] = []
        if client is not None:
            unknown = spoken.text(mark("unknown"))
            country = f" ({spoken.country(client.country)})" if client.country else ""
            facts = [
                (mark("When"), spoken.when(at)),
                (mark("Device"), spoken.device(client.device) if _DEVICE.fullmatch(client.device) else unknown),
                (mark("Address"), (client.address or unknown) + country),
            ]
        shown = {
            **letter._asdict(),
            "subject": subject,
            "product": self._product,
            "values": {
                "product": self._product,
                "valid": spoken.duration(valid_for),
                "when": spoken.when(at),
                "inviter": inviter,
            },
            "facts": facts,
            "code": code,
            "deeds": [(each.text, spoken.when(each.at)) for each in deeds[:_DEEDS_AT_MOST]],
            "more": len(deeds) > _DEEDS_AT_MOST,
            "accent": self._accent,
            "link": link,
        }
        templates = environment(_TEMPLATES, spoken)
        return Mail(
            to=to,
            subject=f"{subject} - {self._product}",
            text=templates.get_template("letter.txt").render(shown),
            html=templates.get_template("letter.html").render(shown),
        )

    def _link(self, path: str, token: str = "") -> str:
        return f"{self.public_url}{path}" + (f"#{token}" if token else "")
