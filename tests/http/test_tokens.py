"""Bad tokens at the server's own doors: whatever is wrong with one, it is 401 and one answer, and inactive.

Each token here differs from a good one in one thing and is signed by the server's own key where a signature is wanted,
so that nothing else can be what it was refused for. `tests/jose/test_jws.py` and `tests/jose/test_access_token.py`
hold the same laws inside the verifier; this file holds that no endpoint goes around it.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import math
import random
from functools import partial
from typing import Any, NamedTuple

import pytest
from cryptography.hazmat.primitives import serialization
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.costs import cost_of
from tests.http.world import MARK, REFRESH, REGISTRANT, SESSION, Answer, World, a_world, basic
from tests.jose.pem import public_pem

from dutchdoor.errors import InvalidKey, Misconfigured
from dutchdoor.jose.jwk import Key
from dutchdoor.jose.weak_secrets import is_known_leaked
from dutchdoor.model.accounts import Credential
from dutchdoor.model.policy import DAY, STANDARD
from dutchdoor.services.registration import proof_of
from dutchdoor.stores.base import Add

INACTIVE = b'{"active":false}'


def b64(raw: bytes | str) -> str:
    return base64.urlsafe_b64encode(raw.encode() if isinstance(raw, str) else raw).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class Bench(NamedTuple):
    """A world with a good token taken apart, and the means to make others."""

    world: World
    good: str
    header: dict[str, Any]
    claims: dict[str, Any]
    key: Key
    service: tuple[str, str]

    def sign(self, header: Any = None, claims: Any = None, **changes: Any) -> str:
        """Make a token with our key: `header` and `claims` as text or as a dict, `changes` over the good claims."""
        head = self.header if header is None else header
        body = {**self.claims, **changes} if claims is None else claims
        parts = [b64(part if isinstance(part, str | bytes) else json.dumps(part)) for part in (head, body)]
        signed = ".".join(parts).encode()
        return ".".join([*parts, b64(self.key.sign(signed))])

    async def ask(self, token: str, path: str = "/auth/me") -> Answer:
        return await self.world.call("GET", path, headers=[("authorization", f"Bearer {token}")])

    async def active(self, token: str) -> bytes:
        answer = await self.world.call(
            "POST", "/oauth2/introspect", form={"token": token}, headers=[basic(self.service)]
        )
        assert answer.status == 200
        return answer.body

    async def refuse(self, *tokens: str, log_out: bool = True) -> None:
        """Hold that each is refused at every door with one and the same answer."""
        for token in tokens:
            shown = token[:200]
            if token.isprintable() and token.isascii() and token:
                for path in ("/auth/me", "/auth/check", "/auth/sessions"):
                    answer = await self.ask(token, path)
                    assert (answer.status, answer.code) == (401, "invalid_token"), shown
                    assert answer.header("www-authenticate") == 'Bearer realm="dutchdoor", error="invalid_token"'
                if log_out:
                    headers = [("authorization", f"Bearer {token}")]
                    assert (await self.world.call("POST", "/auth/logout", headers=headers)).status == 401, shown
            if token and len(token) < 60_000:
                assert await self.active(token) == INACTIVE, shown
        assert (await self.ask(self.good)).status == 200, "the good token still is"


@pytest.fixture
async def bench(world: World) -> Bench:
    await world.register()
    program = world.program()
    await program.login(mode="hybrid")
    header, claims, _ = program.access.split(".")
    key = world.auth.authority.ring.signing(world.clock(), "ES256")
    made = Bench(
        world, program.access, json.loads(unb64(header)), json.loads(unb64(claims)), key, await world.add_client()
    )
    assert (await made.ask(made.sign())).status == 200, "what the bench signs is good"
    assert b'"active":true' in await made.active(made.sign())
    return made


async def test_j01_no_alg_but_the_keys_own(bench: Bench) -> None:
    """`none` in any case, another algorithm, another spelling, a list, null or no alg at all is refused."""
    unsigned = [
        b64(json.dumps({**bench.header, "alg": alg})) + "." + b64(json.dumps(bench.claims)) + "."
        for alg in ("none", "None", "nOnE", "NONE", "")
    ]
    algs = ("none", "hs256", "es256", "ES384", "RS256", "HS256", "EdDSA", "ES256 ", ["ES256"], None, 1, True, {"a": 1})
    await bench.refuse(*unsigned, *(bench.sign({**bench.header, "alg": alg}) for alg in algs))
    await bench.refuse(bench.sign({"kid": bench.header["kid"], "typ": "at+jwt"}))


async def test_j02_a_public_key_is_no_hmac_secret(bench: Bench) -> None:
    """HS256 with our public key as the secret, in PEM, DER, JWK, JWKS and mutated spellings, forges nothing."""
    jwks = (await bench.world.call("GET", "/.well-known/jwks.json")).body
    pem = public_pem(bench.key)
    public = serialization.load_pem_public_key(pem)
    der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    ssh = public.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    jwk = json.dumps(json.loads(jwks)["keys"][0]).encode()
    for alg, digest in (("HS256", hashlib.sha256), ("HS384", hashlib.sha384), ("HS512", hashlib.sha512)):
        for secret in (pem, pem.strip(), b" " + pem, pem.replace(b"\n", b"\r\n"), der, ssh, jwk, jwks, b""):
            for header in ({**bench.header, "alg": alg}, {"alg": alg, "typ": "at+jwt"}):
                signed = f"{b64(json.dumps(header))}.{b64(json.dumps(bench.claims))}"
                tag = hmac.digest(secret, signed.encode(), digest)
                await bench.refuse(f"{signed}.{b64(tag)}")


async def test_j03_a_token_that_brings_its_key_is_refused_without_a_call(bench: Bench) -> None:
    """jwk, jku, x5u and x5c in a header are never used: the token is refused, and no server is called."""
    connections = 0

    async def called(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        writer.close()

    listener = await asyncio.start_server(called, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/keys"
    foreign = Key.generate("ES256", kid=bench.header["kid"])
    brought = [{"jwk": foreign.public_jwk()}, {"jku": url}, {"x5u": url}, {"x5c": ["AAAA"]}, {"jku": url, "x5u": url}]
    for more in brought:
        header = {**bench.header, **more}
        await bench.refuse(bench._replace(key=foreign).sign(header), bench.sign(header))
        await bench.refuse(bench._replace(key=foreign).sign({**header, "kid": "other"}))
    await bench.refuse(bench.sign(iss=url), bench._replace(key=foreign).sign())
    await asyncio.sleep(0.05)
    listener.close()
    assert connections == 0


async def test_j04_a_kid_is_a_name_and_nothing_else(bench: Bench) -> None:
    """A kid that is a path, SQL, a command, a megabyte, a number, null or a list finds no key and causes no error."""
    kids: list[Any] = [
        *("../../dev/null", "' OR '1'='1", "|sleep 10", "x' UNION SELECT 'AA", "", "\0", "a" * 4096, 1, None, [], {}),
        *(bench.header["kid"] + " ", bench.header["kid"].lower() + "x", [bench.header["kid"]], True, 1.5),
    ]
    await bench.refuse(*(bench.sign({**bench.header, "kid": kid}) for kid in kids))
    huge = bench.sign({**bench.header, "kid": "k" * (1 << 20)})
    assert (await bench.ask(huge)).status == 401
    assert await cost_of(lambda: bench.ask(huge)) < 0.1


async def test_j05_crit_and_b64_are_refused(bench: Bench) -> None:
    """Any `crit`, known, unknown or empty, and any `b64` is refused."""
    for more in (
        *({"crit": []}, {"crit": ["exp"]}, {"crit": ["x"], "x": 1}, {"crit": "exp"}, {"crit": None}),
        *({"b64": False, "crit": ["b64"]}, {"b64": False}, {"b64": True, "crit": ["b64"]}),
    ):
        await bench.refuse(bench.sign({**bench.header, **more}))


async def test_j06_one_token_has_one_text(bench: Bench) -> None:
    """JSON serialisations, more or fewer parts, padding, `+` and `/`, spaces and spare bits are refused. (White space
    at the end of a field is no part of its value: RFC 9110, 5.5.)
    """
    head, body, tag = bench.good.split(".")
    flat = {"payload": body, "protected": head, "signature": tag}
    spare = tag[:-1] + chr(ord(tag[-1]) + 1)
    padded = f"{head}==.{body}.{tag}" if len(head) % 4 else f"{head}.{body}.{tag}=="
    await bench.refuse(
        json.dumps(flat),
        json.dumps({"payload": body, "signatures": [{"protected": head, "signature": tag}]}),
        *(f"{head}.{body}", f"{head}.{body}.", f"{head}..{tag}", f".{body}.{tag}", f"{bench.good}.", f"{bench.good}.x"),
        *(f"..{bench.good}", "..", ".", "x", "a.b.c", padded, f"{head}.{body}.{tag}==", spare),
        *(
            f"{head}.{body}.{spare}",
            f"{head}\n.{body}.{tag}",
            f"{head}.{body} .{tag}",
            f"{bench.good}\0",
        ),
        *(f'"{bench.good}"', f"{head}.{body}.{tag}%3D", f"{head},{body},{tag}", bench.good + bench.good),
    )
    for swapped in (bench.good.replace("-", "+"), bench.good.replace("_", "/")):
        if swapped != bench.good:
            await bench.refuse(swapped)


DEEP = '{"a":' * 40 + "1" + "}" * 40


async def test_j07_json_is_strict_and_bounded(bench: Bench) -> None:
    """A BOM, a duplicate name, NaN, depth, another type, bad UTF-8 and more than 8 KiB are refused, in header and
    claims; the size before any cryptography.
    """
    header, claims = json.dumps(bench.header), json.dumps(bench.claims)
    duplicated = claims[:-1] + f', "sub": "{bench.claims["sub"]}"}}'
    for text in (
        *("\ufeff" + claims, duplicated, claims[:-1] + ', "x": NaN}', claims[:-1] + ', "x": Infinity}'),
        *(claims[:-1] + f', "x": {DEEP}}}', f"[{claims}]", f'"{claims[1:4]}"', "null", "1", claims + "x", claims[:-1]),
        *(claims[:-1] + ",}", claims.replace('"', "'"), ""),
    ):
        await bench.refuse(bench.sign(claims=text))
    for text in ("\ufeff" + header, header[:-1] + ', "alg": "ES256"}', f"[{header}]", header[:-1] + f', "x": {DEEP}}}'):
        await bench.refuse(bench.sign(header=text))
    await bench.refuse(bench.sign(claims=claims.encode()[:-1] + b', "x": "\xff"}'))
    unseen = dict(reversed(bench.header.items()))  # a header that was judged before is remembered with its key
    large = bench.sign(unseen, x="y" * 9000)
    checked = 0

    def counting(inner: Any) -> Any:
        def check(signature: bytes, signed: bytes) -> bool:
            nonlocal checked
            checked += 1
            return bool(inner(signature, signed))

        return check

    keys = list(bench.world.auth.authority._verifiers[0].keys)
    for own in keys:
        own.check = counting(own.check)
    assert (await bench.ask(large)).status == 401
    assert checked == 0
    assert (await bench.ask(bench.sign(unseen, jti="another"))).status == 200
    assert checked == 1, "and the counter counts"


async def test_j08_times_are_numbers_in_range(bench: Bench) -> None:
    """exp, iat, nbf and auth_time that are text, booleans, null, lists, NaN, beyond the year 9999 or of 4,200 digits
    are refused with the one answer.
    """
    claims = json.dumps(bench.claims)
    for name in ("exp", "iat", "nbf", "auth_time"):
        for value in (
            *('"1800000000"', "true", "false", "[1]", "{}", "NaN", "1e400", "-1", "253402300800", "1" * 4200, '""'),
            *("-Infinity", "1e309", "0x10"),
        ):
            text = claims[:-1] + f', "{name}": {value}}}'
            without = {key: v for key, v in bench.claims.items() if key != name}
            await bench.refuse(
                bench.sign(claims=text), bench.sign(claims=json.dumps(without)[:-1] + f', "{name}": {value}}}')
            )
        if name in {"exp", "iat"}:
            await bench.refuse(bench.sign(**{name: None}))


async def test_j09_time_is_held_to_the_second(bench: Bench) -> None:
    """A token without exp is refused; one is good until its exp and, with the leeway of at most 60 s, no longer; one
    from the future is not good yet.
    """
    without = {key: value for key, value in bench.claims.items() if key != "exp"}
    await bench.refuse(bench.sign(claims=without))
    now = math.floor(bench.world.clock())
    leeway = bench.world.auth.authority._verifiers[0].leeway
    assert 0 <= leeway <= 60
    assert (await bench.ask(bench.sign(iat=now - 90, exp=now - leeway + 1))).status == 200
    assert (await bench.ask(bench.sign(iat=now + leeway, nbf=now + leeway))).status == 200
    await bench.refuse(*(bench.sign(iat=now - 90, exp=now - leeway - late) for late in (0, 1)), log_out=False)
    await bench.refuse(bench.sign(iat=now + leeway + 2), bench.sign(nbf=now + leeway + 2), log_out=False)
    bench.world.clock.forward(bench.claims["exp"] - bench.world.clock() - 1)
    assert (await bench.ask(bench.good)).status == 200
    bench.world.clock.forward(1 + leeway)
    assert (await bench.ask(bench.good)).status == 401


async def test_j10_the_issuer_is_us(bench: Bench) -> None:
    """Another issuer, a prefix, other case, a slash more, a list with ours in it, or none is refused."""
    iss = bench.claims["iss"]
    values: list[Any] = [f"{iss}/", iss[:-1], iss.upper(), f"{iss}.evil.net", [iss], None, "", 1, {"iss": iss}]
    await bench.refuse(*(bench.sign(iss=value) for value in values))
    await bench.refuse(bench.sign(claims={key: v for key, v in bench.claims.items() if key != "iss"}))


async def test_j11_the_audience_is_us(bench: Bench) -> None:
    """A token for others, for no audience, or with something that is no audience in the list is refused."""
    aud = bench.claims["aud"]
    ours = aud if isinstance(aud, str) else aud[0]
    values: list[Any] = [
        "https://other.example.com",
        [],
        ["x"],
        {},
        None,
        1,
        "",
        ours.upper(),
        [[ours]],
        [ours, 1],
        {ours: 1},
    ]
    await bench.refuse(*(bench.sign(aud=value) for value in values))
    await bench.refuse(bench.sign(claims={key: v for key, v in bench.claims.items() if key != "aud"}))
    assert (await bench.ask(bench.sign(aud=["https://other.example.com", ours]))).status == 200


async def test_j30_a_bound_token_is_refused_at_every_door(bench: Bench) -> None:
    """A token of ours that is bound to a key is no bearer token at any endpoint. Introspection names the key, so that
    who asks can check the proof. One that is bound in a way not known here is no token at all.
    """
    bound = bench.sign(cnf={"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"})
    for path in ("/auth/me", "/auth/check", "/auth/sessions"):
        answer = await bench.ask(bound, path)
        assert (answer.status, answer.code) == (401, "dpop_required")
        assert str(answer.header("www-authenticate")).startswith(
            'DPoP realm="dutchdoor", error="invalid_token", algs="'
        )
    active = json.loads(await bench.active(bound))
    assert (active["token_type"], active["cnf"]) == ("DPoP", {"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"})
    await bench.refuse(bench.sign(cnf={"x5t#S256": "x"}), bench.sign(cnf=None))


async def test_j12_only_an_access_token_is_one(bench: Bench) -> None:
    """A token of another type, signed by the very same key, is none: typ is `at+jwt`."""
    types: list[Any] = [
        "JWT",
        "jwt",
        "id_token+jwt",
        "logout+jwt",
        "secevent+jwt",
        "dpop+jwt",
        "",
        None,
        1,
        "at+jwt ",
        ["at+jwt"],
    ]
    await bench.refuse(*(bench.sign({**bench.header, "typ": typ}) for typ in types))
    await bench.refuse(bench.sign({key: v for key, v in bench.header.items() if key != "typ"}))


JAR = "A" * 22
"""The secret of the browser that registered."""


async def artefacts(world: World) -> dict[str, str]:
    """One good artefact of each kind, all of one account."""
    await world.register("kinds@example.com")
    browser, cookied, program = world.browser(), world.browser(), world.program()
    await browser.login("kinds@example.com", mode="session")
    await cookied.login("kinds@example.com", mode="hybrid")
    await program.login("kinds@example.com", mode="hybrid")
    account = await world.store.account_by_email("kinds@example.com")
    assert account is not None
    registration = Credential(
        subject=account.subject, method="registration", handle="", proof=proof_of(JAR), created_at=world.clock()
    )
    await world.store.commit(Add(registration))
    await world.directory.registration.send_verification(account, world.api_client())
    verify = world.mailbox.token()
    await world.call("POST", "/auth/password/forgot", json={"email": "kinds@example.com"})
    await world.posted()
    checked = await world.check(bearer=program.access)
    return {
        "session": browser.jar[f"__Host-{SESSION}"],
        "refresh cookie": cookied.jar[f"__Host-{REFRESH}"],
        "refresh": program.refresh,
        "access": program.access,
        "passed on": checked.header("x-auth-token") or "",
        "csrf": browser.csrf,
        "mark": browser.jar[f"__Host-{MARK}"],
        "session id": browser.session_id,
        "reset": world.mailbox.token(),
        "verify": verify,
        "registrant": JAR,
        "client secret": (await world.add_client())[1],
    }


async def test_j12_c20_each_artefact_opens_its_own_door_only(world: World) -> None:
    """Session, refresh, access, CSRF and one-time tokens, marks, ids and client secrets, each presented wherever any
    of them is: only the diagonal is 2xx.
    """
    kinds = await artefacts(world)
    new = "a third phrase altogether 11"
    doors: dict[str, tuple[set[str], dict[str, Any]]] = {
        "bearer": ({"access"}, {"method": "GET", "path": "/auth/me", "how": "bearer"}),
        "session cookie": ({"session"}, {"method": "GET", "path": "/auth/me", "how": f"__Host-{SESSION}"}),
        "refresh cookie": (
            {"refresh cookie", "refresh"},
            {"method": "GET", "path": "/auth/csrf", "how": f"__Host-{REFRESH}"},
        ),
        "refresh body": (
            {"refresh", "refresh cookie"},
            {"method": "POST", "path": "/auth/refresh", "json": "refresh_token"},
        ),
        "csrf by bearer": ({"access"}, {"method": "GET", "path": "/auth/csrf", "how": "bearer"}),
        "token endpoint": (
            {"refresh", "refresh cookie"},
            {
                "method": "POST",
                "path": "/oauth2/token",
                "form": {"grant_type": "refresh_token"},
                "how": "refresh_token",
            },
        ),
        "verify": (
            {"verify"},
            {
                "method": "POST",
                "path": "/auth/email/verify",
                "json": "token",
                "beside": f"__Host-{REGISTRANT}={JAR}",
            },
        ),
        "setup": (
            set(),
            {
                "method": "POST",
                "path": "/auth/setup",
                "json": "token",
                "more": {"email": "x@example.com", "password": new},
            },
        ),
        "reset": (
            {"reset"},
            {"method": "POST", "path": "/auth/password/reset", "json": "token", "more": {"new_password": new}},
        ),
    }
    for door, (opens, how) in doors.items():
        for kind, artefact in sorted(kinds.items(), key=lambda item: item[0] in opens):
            more: dict[str, Any] = {}
            if "beside" in how:
                more["cookie"] = how["beside"]
            if "json" in how:
                more["json"] = {how["json"]: artefact, **how.get("more", {})}
            elif "form" in how:
                more["form"] = {**how["form"], how["how"]: artefact}
            elif how["how"] == "bearer":
                more["bearer"] = artefact
            else:
                more["cookie"] = f"{how['how']}={artefact}"
            answer = await world.call(how["method"], how["path"], **more)
            assert (answer.status // 100 == 2) == (kind in opens), (door, kind, answer)


async def test_j13_an_access_token_says_what_the_profile_wants(bench: Bench) -> None:
    """It carries iss, exp, aud, sub, client_id, iat, jti and sid, nothing secret or personal, and a new jti."""
    assert {"iss", "exp", "aud", "sub", "client_id", "iat", "jti", "sid"} <= set(bench.claims)
    allowed = {
        "iss",
        "sub",
        "aud",
        "exp",
        "iat",
        "jti",
        "client_id",
        "sid",
        "epoch",
        "auth_time",
        "amr",
        "acr",
        "roles",
        "scope",
    }
    assert set(bench.claims) <= allowed
    assert set(bench.header) == {"alg", "kid", "typ"}
    again = bench.world.program()
    await again.login(mode="hybrid")
    assert json.loads(unb64(again.access.split(".")[1]))["jti"] != bench.claims["jti"]
    assert bench.claims["exp"] - bench.claims["iat"] == STANDARD.access_for
    for name in ("iat", "jti", "sub", "client_id"):
        await bench.refuse(bench.sign(claims={key: v for key, v in bench.claims.items() if key != name}))


async def test_j14_weak_keys_sign_nothing_here(bench: Bench) -> None:
    """A token signed by an HMAC secret everyone knows is refused here, and no key is made of one or of a short one."""
    for secret in (b"secret", b"your-256-bit-secret", b"changeme", b"key", b"jwt-secret"):
        header = {**bench.header, "alg": "HS256"}
        signed = f"{b64(json.dumps(header))}.{b64(json.dumps(bench.claims))}"
        await bench.refuse(f"{signed}.{b64(hmac.digest(secret, signed.encode(), 'sha256'))}")
        with pytest.raises(InvalidKey):
            Key.from_secret(secret)
    assert is_known_leaked(b"your-256-bit-secret")
    with pytest.raises(Misconfigured):
        World(alg="HS256", audience=["https://one.example.com", "https://two.example.com"])


async def test_j15_what_is_published_is_public(world: World) -> None:
    """The key set holds public members only, no secret key, unique kids, and may be cached; HS256 has none."""
    for alg, kty in (("ES256", "EC"), ("EdDSA", "OKP"), ("RS256", "RSA"), ("HS256", None)):
        async with a_world(alg=alg) as one:
            answer = await one.call("GET", "/.well-known/jwks.json")
            if kty is None:
                assert answer.status == 404
                continue
            assert answer.header("cache-control") == "public, max-age=300"
            one.clock.forward(29.5 * DAY)
            keys = (await one.call("GET", "/.well-known/jwks.json")).json["keys"]
            assert len({key["kid"] for key in keys}) == len(keys) == 2, "the next key is published before it signs"
            for key in keys:
                assert key["kty"] == kty
                assert not set(key) & {"d", "p", "q", "dp", "dq", "qi", "k", "oth"}
                assert (key["use"], key["alg"]) == ("sig", alg)


async def test_j16_an_encrypted_token_is_refused_for_nothing(bench: Bench) -> None:
    """JWEs, bombs that inflate and those that ask for a million rounds included, are refused in milliseconds."""
    heads: list[dict[str, Any]] = [
        {"alg": "dir", "enc": "A256GCM", "zip": "DEF"},
        {"alg": "PBES2-HS256+A128KW", "enc": "A128GCM", "p2c": 2**31 - 1, "p2s": "AAAA"},
        {"alg": "RSA1_5", "enc": "A128CBC-HS256"},
        {"alg": "RSA-OAEP", "enc": "A256GCM", "typ": "at+jwt", "kid": bench.header["kid"]},
    ]
    for head in heads:
        for tail in (f".{b64('x' * 60)}.{b64('y' * 12)}.{b64('z' * 4000)}.{b64('t' * 16)}", f"..{b64('z' * 6000)}.."):
            token = b64(json.dumps(head)) + tail
            await bench.refuse(token)
            assert await cost_of(partial(bench.ask, token)) < 0.05


MUTATIONS = st.lists(
    st.tuples(st.sampled_from(["flip", "cut", "insert", "swap"]), st.floats(0, 0.999), st.integers(33, 126)),
    min_size=1,
    max_size=4,
)


def mutated(token: str, changes: list[tuple[str, float, int]]) -> str:
    for kind, where, letter in changes:
        at = int(where * max(1, len(token)))
        match kind:
            case "flip":
                token = token[:at] + chr(letter) + token[at + 1 :]
            case "cut":
                token = token[:at] + token[at + 1 + letter % 7 :]
            case "insert":
                token = token[:at] + chr(letter) * (letter % 5) + token[at:]
            case "swap":
                token = token[at:] + token[:at]
    return token


async def test_j17_no_mutation_is_accepted_and_none_is_a_500(bench: Bench) -> None:
    """Thousands of mutations of a good token, of its parts, and texts that are no token at all: 401, one code."""

    @settings(max_examples=2 * settings.default.max_examples, suppress_health_check=list(HealthCheck), database=None)
    @given(
        st.one_of(
            MUTATIONS.map(lambda changes: mutated(bench.good, changes)),
            st.text(st.characters(codec="ascii", categories=["L", "N", "P", "S"]), max_size=300),
        )
    )
    def collect(token: str) -> None:
        seen.append(token)

    seen: list[str] = []
    collect()
    draw = random.Random(3)
    head, body, tag = bench.good.split(".")
    for _ in range(400):
        raw = bytearray(unb64(body))
        raw[draw.randrange(len(raw))] = draw.randrange(256)
        seen.append(bench.sign(claims=bytes(raw)))
        seen.append(f"{head}.{b64(bytes(raw))}.{tag}")
    for token in seen:
        if not token.isascii() or not token.isprintable() or not token:
            continue
        answer = await bench.ask(token)
        assert answer.status in {200, 401}, token
        if answer.status == 200:  # signed by us, and still a good token: another jti, say
            claims = json.loads(unb64(token.split(".")[1]))
            assert claims["sub"] == bench.claims["sub"]
            assert claims.get("sid") in {None, bench.claims["sid"]}  # None: a stateless token of the same subject
            assert token != f"{head}.{token.split('.')[1]}.{tag}" or token == bench.good
        else:
            assert answer.code == "invalid_token"


@pytest.mark.soak
async def test_j17_a_hundred_thousand_mutations(bench: Bench) -> None:
    """100,000 random mutations of a good token are 401, and none is a 500."""
    draw = random.Random(17)
    for _ in range(100_000):
        changes = [
            (draw.choice(["flip", "cut", "insert", "swap"]), draw.random(), draw.randrange(33, 127))
            for _ in range(draw.randint(1, 4))
        ]
        token = mutated(bench.good, changes)
        if token and token != bench.good:
            answer = await bench.ask(token)
            assert (answer.status, answer.code) == (401, "invalid_token")


@pytest.mark.parametrize(
    "value",
    [
        "Bearer",
        "Bearer ",
        "bearer  x",
        "Bearer a b",
        "Basic Og==",
        "Digest x",
        "",
        "Bearer,",
        "\u00e9",
        "Bearer \u00e9",
        "Bearer " + "x" * 20000,
    ],
)
async def test_j17_any_authorization_header_is_a_401(bench: Bench, value: str) -> None:
    """What is no bearer token at all is 401, too, never a 500."""
    answer = await bench.world.call("GET", "/auth/me", headers=[("authorization", value)])
    assert answer.status == 401
