"""Settings as people type them: a duration in any form, and a wrong value refused with the right one."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from dutchdoor import HIGH, Auth, Policy, Verifier
from dutchdoor.errors import Misconfigured
from dutchdoor.issuers.issuer import Issuer
from dutchdoor.model.policy import DURATIONS, STANDARD
from dutchdoor.model.rate_limits import Limits
from dutchdoor.web.pages.branding import Branding


@pytest.mark.parametrize("given", ["15m", "900", "14m60s", timedelta(minutes=15), 900, 900.0])
def test_a_duration_is_text_a_timedelta_or_seconds(given: Any) -> None:
    """Each form is the same number of seconds, in a policy, in a changed policy, for a lease and a leeway."""
    assert Policy(access_for=given).access_for == replace(HIGH, access_for=given).access_for == 900.0
    assert type(Policy(access_for=given).access_for) is float
    Auth("memory:", lease="20s")
    Verifier("http://localhost:1", leeway="5s")


def test_each_duration_of_a_policy_is_read() -> None:
    """No field with a duration is left as it was typed."""
    named = {
        name
        for name in Policy.__struct_fields__
        if name.endswith(("_for", "_after")) or name in {"touch_every", "refresh_window", "second_factor_grace"}
    }
    assert set(DURATIONS) == named
    typed = Policy(**{name: f"{getattr(STANDARD, name)}s" for name in DURATIONS})
    assert typed == STANDARD


@pytest.mark.parametrize(
    ("named", "says"),
    [
        (
            {"modes": ("sessions",)},
            """modes is "session", "hybrid" or "jwt", and not 'sessions'. Did you mean "session"?""",
        ),
        ({"modes": "session"}, 'modes=("session", "hybrid")'),
        ({"modes": ()}, "modes must name at least one"),
        ({"registration": "opened"}, 'Did you mean "open"?'),
        ({"registration": None}, """registration is "open", "invite" or "closed", and not None."""),
        ({"at_limit": "end oldest"}, 'Did you mean "end_oldest"?'),
        ({"rotation": "Strict"}, 'Did you mean "strict"?'),
        ({"fingerprint": "none"}, 'fingerprint is "revoke", "observe" or "off"'),
        ({"access_for": "15 minutes"}, "access_for must be a duration such as 90s"),
        ({"idle_for": None}, "idle_for must be a duration"),
        ({"absolute_for": float("nan")}, "absolute_for must be a duration"),
        ({"theft_ends_all": "no"}, "theft_ends_all is True or False, and not 'no'"),
        ({"max_sessions": "5"}, "max_sessions is a whole number, and not '5'"),
        ({"password_minimum": True}, "password_minimum is a whole number"),
    ],
)
def test_a_wrong_value_of_a_policy_is_refused_with_the_right_one(named: dict[str, Any], says: str) -> None:
    """Each choice, switch, number and duration is checked when it is given."""
    for make in (Policy, lambda **named: replace(HIGH, **named)):
        with pytest.raises(Misconfigured) as refused:
            make(**named)
        assert says in str(refused.value)


@pytest.mark.parametrize(
    ("kind", "name", "meant"),
    [
        (Policy, "sign_in_by_email", "sign_in_by_mail"),
        (Limits, "sign_in_per_address", "sign_in_by_address"),
        (Branding, "accents", "accent"),
        (Issuer, "client_secrt", "client_secret"),
    ],
)
def test_g37_a_misspelt_setting_is_refused_with_the_right_name(kind: Any, name: str, meant: str) -> None:
    """Classes of settings name the nearest one. (Of functions, Python does so from version 3.13 on.)"""
    with pytest.raises(Misconfigured) as refused:
        kind(**{name: True})
    assert str(refused.value) == f"{kind.__name__}({name}=...): no such setting. Did you mean {meant}?"


@pytest.mark.parametrize(
    ("named", "says"),
    [
        ({"alg": "es256"}, 'Did you mean "ES256"?'),
        ({"hsts": True}, """hsts is "host", "subdomains" or "off", and not True."""),
        ({"hsts": "subdomain"}, 'Did you mean "subdomains"?'),
        ({"registration": "opened"}, 'Did you mean "open"?'),
        ({"registration": "invite", "policy": Policy(registration="closed")}, "Give one."),
        ({"policy": "high"}, "STANDARD, HIGH or RELAXED"),
        ({"lease": "soon"}, "lease must be a duration"),
        ({"lease": "1h"}, "A lease is 1 to 300 seconds"),
        ({"origins": "https://shop.example"}, "origins=['https://shop.example']"),
        ({"audience": "orders"}, "audience=['orders']"),
    ],
)
def test_a_wrong_setting_is_refused_with_the_right_one(named: dict[str, Any], says: str) -> None:
    """Text where a list belongs, a policy by its name, a misspelled choice: the message says what to write."""
    with pytest.raises(Misconfigured) as refused:
        Auth("memory:", **named)
    assert says in str(refused.value)


def test_registration_is_a_setting_of_its_own() -> None:
    """`Auth(registration=...)` is the same as in the policy, and says nothing of the rest of it."""
    auth = Auth("memory:", registration="closed", policy=HIGH)
    assert auth.authority.policy == replace(HIGH, registration="closed")
    assert (
        Auth("memory:", registration="invite", policy=Policy(registration="invite")).authority.policy.registration
        == "invite"
    )


def test_a_verifier_checks_its_choices() -> None:
    """A wrong word for what it does without a lease would otherwise be one of them."""
    with pytest.raises(Misconfigured, match=r'follow is "background" or "on demand", and not .on-demand'):
        Verifier("http://localhost:1", follow="on-demand")  # type: ignore[arg-type]
    with pytest.raises(Misconfigured, match='stale is "introspect" or "refuse"'):
        Verifier("http://localhost:1", stale="allow")  # type: ignore[arg-type]
