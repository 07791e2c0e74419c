"""The decision table of rotation, rule by rule, and the text form of a refresh token."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.standins import AWAY, HOME, MASTER, OTHER_BROWSER, OTHER_PASSWORD, T0, THIEF

from dutchdoor.errors import InvalidToken
from dutchdoor.model import refresh_tokens
from dutchdoor.model.http_client import Client
from dutchdoor.model.ids import decode, encode
from dutchdoor.model.master_key import MasterKey
from dutchdoor.model.policy import STANDARD, Policy
from dutchdoor.model.refresh_tokens import (
    Impossible,
    RefreshToken,
    Repeated,
    Replayed,
    Rotated,
    Stolen,
    Superseded,
    decide,
    mint,
)
from dutchdoor.model.sessions import Session

W = STANDARD.refresh_window
KEY = MASTER.current
SESSION_ID = encode(bytes(range(16)))


def session(**over: Any) -> Session:
    """Generation 5, second sibling of the parent 4.1, rotated and split long ago."""
    given: dict[str, Any] = {
        "id": SESSION_ID, "subject": "alice", "mode": "hybrid", "client_id": "app", "scope": "read", "secret_hash": b"",
        "salt": b"s" * 16, "master_key_id": KEY.id, "epoch": 3, "amr": ("pwd",), "auth_time": T0, "created_at": T0,
        "last_seen_at": T0, "idle_expires_at": T0 + STANDARD.idle_for, "expires_at": T0 + STANDARD.absolute_for,
        "generation": 5, "sibling": 1, "parent_sibling": 1, "rotated_at": T0, "sibling_at": T0,
        "fingerprint": HOME.fingerprint, "device": HOME.device, "address": HOME.address, "country": HOME.country,
    }  # fmt: skip
    return Session(**(given | over))


def token(of: Session, generation: int, sibling: int) -> RefreshToken:
    return RefreshToken.parse(mint(KEY, of, generation, sibling))


def outcome(place: tuple[int, int], *, at: float, client: Client = HOME, policy: Policy = STANDARD, **over: Any) -> Any:
    """What the token of a place gets, `at` seconds after the last rotation."""
    row = session(**over)
    return decide(row, token(row, *place), client, T0 + at, policy)


OLD = 10 * W
OBSERVE = replace(STANDARD, fingerprint="observe")
OFF = replace(STANDARD, fingerprint="off")
STRICT = replace(STANDARD, rotation="strict")

TABLE = [
    # rule, presented, seconds since rotation, client, policy, what the row has beside, outcome
    ("R2a", (5, 1), 0, HOME, STANDARD, {}, Repeated(5, 1)),
    ("R2a, the window's last instant", (5, 1), W, HOME, STANDARD, {}, Repeated(5, 1)),
    ("R2a, an earlier sibling", (5, 0), 1, HOME, STANDARD, {}, Repeated(5, 0)),
    ("R2a, another country inside the window", (5, 1), 1, AWAY, STANDARD, {}, Repeated(5, 1)),
    ("R2a, another browser where fingerprints are off", (5, 1), 1, OTHER_BROWSER, OFF, {}, Repeated(5, 1)),
    ("R2b, the window has passed", (5, 1), W + 0.001, HOME, STANDARD, {}, Rotated),
    ("R2b, an earlier sibling wins", (5, 0), OLD, HOME, STANDARD, {}, Rotated),
    ("R2b, another browser inside the window", (5, 1), 1, OTHER_BROWSER, STANDARD, {}, Rotated),
    ("R2b, the same where fingerprints are only observed", (5, 1), 1, OTHER_BROWSER, OBSERVE, {}, Rotated),
    ("R2b, the clock stepped back", (5, 1), -0.001, HOME, STANDARD, {}, Rotated),
    ("R3a, just rotated", (4, 1), 1, HOME, STANDARD, {}, Repeated(5, 1)),
    ("R3a, the window's last instant", (4, 1), W, HOME, STANDARD, {}, Repeated(5, 1)),
    ("R3a, just split", (4, 1), OLD, HOME, STANDARD, {"sibling_at": T0 + OLD - 1}, Repeated(5, 1)),
    ("R3a, the split's last instant", (4, 1), OLD, HOME, STANDARD, {"sibling_at": T0 + OLD - W}, Repeated(5, 1)),
    ("R3a, another country inside the window", (4, 1), 1, AWAY, STANDARD, {}, Repeated(5, 1)),
    ("R3b, another browser", (4, 1), OLD, OTHER_BROWSER, STANDARD, {}, Stolen("R3b")),
    ("R3b, another country", (4, 1), OLD, AWAY, STANDARD, {}, Stolen("R3b")),
    ("R3b, the country is not known any more", (4, 1), OLD, replace(HOME, country=""), STANDARD, {}, Stolen("R3b")),
    ("R3b, another browser just after a split", (4, 1), OLD, THIEF, STANDARD, {"sibling_at": T0 + OLD}, Stolen("R3b")),
    ("R3b, the clock stepped back", (4, 1), -1, THIEF, STANDARD, {}, Stolen("R3b")),
    ("R3c, the answer was lost", (4, 1), OLD, HOME, STANDARD, {}, Replayed),
    ("R3c, another address", (4, 1), OLD, replace(HOME, address="192.0.2.99"), STANDARD, {}, Replayed),
    ("R3c, another browser inside the window", (4, 1), 1, OTHER_BROWSER, STANDARD, {}, Replayed),
    ("R3c, another country, observed only", (4, 1), OLD, AWAY, OBSERVE, {}, Replayed),
    ("R3c, another browser, observed only", (4, 1), OLD, OTHER_BROWSER, OBSERVE, {}, Replayed),
    ("R3c, another country where fingerprints are off", (4, 1), OLD, AWAY, OFF, {}, Replayed),
    ("R3c, the clock stepped back", (4, 1), -0.001, HOME, STANDARD, {}, Replayed),
    ("R4, inside the window", (4, 0), 1, HOME, STANDARD, {}, Repeated(5, 1)),
    ("R4, a losing sibling", (4, 0), W + 0.001, HOME, STANDARD, {}, Stolen("R4")),
    ("R4, a losing sibling just after a split", (4, 0), OLD, HOME, STANDARD, {"sibling_at": T0 + OLD}, Stolen("R4")),
    ("R4, another browser inside the window", (4, 0), 1, OTHER_BROWSER, STANDARD, {}, Stolen("R4")),
    ("R4, a sibling that never was", (4, 9), OLD, HOME, STANDARD, {}, Stolen("R4")),
    ("R5", (3, 0), 1, HOME, STANDARD, {}, Superseded()),
    ("R5, the window's last instant", (3, 0), W, HOME, STANDARD, {}, Superseded()),
    ("R6, two generations old", (3, 0), W + 0.001, HOME, STANDARD, {}, Stolen("R6")),
    ("R6, two generations old, another browser", (3, 0), 1, OTHER_BROWSER, STANDARD, {}, Stolen("R6")),
    ("R6, two generations old, the clock stepped back", (3, 0), -1, HOME, STANDARD, {}, Stolen("R6")),
    ("R6, three generations old", (2, 0), 1, HOME, STANDARD, {}, Stolen("R6")),
    ("R6, the very first", (0, 0), OLD, HOME, STANDARD, {}, Stolen("R6")),
    ("R7, a generation that never was", (6, 0), 1, HOME, STANDARD, {}, Impossible()),
    ("R7, a sibling that never was", (5, 2), 1, HOME, STANDARD, {}, Impossible()),
    ("R7, far ahead", (1 << 40, 0), OLD, HOME, STANDARD, {}, Impossible()),
    ("strict: R2b at once", (5, 1), 0, HOME, STRICT, {}, Rotated),
    ("strict: R3c is theft, in the window too", (4, 1), 0, HOME, STRICT, {}, Stolen("R3c")),
    ("strict: R3c is theft, after the window", (4, 1), OLD, HOME, STRICT, {}, Stolen("R3c")),
    ("strict: R4 is theft in the window", (4, 0), 0, HOME, STRICT, {}, Stolen("R4")),
    ("strict: R5 is theft", (3, 0), 0, HOME, STRICT, {}, Stolen("R6")),
    ("no window at all: R2a for the same instant", (5, 1), 0, HOME, replace(STANDARD, refresh_window=0.0), {}, Repeated(5, 1)),
    ("no window at all: R2b after it", (5, 1), 0.001, HOME, replace(STANDARD, refresh_window=0.0), {}, Rotated),
]  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "place", "at", "client", "policy", "row", "expected"), TABLE, ids=[r[0] for r in TABLE]
)
def test_decision_table(
    rule: str, place: tuple[int, int], at: float, client: Client, policy: Policy, row: dict[str, Any], expected: Any
) -> None:
    """Every row of the table in refresh-rotation.md decides as it is written there, at its window's edges too."""
    actual = outcome(place, at=at, client=client, policy=policy, **row)
    if isinstance(expected, type):
        assert isinstance(actual, expected)
    else:
        assert actual == expected


def test_r2b_writes_a_new_generation() -> None:
    """R2b: the parent is the sibling that was used, both windows open, the client is the one seen now."""
    at = T0 + OLD
    new = outcome((5, 1), at=OLD, client=THIEF).session
    assert (new.generation, new.sibling, new.parent_sibling) == (6, 0, 1)
    assert (new.rotated_at, new.sibling_at, new.last_seen_at) == (at, at, at)
    assert (new.fingerprint, new.device, new.address, new.country) == (
        THIEF.fingerprint, THIEF.device, THIEF.address, THIEF.country,
    )  # fmt: skip
    assert new.idle_expires_at == at + STANDARD.idle_for
    before = session()
    for kept in (
        "id",
        "subject",
        "client_id",
        "salt",
        "epoch",
        "amr",
        "auth_time",
        "scope",
        "created_at",
        "expires_at",
    ):
        assert getattr(new, kept) == getattr(before, kept), kept


def test_r3c_writes_a_sibling_and_nothing_else() -> None:
    """R3c: one more sibling, its own window open; the generation, its parent and its window stay."""
    at = T0 + OLD
    result = outcome((4, 1), at=OLD)
    before, new = session(), result.session
    assert (result.sibling, new.sibling, new.sibling_at) == (2, 2, at)
    for kept in ("generation", "parent_sibling", "rotated_at", "expires_at", "idle_expires_at", "auth_time", "scope"):
        assert getattr(new, kept) == getattr(before, kept), kept


def test_absolute_expiry_bounds_the_idle_one() -> None:
    """O03: a rotation shortly before the absolute expiry moves the idle expiry to it, and never past it."""
    new = outcome((5, 1), at=STANDARD.absolute_for - 5).session
    assert new.idle_expires_at == new.expires_at == session().expires_at


@pytest.mark.parametrize("most", [1, 2, 16, 64])
def test_siblings_are_capped(most: int) -> None:
    """At the most siblings none is made any more: the latest is handed back, and nothing of the session is written."""
    policy = replace(STANDARD, max_siblings=most)
    row = session(sibling=0)
    now = T0
    made = [0]
    for _ in range(most + 5):
        now += OLD
        result = decide(row, token(row, 4, 1), HOME, now, policy)
        assert isinstance(result, Replayed)
        if result.session is None:
            assert result.sibling == row.sibling == most - 1
        else:
            made.append(result.sibling)
            row = result.session
    assert made == list(range(most))


def test_a_losing_sibling_proves_two_holders() -> None:
    """A parent that split gives two chains; when one of them is used, the other one is theft from then on."""
    row = session()
    split = decide(row, token(row, 4, 1), HOME, T0 + OLD, STANDARD).session  # type: ignore[union-attr]
    used = decide(split, token(split, 5, 2), HOME, T0 + 2 * OLD, STANDARD).session  # type: ignore[union-attr]
    assert decide(used, token(used, 5, 1), HOME, T0 + 3 * OLD, STANDARD) == Stolen("R4")
    assert isinstance(decide(used, token(used, 5, 2), HOME, T0 + 3 * OLD, STANDARD), Replayed)


@given(
    st.integers(0, 7), st.integers(0, 3), st.integers(0, 3), st.integers(-1, 3),
    st.floats(-100, 100), st.floats(-100, 100), st.sampled_from([HOME, AWAY, OTHER_BROWSER, THIEF]),
    st.sampled_from([STANDARD, OBSERVE, OFF, STRICT]),
)  # fmt: skip
def test_nothing_ever_rises(
    generation: int, j: int, sibling: int, parent: int, rotated: float, split: float, client: Client, policy: Policy
) -> None:
    """I-20: no decision moves the absolute expiry, scope, epoch or proof, and none skips a generation."""
    row = session(sibling=sibling, parent_sibling=parent, rotated_at=T0 + rotated, sibling_at=T0 + split)
    result = decide(row, token(row, generation, j), client, T0, policy)
    new = result.session if isinstance(result, Rotated | Replayed) else None
    if new is not None:
        assert new.generation - row.generation in {0, 1}
        assert new.generation == row.generation + isinstance(result, Rotated)
        assert new.idle_expires_at <= new.expires_at
        for kept in ("expires_at", "scope", "epoch", "auth_time", "amr", "salt", "client_id", "created_at"):
            assert getattr(new, kept) == getattr(row, kept), kept
    if isinstance(result, Repeated | Rotated | Replayed):
        assert generation in {row.generation, row.generation - 1}, "anything older gets nothing"


def test_only_the_window_is_lenient() -> None:
    """Outside both windows, an old sibling, a grandparent and everything older is theft: no exception is left."""
    for at in (W + 0.001, OLD, 1e6, -0.001, -OLD):
        for place in [(4, 0), (4, 2), (3, 0), (3, 1), (2, 0), (0, 0)]:
            assert isinstance(outcome(place, at=at), Stolen), (place, at)


# Text form

places = st.tuples(st.integers(0, (1 << 42) - 1), st.integers(0, (1 << 42) - 1))
clients = st.text(st.characters(codec="utf-8"), max_size=20)


@given(places, clients, st.binary(min_size=16, max_size=16), st.binary(min_size=16, max_size=16))
def test_what_is_minted_is_read(place: tuple[int, int], client_id: str, salt: bytes, raw_id: bytes) -> None:
    """A token reads as the place it was minted for, is genuine for its session and client, and is short."""
    row = session(id=encode(raw_id), salt=salt, client_id=client_id)
    text = mint(KEY, row, *place)
    read = RefreshToken.parse(text)
    assert (read.generation, read.sibling, read.session_id, read.master_key_id) == (*place, row.id, KEY.id)
    assert read.is_genuine(KEY, salt, client_id)
    assert len(text) <= 80
    assert mint(KEY, row, *place) == text, "derived, so the same place gives the same text"


def accepted(text: str, row: Session) -> bool:
    """Whether the authority would take a text for a token of ours. Only InvalidToken may say no."""
    try:
        read = RefreshToken.parse(text)
    except InvalidToken:
        return False
    return read.master_key_id == KEY.id and read.session_id == row.id and read.is_genuine(KEY, row.salt, row.client_id)


def test_any_flipped_bit_is_refused() -> None:
    """Each of the bits of a token matters, in the bytes and in the text: none can be turned and still pass."""
    row = session()
    for place in [(0, 0), (5, 1), (127, 128), (16_384, 300)]:
        text = mint(KEY, row, *place)
        assert accepted(text, row)
        raw = decode(text[5:])
        for bit in range(8 * len(raw)):
            turned = bytearray(raw)
            turned[bit // 8] ^= 1 << bit % 8
            assert not accepted("ddr1_" + encode(bytes(turned)), row), bit
        for at in range(len(text)):
            for bit in range(7):
                changed = text[:at] + chr(ord(text[at]) ^ 1 << bit) + text[at + 1 :]
                assert not accepted(changed, row), (at, bit)


@given(places, st.integers(0, 100), st.text(max_size=3), st.text(max_size=3))
def test_one_token_has_one_text(place: tuple[int, int], cut: int, before: str, after: str) -> None:
    """No second text is read as a token we made: neither padded, wrapped, cut, nor in another case."""
    row = session()
    text = mint(KEY, row, *place)
    others = [before + text + after, text[:cut], text + "=", text + "==", text.upper(), text.swapcase()]
    others += [text.replace("-", "+").replace("_", "/"), "ddr1_" + text, text[5:], text + "A", text + "\n"]
    for other in others:
        if other != text:
            assert not accepted(other, row)


@given(st.integers(0, (1 << 42) - 1), st.integers(1, 5))
def test_a_number_has_one_spelling(number: int, zeros: int) -> None:
    """A generation with leading zeros, which a lenient reader would take for the same number, is refused."""
    row = session()
    raw = decode(mint(KEY, row, number, 0)[5:])
    varint = bytearray(raw[20:-17])
    varint[-1] |= 0x80
    varint += b"\x80" * (zeros - 1) + b"\x00"
    with pytest.raises(InvalidToken):
        RefreshToken.parse("ddr1_" + encode(raw[:20] + bytes(varint) + raw[-17:]))


@given(st.one_of(st.text(), st.binary().map(lambda raw: "ddr1_" + encode(raw)), st.text().map(lambda t: "ddr1_" + t)))
def test_garbage_is_an_invalid_token(text: str) -> None:
    """Whatever arrives, reading it gives InvalidToken or a token, and a token writes the very same text again."""
    try:
        read = RefreshToken.parse(text)
    except InvalidToken:
        return
    head = mint(KEY, session(id=read.session_id), read.generation, read.sibling)
    body = KEY.id + decode(head[5:])[4:-16]
    assert text == "ddr1_" + encode(read.master_key_id + body[4:] + read.tag)


def test_a_number_beyond_the_bound_is_refused() -> None:
    """A generation too large for any session is refused before any arithmetic with it."""
    row = session()
    mint(KEY, row, (1 << 42) - 1, 0)
    for number in (1 << 42, 1 << 48, (1 << 62) + 1):
        with pytest.raises(InvalidToken):
            RefreshToken.parse(mint(KEY, row, number, 0))


@given(places, places)
def test_a_tag_serves_one_place(one: tuple[int, int], other: tuple[int, int]) -> None:
    """A tag moved to another generation or sibling is no proof: an older token cannot be made into a newer one."""
    assume(one != other)
    row = session()
    mine, theirs = RefreshToken.parse(mint(KEY, row, *one)), RefreshToken.parse(mint(KEY, row, *other))
    assert mine.tag != theirs.tag
    assert not replace(theirs, tag=mine.tag).is_genuine(KEY, row.salt, row.client_id)


def test_a_token_needs_its_key_its_salt_and_its_client() -> None:
    """O04: another client's, row's or master key's token is not genuine; a database or a key alone forges none."""
    row = session()
    read = token(row, 5, 1)
    assert read.is_genuine(KEY, row.salt, "app")
    assert not read.is_genuine(KEY, row.salt, "other")
    assert not read.is_genuine(KEY, row.salt, "ap")
    assert not read.is_genuine(KEY, b"t" * 16, "app")
    assert not read.is_genuine(MasterKey(bytes(range(32))), row.salt, "app")
    assert token(session(id=encode(bytes(16))), 5, 1).tag != read.tag


def test_no_secret_in_its_repr() -> None:
    """S13: neither the tag nor the text of a token is in what is printed of it."""
    row = session()
    shown = repr(token(row, 5, 1)) + repr(row)
    text = mint(KEY, row, 5, 1)
    assert text[30:] not in shown
    assert encode(row.salt) not in shown
    assert OTHER_PASSWORD not in shown


# ruff: noqa: E501 - pieces of source stand on one line each
MUTATIONS = {
    # Each breaks one rule of the decision; the table above must notice.
    "no debounce": ("if w and same:\n            return Repeated(g, j)", "if False:\n            return Repeated(g, j)"),
    "the window has no lower edge": ("0 <= now - session.rotated_at <=", "now - session.rotated_at <="),
    "the split's window has no lower edge": ("0 <= now - session.sibling_at <=", "now - session.sibling_at <="),
    "the window's edge is outside": ("0 <= now - session.rotated_at <= window", "0 <= now - session.rotated_at < window"),
    "the country decides inside the window": ("client.fingerprint == session.fingerprint\n", "(client.fingerprint == session.fingerprint and client.country == session.country)\n"),
    "the country never decides": ("not same or client.country != session.country", "not same"),
    "any sibling is the parent": ("g == gen - 1 and j == session.parent_sibling", "g == gen - 1"),
    "a losing sibling converges for ever": ("if w and same else Stolen(\"R4\")", "if same else Stolen(\"R4\")"),
    "a split's window excuses a losing sibling": ("if w and same else Stolen(\"R4\")", "if (w or s) and same else Stolen(\"R4\")"),
    "R5 for ever": ("if g == gen - 2 and w and same", "if g == gen - 2 and same"),
    "R5 for anybody": ("if g == gen - 2 and w and same", "if g == gen - 2 and w"),
    "R5 three back": ("if g == gen - 2 and w and same", "if g <= gen - 2 and w and same"),
    "a sibling that never was": ("g > gen or (g == gen and j > session.sibling)", "g > gen"),
    "strict has a window": ("w = not strict and 0", "w = 0"),
    "strict splits": ("        if strict:\n            return Stolen(\"R3c\")\n", ""),
    "observe revokes": ("policy.fingerprint == \"revoke\"", "policy.fingerprint != \"off\""),
    "off still compares": ("policy.fingerprint == \"off\" or ", ""),
    "one sibling too many": ("session.sibling + 1 >= policy.max_siblings", "session.sibling >= policy.max_siblings"),
    "rotation extends the absolute expiry": ("min(now + policy.idle_for, session.expires_at)", "now + policy.idle_for"),
    "the parent is forgotten": ("parent_sibling=parent,", "parent_sibling=0,"),
    "the fingerprint is not renewed": ("        sibling_at=now,\n        fingerprint=client.fingerprint,\n        device", "        sibling_at=now,\n        device"),
}  # fmt: skip


def broken_decide(old: str, new: str) -> Any:
    """The decision with one piece of its source exchanged, over the same types."""
    source = inspect.getsource(refresh_tokens)
    source = "from __future__ import annotations\n" + source[source.index("def decide(") :]
    assert source.count(old) >= 1, "the mutation names what is not in the source any more: write it anew"
    names = dict(vars(refresh_tokens))
    exec(compile(source.replace(old, new), "a broken refresh.py", "exec"), names)
    return names["decide"]


@pytest.mark.parametrize("name", MUTATIONS)
def test_the_table_notices_a_broken_rule(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests above defend every condition of the decision: with any of them broken, one of them fails."""
    monkeypatch.setitem(globals(), "decide", broken_decide(*MUTATIONS[name]))
    checks: list[Callable[[], None]] = [partial(test_decision_table, *row) for row in TABLE]
    checks += [
        test_r2b_writes_a_new_generation,
        test_r3c_writes_a_sibling_and_nothing_else,
        test_absolute_expiry_bounds_the_idle_one,
        partial(test_siblings_are_capped, 16),
    ]
    noticed = 0
    for check in checks:
        try:
            check()
        except AssertionError:
            noticed += 1
    assert noticed, f"nothing noticed: {name}"
