"""The issuers that have a name, by stand-ins of the answers that they document."""

from __future__ import annotations

import json
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from tests.issuer import CLIENT, SECRET, FaultyIssuer, House, begin, come_back, give, me, words
from tests.web.test_form_pages import FORM

from dutchdoor import issuers
from dutchdoor.auth import Auth
from dutchdoor.errors import Misconfigured
from dutchdoor.issuers.identity import Identity
from dutchdoor.issuers.presets import PRESETS
from dutchdoor.jose import jws
from dutchdoor.jose.jwk import Key
from dutchdoor.model.policy import Policy

TENANT = "00000000-0000-0000-0000-00000000000a"


def house_of(issuer: FaultyIssuer, preset: str, **more: Any) -> House:
    made = PRESETS[preset](**{"client_id": CLIENT, "client_secret": SECRET, **more})
    return House(issuer, name="unused", also=[made])


def there(client: Any, name: str) -> str:
    return begin(client, f"/auth/issuers/{name}/start")


GITHUB_USER = {"login": "ada", "id": 1815, "name": "Ada", "email": None, "type": "User"}
GITHUB_MAILS = [
    {"email": "old@example.com", "primary": False, "verified": True, "visibility": None},
    {"email": "ada@example.com", "primary": True, "verified": True, "visibility": "private"},
]


def github(issuer: FaultyIssuer, user: Any = GITHUB_USER, mails: Any = GITHUB_MAILS, **token: Any) -> House:
    issuer.replies |= {
        "/login/oauth/access_token": lambda r: give(r, 200, token or {"access_token": "gho_x", "scope": "user:email"}),
        "/api/v3/user": lambda r: give(r, 200, user),
        "/api/v3/user/emails": lambda r: give(r, 200, mails),
    }
    return house_of(issuer, "github", url=issuer.url, trusted_for=["example.com"])


def test_github_names_people_by_their_number(issuer: FaultyIssuer) -> None:
    """Without an ID token: the number, the name and the primary verified address come from GitHub's API."""
    house = github(issuer)
    with house.browser() as client:
        way = there(client, "github")
        assert "code_challenge_method=S256" in way and "scope=user%3Aemail" in way
        state = parse_qs(urlsplit(way).query)["state"][0]
        done = come_back(client, {"code": "c", "state": state}, "github")
        assert done.status_code == 303, words(done)
        assert (me(client)["user"]["email"], me(client)["user"]["name"]) == ("ada@example.com", "Ada")
        (identity,) = house.identities("ada@example.com")
        assert identity.issuer == "github"


@pytest.mark.parametrize(("user", "mails", "token", "status"), [
    ({"id": "1815"}, GITHUB_MAILS, {}, 503),
    ({}, GITHUB_MAILS, {}, 503),
    (GITHUB_USER, [], {}, 403),
    (GITHUB_USER, {"message": "Not Found"}, {}, 403),
    (GITHUB_USER, GITHUB_MAILS, {"error": "bad_verification_code"}, 403),
    (GITHUB_USER, GITHUB_MAILS, {"error": "incorrect_client_credentials"}, 503),
], ids=["text", "nothing", "no-address", "no-list", "used-code", "wrong-secret"])  # fmt: skip
def test_what_github_refuses_signs_no_one_in(
    issuer: FaultyIssuer, user: Any, mails: Any, token: dict[str, Any], status: int
) -> None:
    """It answers 200 for many of them."""
    house = github(issuer, user, mails, **token)
    with house.browser() as client:
        state = parse_qs(urlsplit(there(client, "github")).query)["state"][0]
        assert come_back(client, {"code": "c", "state": state}, "github").status_code == status
        assert me(client) is None


def microsoft(issuer: FaultyIssuer, **more: Any) -> House:
    template = f"{issuer.url}/{{tenantid}}/v2.0"
    issuer.replies["/common/v2.0/.well-known/openid-configuration"] = lambda r: give(
        r, 200, {**issuer.document(), "issuer": template}
    )
    issuer.claims = {"iss": template.replace("{tenantid}", TENANT), "tid": TENANT}
    return house_of(issuer, "microsoft", url=template, **more)


def test_microsoft_has_many_tenants(issuer: FaultyIssuer) -> None:
    """The `iss` of a token is that of its tenant. An address there links to nothing: anyone can own a tenant."""
    house = microsoft(issuer)
    with house.browser() as client, house.browser() as owner:
        way = there(client, "microsoft")
        assert come_back(client, issuer.answer(way), "microsoft").status_code == 303
        assert me(client)["user"]["email_verified"] is False, "the issuer is trusted for no address"
        issuer.claims["tid"] = TENANT[:-1] + "b"
        assert come_back(owner, issuer.answer(there(owner, "microsoft")), "microsoft").status_code == 403


def test_a_key_of_one_microsoft_tenant_signs_for_no_other(issuer: FaultyIssuer) -> None:
    """A key set says for which issuer a key is."""
    issuer.published = [{**issuer.key.public_jwk(), "issuer": f"{issuer.url}/{TENANT[:-1]}c/v2.0"}]
    house = microsoft(issuer)
    with house.browser() as client:
        assert come_back(client, issuer.answer(there(client, "microsoft")), "microsoft").status_code == 403


def test_keys_without_an_alg_are_of_the_one_that_the_metadata_lists(issuer: FaultyIssuer) -> None:
    """Microsoft's RSA keys do not name their algorithm."""
    issuer.key = Key.generate("RS256", kid="rsa")
    bare = {name: value for name, value in issuer.key.public_jwk().items() if name != "alg"}
    unused = {name: value for name, value in Key.generate("RS256", kid="enc").public_jwk().items() if name != "alg"}
    issuer.published = [bare, unused | {"use": "enc"}, Key.generate("ES256", kid="ec").public_jwk()]
    issuer.metadata["id_token_signing_alg_values_supported"] = ["RS256"]
    house = microsoft(issuer)
    with house.browser() as client:
        assert come_back(client, issuer.answer(there(client, "microsoft")), "microsoft").status_code == 303


def apple_key() -> str:
    private = ec.generate_private_key(ec.SECP256R1())
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def test_apple_posts_a_form_and_gets_a_signed_secret(issuer: FaultyIssuer) -> None:
    """The answer comes as a form from Apple's own page. It touches nothing, and leads on. The client secret is a JWT by
    our key, and the name comes beside the first answer alone.
    """
    pem = apple_key()
    more = {"key_id": "ABC123DEFG", "team_id": "DEF123GHIJ", "client_secret": pem}
    house = house_of(issuer, "apple", url=issuer.url, trusted_for=["example.com"], **more)
    issuer.metadata["token_endpoint_auth_methods_supported"] = ["client_secret_post"]
    checked: list[dict[str, Any]] = []

    def exchange(request: Any) -> None:
        form = {name: values[0] for name, values in parse_qs(issuer.last_body.decode()).items()}
        key = Key.from_private_bytes("ES256", der_of(pem), kid="ABC123DEFG")
        checked.append(json.loads(jws.verify(form["client_secret"], key.public())))
        issuer_secret = {"client_secret": SECRET}
        give(request, *issuer.exchange({}, form | issuer_secret))

    issuer.replies["/token"] = exchange
    with house.browser() as client:
        way = there(client, "apple")
        assert "response_mode=form_post" in way
        user = json.dumps({"name": {"firstName": "Ada", "lastName": "Lovelace"}, "email": "x@example.com"})
        posted = {**issuer.answer(way), "user": user}
        cross = {**FORM, "origin": "https://appleid.apple.com", "sec-fetch-site": "cross-site"}
        page = client.post("/auth/issuers/apple/callback", data=posted, headers=cross)
        assert page.status_code == 200 and not page.headers.get_list("set-cookie")
        done = client.get(page.headers["refresh"].removeprefix("0;url="))
        assert done.status_code == 303, words(done)
        assert me(client)["user"]["name"] == "Ada Lovelace"
    (claims,) = checked
    assert (claims["iss"], claims["sub"], claims["aud"]) == ("DEF123GHIJ", CLIENT, issuer.url)
    assert claims["exp"] - claims["iat"] <= 300
    assert pem.splitlines()[1] not in repr(house.configured)


def der_of(pem: str) -> bytes:
    return load_pem_private_key(pem.encode(), None).private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def test_google_is_trusted_for_its_own_mailboxes() -> None:
    """For gmail.com, and for the domain of a workspace that `hd` names; a rule about domains asks for both."""
    google = issuers.google(client_id="c", client_secret="s")

    def person(email: str, **claims: Any) -> Identity:
        return Identity(issuer=google.url, subject="1", email=email, email_verified=True, claims=claims)

    assert google.vouches_for(person("Ada@gmail.com"))
    assert google.vouches_for(person("ada@staff.example", hd="staff.example"))
    assert not google.vouches_for(person("ada@staff.example"))
    assert not google.vouches_for(person("ada@other.example", hd="staff.example"))
    staff = issuers.google(client_id="c", client_secret="s", domains=["Staff.example"])
    assert staff.admits(person("ada@staff.example", hd="staff.example"))
    assert not staff.admits(person("ada@staff.example"))
    assert not staff.admits(person("ada@gmail.com", hd="gmail.com"))
    assert not google.vouches_for(Identity(issuer=google.url, subject="1", email="a@gmail.com"))


@pytest.mark.parametrize(("make", "says"), [
    (lambda: issuers.google(client_id=""), "client_id is missing"),
    (lambda: issuers.google(client_id="c", color="red"), "color is not known"),
    (lambda: issuers.google(client_id="c", client_secrt="s"), "Did you mean client_secret?"),
    (lambda: issuers.google(client_id="c", domains="example.com"), 'domains=["example.com"]'),
    (lambda: issuers.google(client_id="c", domains=["*"]), "not a domain"),
    (lambda: issuers.google(client_id="c", registers="sometimes"), "policy"),
    (lambda: issuers.google(client_id="c", name="Google!"), "a-z"),
    (lambda: issuers.google(client_id="c", scope="email"), "openid"),
    (lambda: issuers.google(client_id="c", roles={"a": "b"}), "roles_claim"),
    (lambda: issuers.keycloak(client_id="c"), "needs url"),
    (lambda: issuers.keycloak(client_id="c", url="http://sso.example.com/realms/a"), "https"),
    (lambda: issuers.openid(client_id="c", url="https://a.example"), "The issuer needs name, such as company."),
    (lambda: issuers.openid(client_id="c", color="red"), "The issuer: color is not known"),
    (lambda: issuers.microsoft(client_id="c", trusted_for=["*"]), "one tenant"),
    (lambda: issuers.microsoft(client_id="c", roles_claim="groups", roles={"a": "admin"}), "one tenant"),
    (lambda: issuers.apple(client_id="c", client_secret="s"), "key_id"),
    (lambda: issuers.github(client_id="c"), "client_secret"),
    (lambda: Auth("memory:", issuers=[PRESETS["apple"](client_id="c", client_secret="s", key_id="k", team_id="t")]),
     "PEM"),
    (lambda: Auth("memory:", issuers=[issuers.google(client_id="a"), issuers.google(client_id="b")]), "google-2"),
    (lambda: Auth("memory:", issuers=cast("Any", issuers.google)), "Give a list"),
    (lambda: Auth("memory:", issuers=[issuers.google(client_id="a")], policy=Policy(modes=("jwt",))),
     "session or hybrid"),
])  # fmt: skip
def test_each_mistake_says_the_fix(make: Any, says: str) -> None:
    """A wrong or missing value stops the start, and the secret is in no message."""
    with pytest.raises(Misconfigured) as refusal:
        make()
    assert says in str(refusal.value)
