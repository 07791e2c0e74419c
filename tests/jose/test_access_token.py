"""Access tokens: what is issued, what is accepted, and that everything else is InvalidToken."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.b64 import b64

from dutchdoor.errors import DpopRequired, InvalidKey, InvalidToken, Misconfigured
from dutchdoor.jose.access_token import (
    MAX_TIME,
    REFUSED_NAMES,
    SIZE_BUDGET,
    AccessTokenIssuer,
    AccessTokenVerifier,
    read_claims,
)
from dutchdoor.jose.claims import MAX_TOKEN, Claims
from dutchdoor.jose.jwk import ALGORITHMS, Key, KeySet

ISS, AUD, NOW = "https://auth.example.com", "https://api.example.com", 1_800_000_000.25
KEY = Key.generate("ES256")
HEADER = {"alg": "ES256", "kid": KEY.kid, "typ": "at+jwt"}
CLAIMS: dict[str, Any] = {
    "iss": ISS,
    "sub": "somebody",
    "aud": AUD,
    "exp": 1_800_000_600,
    "iat": 1_800_000_000,
    "jti": "one",
    "client_id": "web",
    "sid": "session",
    "epoch": 3,
    "auth_time": 1_799_999_000,
    "amr": ["pwd"],
    "acr": "aal1",
    "roles": ["admin"],
}
MISSING = object()


def encoded(payload: bytes, header: dict[str, Any] | None = None, key: Key = KEY) -> str:
    signed = b64(json.dumps(header or HEADER).encode()) + "." + b64(payload)
    return signed + "." + b64(key.sign(signed.encode()))


def token(header: dict[str, Any] | None = None, **changed: Any) -> str:
    """A token signed well, whatever it says."""
    members = {name: value for name, value in {**CLAIMS, **changed}.items() if value is not MISSING}
    return encoded(json.dumps(members).encode(), header)


def verifier(**changed: Any) -> AccessTokenVerifier:
    settled = {"keys": KEY.public(), "issuer": ISS, "audience": AUD, "leeway": 0.0, "clock": lambda: NOW}
    return AccessTokenVerifier(**{**settled, **changed})


def refused(text: Any, read: AccessTokenVerifier | None = None, **at: float) -> str:
    with pytest.raises(InvalidToken) as refusal:
        (read or verifier())(text, **at)
    assert str(refusal.value) == "The token is not valid."
    return refusal.value.reason


def issue(issuer: AccessTokenIssuer | None = None, **changed: Any) -> str:
    common: dict[str, Any] = {
        "key": KEY,
        "now": NOW,
        "lifetime": 600.0,
        "subject": "somebody",
        "client_id": "web",
        "epoch": 3,
    }
    common |= {"amr": ["pwd"], "roles": ["admin"], "auth_time": NOW - 100, "session_id": "session"}
    return (issuer or AccessTokenIssuer(issuer=ISS, audience=AUD))(**{**common, **changed})


def payload_of(text: str) -> dict[str, Any]:
    return json.loads(base64.urlsafe_b64decode(text.split(".")[1] + "=="))


# --- issuing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alg", sorted(ALGORITHMS))
def test_j13_what_is_issued_verifies_and_carries_the_claims_of_the_profile(alg: str) -> None:
    """J13: a token of every algorithm carries the claims of RFC 9068 and of revocation, and comes back as they were."""
    key = Key.generate(alg)
    text = issue(key=key)
    assert list(payload_of(text)) == list(CLAIMS)
    assert json.loads(base64.urlsafe_b64decode(text.split(".")[0] + "==")) == {
        "alg": alg,
        "kid": key.kid,
        "typ": "at+jwt",
    }
    claims = verifier(keys=key.public())(text)
    assert claims == Claims(
        iss=ISS,
        sub="somebody",
        aud=AUD,
        exp=1_800_000_600,
        iat=1_800_000_000,
        jti=claims.jti,
        client_id="web",
        sid="session",
        epoch=3,
        auth_time=1_800_000_000 - 100,
        amr=("pwd",),
        acr="aal1",
        roles=("admin",),
        kid=key.kid,
    )
    assert len(claims.jti) == 22
    assert verifier(keys=key.public())(issue(key=key)).jti != claims.jti


def test_what_is_not_there_is_not_written() -> None:
    """A stateless token has no `sid`, one without a sign-in has no `auth_time`, one without scopes no `scope`."""
    text = issue(session_id=None, auth_time=None)
    assert {"sid", "auth_time", "scope", "nbf", "kid", "extra"}.isdisjoint(payload_of(text))
    claims = verifier()(text)
    assert claims.sid is None
    assert claims.auth_time is None
    assert claims.scope == ""


def test_the_life_of_a_token_is_never_rounded_up() -> None:
    """`exp` counts from the instant the row was read and is rounded down: no token outlives what was promised."""
    assert payload_of(issue(now=1000.9, lifetime=10.05))["exp"] == 1010
    assert payload_of(issue(now=1000.9, lifetime=10.05))["iat"] == 1000
    for lifetime in (0.0, -1.0, float("nan"), float("inf"), 1e12):
        with pytest.raises(Misconfigured):
            issue(lifetime=lifetime)


def test_several_audiences_are_a_list_and_one_is_a_name() -> None:
    """`aud` is written as RFC 7519 has it, and matched by any of its names."""
    issuer = AccessTokenIssuer(issuer=ISS, audience=[AUD, "other"])
    assert payload_of(issue(issuer))["aud"] == [AUD, "other"]
    assert verifier(audience="other")(issue(issuer)).aud == (AUD, "other")
    assert payload_of(issue(AccessTokenIssuer(issuer=ISS, audience=[AUD])))["aud"] == AUD


def test_an_hmac_key_serves_one_audience() -> None:
    """With a shared secret each audience could mint tokens for the others, so there is one."""
    with pytest.raises(Misconfigured):
        issue(AccessTokenIssuer(issuer=ISS, audience=[AUD, "other"]), key=Key.generate("HS256"))


def test_the_size_budget_is_kept() -> None:
    """A token over its budget is not issued, and the log says by how much."""
    text = issue(extra={"note": "x" * 400})
    assert len(text) <= SIZE_BUDGET
    with pytest.raises(Misconfigured, match="over its budget of 2,000"):
        issue(extra={"note": "x" * 2000})
    with pytest.raises(Misconfigured):
        issue(AccessTokenIssuer(issuer=ISS, audience=AUD, budget=len(issue()) - 1))
    assert issue(AccessTokenIssuer(issuer=ISS, audience=AUD, budget=len(issue())))
    assert len(issue(key=Key.generate("RS256"), roles=["a-role-of-some-length"] * 10, scope="read write")) < SIZE_BUDGET


@pytest.mark.parametrize(
    "name", sorted(REFUSED_NAMES | {"ROLES", "Password", "refresh-token", "API-Key", "", "a" * 65, "a\n"})
)
def test_j19_refused_names_are_not_issued(name: str) -> None:
    """J19: the hook cannot write over a claim, add one whose meaning is not checked, or put a secret in the token."""
    with pytest.raises(Misconfigured):
        issue(extra={name: 1})


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), 2**64, 10**4200, {1: 2}, {"a": {b"x"}}, object(), b"x", 1j]
)
def test_extra_claims_have_a_form_in_json(value: Any) -> None:
    """What the hook adds must be JSON that our verifier reads back: no NaN, no number beyond 64 bits, no other
    types.
    """
    with pytest.raises(Misconfigured):
        issue(extra={"x": value})


def test_extra_claims_come_back() -> None:
    """What the hook adds is in `extra`, as it was, and in the payload beside the others."""
    extra = {"tenant": "a", "limits": {"a": [1, -2.5, None, True]}, "exp2": 2**63, "ünï": "✓"}
    text = issue(extra=extra)
    assert verifier()(text).extra == extra
    assert payload_of(text)["tenant"] == "a"
    deep: Any = 1
    for _ in range(40):
        deep = [deep]
    with pytest.raises(Misconfigured):
        issue(extra={"x": deep})


def test_a_wrong_setting_is_refused_at_the_start() -> None:
    """An issuer or verifier without a name, without audience, or with more leeway than a minute is not made."""
    for settings_ in (
        {"issuer": ""},
        {"audience": ""},
        {"audience": []},
        {"leeway": 61.0},
        {"leeway": -1.0},
        {"leeway": float("nan")},
    ):
        with pytest.raises(Misconfigured):
            verifier(**settings_)
    for settings_ in (
        {"issuer": "", "audience": AUD},
        {"issuer": ISS, "audience": [AUD, AUD]},
        {"issuer": ISS, "audience": []},
    ):
        with pytest.raises(Misconfigured):
            AccessTokenIssuer(**settings_)
    with pytest.raises(Misconfigured):
        AccessTokenIssuer(issuer=ISS, audience=AUD, budget=9000)
    with pytest.raises(InvalidKey):
        issue(key=KEY.public())


# --- J08, J09: times --------------------------------------------------------------------------------------------------

NO_TIMES = {
    "NaN": b"NaN",
    "Infinity": b"Infinity",
    "1e400": b"1e400",
    "10^4200": b"1" + b"0" * 4200,
    "10^4301": b"1" + b"0" * 4301,
    "2^64": b"18446744073709551616",
    "true": b"true",
    "a string": b'"1800000600"',
    "null": b"null",
    "a list": b"[1800000600]",
    "an object": b"{}",
    "negative": b"-1",
    "the year 10000": b"253402300800",
    "1e300": b"1e300",
    "a leading zero": b"01800000600",
    "hexadecimal": b"0x6B49D200",
}


@pytest.mark.parametrize("name", ["exp", "iat", "nbf", "auth_time"])
@pytest.mark.parametrize("number", NO_TIMES.values(), ids=list(NO_TIMES))
def test_j08_a_time_is_a_finite_number_in_range(name: str, number: bytes) -> None:
    """J08: a time that is no finite number between 1970 and 9999 refuses the token, with the one exception there is."""
    if number == b"null" and name in {"nbf", "auth_time"}:
        pytest.skip("null says the same as absent for what may be absent")
    members = json.dumps({**CLAIMS, name: 0}).encode()
    refused(encoded(members.replace(b'"%s": 0' % name.encode(), b'"%s": %s' % (name.encode(), number))))
    # The same in the canonical spelling and place, which takes the quick way.
    body = payload_of(issue()) | {name: 0}
    order = [field for field in Claims.__struct_fields__ if field in body]
    quick = json.dumps({field: body[field] for field in order}, separators=(",", ":")).encode()
    refused(encoded(quick.replace(b'"%s":0' % name.encode(), b'"%s":%s' % (name.encode(), number))))


def test_j09_boundaries_of_time() -> None:
    """J09: accepted to the last instant before `exp` and from the first of `iat` and `nbf`; leeway moves each by
    itself.
    """
    text = token(nbf=1_800_000_100)
    exact, lenient = verifier(), verifier(leeway=30.0)
    assert exact(text, now=1_800_000_100.0)
    assert exact(text, now=1_800_000_599.999)
    assert refused(text, exact, now=1_800_000_600.0) == "expired"
    refused(text, exact, now=1_800_000_601.0)
    refused(text, exact, now=1_800_000_099.0)
    assert lenient(text, now=1_800_000_629.0)
    refused(text, lenient, now=1_800_000_630.0)
    assert lenient(text, now=1_800_000_070.0)
    refused(text, lenient, now=1_800_000_069.0)
    plain = token()
    refused(plain, exact, now=1_799_999_999.0)
    assert lenient(plain, now=1_799_999_970.0)
    refused(plain, lenient, now=1_799_999_969.0)
    refused(plain, exact, now=float("nan"))


def test_times_of_other_issuers_may_have_fractions() -> None:
    """RFC 7519 allows fractions of a second; they count as written."""
    text = token(exp=1_800_000_600.5)
    assert verifier()(text, now=1_800_000_600.4).exp == 1_800_000_600.5
    refused(text, now=1_800_000_600.5)


def test_a_token_does_not_expire_before_it_is_issued() -> None:
    """`exp` before `iat` contradicts itself and is refused, even where leeway would cover both."""
    refused(token(exp=1_799_999_999), verifier(leeway=60.0))


def test_the_clock_is_read_where_no_time_is_given() -> None:
    """A verifier without `now` asks its own clock, by default the machine's."""
    made = int(time.time())
    real = AccessTokenVerifier(keys=KEY, issuer=ISS, audience=AUD)
    assert real(token(iat=made, exp=made + 600))
    refused(token(iat=made - 700, exp=made - 100), real)


# --- J10 to J13: who it is from, and for ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "iss",
    [
        MISSING,
        None,
        "",
        ISS + "/",
        ISS[:-1],
        ISS.upper(),
        " " + ISS,
        [ISS],
        {ISS: 1},
        1,
        True,
        "https://auth.example.com.evil",
    ],
)
def test_j10_the_issuer_is_equal(iss: Any) -> None:
    """J10: `iss` equals the issuer the keys belong to, character for character (CVE-2024-53861)."""
    refused(token(iss=iss))


@pytest.mark.parametrize(
    "aud",
    [
        MISSING,
        None,
        "",
        AUD + "/",
        AUD[:-1],
        AUD.upper(),
        [],
        [[AUD]],
        {AUD: 1},
        [AUD, 1],
        [AUD, None],
        1,
        True,
        ["other"],
    ],
)
def test_j11_the_audience_is_required_and_matches(aud: Any) -> None:
    """J11: `aud` is there, is a name or a list of names and nothing else, and one of them is ours."""
    refused(token(aud=aud))


def test_j11_any_of_ours_will_do() -> None:
    """J11: a list with our name among others is for us; a verifier with several names accepts each."""
    assert verifier()(token(aud=["other", AUD]))
    both = verifier(audience=[AUD, "other"])
    assert both(token(aud="other"))
    assert both(token(aud=["third", "other"]))
    refused(token(aud="third"), both)


@pytest.mark.parametrize(
    "typ",
    [
        MISSING,
        "JWT",
        "jwt",
        "at+JWT",
        "AT+JWT",
        "at+jwt ",
        "id+jwt",
        "dpop+jwt",
        "logout+jwt",
        "secevent+jwt",
        "",
        "application/jwt",
    ],
)
def test_j12_only_access_tokens_are_access_tokens(typ: Any) -> None:
    """J12: another kind of token by the same key, or one that does not say its kind, opens nothing."""
    header = {name: value for name, value in {**HEADER, "typ": typ}.items() if value is not MISSING}
    refused(token(header))


def test_j12_both_spellings_of_the_profile() -> None:
    """J12: `at+jwt` and `application/at+jwt` are the same type (RFC 9068, 4)."""
    assert verifier()(token({**HEADER, "typ": "application/at+jwt"}))


@pytest.mark.parametrize("name", ["exp", "iat", "sub", "client_id", "jti"])
@pytest.mark.parametrize("value", [MISSING, None, [], {}, True])
def test_j13_the_claims_of_the_profile_are_required(name: str, value: Any) -> None:
    """J13: a token that lacks one of the claims RFC 9068 requires, or has it in another type, is refused."""
    refused(token(**{name: value}))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("sid", 1), ("sid", []), ("epoch", "3"), ("epoch", 1.5), ("epoch", None), ("epoch", True), ("amr", "pwd")],
        *[("amr", [1]), ("roles", "admin"), ("roles", None), ("roles", {"admin": 1}), ("roles", [["admin"]])],
        *[("scope", ["a"]), ("scope", 1)],
    ],
)
def test_claims_have_their_type(name: str, value: Any) -> None:
    """A role list that is a string would match by substring somewhere: each claim has one type."""
    refused(token(**{name: value}))


def test_what_another_issuer_leaves_out_is_the_lowest() -> None:
    """A token without an epoch has the lowest: whatever revokes its subject covers it. It has no roles either."""
    claims = verifier()(token(epoch=MISSING, amr=MISSING, roles=MISSING, sid=MISSING, auth_time=MISSING))
    assert (claims.epoch, claims.amr, claims.roles, claims.sid, claims.auth_time) == (0, (), (), None, None)


def test_the_key_is_chosen_by_the_header_alone() -> None:
    """Claims named like our own fields (`kid`, `extra`) are extra claims, and never pass for what we found out."""
    claims = verifier()(token(kid="other", extra={"a": 1}))
    assert claims.kid == KEY.kid
    assert claims.extra == {"kid": "other", "extra": {"a": 1}}
    for name, value in (("kid", "other"), ("extra", {"a": 1})):
        quick = encoded(json.dumps({**payload_of(issue()), name: value}, separators=(",", ":")).encode())
        assert verifier()(quick).kid == KEY.kid
        assert verifier()(quick).extra == {name: value}


def test_keys_can_be_replaced() -> None:
    """From one call to the next a verifier works with other keys, and the old ones' tokens are refused."""
    read, other = verifier(), Key.generate("ES256")
    assert read(issue())
    read.keys = KeySet([other.public()])
    refused(issue(), read)
    assert read(issue(key=other)).kid == other.kid


# --- J07: strict JSON in the claims -----------------------------------------------------------------------------------

CANONICAL = base64.urlsafe_b64decode(issue().split(".")[1] + "==")


@pytest.mark.parametrize(
    "payload",
    [
        CANONICAL[:-1] + b',"exp":1800000600}',
        CANONICAL[:-1] + b',"exp":9999999999}',
        b'{"exp":1,' + CANONICAL[1:],
        CANONICAL.replace(b'"roles"', b'"roles":["root"],"roles"'),
        CANONICAL.replace(b'"sub"', b'"s\\u0075b":"admin","sub"'),
        CANONICAL[:-1] + b',"x":{"a":1,"a":2}}',
        CANONICAL[:-1] + b',"x":[{"a":1,"a":1}]}',
        CANONICAL[:-1] + b',"x":"a:b","x":":"}',
        CANONICAL[:-1] + b',"x" :1,"x":1}',
        CANONICAL[:-1] + b',"x":NaN}',
        CANONICAL[:-1] + b',"x":1e999}',
        CANONICAL[:-1] + b',"x":1' + b"0" * 4200 + b"}",
        CANONICAL[:-1] + b',"x":"\xff"}',
        CANONICAL[:-1] + b',"\xff":1}',
        CANONICAL[:-1] + b',"x":"\\ud800"}',
        CANONICAL[:-1] + b',"x":' + b"[" * 32 + b"]" * 32 + b"}",
        CANONICAL[:-1] + b',"x":' + b"[" * 1500 + b"]" * 1500 + b"}",
        CANONICAL[:-1] + b',"x":' + b'{"a":' * 600 + b"1" + b"}" * 600 + b"}",
        CANONICAL[:-1] + b",}",
        CANONICAL[:-1],
        CANONICAL + b"{}",
        CANONICAL + b"\0",
        b"\xef\xbb\xbf" + CANONICAL,
        b"[" + CANONICAL + b"]",
        b'"' + CANONICAL + b'"',
        b"",
        b"null",
        b"{}",
        CANONICAL.decode().encode("utf-16"),
    ],
    ids=lambda payload: repr(payload[-28:]),
)
def test_j07_claims_are_strict_json(payload: bytes) -> None:
    """J07: duplicate names at any depth, NaN, huge numbers, deep nesting and bytes that are no UTF-8 refuse the
    token.
    """
    refused(encoded(payload))


def test_j07_form_is_judged_before_any_cryptography(monkeypatch: pytest.MonkeyPatch) -> None:
    """J07: what is too long, too deep or no strict JSON never reaches the signature check."""
    read = verifier()
    assert read(issue())
    asked: list[bytes] = []
    for header in list(read.keys.known_headers.values()):
        spy = msgspec.structs.replace(header, check=lambda signature, data: asked.append(data) or False)
        read.keys.known_headers[next(iter(read.keys.known_headers))] = spy
    head, body, tail = issue().split(".")
    deep = b64(b'{"x":' + b"[" * 40 + b"]" * 40 + b"}")
    for text in (
        f"{head}.{deep}.{tail}",
        f"{head}.{'A' * 9000}.{tail}",
        f"{head}.{b64(b'{')}.{tail}",
        f"{head}.{body}.{tail[:-4]}",
    ):
        refused(text, read)
    assert asked == []
    assert refused(f"{head}.{body}.{tail}", read) == "the signature is not valid"
    assert len(asked) == 1


def test_spelling_does_not_matter_where_meaning_is_one() -> None:
    """Another order, whitespace and escapes that leave one meaning are accepted: they are how other issuers write."""
    expected = verifier()(token())
    backwards = dict(reversed(CLAIMS.items()))
    for text in (
        json.dumps(backwards),
        json.dumps(CLAIMS, indent=4),
        json.dumps(CLAIMS).replace("somebody", "\\u0073omebody"),
        json.dumps({**CLAIMS, "aud": AUD}, separators=(" , ", " : ")),
    ):
        assert verifier()(encoded(text.encode())) == expected


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.dictionaries(
        st.sampled_from([*CLAIMS, "scope", "nbf", "kid", "extra"]), json_values | st.sampled_from(list(CLAIMS.values()))
    ),
    st.booleans(),
)
@example(changed={}, compact=True)
@settings(max_examples=3 * settings.default.max_examples)
def test_the_quick_way_and_the_general_way_agree(changed: dict[str, Any], compact: bool) -> None:
    """Claims read the quick way (read, write, compare) are those the general way gives, refusal for refusal."""
    members = {**CLAIMS, **changed}
    payload = json.dumps(members, separators=(",", ":") if compact else None, ensure_ascii=False).encode()
    try:
        quick = msgspec.json.decode(payload, type=Claims)
    except msgspec.MsgspecError:
        return
    if msgspec.json.encode(quick) == payload and not quick.kid and not quick.extra:
        assert read_claims(payload) == quick


@given(
    st.binary(max_size=200)
    | st.text(max_size=100).map(str.encode)
    | json_values.map(lambda value: json.dumps(value).encode())
)
def test_j17_any_payload_is_judged_quietly(payload: bytes) -> None:
    """J17: whatever is signed, InvalidToken is all that comes out of a verifier for what is no access token."""
    refused(encoded(payload))


MUTATIONS = st.tuples(
    st.integers(0, 600), st.integers(0, 255), st.sampled_from(["set", "insert", "delete", "swap", "cut"])
)


@given(st.lists(MUTATIONS, min_size=1, max_size=4))
@settings(max_examples=4 * settings.default.max_examples)
def test_j17_no_mutation_of_a_good_token_is_accepted(steps: list[tuple[int, int, str]]) -> None:
    """J17: a good token changed anywhere is refused with InvalidToken. `make soak` does a million of these."""
    good = issue(token_id="fixed").encode()
    changed = bytearray(good)
    for place, byte, how in steps:
        at = place % max(1, len(changed))
        if how == "set" and changed:
            changed[at] = byte
        elif how == "insert":
            changed.insert(at, byte)
        elif how == "delete":
            del changed[at : at + 1]
        elif how == "swap" and len(changed) > at + 1:
            changed[at], changed[at + 1] = changed[at + 1], changed[at]
        elif how == "cut":
            del changed[at:]
    if bytes(changed) != good:
        refused(bytes(changed))


def test_the_limits_are_those_of_the_documentation() -> None:
    """The last second a time may name is the end of the year 9999, and a token may have 8 KiB."""
    assert verifier()(token(exp=MAX_TIME)).exp == MAX_TIME
    refused(token(exp=MAX_TIME + 1))
    note = "x" * (3 * (MAX_TOKEN - len(token(note=""))) // 4)
    assert MAX_TOKEN - 8 < len(token(note=note)) <= MAX_TOKEN
    assert verifier()(token(note=note))
    refused(token(note=note + "x" * 8))


JKT = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"


@pytest.mark.parametrize(
    "cnf", [{"x5t#S256": "x"}, {"jkt": JKT, "x5t#S256": "x"}, {"jkt": JKT[1:]}, {"jkt": JKT[1:] + "="}, {}, None, ""]
)
def test_j30_a_token_bound_in_another_way_is_refused(cnf: Any) -> None:
    """A token with a `cnf` that names a key in a way that is not known here, or in two ways, is refused."""
    assert "bound to a key" in refused(token(cnf=cnf))
    assert verifier()(token(extra="cnf")).extra == {"extra": "cnf"}


def test_j30_a_token_bound_to_a_key_is_no_bearer_token() -> None:
    """A token with the thumbprint of a key is refused where no proof is checked, and read where one is."""
    with pytest.raises(DpopRequired):
        verifier()(token(cnf={"jkt": JKT}))
    confirmed = verifier().verify(token(cnf={"jkt": JKT}), NOW).cnf
    assert confirmed is not None
    assert confirmed.jkt == JKT
