"""The text of every mail, and the links in it.

Three rules. A link starts with the configured public URL, never with a value from a request: a forged Host header must
not send the owner's token to an attacker. The token comes after the `#`: a browser sends that part neither to a server
nor in a Referer header. A mail never repeats text that a stranger chose: a display name or a User-Agent such as "call
+1 555 0100" would appear as our own words.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from dutchdoor.errors import Misconfigured
from dutchdoor.mail import Mail
from dutchdoor.model.http_client import Client

__all__ = [
    "CHANGE_PATH",
    "FORGOT_PATH",
    "INVITATION_PATH",
    "JOIN_PATH",
    "KEEP_PATH",
    "RESET_PATH",
    "RESTORE_PATH",
    "VERIFY_PATH",
    "Letters",
]

FORGOT_PATH, RESET_PATH = "/auth/forgot", "/auth/reset"
INVITATION_PATH, VERIFY_PATH = "/auth/invitation", "/auth/verify"
CHANGE_PATH, RESTORE_PATH = "/auth/email/confirm", "/auth/email/restore"
KEEP_PATH, JOIN_PATH = "/auth/account/keep", "/auth/join"

_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=select_autoescape(["html"]),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    extensions=["jinja2.ext.i18n"],
)
_TEMPLATES.install_null_translations(newstyle=True)  # type: ignore[attr-defined]
# No dot, slash, colon, @ or row of digits: mail programs turn these into links and telephone numbers.
_DEVICE = re.compile(r"(?!.*[0-9]{4})[A-Za-z0-9 +()-]{1,60}")
# An administrator chose it for themselves: letters of any language, without what reads as a link or a number; or an
# address.
_NAME = re.compile(r"(?!.*[0-9]{4})(?:[\w '\u2019-]|\.(?= )){1,60}|[A-Za-z0-9._+-]{1,64}@[A-Za-z0-9.-]{1,190}")
_PRODUCT_AT_MOST = 60


class Letters:
    """Writes mail in the name of `product`, with links below `public_url`.

    Raises:
        Misconfigured: the URL is not an http or https address, or the name is not one short line.
    """

    def __init__(self, *, product: str, public_url: str) -> None:
        parts = urlsplit(public_url)
        if parts.scheme not in {"https", "http"} or not parts.netloc or parts.query or parts.fragment:
            raise Misconfigured("The public URL must look like https://login.example.com.")
        if not product.strip() or not product.isprintable() or len(product) > _PRODUCT_AT_MOST:
            raise Misconfigured("The product's name must be one line of at most 60 characters.")
        self._product, self.public_url = product.strip(), public_url.rstrip("/")

    def verify_email(self, to: str, *, token: str, valid_for: float) -> Mail:
        link = self._link(VERIFY_PATH, token)
        return self._write("verify_email", to, "Confirm your e-mail address", link=link, valid=_duration(valid_for))

    def reset_password(self, to: str, *, token: str, valid_for: float) -> Mail:
        link = self._link(RESET_PATH, token)
        return self._write("reset_password", to, "Choose a new password", link=link, valid=_duration(valid_for))

    def invitation(self, to: str, *, token: str, valid_for: float) -> Mail:
        """Write to the owner of an account that an administrator created: the link leads to the choice of a first
        password.
        """
        link = self._link(INVITATION_PATH, token)
        return self._write("invitation", to, "You have an account", link=link, valid=_duration(valid_for))

    def invited(self, to: str, *, token: str, valid_for: float, inviter: str) -> Mail:
        """Write to a person who may create an account. The administrator who invites is named, unless the name could be
        taken for our own words: a link, or a telephone number.
        """
        inviter = inviter if _NAME.fullmatch(inviter) else ""
        link = self._link(JOIN_PATH, token)
        return self._write("invited", to, "You are invited", link=link, valid=_duration(valid_for), inviter=inviter)

    def already_registered(self, to: str) -> Mail:
        """Write to an address that is registered a second time: only its mailbox may learn that the account exists, not
        the page.
        """
        return self._write("already_registered", to, "You already have an account", link=self._link(FORGOT_PATH))

    def change_email(self, to: str, *, token: str, valid_for: float) -> Mail:
        """Write to an address that is to become that of an account."""
        link = self._link(CHANGE_PATH, token)
        return self._write("change_email", to, "Confirm your new e-mail address", link=link, valid=_duration(valid_for))

    def address_taken(self, to: str) -> Mail:
        """Write to an address that was to become that of another account: only its mailbox may learn that it has one
        already.
        """
        return self._write("address_taken", to, "You already have an account", link=self._link(FORGOT_PATH))

    def email_changed(self, to: str, *, token: str, valid_for: float, client: Client, at: float) -> Mail:
        """Write to the former address of an account. The new one is not named: a thief chose it, or its owner left the
        old mailbox to others.
        """
        return self._notice(
            "email_changed",
            to,
            "Your e-mail address was changed",
            client,
            at,
            link=self._link(RESTORE_PATH, token),
            valid=_duration(valid_for),
        )

    def account_deleted(self, to: str, *, token: str, until: float) -> Mail:
        """Write to the owner of an account that is to be erased at the instant `until`."""
        link, when = self._link(KEEP_PATH, token), _instant(until)
        return self._write("account_deleted", to, "Your account will be deleted", link=link, when=when)

    def password_changed(self, to: str, *, client: Client, at: float) -> Mail:
        return self._notice("password_changed", to, "Your password was changed", client, at)

    def new_device(self, to: str, *, client: Client, at: float) -> Mail:
        return self._notice("new_device", to, "New sign-in to your account", client, at)

    def sign_in_copied(self, to: str, *, client: Client, at: float) -> Mail:
        """Warn the owner of a session whose refresh token was used twice. `client` presented it last."""
        return self._notice("sign_in_copied", to, "Someone else may have used your sign-in", client, at)

    def _notice(self, name: str, to: str, subject: str, client: Client, at: float, **more: str) -> Mail:
        return self._write(
            name,
            to,
            subject,
            **{"link": self._link(FORGOT_PATH), **more},
            when=_instant(at),
            device=client.device if _DEVICE.fullmatch(client.device) else "unknown",
            address=client.address or "unknown",
            country=client.country,
        )

    def _write(self, name: str, to: str, subject: str, **values: str) -> Mail:
        values |= {"product": self._product, "subject": subject}
        return Mail(
            to=to,
            subject=f"{subject} - {self._product}",
            text=_TEMPLATES.get_template(f"{name}.txt").render(values),
            html=_TEMPLATES.get_template(f"{name}.html").render(values),
        )

    def _link(self, path: str, token: str = "") -> str:
        return f"{self.public_url}{path}" + (f"#{token}" if token else "")


def _instant(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%d %B %Y, %H:%M} UTC".lstrip("0")


def _duration(seconds: float) -> str:
    """Write a duration in one unit, rounded down: the mail must not promise a longer time than the link is valid."""
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            count = int(seconds // length)
            return f"{count} {unit}" + ("s" if count > 1 else "")
    return "less than a minute"
