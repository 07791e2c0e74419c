"""What a verifier says of a token that is bound to a key, with the authority there and away."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from tests.verifier.standin import ASK, POLL, Standin, until
from tests.verifier.test_verifier import Later, made_stale

from dutchdoor import DpopProof, Verifier
from dutchdoor.client.dpop import Nonces, ProofKey
from dutchdoor.errors import DpopRequired, InvalidDpopProof, Misconfigured, Unavailable, UseDpopNonce
from dutchdoor.model.ids import new_id
from dutchdoor.model.service_credentials import VerifierSecret

URL = "https://orders.example.com/orders/7"
Make = Callable[..., Verifier]


class Client:
    """A program with a key, and the nonce that the service gave it."""

    def __init__(self) -> None:
        self.key, self.nonces = ProofKey.generate(), Nonces(time.time)

    def shows(self, verifier: Verifier, token: str) -> str:
        """Show a token with a proof, and with a nonce if that is asked for. Returns the key that the principal has."""
        try:
            return verifier(token, self.proof(token)).bound_to
        except UseDpopNonce as asked:
            self.nonces.learn(URL, {"dpop-nonce": asked.nonce})
            return verifier(token, self.proof(token)).bound_to

    def proof(self, token: str) -> DpopProof:
        return DpopProof(self.nonces.proof(self.key, "GET", URL, token), "GET", URL)


def test_d40_a_verifier_checks_the_proof_of_a_bound_token(authority: Standin, following: Make) -> None:
    """A bound token needs a proof of its key, and names it. A copy does not pass, and no server is asked about it."""
    verifier, client, thief = following(), Client(), Client()
    token = authority.token(bound_to=client.key.thumbprint)
    assert client.shows(verifier, token) == client.key.thumbprint
    with pytest.raises(DpopRequired):
        verifier(token)
    with pytest.raises(InvalidDpopProof):
        thief.shows(verifier, token)
    proof = client.proof(token)
    assert verifier(token, proof)
    with pytest.raises(InvalidDpopProof, match="used before"):
        verifier(token, proof)
    assert verifier.again(token).bound_to == client.key.thumbprint
    assert verifier(authority.token()).bound_to == ""
    assert authority.asked[ASK] == 0


def test_d40_the_workers_of_a_service_take_each_others_nonces(authority: Standin, following: Make) -> None:
    """Two verifiers with one key take a nonce of either; one with another key asks for its own."""
    key, client = VerifierSecret.mint(new_id()).text(), Client()
    one, two, other = following(key=key), following(key=key), following(key=VerifierSecret.mint(new_id()).text())
    token = authority.token(bound_to=client.key.thumbprint)
    assert client.shows(one, token)
    assert two(token, client.proof(token))
    with pytest.raises(UseDpopNonce):
        other(token, client.proof(token))


def test_d41_an_authority_that_is_away_signs_no_bound_client_out(authority: Standin, later: Later) -> None:
    """Without a lease a bound token is 503 or asked about, and never 401; its proof is needed as ever. When the
    authority is back, the same token and key go on.
    """
    client, thief = Client(), Client()
    token = authority.token(bound_to=client.key.thumbprint)
    with (
        Verifier(authority.issuer, audience="api", stale="refuse") as refusing,
        Verifier(authority.issuer, audience="api") as asking,
    ):
        assert client.shows(refusing, token)
        made_stale(authority, refusing, later)
        with pytest.raises(Unavailable):
            refusing(token, client.proof(token))
        assert client.shows(asking, token)
        with pytest.raises(DpopRequired):
            asking(token)
        with pytest.raises(InvalidDpopProof):
            thief.shows(asking, token)
        authority.misbehave(POLL, None)
        until(lambda: refusing.state == "fresh")
        assert client.shows(refusing, token)


@pytest.mark.parametrize(
    "url", ["https://Orders.example.com", "https://orders.example.com/", "http://example.com", "x", ""]
)
def test_d40_a_public_url_that_no_client_would_name_is_refused(url: str) -> None:
    """The URL of a service is compared with what proofs name: a wrong one would refuse each of them."""
    with pytest.raises(Misconfigured, match="public_url is the address"):
        Verifier("https://auth.example.com", audience="api", public_url=url)
