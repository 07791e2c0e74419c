"""How often something may be tried, decided by the generic cell rate algorithm (GCRA, ITU-T I.371).

A bucket is one number: the *theoretical arrival time*, the instant at which it is full again. Nothing is counted and
nothing is swept; a bucket whose instant has passed is the same as no bucket, so a store may purge it.

Attacks, and which rule stops each
----------------------------------

*Guessing one account's password.* Every attempt takes from the account's buckets *before* the password is looked at,
so 200 parallel guesses are no better than 200 in a row. NIST SP 800-63B wants at most 100 consecutive failures for an
account: three ceilings, which do not grow back with time, allow 60 + 20 + 20. A success empties them, which is what
"consecutive" means. The right password is refused too while a bucket is empty; otherwise the refusal would tell which
guess was right.

*Locking the owner out.* An attacker who can fail for an account can use up its bucket, and that must not be a way to
keep the owner out. So an account has not one bucket but one for each standing (`Standing`): clients we have never seen,
clients in a network from which the owner recently signed in, and known devices: browsers that carry a mark we signed at
an earlier success. An attacker on the far side of the world empties only the first; one behind the owner's own address
empties that address's bucket, which a known device neither takes from nor is refused by. The owner on a new machine, in
a new place, in the middle of an attack, asks for a reset: its limits are of their own, and an owner who is refused a
reset mail was sent one less than `interval` ago (`reset_by_mailbox`), so a link that lives longer than that is always
at hand. A reset that succeeded empties the ceilings and marks the browser, which is a known device from then on. A mark
names the password it was given for: a former holder of the password has no known device after a reset.

*Learning which accounts exist.* Buckets are keyed by the address that was typed, whether there is an account or not,
and answer alike, after the same reads. The client's address is counted first, before anything is read: a client that it
refuses cannot measure anything. Only how long a ceiling is remembered differs (`sign_in_buckets`, `known`): an attacker
who spends 60 guesses on an address, waits a day without another and tries again, can tell.

*Flooding a mailbox.* Every letter takes from a bucket of its mailbox before it is written, those that an attacker
provokes with the account's own password too; an address that nobody has verified gets the letters by which its owner
proves it, and no notices.

*Filling the disk with addresses nobody has.* Every bucket is forgotten in time, ceilings of addresses without an
account after a day without an attempt. Those of accounts are kept for ten years, but are three an account at most.

*Trying one password on every account.* The address's bucket. One IPv6 customer has anything from a /64 to a /48
(RFC 6177), so IPv6 is counted by /64, /56 and /48, each of which lets twice through what the one before does.

Deliberately left out: growing delays, CAPTCHAs and blocking by country. Reading and writing buckets as one step is the
store's part (invariant: K allowed and 200 in parallel gives K).
"""

from __future__ import annotations

import enum
import hashlib
import hmac
import math
from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from dutchdoor.errors import InvalidToken
from dutchdoor.model.ids import decode, encode

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
    "sign_in_buckets",
    "sign_in_ceilings",
    "standing_of",
    "with_mark",
]

HOUR = 3600.0
DAY = 86400.0

MARK_FOR = 180 * DAY
"""How long a browser's mark counts, in seconds: longer than a session lives, so that it is there when one is needed."""

NETWORK_FOR = 30 * DAY
"""How long a network counts as the owner's after a success, in seconds. Addresses change hands; marks do not."""

# A ceiling is one number too, so that stores need to know nothing of it: the instant at which it is forgotten, on a
# grid of 1,024 seconds, plus how many attempts were spent.
_GRID = 1024

# Today's instants are doubles 0.2 microseconds apart, and a burst adds up as many roundings as it has attempts. Without
# this grace the last of them would be told to wait a microsecond.
_GRAIN = 1e-4


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """Let `count` in `per_seconds` through on average, and up to `burst` at once.

    With `per_seconds=math.inf` it is a ceiling: `burst` attempts, of which nothing grows back. It is emptied by whoever
    says so (after a success), or when none was let through for `kept_for` seconds.
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
        """Whether time never gives anything back."""
        return self.per_seconds == math.inf

    @property
    def interval(self) -> float:
        """Seconds until one more is let through. Not for a ceiling."""
        return self.per_seconds / self.count


class Decision(NamedTuple):
    """What to store, and how many seconds to wait: 0 is "let through". Store `tat` also after a refusal."""

    tat: float
    retry_after: float


def decide(tat: float | None, limit: Limit, now: float) -> Decision:
    """Let one attempt through, or say exactly how long to wait.

    `tat` is what the bucket holds, or None where there is none. Waiting `retry_after` seconds passes, waiting less does
    not. A ceiling answers a day: no waiting helps, and an answer has to name some number.
    """
    if limit.is_ceiling:
        return _decide_ceiling(tat, limit, now)
    interval = limit.interval
    # A clock that was set back would otherwise leave a bucket that is full again only years from now. No bucket is ever
    # emptier than empty, so the owner waits one interval at most. This is why a refusal's `tat` is stored too.
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
    """Undo one attempt that was let through and turned out honest.

    A thousand people of one office who sign in at nine share an address, and all succeed. An attacker who signs in to
    an account of their own gets back what that sign-in took and no more.
    """
    if limit.is_ceiling:
        return tat - min(tat % _GRID, 1.0)
    return tat - limit.interval


class Bucket(NamedTuple):
    """Where a limit's number is kept. The key starts with the limit's name and holds no address anyone typed."""

    key: str
    limit: Limit


def bucket_of(limit: Limit, key: str) -> Bucket:
    """Name the bucket of a limit for one key."""
    return Bucket(f"{limit.name}:{key}", limit)


def by_address(limit: Limit, networks: Sequence[str]) -> tuple[Bucket, ...]:
    """Name the buckets of the networks a client is in (`Client.networks`), the narrowest first. Each next one lets
    twice as many through: more people share it, but not as many more as it has addresses.
    """
    return tuple(Bucket(f"{limit.name}:{network}", _widened(limit, 2**n)) for n, network in enumerate(networks))


@lru_cache(maxsize=256)
def _widened(limit: Limit, times: int) -> Limit:
    return limit if times == 1 else replace(limit, count=limit.count * times, burst=limit.burst * times)


class Verdict(NamedTuple):
    """What to store for each bucket, in order (None: leave it); seconds to wait (0: let through); what made us wait."""

    tats: tuple[float | None, ...]
    retry_after: float
    refused_by: str


def decide_all(tats: Sequence[float | None], buckets: Sequence[Bucket], now: float) -> Verdict:
    """Let an attempt through all its buckets or charge none of them.

    If a refused attempt were charged, an attacker whose address is spent could still empty the account's bucket.
    """
    decisions = [decide(tat, bucket.limit, now) for tat, bucket in zip(tats, buckets, strict=True)]
    wait, by = max(((d.retry_after, b.limit.name) for d, b in zip(decisions, buckets, strict=True)), default=(0.0, ""))
    if wait <= 0:
        return Verdict(tuple(d.tat for d in decisions), 0.0, "")
    return Verdict(tuple(d.tat if d.retry_after > 0 else None for d in decisions), wait, by)


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Every limit by name, with the reason for its number. A benchmark or a test hands over its own."""

    # Guesses of strangers. Ten at once: a person with three passwords in mind, each typed with and without caps lock.
    # Then one in six minutes. 60 in a row and strangers are done until the owner signs in or resets.
    sign_in_by_stranger: Limit = Limit(name="sign_in_by_stranger", count=10, per_seconds=HOUR, burst=10)
    strangers_in_a_row: Limit = Limit(name="strangers_in_a_row", count=60, per_seconds=math.inf, burst=60)
    # The owner's network is also the neighbour's, the colleague's and, behind a carrier's NAT, a town's. It gets a
    # bucket of its own so that the world cannot empty it, and a third of the stranger's ceiling.
    sign_in_by_network: Limit = Limit(name="sign_in_by_network", count=10, per_seconds=HOUR, burst=10)
    networks_in_a_row: Limit = Limit(name="networks_in_a_row", count=20, per_seconds=math.inf, burst=20)
    # A marked browser: almost surely the owner. One bucket for each browser, one ceiling for all of the account's, so
    # that the three ceilings add up to the 100 of SP 800-63B however many browsers are stolen.
    sign_in_by_device: Limit = Limit(name="sign_in_by_device", count=20, per_seconds=HOUR, burst=10)
    devices_in_a_row: Limit = Limit(name="devices_in_a_row", count=20, per_seconds=math.inf, burst=20)
    # Failures from one address over all accounts; successes are given back. An office or a carrier's NAT with 2,000
    # people mistypes some 200 times a day; a single machine that stuffs credentials gets 1,440.
    sign_in_by_address: Limit = Limit(name="sign_in_by_address", count=60, per_seconds=HOUR, burst=30)
    # Attempts that an account's own bucket refused, which are given back to the address: they are no guesses, and an
    # owner who tries again under attack must not use up what others at the address need. Not without end, as whether
    # there is an account might show in the time such a refusal takes.
    refused_by_address: Limit = Limit(name="refused_by_address", count=60, per_seconds=HOUR, burst=30)
    # Wrong second factors of one account, of each method apart, after a right password. A million codes, of which three
    # are right at a time, take a thief who knows the password years.
    second_factor: Limit = Limit(name="second_factor", count=10, per_seconds=HOUR, burst=5)
    # A signed-in caller who proves the current password again: a thief with an open browser gets five guesses at once,
    # and no more in a row than a marked browser, whose ceiling they share.
    password_by_session: Limit = Limit(name="password_by_session", count=10, per_seconds=HOUR, burst=5)
    # New accounts cost a hash and a mail each. A school class registers in one lesson.
    register_by_address: Limit = Limit(name="register_by_address", count=30, per_seconds=HOUR, burst=30)
    # Mail that a stranger can make us send to someone. Three at once, then one in ten minutes: a nuisance, not a flood.
    # All tags of a mailbox (`ann+shop@`) are counted as one, as its owner reads them all.
    register_by_mailbox: Limit = Limit(name="register_by_mailbox", count=6, per_seconds=HOUR, burst=3)
    # Its interval, ten minutes, has to stay below the life of a reset link: see the head of this file.
    reset_by_mailbox: Limit = Limit(name="reset_by_mailbox", count=6, per_seconds=HOUR, burst=3)
    # Notices of one kind (a new device, a copied sign-in, a changed password) to one mailbox. The fourth in a moment
    # says nothing that the third did not.
    notice_by_mailbox: Limit = Limit(name="notice_by_mailbox", count=6, per_seconds=HOUR, burst=3)
    # Resets asked for from one address, over all mailboxes: one sender must not make us a source of spam.
    reset_by_address: Limit = Limit(name="reset_by_address", count=20, per_seconds=HOUR, burst=10)
    # One-time tokens have 128 bits and more and cannot be guessed; this saves the work of refusing them.
    one_time_by_address: Limit = Limit(name="one_time_by_address", count=60, per_seconds=HOUR, burst=20)
    # Ten tabs wake up at once and refresh; then one a second. An honest client needs one in five minutes.
    refresh_by_session: Limit = Limit(name="refresh_by_session", count=60, per_seconds=60.0, burst=30)
    # Refresh tokens that are not ours. Nobody honest has one, but for those of a database that was restored.
    bad_refresh_by_address: Limit = Limit(name="bad_refresh_by_address", count=120, per_seconds=HOUR, burst=60)
    # Polls of one process that acknowledge nothing new. It asks again when it has waited for a quarter of a lease (a
    # quarter of a second at the shortest), when it was cut off, and when it begins.
    poll_by_holder: Limit = Limit(name="poll_by_holder", count=10, per_seconds=1.0, burst=20)
    # The same of all processes of one service, and the tokens they ask about: 4,096 at the default lease make 1,640
    # polls a second, and come at once when this server was restarted.
    ask_by_verifier_key: Limit = Limit(name="ask_by_verifier_key", count=2000, per_seconds=1.0, burst=8192)


DEFAULT_LIMITS = Limits()


class Standing(enum.Enum):
    """What we know of a client that wants to sign in to an account, before it has proved anything."""

    STRANGER = "stranger"
    NETWORK = "network"
    DEVICE = "device"


def standing_of(*, device: str, network: str, recent_networks: Collection[str]) -> Standing:
    """Tell an account's strangers from its owner's browsers and networks.

    `device` is what `find_mark` found ("" if nothing). `recent_networks` are those of the account's successful sign-ins
    of the last `NETWORK_FOR` seconds; for an address without an account, pass none.
    """
    if device:
        return Standing.DEVICE
    # An address we cannot read is "" and must not make every such client the owner's neighbour.
    return Standing.NETWORK if network and network in recent_networks else Standing.STRANGER


def sign_in_buckets(
    limits: Limits, *, account: str, network: str, standing: Standing, device: str = "", known: bool = True
) -> tuple[Bucket, Bucket]:
    """Name the account's buckets that one attempt to sign in takes from: its standing's, and that one's ceiling.

    Unless the client is a known device, the attempt takes from its address too (`by_address`), before these.

    `account` is a digest of the normalised address that was typed, made the same way whether there is an account or
    not; `known` says whether there is. Once the password was right, forget the first and all ceilings.
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


def sign_in_ceilings(limits: Limits, account: str) -> tuple[Bucket, Bucket, Bucket]:
    """Name the account's ceilings. Forget all three after a sign-in that succeeded and after a completed reset."""
    return (
        bucket_of(limits.strangers_in_a_row, account),
        bucket_of(limits.networks_in_a_row, account),
        bucket_of(limits.devices_in_a_row, account),
    )


# Marks. A browser keeps, in one long-lived HttpOnly cookie, a mark for each of the last few accounts that signed in
# there. A mark proves nothing but "this browser once succeeded for this account, by this password": a thief who copies
# it gains 20 guesses, until the password changes.

_PASSWORD_BYTES = 12
_MARK_BYTES = 4 + 16 + _PASSWORD_BYTES + 16
_MARK_CHARS = 64
_MARKS_AT_MOST = 4


class Mark(NamedTuple):
    """What a genuine mark says. It names a known device only while the account's password is the one it was given
    for.
    """

    device: str
    password: bytes

    def is_of(self, key: bytes, chosen_at: float) -> bool:
        """Tell whether the mark was given for the password that was chosen at this instant."""
        return hmac.compare_digest(self.password, _password_tag(key, chosen_at))


def mint_mark(key: bytes, *, account: str, device: str, chosen_at: float, now: float) -> str:
    """Sign that `device` (22 characters, one of our ids) signed in to `account` at `now`, by the password that was
    chosen at `chosen_at` (`Credential.created_at`).

    Set it after a successful sign-in, change of password or reset. `key` is for this purpose alone.
    """
    body = int(now).to_bytes(4, "big") + decode(device) + _password_tag(key, chosen_at)
    return encode(body + _mark_tag(key, body, account))


def find_mark(key: bytes, cookie: str, *, account: str, now: float) -> Mark | None:
    """Give what a cookie's marks prove for `account`. Reads nothing and never raises, whatever the cookie holds."""
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
            return Mark(encode(body[4:20]), body[20:])
    return None


def with_mark(cookie: str, mark: str) -> str:
    """Put a new mark first and keep the latest few others: people share browsers, and cookies have to stay small."""
    others = [old for old in cookie[: _MARKS_AT_MOST * (_MARK_CHARS + 1)].split(".") if len(old) == _MARK_CHARS]
    return ".".join([mark, *(old for old in others if old != mark)][:_MARKS_AT_MOST])


def _mark_tag(key: bytes, body: bytes, account: str) -> bytes:
    return hmac.new(key, b"dutchdoor mark 2\0" + body + account.encode(), hashlib.sha256).digest()[:16]


def _password_tag(key: bytes, chosen_at: float) -> bytes:
    # Of the instant the password was chosen at. The stored hash changes when a log-in upgrades it, and would make the
    # owner's other browsers strangers. A counter in a store that was restored could count to one number twice.
    named = b"dutchdoor mark password\0" + chosen_at.hex().encode()
    return hmac.new(key, named, hashlib.sha256).digest()[:_PASSWORD_BYTES]
