"""Webhooks: an endpoint that is sent audit events, how far it has got, and the form of what it gets.

The audit log is the outbox: an event is written in the transaction of what it reports, and the log has an order in
which it is followed. So a webhook keeps no copies, only places in the log. A place is a lane. The main lane has the
events of all accounts. An account whose event the endpoint does not take leaves it for a lane of its own, so that it
waits alone and its events keep their order.

Messages are signed as Standard Webhooks has it (https://www.standardwebhooks.com).
"""

from __future__ import annotations

import hmac
import json
import secrets
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlsplit

import msgspec
import pybase64
from msgspec import Struct

from dutchdoor.errors import InvalidInput
from dutchdoor.model.audit_entry import AuditEvent
from dutchdoor.model.master_key import MasterKeys
from dutchdoor.texts import mark

__all__ = [
    "KEEP_TRYING_FOR", "MAIN", "Lane", "Secret", "Webhook", "back_off", "check_url", "new_secret", "open_secrets",
    "payload", "seal_secrets", "signed",
]  # fmt: skip

MAIN: Final = "*"
"""The `subject` of the main lane, which no account has."""
KEEP_TRYING_FOR: Final = 3 * 86_400.0
"""Seconds from the first failure of an event until it is given up."""
FIRST_WAIT, GROWS, LONGEST_WAIT = 5.0, 3.0, 3600.0
"""Seconds before the second attempt, the factor from one wait to the next, and the longest wait."""
URL_AT_MOST: Final = 2000
SECRET_BYTES: Final = 32
_PREFIX: Final = "whsec_"


class Webhook(Struct, frozen=True, kw_only=True):
    """One endpoint."""

    id: str
    url: str
    events: tuple[str, ...]
    """The names of the audit events that it gets; all of them if empty."""
    with_client: bool
    """Whether it is sent the network address, the country and the device of the client behind an event."""
    sealed: bytes
    """The secrets that sign, sealed with the master key."""
    created_at: float
    disabled: str = ""
    """Why nothing is sent to it: `gone` if it answered 410, `failing` if it took nothing for days; "" while it is
    active.
    """
    revision: int = 0

    def __repr__(self) -> str:
        return f"Webhook(id={self.id!r}, host={self.host!r})"  # a URL may hold a secret

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""

    def wants(self, event: AuditEvent) -> bool:
        return not self.events or event.name in self.events


class Lane(Struct, frozen=True, kw_only=True):
    """How far one webhook has got, with the events of all accounts or of one. Times are in seconds since 1970."""

    webhook: str
    subject: str
    """The account whose events it has, "" for events without an account; `MAIN` for all that have no lane."""
    cursor: str
    """The place in the audit log: everything up to it was delivered, given up, or belongs to another lane."""
    reached_at: float
    """When the event at the cursor happened, or when the log was read to its end."""
    tries: int = 0
    """Failed attempts at the event behind the cursor."""
    next_at: float = 0.0
    """No attempt is made before. In the main lane it is of the whole webhook: the endpoint asked for it."""
    failing_since: float = 0.0
    """The first of the failed attempts; 0.0 without one."""
    failure: str = ""
    """What the last failed attempt met: a status, or some words."""
    delivered_at: float = 0.0
    """In the main lane: when the endpoint last took any event."""
    held_by: str = ""
    """In the main lane: which process sends."""
    held_until: float = 0.0
    """In the main lane: until when no other process sends."""
    revision: int = 0


class Secret(Struct, frozen=True):
    """A secret that signs, and the instant at which it no longer does; None for the newest."""

    text: str
    until: float | None = None

    def __repr__(self) -> str:
        return f"<webhook secret until {self.until}>"


def new_secret() -> str:
    return _PREFIX + pybase64.b64encode_as_string(secrets.token_bytes(SECRET_BYTES))


def seal_secrets(master: MasterKeys, webhook_id: str, listed: list[Secret]) -> bytes:
    return master.current.seal(msgspec.json.encode(listed), f"webhook {webhook_id}")


def open_secrets(master: MasterKeys, webhook: Webhook) -> list[Secret]:
    """Return the secrets of a webhook, the newest first. Raises `InvalidKey` without their master key."""
    return msgspec.json.decode(master.open(webhook.sealed, f"webhook {webhook.id}"), type=list[Secret])


def signed(message_id: str, body: bytes, secrets: list[Secret], now: float) -> dict[str, str]:
    """Return the headers that sign a message: a signature by each secret that is still valid, so that a receiver may
    know the old secret or the new one.
    """
    content = b"%s.%d." % (message_id.encode(), int(now)) + body
    signatures = [
        "v1," + pybase64.b64encode_as_string(hmac.digest(_key(each.text), content, "sha256"))
        for each in secrets
        if each.until is None or each.until > now
    ]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(now)),
        "webhook-signature": " ".join(signatures),
    }


def _key(text: str) -> bytes:
    return pybase64.b64decode(text.removeprefix(_PREFIX), validate=True)


def payload(event: AuditEvent, *, with_client: bool) -> bytes:
    """Return the body of a message about an event. An audit event holds no secret and no e-mail address."""
    data = {name: getattr(event, name) for name in ("outcome", "subject", "actor", "session_id", "client_id", "detail")}
    if with_client:
        data |= {name: getattr(event, name) for name in ("address", "country", "device")}
    return message(event.name, event.at, data)


def message(type: str, at: float, data: dict[str, object]) -> bytes:
    """Return `{"type": ..., "timestamp": ..., "data": {...}}`."""
    when = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return json.dumps({"type": type, "timestamp": when, "data": data}, ensure_ascii=False).encode("utf-8", "replace")


def back_off(tries: int, chance: float) -> float:
    """Return the seconds to wait after so many failed attempts. `chance`, from 0 to 1, spreads the waits over the upper
    half: endpoints that failed together are not asked together.
    """
    longest = min(LONGEST_WAIT, FIRST_WAIT * GROWS ** min(tries - 1, 20))
    return longest * (0.5 + chance / 2)


def check_url(url: str, *, plain: bool) -> str:
    """Return the URL of an endpoint as it is stored. `plain` says whether http is allowed, too.

    Raises:
        InvalidInput: it is no URL, is not https, holds a user name, a password or a fragment, or is too long.
    """
    url = url.strip()
    parts = None
    if len(url) <= URL_AT_MOST and url.isascii() and url.isprintable() and " " not in url:
        try:
            parts = urlsplit(url)
            if not parts.hostname or parts.port == 0:
                parts = None
        except ValueError:
            parts = None
    if parts is None or parts.scheme not in {"http", "https"}:
        raise InvalidInput(
            mark(
                "The URL is like https://example.com/hooks, in ASCII, with %(most)s characters at most.",
                most=URL_AT_MOST,
            ),
            field="url",
        )
    if parts.scheme == "http" and not plain:
        text = mark(
            "The URL must begin with https://. For a receiver in a network of your own, list the network in "
            "webhook_network; then http:// works there, too."
        )
        raise InvalidInput(text, field="url")
    if parts.username is not None or parts.password is not None or parts.fragment:
        text = mark("The URL holds a user name, a password or a fragment. The signature is the proof: leave them out.")
        raise InvalidInput(text, field="url")
    return url


def check_names(names: tuple[str, ...], known: tuple[str, ...]) -> tuple[str, ...]:
    """Return names of audit events, each once and sorted. Raises `InvalidInput` for one that does not exist."""
    for name in names:
        if name not in known:
            text = mark("There is no event %(name)s.", name=ascii(name[:64]))
            raise InvalidInput(text, field="events")
    return tuple(sorted(set(names)))
