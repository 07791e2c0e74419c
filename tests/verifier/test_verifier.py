"""What a verifier says of a token, and when a revocation reaches it."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import threading
import time
from collections.abc import Callable

import pytest
from tests.verifier.standin import ASK, JWKS, POLL, Standin, hangs, response, says, says_and_closes, until

from dutchdoor import Verifier
from dutchdoor.errors import InvalidToken, Misconfigured, StaleClaims, Unavailable
from dutchdoor.jose.jwk import Key
from dutchdoor.jose.jws import sign
from dutchdoor.model.ids import new_id
from dutchdoor.model.service_credentials import VerifierSecret
from dutchdoor.verifier import elapsed
from dutchdoor.verifier import poller as following_module

Make = Callable[..., Verifier]
Later = Callable[[float], None]


def test_a_check_says_who_it_is(authority: Standin, following: Make) -> None:
    """The first check starts everything, and gives who the bearer is."""
    verifier = following()
    assert verifier.state == "new"
    principal = verifier(authority.token(subject="ada", session_id="s" * 22, roles=("editor",), scope="read"))
    assert (principal.subject, principal.session_id, principal.roles) == ("ada", "s" * 22, ("editor",))
    assert (principal.method, principal.client_id, principal.scope) == ("access_token", "app", "read")
    assert verifier.state == "fresh"
    assert 0 < verifier.lease_left <= authority.lease_for
    assert authority.asked[ASK] == 0


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="there is no such clock here")
def test_leases_are_counted_by_a_clock_that_never_stands_still() -> None:
    """A machine that slept wakes without a lease: the clock counts sleep."""
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert before <= elapsed() <= time.clock_gettime(time.CLOCK_BOOTTIME)


def test_bytes_are_as_good_as_text(authority: Standin, following: Make) -> None:
    """A header may come as bytes."""
    verifier = following()
    assert verifier(authority.token().encode()).subject == "ada"


def test_j30_a_token_bound_to_a_key_is_refused(authority: Standin, following: Make) -> None:
    """A verifier refuses a bound token that comes as a bearer token, and asks no server about it."""
    verifier = following()
    members = json.loads(base64.urlsafe_b64decode(authority.token().split(".")[1] + "=="))
    bound = sign(
        json.dumps({**members, "cnf": {"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}}).encode(),
        authority.keys[0],
        typ="at+jwt",
    )
    with pytest.raises(InvalidToken):
        verifier(bound)
    assert authority.asked[ASK] == 0


def test_what_was_ended_is_refused_when_the_fence_holds(authority: Standin, following: Make) -> None:
    """After `fenced`, not one check accepts, and nothing had to be asked."""
    verifier = following()
    for _ in range(30):
        sid = new_id()
        token = authority.token(session_id=sid)
        assert verifier(token).session_id == sid
        fence = authority.revoke("session", sid)
        with pytest.raises(InvalidToken):
            verifier(token)
        assert fence.fenced
    assert authority.asked[ASK] == 0
    assert verifier.entries == 30


def test_j21_a_token_of_another_issuer_or_audience_is_named_once(
    authority: Standin, caplog: pytest.LogCaptureFixture
) -> None:
    """A verifier that was given another spelling of the issuer, or another audience, refuses every token; its log says
    once why, with both names, and nothing for a token with an unknown signature.
    """
    caplog.set_level(logging.WARNING, "dutchdoor.verifier")
    token, elsewhere = authority.token(), authority.issuer.replace("127.0.0.1", "localhost")
    assert elsewhere != authority.issuer
    for issuer, audience, found, expected in (
        (elsewhere, "api", authority.issuer, elsewhere),
        (authority.issuer, "shop", "api", "shop"),
    ):
        caplog.clear()
        with Verifier(issuer, audience=audience) as verifier:
            with pytest.raises(InvalidToken):
                verifier(f"{token[:-4]}AAAA")
            assert caplog.messages == []
            for _ in range(3):
                with pytest.raises(InvalidToken):
                    verifier(token)
                with pytest.raises(InvalidToken):
                    asyncio.run(verifier.check(token))
        (line,) = caplog.messages
        assert repr(found) in line
        assert repr(expected) in line


def test_no_thread_accepts_what_was_fenced(authority: Standin, following: Make) -> None:
    """Three threads check without pause while sessions end: no check that began after a fence accepts."""
    verifier = following()
    wrong: list[str] = []
    current: list[tuple[str, float]] = []  # a token, and when its fence held
    lock, stop = threading.Lock(), threading.Event()

    def check() -> None:
        while not stop.is_set():
            with lock:
                some = current[-5:]
            for token, fenced_at in some:
                began = time.monotonic()
                try:
                    verifier(token)
                except (InvalidToken, Unavailable):
                    continue
                if began > fenced_at:
                    wrong.append(token)

    threads = [threading.Thread(target=check) for _ in range(3)]
    verifier(authority.token())
    for thread in threads:
        thread.start()
    for _ in range(5):
        sid = new_id()
        token = authority.token(session_id=sid)
        with lock:
            current.append((token, float("inf")))
        assert authority.revoke("session", sid).fenced
        with lock:
            current[-1] = (token, time.monotonic())
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("kind", ["token", "client", "key"])
def test_every_kind_of_entry_is_refused(authority: Standin, following: Make, kind: str) -> None:
    """A stateless token by its id, all of a client, all that a key signed."""
    verifier = following()
    token = authority.token(session_id=None, token_id="j" * 22)
    assert verifier(token).token_id == "j" * 22
    named = {"token": "j" * 22, "client": "app", "key": authority.keys[0].kid}[kind]
    authority.revoke(kind, named, min_epoch=2 if kind == "client" else 0)  # type: ignore[arg-type]
    with pytest.raises(InvalidToken) as caught:
        verifier(token)
    assert not isinstance(caught.value, StaleClaims)


def test_claims_that_have_changed_are_stale(authority: Standin, following: Make) -> None:
    """A change of roles raises the subject's epoch: older tokens say `token_stale`, newer ones are good."""
    verifier = following()
    before, after = authority.token(epoch=3, roles=("admin",)), authority.token(epoch=4, roles=())
    assert verifier(before).roles == ("admin",)
    assert authority.revoke("subject", "ada", min_epoch=4).fenced
    with pytest.raises(StaleClaims) as caught:
        verifier(before)
    assert caught.value.code == "token_stale"
    assert verifier(after).roles == ()
    with pytest.raises(InvalidToken) as caught:
        verifier(authority.token(session_id=None, token_id="j" * 22, epoch=3))
    assert caught.value.code == "invalid_token", "without a session there is nothing to refresh"


@pytest.mark.parametrize(
    "how",
    [
        {"audience": "another"},
        {"issuer": "https://elsewhere.example.com"},
        {"lifetime": 3601},
        {"now": 1_700_000_000.0},
        {"now": time.time() + 3600},
        {"key": Key.generate("ES256")},
    ],
    ids=["audience", "issuer", "too long a life", "expired", "from the future", "another key"],
)
def test_what_is_not_for_us_is_refused(authority: Standin, following: Make, how: dict[str, object]) -> None:
    """Audience and issuer are compared exactly, and no token lives longer than its entry in the log would."""
    verifier = following()
    verifier(authority.token())
    with pytest.raises(InvalidToken):
        verifier(authority.token(**how))  # type: ignore[arg-type]


@pytest.mark.parametrize("token", ["", "a.b.c", "ddr1_" + "a" * 48, b"\xff\xfe", "é", "a" * 100_000, None, 7])
def test_what_is_no_token_is_refused(authority: Standin, following: Make, token: object) -> None:
    """Whatever is brought, it is one kind of refusal."""
    verifier = following()
    verifier.start()
    with pytest.raises(InvalidToken):
        verifier(token)  # type: ignore[arg-type]


def test_several_audiences_and_the_default(authority: Standin) -> None:
    """A verifier may go by several names, and without any by that of the issuer."""
    with Verifier(authority.issuer, audience=["billing", "api"]) as several, Verifier(authority.issuer) as default:
        assert several(authority.token(audience="api"))
        assert default(authority.token(audience=authority.issuer))
        with pytest.raises(InvalidToken):
            default(authority.token(audience="api"))


# --- keys -------------------------------------------------------------------------------------------------------------


def test_a_killed_key_is_refused_and_the_set_is_fetched_again(authority: Standin, following: Make) -> None:
    """A killed key is dead when its fence holds, though it is still published; then the new set is fetched."""
    verifier = following()
    old, new = authority.keys[0], Key.generate("ES256")
    token = authority.token()
    assert verifier(token)
    fetched = authority.asked[JWKS]
    authority.keys = [new]
    assert authority.revoke("key", old.kid).fenced
    with pytest.raises(InvalidToken):
        verifier(token)
    until(lambda: authority.asked[JWKS] > fetched)
    assert verifier(authority.token(key=new))
    with pytest.raises(InvalidToken):
        verifier(authority.token(key=old))
    assert authority.asked[JWKS] <= fetched + 2  # because of the log, and because of the last token


def test_a_new_key_is_found_when_a_token_names_it(authority: Standin, following: Make) -> None:
    """Keys rotate without any action."""
    verifier = following()
    verifier.start()
    authority.keys.insert(0, Key.generate("EdDSA"))
    assert verifier(authority.token())
    assert authority.asked[JWKS] == 2


def test_a_flood_of_unknown_keys_is_one_fetch(
    authority: Standin, following: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An attacker who makes up names of keys makes the verifier fetch once a minute, from however many threads, and
    signs no one out.
    """
    monkeypatch.setattr(following_module, "UNKNOWN_EVERY", 600.0)  # the flood may take longer than a minute
    verifier = following()
    good = authority.token()
    verifier(good)
    before = authority.asked[JWKS]
    forged = [sign(b"{}", Key.generate("EdDSA"), typ="at+jwt") for _ in range(50)]
    outcomes: list[object] = []

    def flood() -> None:
        for token in forged:
            try:
                outcomes.append(verifier(token))
            except InvalidToken as refusal:
                outcomes.append(type(refusal).__name__)

    threads = [threading.Thread(target=flood) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(outcomes) == {"UnknownKey"}
    assert authority.asked[JWKS] == before + 1
    assert verifier(good)


def test_a_minute_later_a_new_key_is_looked_for_again(
    authority: Standin, following: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The flood does not shut the door for ever."""
    monkeypatch.setattr(following_module, "UNKNOWN_EVERY", 0.2)
    verifier = following()
    verifier.start()
    with pytest.raises(InvalidToken):
        verifier(sign(b"{}", Key.generate("EdDSA"), typ="at+jwt"))
    authority.keys.insert(0, Key.generate("ES256"))
    until(lambda: accepts(verifier, authority.token()))


def test_a_key_that_cannot_be_looked_for_signs_no_one_out(
    authority: Standin, following: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where new keys cannot be fetched, a token of an unknown one is 503 and not 401; and we do not fetch more."""
    monkeypatch.setattr(following_module, "KEYS_AGAIN", (600.0, 600.0))
    monkeypatch.setattr(following_module, "UNKNOWN_EVERY", 600.0)
    verifier = following()
    verifier.start()
    authority.keys.insert(0, Key.generate("ES256"))
    authority.misbehave(JWKS, says(response(b"no", 500)))
    fetched = authority.asked[JWKS]
    for _ in range(20):
        with pytest.raises(Unavailable):
            verifier(authority.token())
    assert authority.asked[JWKS] == fetched + 1


def test_a_published_secret_is_no_key(authority: Standin, following: Make) -> None:
    """A key set with a symmetric key in it is refused: a client that reads it could sign anything."""
    secret = b'{"keys":[{"kty":"oct","alg":"HS256","kid":"a","k":"%s"}]}'
    authority.misbehave(JWKS, says(response(secret % b"c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LTEyMzQ1Njc4OQ")))
    verifier = following()
    with pytest.raises(Unavailable):
        verifier(authority.token())


# --- what it is given -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "issuer",
    [
        "http://auth.example.com", "http://127.0.0.1.example.com", "http://10.0.0.1", "http://localhost.example.com",
        "https://auth.example.com/", "https://auth.example.com/a//b", "https://auth.example.com/../x",
        "https://auth.example.com/%2e", "https://auth.example.com/a/", "https://auth.example.com:443",
        "https://user:hunter2@auth.example.com", "https://Auth.Example.com", "https://auth.example.com?x=1",
        "ftp://auth.example.com", "auth.example.com", "", "https://", "https://auth.example.com:99999",
        "https://auth.example.com\n", " https://auth.example.com", "https://auth.example.com#x", None,
    ],
)  # fmt: skip
def test_an_issuer_is_an_origin(issuer: str) -> None:
    """HTTPS, or plain HTTP to this machine; spelled as tokens spell it. What was given is not repeated: it may hold a
    password.
    """
    with pytest.raises(Misconfigured) as caught:
        Verifier(issuer)
    assert "hunter2" not in str(caught.value) + caught.value.reason


@pytest.mark.parametrize(
    "issuer",
    ["https://auth.example.com", "https://a:8443", "http://localhost:8000", "http://[::1]:8000", "http://127.0.0.2"],
)
def test_these_are_issuers(issuer: str) -> None:
    """The spellings of dutchdoor's own servers."""
    assert Verifier(issuer).issuer == issuer


@pytest.mark.parametrize(
    "how",
    [
        {"stale": "accept"}, {"follow": "sometimes"}, {"leeway": 61}, {"leeway": -1}, {"audience": ""},
        {"audience": []}, {"key": "hunter2"}, {"key": "ddv1_hunter2"},
    ],
)  # fmt: skip
def test_a_wrong_setting_is_said_at_once(how: dict[str, object]) -> None:
    """Nothing waits for the first request to be found wrong, and no key is repeated."""
    with pytest.raises(Misconfigured) as caught:
        Verifier("https://auth.example.com", **how)  # type: ignore[arg-type]
    assert "hunter2" not in repr(caught.value) + str(caught.value) + caught.value.reason


def test_a_missing_key_is_named(
    authority: Standin, following: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A server that wants a key, and none was given: the log says where it comes from, and where it goes."""
    monkeypatch.delenv("DUTCHDOOR_VERIFIER_KEY", raising=False)
    authority.misbehave(POLL, says(response(b"{}", 401)))
    with pytest.raises(Unavailable):
        following(stale="refuse")(authority.token())
    assert "`dutchdoor verifier add` prints" in caplog.text


def test_another_name_of_the_server_is_asked_about(
    authority: Standin, following: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """A server answers 400 under a name that is not that of its public URL."""
    authority.misbehave(JWKS, says(response(b"{}", 400)))
    with pytest.raises(Unavailable):
        following(stale="refuse")(authority.token())
    assert "Is the issuer the public URL" in caplog.text


def test_the_key_is_shown_to_the_authority_and_to_no_one_else(
    authority: Standin, following: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It comes as an argument or from the environment, goes into one header, and stands in no text of ours."""
    caplog.set_level(logging.DEBUG)
    key = VerifierSecret.mint(new_id()).text()
    monkeypatch.setenv("DUTCHDOOR_VERIFIER_KEY", key)
    verifier = following()
    verifier(authority.token())
    assert {headers.get("authorization") for headers in authority.headers} == {f"Bearer {key}"}
    authority.misbehave(POLL, says(response(b"{}", 401)))
    monkeypatch.delenv("DUTCHDOOR_VERIFIER_KEY")
    another = following(key=key, stale="refuse")
    with pytest.raises(Unavailable) as caught:
        another(authority.token())
    seen = caplog.text + repr(vars(another)) + repr(caught.value) + caught.value.reason
    assert "verifier key is wrong" in caplog.text
    assert key not in seen
    assert key[10:40] not in seen


def test_one_line_is_logged_for_each_change(authority: Standin, later: Later, caplog: pytest.LogCaptureFixture) -> None:
    """Fresh, stale and fresh again are three lines, however many polls fail in between."""
    caplog.set_level(logging.INFO, "dutchdoor.verifier")
    with Verifier(authority.issuer, audience="api", stale="refuse") as verifier:
        made_stale(authority, verifier, later)
        failed = authority.asked[POLL]
        until(lambda: authority.asked[POLL] > failed + 2)  # and each of them failed while it was stale
        authority.misbehave(POLL, None)
        until(lambda: len(caplog.records) > 2)
    assert [record.message.split(":")[0] for record in caplog.records] == ["fresh", "stale", "fresh"]


# --- without a lease --------------------------------------------------------------------------------------------------


def accepts(verifier: Verifier, token: str) -> bool:
    try:
        return bool(verifier(token))
    except (InvalidToken, Unavailable):
        return False


def made_stale(authority: Standin, verifier: Verifier, later: Later) -> None:
    """No poll is answered from now on, and the lease ends."""
    authority.misbehave(POLL, says(response(b"no", 500)))
    later(authority.lease_for)
    assert verifier.state == "stale"


def test_introspecting_asks_every_time(authority: Standin, later: Later) -> None:
    """Stale, the authority is asked about each token at each request; what it says of one is not remembered."""
    sid = new_id()
    token, other = authority.token(session_id=sid), authority.token()
    with Verifier(authority.issuer, audience="api") as verifier:
        made_stale(authority, verifier, later)
        for count in range(1, 6):
            assert verifier(token).session_id == sid
            assert authority.asked[ASK] == count
        authority.revoke("session", sid, wait=0)
        with pytest.raises(InvalidToken):
            verifier(token)
        assert verifier(other)
        with pytest.raises(InvalidToken):
            verifier(authority.token(audience="another"))  # refused here: no server is asked about it
        assert authority.asked[ASK] == 7


SAID = {
    "text": response(b'{"active": "true"}'),
    "number": response(b'{"active": 1}'),
    "nothing": response(b"{}"),
    "list": response(b"[]"),
    "empty": response(b""),
    "500": response(b'{"active": true}', 500),
    "redirect": response(b'{"active": true}', 307, "Location: /"),
    "too long": response(b'{"active": true, "x": "' + b"x" * 100_000 + b'"}'),
    "no length": b'HTTP/1.1 200 OK\r\n\r\n{"active": true}',
    "garbage": b"\x00" * 100,
}


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(SAID[each], id=each, marks=[pytest.mark.long] * (each not in {"text", "500", "redirect"}))
        for each in SAID
    ],
)
def test_only_a_plain_yes_is_a_yes(
    authority: Standin, later: Later, monkeypatch: pytest.MonkeyPatch, answer: bytes
) -> None:
    """An answer about a token that is anything but `active: true` signs no one in; an unreadable one is a 503."""
    with Verifier(authority.issuer, audience="api") as verifier:
        made_stale(authority, verifier, later)
        authority.misbehave(ASK, says(answer))
        monkeypatch.setattr("dutchdoor.verifier.WAITS_FOR", 0.5)
        with pytest.raises(Unavailable):
            verifier(authority.token())


@pytest.mark.parametrize("head", ["HTTP/1.1 200 OK", "HTTP/1.1 200 OK\r\nContent-Length: 99", "HTTP/1.0 200 OK"])
def test_a_yes_that_was_cut_short_is_none(authority: Standin, later: Later, head: str) -> None:
    """What ends where the connection ended, and not where it said it would, is not an answer."""
    with Verifier(authority.issuer, audience="api") as verifier:
        made_stale(authority, verifier, later)
        authority.misbehave(ASK, says_and_closes(head.encode() + b'\r\n\r\n{"active": true}'))
        with pytest.raises(Unavailable):
            verifier(authority.token())


def test_questions_have_a_budget(authority: Standin, later: Later, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many questions a second; one more is 503 at once. An authority that cannot keep up gets no more of them."""
    monkeypatch.setattr(following_module, "ASK_BURST", 5.0)
    monkeypatch.setattr(following_module, "ASK_A_SECOND", 0.001)
    with Verifier(authority.issuer, audience="api") as verifier:
        made_stale(authority, verifier, later)
        tokens = [authority.token() for _ in range(20)]
        assert sum(accepts(verifier, token) for token in tokens) == 5
        assert authority.asked[ASK] == 5


def test_few_questions_are_asked_at_once(authority: Standin, later: Later, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an authority that hangs, 40 requests have 8 questions under way, all end in time, and then none is asked for
    a moment.
    """
    monkeypatch.setattr(following_module, "ASK_AGAIN", 600.0)
    with Verifier(authority.issuer, audience="api") as verifier:
        made_stale(authority, verifier, later)
        monkeypatch.setattr("dutchdoor.verifier.WAITS_FOR", 0.5)
        authority.misbehave(ASK, hangs)
        tokens = [authority.token() for _ in range(40)]
        began = time.monotonic()
        threads = [threading.Thread(target=accepts, args=(verifier, token)) for token in tokens]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert time.monotonic() - began < 60
        assert not accepts(verifier, tokens[0])
        assert authority.asked[ASK] <= 8


def test_refusing_is_503_with_a_time(authority: Standin, later: Later) -> None:
    """Stale, with the setting to refuse: no token is accepted, no server is asked, and the answer says when to come
    again. What is known to be revoked stays 401.
    """
    sid = new_id()
    dead = authority.token(session_id=sid)
    with Verifier(authority.issuer, audience="api", stale="refuse") as verifier:
        assert authority.revoke("session", sid).fenced
        made_stale(authority, verifier, later)
        with pytest.raises(Unavailable) as caught:
            verifier(authority.token())
        assert caught.value.retry_after >= 1
        with pytest.raises(InvalidToken):
            verifier(dead)
        assert authority.asked[ASK] == 0
