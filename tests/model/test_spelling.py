"""Calls that do not fit: the message names the setting, and how to write it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from dutchdoor import Auth, Branding, ExternalUsers, Policy, SignInStep, Verifier, asgi, fastapi, issuers, litestar
from dutchdoor.errors import Misconfigured

CALLS: list[tuple[Callable[[], Any], str]] = [
    (
        lambda: Policy("required"),  # type: ignore[misc]
        'second_factor="required") or Policy(passkey_verification="required") or Policy(device_binding="required").',
    ),
    (lambda: Policy(5), "Policy: Write the name of each setting, as in Policy(modes=...)."),  # type: ignore[misc]
    (lambda: issuers.Issuer(name="x"), "Issuer needs title: Issuer(title=...)."),  # type: ignore[call-arg]
    (issuers.google, "google needs client_id: google(client_id=...)."),  # type: ignore[call-arg]
    (lambda: issuers.openid("id"), "openid: Write the name of each setting, as in openid(client_id=...)."),  # type: ignore[call-arg, misc]
    (lambda: Auth(polcy=3), "Auth(polcy=...): no such setting. Did you mean policy?"),  # type: ignore[call-arg]
    (
        lambda: Auth(access_for="5m"),  # type: ignore[call-arg]
        "Auth(access_for=...): this is a setting within another: Auth(policy=Policy(access_for=...)).",
    ),
    (
        lambda: Auth("memory:", "dutchdoor.keys"),  # type: ignore[misc]
        "Auth: Only database may stand without a name, as in Auth(database, redis=...).",
    ),
    (lambda: Auth("memory:", database="memory:"), "Auth: database is given twice, once without its name."),  # type: ignore[misc]
    (
        lambda: fastapi.Auth(None, "memory:", accent="#0b6e4f"),
        "Auth(accent=...): this is a setting within another: Auth(branding=Branding(accent=...)).",
    ),
    (
        lambda: litestar.Auth(None, "memory:"),  # type: ignore[call-arg, misc]
        "Auth: Only database may stand without a name, as in Auth(database, issuer=...).",
    ),
    (
        lambda: asgi.Auth(follow="on demand"),
        "'follow' is for a service that only verifies: Auth(issuer=..., follow=...).",
    ),
    (Verifier, "Verifier needs issuer: Verifier(issuer=...)."),  # type: ignore[call-arg]
    (lambda: Verifier("http://localhost:1", folow=1), "Did you mean follow?"),  # type: ignore[call-arg]
    (
        lambda: Verifier("http://localhost:1", audience=3),  # type: ignore[arg-type]
        "audience is a name or a list of names, and not 3.",
    ),
    (lambda: ExternalUsers(load=lambda _: None), "ExternalUsers needs authenticate:"),  # type: ignore[call-overload]
    (lambda: SignInStep("terms"), "SignInStep needs page: SignInStep(page=...)."),  # type: ignore[call-arg]
    (lambda: Branding(radius="8"), "radius is a whole number, and not '8'."),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("call", "says"), CALLS, ids=[says[:40] for _, says in CALLS])
def test_g37_a_call_that_does_not_fit_says_how_to_write_it(call: Callable[[], Any], says: str) -> None:
    """A value without its name, a setting in the wrong place and one that is missing are refused with the fix."""
    with pytest.raises(Misconfigured) as refused:
        call()
    assert says in str(refused.value)


def test_a_fault_within_a_constructor_stays_what_it_is() -> None:
    """A TypeError of the application's own code is not explained away."""

    class Lazy(Policy):
        def __post_init__(self) -> None:
            raise TypeError("a fault of this class")

    with pytest.raises(TypeError, match="a fault of this class"):
        Lazy()


@pytest.mark.parametrize("name", list(inspect.signature(Auth).parameters))
def test_g37_each_argument_of_a_wrong_type_is_refused_by_its_name(name: str) -> None:
    """No argument of `Auth` waits for the first request to be found wrong."""
    with pytest.raises(Misconfigured) as refused:
        Auth(**{"database": "memory:", name: object()})
    assert name in str(refused.value)
