"""What a sign-in still takes, decided from the account, the proofs and the policy alone."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from standins import T0

from dutchdoor.errors import InvalidToken
from dutchdoor.model.accounts import new_account
from dutchdoor.model.one_time_tokens import OneTimeToken, issue
from dutchdoor.model.policy import STANDARD
from dutchdoor.model.principal import Verified
from dutchdoor.model.rate_limits import Standing
from dutchdoor.model.sign_in import PENDING_FOR, Ask, Pending, Proof, Refuse, Start, next_step, outdated

ANN = replace(new_account(address="ann@example.com", name="Ann", now=T0), epoch=3)
PASSWORD = Proof(method="password", amr=("pwd",), at=T0)
CODE = Proof(method="code", amr=("otp",), at=T0 + 60)
VERIFIED_ONLY = replace(STANDARD, require_verified_email=True)


def test_one_proof_starts_a_session_of_an_account_without_second_factors() -> None:
    """A password alone is enough where the account has nothing else, and the session says so."""
    verified = Verified(subject=ANN.subject, epoch=3, amr=("pwd",), at=T0)
    assert next_step(ANN, [PASSWORD], STANDARD, factors=()) == Start(verified)


def test_an_account_with_second_factors_is_asked_for_one_of_them() -> None:
    """Any one of the account's factors is enough, once; the session is as old as the first proof."""
    assert next_step(ANN, [PASSWORD], STANDARD, factors={"passkey", "code"}) == Ask(("code", "passkey"))
    verified = Verified(subject=ANN.subject, epoch=3, amr=("pwd", "otp"), at=T0)
    assert next_step(ANN, [PASSWORD, CODE], STANDARD, factors={"passkey", "code"}) == Start(verified)


def test_a_factor_that_the_account_does_not_have_is_no_step() -> None:
    """A proof by another method than those the account has is not what was asked for."""
    assert next_step(ANN, [PASSWORD, CODE], STANDARD, factors={"passkey"}) == Ask(("passkey",))


@pytest.mark.parametrize("proofs", [[PASSWORD], [PASSWORD, CODE]])
def test_no_proof_helps_a_disabled_account_or_an_unverified_address(proofs: list[Proof]) -> None:
    """What the policy demands of the account is demanded after each step, whatever was proved."""
    disabled = replace(ANN, status="disabled")
    assert next_step(disabled, proofs, STANDARD, factors={"code"}) == Refuse("disabled")
    assert next_step(ANN, proofs, VERIFIED_ONLY, factors={"code"}) == Refuse("address not verified")
    reads = replace(ANN, email_verified_at=T0)
    assert not isinstance(next_step(reads, proofs, VERIFIED_ONLY, factors={"code"}), Refuse)


def test_a_pending_sign_in_is_read_as_it_was_written() -> None:
    """What waits for its next step comes back as it was; what cannot be read is an invalid token."""
    pending = Pending(
        proofs=(PASSWORD, CODE),
        epoch=3,
        mode="hybrid",
        client_id="app",
        familiar=True,
        chosen_at=T0,
        device="",
        digest="d",
    )
    assert Pending.decode(pending.encode()) == pending
    for wrong in (b"", b"{}", pending.encode()[:-1], pending.encode().replace(b"hybrid", b"other")):
        with pytest.raises(InvalidToken):
            Pending.decode(wrong)


def test_a_step_of_the_application_comes_last() -> None:
    """It is asked for after the second factor, and what it took is no proof."""
    assert next_step(ANN, [PASSWORD], STANDARD, factors={"code"}, own="terms") == Ask(("code",))
    asked = next_step(ANN, [PASSWORD, CODE], STANDARD, factors={"code"}, own="terms")
    assert asked == Ask(("terms",), own=True)
    assert asked.step == "terms"
    taken = Proof(method="terms", amr=(), at=T0 + 90)
    verified = Verified(subject=ANN.subject, epoch=3, amr=("pwd", "otp"), at=T0)
    assert next_step(ANN, [PASSWORD, CODE, taken], STANDARD, factors={"code"}) == Start(verified)


def waiting(n: int, standing: Standing, place: str) -> tuple[OneTimeToken, Pending]:
    pending = Pending(
        proofs=(PASSWORD,),
        epoch=3,
        mode="jwt",
        client_id="",
        familiar=True,
        chosen_at=T0,
        device=place if standing is Standing.DEVICE else "",
        digest="",
        standing=standing,
        network=place,
    )
    token, _ = issue("sign_in", subject="ann", email="", now=T0 + n, lives_for=PENDING_FOR, payload=pending.encode())
    return token, pending


def test_which_sign_ins_that_wait_are_over() -> None:
    """Of one place the oldest; of all, the oldest of strangers; what cannot be read, too."""
    own = [waiting(n, Standing.DEVICE, "laptop") for n in range(3)]
    strangers = [waiting(10 + n, Standing.STRANGER, f"198.51.100.{n}") for n in range(21)]
    everything = [token for token, _ in (*strangers, *own)]
    assert outdated([token for token, _ in own], own[0][1]) == [own[0][0]]
    assert outdated(everything[:5], own[0][1]) == []
    assert outdated(everything, waiting(99, Standing.STRANGER, "203.0.113.1")[1]) == [strangers[0][0]]
    broken = replace(own[0][0], payload=b"{}")
    assert outdated([broken], own[1][1]) == [broken]
