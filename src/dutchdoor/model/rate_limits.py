"""How often something may be tried, decided by the generic cell rate algorithm (GCRA, ITU-T I.371).

A bucket is one number: the *theoretical arrival time*, the instant at which it is full again. There is no counter and
no sweep: a bucket whose instant has passed equals no bucket, so a store may purge it.

Attacks, and which rule stops each
----------------------------------

*Guessing one account's password.* Every attempt takes from the account's buckets *before* the password is checked, so
200 parallel guesses gain no more than 200 in a row. NIST SP 800-63B allows at most 100 consecutive failures for an
account: three ceilings, which do not refill with time, allow 60 + 20 + 20. A success resets them, which is what
"consecutive" means. While a bucket is empty, the right password is refused too; otherwise the answer would reveal the
right guess.

*Locking the owner out.* An attacker can use up an account's bucket with wrong passwords, and this must not keep the
owner out. So an account has one bucket for each standing (`Standing`): unknown clients, clients in a network from which
the owner recently signed in, and known devices, which are browsers with a known-device cookie from an earlier success.
A remote attacker empties only the first bucket. An attacker behind the owner's own address empties that address's
bucket, which does not count or refuse known devices. An owner on a new machine, in a new place, during an attack,
requests a reset, which has its own limits. If a reset mail is refused, another one was sent less than `interval` ago
(`reset_by_mailbox`); links live longer than that, so the owner always has a valid link. A successful reset resets the
ceilings and makes the browser a known device. A mark names the password it was issued for: a former holder of the
password has no known device after a reset.

*Locking the owner out of the second step.* A thief who knows the password can use up guesses at a code. They take from
the buckets of the thief's standing, as above, with a ceiling for each standing and method: the owner's known devices,
networks and sessions have their own. A recovery code cannot be guessed, so it has no ceiling, and a bucket for each
client network: it lets in an owner who is in a new place. A finished sign-in empties all ceilings.

*Learning which accounts exist.* Buckets are keyed by the typed address, whether it has an account or not, and answer
alike, after the same reads. The client's address is counted first, before any read: a client refused by this limit
cannot measure anything. Only the time for which a ceiling is remembered differs (`sign_in_buckets`, `known`): an
attacker who makes 60 guesses on an address, waits a day without attempts and tries again, can see the difference.

*Flooding a mailbox.* Every mail takes from a bucket of its mailbox before it is written, also mail that an attacker
causes with the account's own password. An unverified address gets mail for its verification, and no notices.

*Filling the disk with made-up addresses.* Every bucket expires, and ceilings of addresses without an account do so
after a day without an attempt. Ceilings of accounts are kept for ten years, but an account has a few.

*Trying one password on every account.* The bucket of the client's address stops this. One IPv6 customer has a /64 to a
/48 (RFC 6177), so IPv6 is counted by /64, /56 and /48, and each allows twice as much as the narrower one.

Deliberately left out: growing delays, CAPTCHAs and blocking by country. The store reads and writes buckets in one step
(invariant: of 200 parallel attempts with K allowed, K pass).
"""

from __future__ import annotations

import enum
import hashlib
import hmac
import math
from collections.abc import Collection, Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from dutchdoor.errors import InvalidToken
from dutchdoor.model.ids import decode, encode
from dutchdoor.model.spelling import Spelt

__all__ = [
    "DEFAULT_LIMITS",
    "MARK_FOR",
    "NETWORK_FOR",
    "Bucket",
    "Decision",
    "Limit",
    "Limits",
    "Mark",
    "Standing",
    "Verdict",
    "bucket_of",
    "by_address",
    "decide",
    "decide_all",
    "find_mark",
    "give_back",
    "mint_mark",
    "second_factor_buckets",
    "second_factor_ceilings",
    "sign_in_buckets",
    "sign_in_ceilings",
    "standing_of",
    "with_mark",
]

HOUR = 3600.0
DAY = 86400.0

MARK_FOR = 180 * DAY
"""How long a browser's mark is valid, in seconds: longer than a session lives, so that the mark is valid at the next
sign-in.
"""

NETWORK_FOR = 30 * DAY
"""How long a network counts as the owner's after a success, in seconds. Addresses change owners; marks do not."""

# A ceiling is one number too, so that stores need not know about ceilings: the instant at which it expires, on a grid
# of 1,024 seconds, plus the number of attempts.
_GRID = 1024

# Today's instants are doubles 0.2 microseconds apart, and a burst adds up as many roundings as it has attempts. Without
# this grace the last attempt would have to wait a microsecond.
_GRAIN = 1e-4


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """Allow `count` in `per_seconds` on average, and up to `burst` at once.

    With `per_seconds=math.inf` it is a ceiling: `burst` attempts, which never refill. The caller resets it (after a
    success), or it expires when no attempt was allowed for `kept_for` seconds.
    """

    name: str
    count: int
    per_seconds: float
    burst: int
    kept_for: float = 3652 * DAY

    def __post_init__(self) -> None:
        if self.count < 1 or self.burst < 1 or not self.per_seconds > 0:
            raise ValueError(f"limit {self.name!r}: count, per_seconds and burst must be positive")
        if self.is_ceiling and self.burst >= _GRID:
            raise ValueError(f"limit {self.name!r}: a ceiling must be lower than {_GRID}")

    @property
    def is_ceiling(self) -> bool:
        """Whether the limit never refills with time."""
        return self.per_seconds == math.inf

    @property
    def interval(self) -> float:
        """Seconds until one more attempt is allowed. Not for a ceiling."""
        return self.per_seconds / self.count


class Decision(NamedTuple):
    """What to store, and how many seconds to wait: 0 is "allowed". Store `tat` also after a refusal."""

    tat: float
    retry_after: float


def decide(tat: float | None, limit: Limit, now: float) -> Decision:
    """Allow one attempt, or return exactly how long to wait.

    `tat` is what the bucket holds, or None if there is no bucket. An attempt after `retry_after` seconds is allowed, an
    earlier one is not. A ceiling answers a day: waiting does not help, but the answer needs a number.
    """
    if limit.is_ceiling:
        return _decide_ceiling(tat, limit, now)
    interval = limit.interval
    # After a clock was set back, a bucket could otherwise stay empty for years. No bucket is ever emptier than empty,
    # so the owner waits one interval at most. For this, a refusal's `tat` is stored too.
    tat = now if tat is None else min(max(tat, now), now + interval * limit.burst)
    open_at = tat - interval * (limit.burst - 1) - _GRAIN
    if now < open_at:
        return Decision(tat, open_at - now)
    return Decision(tat + interval, 0.0)


def _decide_ceiling(tat: float | None, limit: Limit, now: float) -> Decision:
    spent = 0.0 if tat is None or tat < now else tat % _GRID
    if tat is not None and spent >= limit.burst:
        return Decision(tat, DAY)
    forgotten_at = (now + limit.kept_for) // _GRID * _GRID
    return Decision(forgotten_at + spent + 1, 0.0)


def give_back(tat: float, limit: Limit) -> float:
    """Undo one attempt that was allowed and turned out honest.

    A thousand people of one office who sign in at nine share an address, and all succeed. An attacker who signs in to
    their own account gets back only what that sign-in took.
    """
    if limit.is_ceiling:
        return tat - min(tat % _GRID, 1.0)
    return tat - limit.interval


class Bucket(NamedTuple):
    """Where a limit's number is stored. The key starts with the limit's name and contains no address that a client
    typed.
    """

    key: str
    limit: Limit


def bucket_of(limit: Limit, key: str) -> Bucket:
    """Name the bucket of a limit for one key."""
    return Bucket(f"{limit.name}:{key}", limit)


def by_address(limit: Limit, networks: Sequence[str]) -> tuple[Bucket, ...]:
    """Name the buckets of a client's networks (`Client.networks`), narrowest first. Each wider network allows twice as
    many attempts: more people share it, but not as many more as it has addresses.
    """
    return tuple(Bucket(f"{limit.name}:{network}", _widened(limit, 2**n)) for n, network in enumerate(networks))


@lru_cache(maxsize=256)
def _widened(limit: Limit, times: int) -> Limit:
    return limit if times == 1 else replace(limit, count=limit.count * times, burst=limit.burst * times)


class Verdict(NamedTuple):
    """What to store for each bucket, in order (None: leave it); seconds to wait (0: allowed); the limit that
    refused.
    """

    tats: tuple[float | None, ...]
    retry_after: float
    refused_by: str


def decide_all(tats: Sequence[float | None], buckets: Sequence[Bucket], now: float) -> Verdict:
    """Allow an attempt by all its buckets, or charge none of them.

    If a refused attempt were charged, an attacker whose address is refused could still empty the account's bucket.
    """
    decisions = [decide(tat, bucket.limit, now) for tat, bucket in zip(tats, buckets, strict=True)]
    wait, by = max(((d.retry_after, b.limit.name) for d, b in zip(decisions, buckets, strict=True)), default=(0.0, ""))
    if wait <= 0:
        return Verdict(tuple(d.tat for d in decisions), 0.0, "")
    return Verdict(tuple(d.tat if d.retry_after > 0 else None for d in decisions), wait, by)


class Limits(msgspec.Struct, metaclass=Spelt, frozen=True, kw_only=True):
    """Every limit by name, with the reason for its number. A benchmark or a test passes its own."""

    # Guesses of unknown clients. Ten at once: a person who tries three passwords, each with and without caps lock. Then
    # one in six minutes. After 60 in a row, unknown clients are refused until the owner signs in or resets the
    # password.
    sign_in_by_stranger: Limit = Limit(name="sign_in_by_stranger", count=10, per_seconds=HOUR, burst=10)
    strangers_in_a_row: Limit = Limit(name="strangers_in_a_row", count=60, per_seconds=math.inf, burst=60)
    # Neighbours, colleagues and, behind a carrier's NAT, a whole town share the owner's network. It has its own bucket
    # so that remote attackers cannot empty it, and a third of the unknown clients' ceiling.
    sign_in_by_network: Limit = Limit(name="sign_in_by_network", count=10, per_seconds=HOUR, burst=10)
    networks_in_a_row: Limit = Limit(name="networks_in_a_row", count=20, per_seconds=math.inf, burst=20)
    # A known device: almost certainly the owner. Each browser has a bucket, all browsers of the account share a
    # ceiling. So the three ceilings add up to the 100 of SP 800-63B, however many marks a thief has.
    sign_in_by_device: Limit = Limit(name="sign_in_by_device", count=20, per_seconds=HOUR, burst=10)
    devices_in_a_row: Limit = Limit(name="devices_in_a_row", count=20, per_seconds=math.inf, burst=20)
    # Failures from one address over all accounts; successes are given back. An office or a carrier's NAT with 2,000
    # people mistypes some 200 times a day; a single machine that stuffs credentials gets 1,440.
    sign_in_by_address: Limit = Limit(name="sign_in_by_address", count=60, per_seconds=HOUR, burst=30)
    # Attempts that an account's own bucket refused are given back to the address: they are no guesses, and an owner who
    # retries during an attack must not use up what others at the address need. This is bounded, because the time of
    # such a refusal might reveal whether an account exists.
    refused_by_address: Limit = Limit(name="refused_by_address", count=60, per_seconds=HOUR, burst=30)
    # Wrong second factors of one account, counted for each method and standing, after a right password. Of a million
    # codes three are right at a time.
    second_factor: Limit = Limit(name="second_factor", count=10, per_seconds=HOUR, burst=5)
    # And wrong ones in a row, for each standing and inside a session: four times 25 are the 100 of SP 800-63B.
    second_factor_in_a_row: Limit = Limit(name="second_factor_in_a_row", count=25, per_seconds=math.inf, burst=25)
    # Codes by mail. A code is void after five wrong tries, and an account withstands as many in a row as strangers have
    # for its password: of a million codes one is right, so an attack finds one in 17,000 accounts. Known devices have
    # buckets of their own, which no attacker can empty. No bucket is shared with passwords.
    code_tries: Limit = Limit(name="code_tries", count=5, per_seconds=math.inf, burst=5, kept_for=HOUR)
    codes_in_a_row: Limit = Limit(name="codes_in_a_row", count=60, per_seconds=math.inf, burst=60)
    # Mails with a code. The tags of an unverified mailbox count as one, as for registrations.
    code_by_mailbox: Limit = Limit(name="code_by_mailbox", count=6, per_seconds=HOUR, burst=3)
    # All mailboxes together, from one address: a class that signs in at the beginning of a lesson.
    code_by_address: Limit = Limit(name="code_by_address", count=60, per_seconds=HOUR, burst=30)
    # A signed-in user who proves the current password again. A thief at an open browser gets five guesses at once, and
    # no more in a row than a known device, whose ceiling they share.
    password_by_session: Limit = Limit(name="password_by_session", count=10, per_seconds=HOUR, burst=5)
    # Each new account costs a hash and a mail. A school class must be able to register in one lesson.
    register_by_address: Limit = Limit(name="register_by_address", count=30, per_seconds=HOUR, burst=30)
    # Mail that an attacker can make us send to a person. Three at once, then one in ten minutes: a nuisance, not a
    # flood. All tags of a mailbox (`ann+shop@`) are counted as one, because its owner reads them all.
    register_by_mailbox: Limit = Limit(name="register_by_mailbox", count=6, per_seconds=HOUR, burst=3)
    # Changes of the address that one account asks for. Each may mail a stranger: five a day are more than a person
    # needs, and too few to make us a source of spam.
    change_email_by_account: Limit = Limit(name="change_email_by_account", count=5, per_seconds=DAY, burst=5)
    # Links that begin the waiting time for lost second factors. Each is a mail, and one is enough.
    lost_factors_by_account: Limit = Limit(name="lost_factors_by_account", count=3, per_seconds=DAY, burst=3)
    # Changes of the name, and of those of passkeys: each writes an event, which is kept for a year.
    change_name_by_account: Limit = Limit(name="change_name_by_account", count=20, per_seconds=HOUR, burst=10)
    # Second factors that one account adds, and new recovery codes. Each writes events, and a reset reads all those of a
    # week: a thief who adds and removes one again and again must not hide from it what was there before, or make it
    # slow.
    factors_by_account: Limit = Limit(name="factors_by_account", count=40, per_seconds=DAY, burst=40)
    # Sign-ins that begin at another issuer: each stores a row until the browser is back.
    issuer_by_address: Limit = Limit(name="issuer_by_address", count=120, per_seconds=HOUR, burst=60)
    # Exports of one account: each reads thousands of rows.
    export_by_account: Limit = Limit(name="export_by_account", count=10, per_seconds=DAY, burst=5)
    # Its interval, ten minutes, must stay below the lifetime of a reset link: see the top of this file.
    reset_by_mailbox: Limit = Limit(name="reset_by_mailbox", count=6, per_seconds=HOUR, burst=3)
    # Notices of one kind (a new device, a copied sign-in, a changed password) to one mailbox. A fourth notice in a
    # short time would add nothing to the third.
    notice_by_mailbox: Limit = Limit(name="notice_by_mailbox", count=6, per_seconds=HOUR, burst=3)
    # Resets requested from one address, for all mailboxes together: one client must not make us a source of spam.
    reset_by_address: Limit = Limit(name="reset_by_address", count=20, per_seconds=HOUR, burst=10)
    # One-time tokens have at least 128 bits and cannot be guessed; this bounds the work of refusing them.
    one_time_by_address: Limit = Limit(name="one_time_by_address", count=60, per_seconds=HOUR, burst=20)
    # Judgements of a new password while a person types it, each some milliseconds of work. One registration takes some
    # twenty, and a school class registers in one lesson.
    strength_by_address: Limit = Limit(name="strength_by_address", count=1200, per_seconds=HOUR, burst=200)
    # Ten tabs may wake up and refresh at once; then one a second. An honest client needs one in five minutes.
    refresh_by_session: Limit = Limit(name="refresh_by_session", count=60, per_seconds=60.0, burst=30)
    # Unknown refresh tokens. Honest clients have none, except after a database was restored.
    bad_refresh_by_address: Limit = Limit(name="bad_refresh_by_address", count=120, per_seconds=HOUR, burst=60)
    # Polls of one process that acknowledge nothing new. It polls again after a quarter of a lease (at least a quarter
    # of a second), after a broken connection, and when it starts.
    poll_by_holder: Limit = Limit(name="poll_by_holder", count=10, per_seconds=1.0, burst=20)
    # The same for all processes of one service, and the tokens they ask about: 4,096 processes at the default lease
    # make 1,640 polls a second, and all come at once after a restart of this server.
    ask_by_verifier_key: Limit = Limit(name="ask_by_verifier_key", count=2000, per_seconds=1.0, burst=8192)


DEFAULT_LIMITS = Limits()


class Standing(enum.Enum):
    """What we know of a client before it has proved anything for an account."""

    STRANGER = "stranger"
    NETWORK = "network"
    DEVICE = "device"


def standing_of(*, device: str, network: str, recent_networks: Collection[str]) -> Standing:
    """Return a client's standing: unknown, in the owner's network, or a known device.

    `device` is the result of `find_mark` ("" for none). `recent_networks` are those of the account's successful
    sign-ins in the last `NETWORK_FOR` seconds; for an address without an account, pass none.
    """
    if device:
        return Standing.DEVICE
    # An unreadable address is "", and must not put every such client in the owner's network.
    return Standing.NETWORK if network and network in recent_networks else Standing.STRANGER


def sign_in_buckets(
    limits: Limits, *, account: str, network: str, standing: Standing, device: str = "", known: bool = True
) -> tuple[Bucket, Bucket]:
    """Name the account's buckets that one attempt to sign in takes from: the bucket and the ceiling of its standing.

    Unless the client is a known device, the attempt takes from its address too (`by_address`), before these.

    `account` is a digest of the typed and normalised address, computed the same way with and without an account;
    `known` says whether there is one. After a right password, forget the first bucket and all ceilings.
    """
    if standing is Standing.DEVICE:
        own = bucket_of(limits.sign_in_by_device, f"{account}:{device}")
    elif standing is Standing.NETWORK:
        own = bucket_of(limits.sign_in_by_network, f"{account}:{network}")
    else:
        own = bucket_of(limits.sign_in_by_stranger, account)
    ceiling = sign_in_ceilings(limits, account)[list(Standing).index(standing)]
    if not known:
        ceiling = Bucket(ceiling.key, replace(ceiling.limit, kept_for=DAY))
    return own, ceiling


def sign_in_ceilings(limits: Limits, account: str) -> tuple[Bucket, Bucket, Bucket, Bucket]:
    """Name the account's ceilings: for its password by standing, and for codes by mail. Forget all four after a
    successful sign-in and after a completed reset.
    """
    return (
        bucket_of(limits.strangers_in_a_row, account),
        bucket_of(limits.networks_in_a_row, account),
        bucket_of(limits.devices_in_a_row, account),
        bucket_of(limits.codes_in_a_row, account),
    )


_INSIDE = "session"


def second_factor_buckets(
    limits: Limits, *, account: str, method: str, standing: Standing | None, place: str, guessable: bool
) -> tuple[Bucket, ...]:
    """Name the buckets that one response to a second factor takes from: one of its place and, if it can be guessed, the
    ceiling of its standing.

    `account` is a digest of the subject. Inside a session, the standing is None. `place` is the device, network or
    session that it comes from. Of a stranger it is the network too, but guesses of all strangers are counted as one.
    """
    if standing is Standing.STRANGER and guessable:
        place = ""
    whence = _INSIDE if standing is None else standing.value
    own = bucket_of(limits.second_factor, f"{method}:{account}:{whence}:{place}")
    if not guessable:
        return (own,)
    return own, bucket_of(limits.second_factor_in_a_row, f"{method}:{account}:{whence}")


def second_factor_ceilings(limits: Limits, *, account: str, methods: Iterable[str]) -> tuple[Bucket, ...]:
    """Name the ceilings of an account's second factors. Forget all of them after a finished sign-in."""
    return tuple(
        bucket_of(limits.second_factor_in_a_row, f"{method}:{account}:{whence}")
        for method in methods
        for whence in (*(standing.value for standing in Standing), _INSIDE)
    )


# Marks. One long-lived HttpOnly cookie, the known-device cookie, holds a mark for each of the last few accounts that
# signed in with the browser. A mark proves only "this browser once signed in to this account, with this password": a
# thief who copies it gains 20 guesses, until the password changes.

_PASSWORD_BYTES = 12
_MARK_BYTES = 4 + 16 + _PASSWORD_BYTES + 16
_MARK_CHARS = 64
_MARKS_AT_MOST = 4


class Mark(NamedTuple):
    """The content of a genuine mark. It names a known device only while the account has the same password."""

    device: str
    password: bytes
    at: float
    """When it was issued."""

    def is_of(self, key: bytes, chosen_at: float) -> bool:
        """Return whether the mark was issued for the password that was chosen at this instant."""
        return hmac.compare_digest(self.password, _password_tag(key, chosen_at))


def mint_mark(key: bytes, *, account: str, device: str, chosen_at: float, now: float) -> str:
    """Sign that `device` (22 characters, one of our ids) signed in to `account` at `now`, with the password chosen at
    `chosen_at` (`Credential.created_at`).

    Set it after a successful sign-in, change of password or reset. `key` is for this purpose only.
    """
    body = int(now).to_bytes(4, "big") + decode(device) + _password_tag(key, chosen_at)
    return encode(body + _mark_tag(key, body, account))


def find_mark(key: bytes, cookie: str, *, account: str, now: float) -> Mark | None:
    """Return what a cookie's marks prove for `account`. Does no I/O and never raises, whatever the cookie holds."""
    if len(cookie) > _MARKS_AT_MOST * (_MARK_CHARS + 1):
        return None
    for mark in cookie.split("."):
        try:
            raw = decode(mark, limit=_MARK_CHARS)
        except InvalidToken:
            continue
        if len(raw) != _MARK_BYTES:
            continue
        body, tag = raw[:-16], raw[-16:]
        made_at = int.from_bytes(body[:4], "big")
        if hmac.compare_digest(tag, _mark_tag(key, body, account)) and 0 <= now - made_at <= MARK_FOR:
            return Mark(encode(body[4:20]), body[20:], made_at)
    return None


def with_mark(cookie: str, mark: str) -> str:
    """Put a new mark first and keep the latest few others: people share browsers, and cookies must stay small."""
    others = [old for old in cookie[: _MARKS_AT_MOST * (_MARK_CHARS + 1)].split(".") if len(old) == _MARK_CHARS]
    return ".".join([mark, *(old for old in others if old != mark)][:_MARKS_AT_MOST])


def _mark_tag(key: bytes, body: bytes, account: str) -> bytes:
    return hmac.new(key, b"dutchdoor mark 2\0" + body + account.encode(), hashlib.sha256).digest()[:16]


def _password_tag(key: bytes, chosen_at: float) -> bytes:
    # A digest of the instant at which the password was chosen. The stored hash would not do: a log-in may upgrade it,
    # and the owner's other browsers would become unknown. Nor would a counter: after a restore it could reach one
    # number twice.
    named = b"dutchdoor mark password\0" + chosen_at.hex().encode()
    return hmac.new(key, named, hashlib.sha256).digest()[:_PASSWORD_BYTES]
