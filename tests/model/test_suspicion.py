"""What a sighting says about a session: the table of reasons and reactions, and what holds for every history."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dutchdoor.model.policy import DAY, HOUR, MINUTE
from dutchdoor.model.sightings import (
    CHANGES_AT_MOST,
    PLACES_AT_MOST,
    Sighting,
    Sightings,
    browser_family,
    coarse_network,
    first_history,
)
from dutchdoor.model.suspicion import (
    CALM,
    PRESETS,
    REACTIONS,
    TO_AND_FRO,
    Reaction,
    Suspicion,
    assess,
    assess_sign_in,
)
from dutchdoor.model.travel import kilometres, least_hours, least_kilometres
from dutchdoor.web.networks import KnownNetworks

HOME = Sighting("192.0.2.0/24", "NL", "Firefox")
WORK = Sighting("198.51.100.0/24", "NL", "Firefox")
SIX = Sighting("2001:db8:1::/48", "NL", "Firefox")
SYDNEY = Sighting("203.0.113.0/24", "AU", "Firefox")
BELGIUM = Sighting("203.0.113.0/24", "BE", "Firefox")
CLOUD = Sighting("203.0.113.0/24", "NL", "Firefox", "hosting", "Amazon AWS")
TOR = Sighting("203.0.113.0/24", "NL", "Firefox", "tor", "Tor")
VPN = Sighting("203.0.113.0/24", "US", "Firefox", "vpn", "Mullvad")
OTHER_EXIT = Sighting("203.0.114.0/24", "BR", "Firefox", "vpn", "Mullvad")
CHROME_HERE = Sighting("192.0.2.0/24", "NL", "Chrome")
CHROME_AWAY = Sighting("203.0.113.0/24", "AU", "Chrome")
ROAMING = Sighting("198.51.100.0/24", "NL", "Firefox", "mobile", "a carrier")
ON_BOARD = Sighting("203.0.113.0/24", "US", "Firefox", "satellite", "an airline")
MORE_OF_NL = Sighting("203.0.113.0/24", "NL", "Firefox")
NOW = 1_800_000_000.0

# Where the session is seen, how long after its last use, and what each preset does about it: quiet, standard, strict.
CASES: dict[str, tuple[Sighting, float, dict[str, Any], tuple[str, ...], str]] = {
    "another network of the country": (WORK, MINUTE, {}, (), "calm calm calm"),
    "the same home over IPv6": (SIX, 1, {}, (), "calm calm calm"),
    "another continent in a minute": (SYDNEY, MINUTE, {}, ("too_fast",), "notify step_up step_up"),
    "another continent after two days": (SYDNEY, 2 * DAY, {}, ("new_country",), "record record step_up"),
    "a neighbour in a minute": (BELGIUM, MINUTE, {}, ("new_country",), "record record step_up"),
    "a data centre": (CLOUD, HOUR, {}, ("hosting",), "notify step_up step_up"),
    "Tor": (TOR, HOUR, {}, ("tor",), "notify step_up revoke"),
    "a VPN, abroad": (VPN, MINUTE, {}, ("hosting", "too_fast"), "notify step_up step_up"),
    "on board": (ON_BOARD, HOUR, {}, (), "calm calm calm"),
    "another browser, same network": (
        CHROME_HERE, MINUTE, {"by_cookie": True}, ("other_browser",), "notify step_up step_up",
    ),
    "another browser without a cookie": (CHROME_HERE, MINUTE, {}, (), "calm calm calm"),
    "another browser on another continent": (
        CHROME_AWAY, MINUTE, {"by_cookie": True}, ("other_browser", "too_fast"), "notify revoke revoke",
    ),
    "a used refresh token, same network": (HOME, MINUTE, {"replayed": True}, (), "calm calm calm"),
    "a client that proves its key": (
        CHROME_AWAY, MINUTE, {"by_cookie": True, "replayed": True, "bound": True}, (), "calm calm calm",
    ),
    "a used refresh token, elsewhere": (WORK, MINUTE, {"replayed": True}, ("replayed",), "notify step_up step_up"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_d01_each_reason_leads_where_the_table_says(name: str) -> None:
    """A session that began at home is seen elsewhere: the reasons are the same under each preset, and the reactions are
    those of the table.
    """
    seen, after, how, reasons, reactions = CASES[name]
    for preset, reaction in zip(("quiet", "standard", "strict"), reactions.split(), strict=True):
        decided = assess(first_history(HOME, NOW), seen, preset, now=NOW + after, last_use=NOW, **how)
        assert decided.reaction == reaction, preset
        assert decided.reasons == (() if reaction == "calm" else reasons), preset
    assert assess(first_history(HOME, NOW), seen, "off", now=NOW + after, last_use=NOW, **how).reaction == "calm"


def test_d02_two_clients_in_two_networks_go_to_and_fro() -> None:
    """A B A B A B A within minutes is two clients. The two networks of one home, and networks of yesterday, are not."""

    def seen_in_turn(*turns: Sighting, every: float = MINUTE, since: float = NOW) -> list[str]:
        history, now, found = first_history(turns[0], since), NOW, []
        for seen in turns[1:]:
            now += every
            decided = assess(history, seen, "strict", now=now, last_use=now - every)
            found += decided.reasons
            history = history.moved(seen, now, last_use=now - every)
        return found

    alternating = [HOME, MORE_OF_NL] * TO_AND_FRO
    assert "two_places" in seen_in_turn(*alternating)
    assert seen_in_turn(*alternating[:TO_AND_FRO]) == []
    assert seen_in_turn(*[HOME, SIX] * TO_AND_FRO) == []
    assert seen_in_turn(*alternating, every=10 * MINUTE) == []
    assert seen_in_turn(HOME, ROAMING, *[HOME, ROAMING] * TO_AND_FRO) == [], "a telephone at the edge of its Wi-Fi"

    yesterday = first_history(HOME, NOW - 2 * DAY).moved(MORE_OF_NL, NOW - 2 * DAY, last_use=NOW - 2 * DAY)
    now, found = NOW, []
    for seen in [HOME, MORE_OF_NL] * TO_AND_FRO:
        now += MINUTE
        found += assess(yesterday, seen, "strict", now=now, last_use=now).reasons
        yesterday = yesterday.moved(seen, now, last_use=now)
    assert found == []


def test_d03_what_was_proved_once_is_familiar() -> None:
    """After a proof at an exit of a VPN, this exit, the provider's other exits and the way home lead nowhere."""
    history = first_history(HOME, NOW).moved(VPN, NOW, last_use=NOW, proved=True)
    for seen in (OTHER_EXIT, HOME):
        assert assess(history, seen, "strict", now=NOW + 1, last_use=NOW).reaction == "calm", seen
    elsewhere = assess(first_history(HOME, NOW), VPN, "strict", now=NOW, last_use=NOW, familiar=history.places)
    assert elsewhere.reaction == "calm", "to the account's other sessions, too"
    other = Sighting("203.0.115.0/24", "BR", "Firefox", "vpn", "another provider")
    assert assess(history, other, "standard", now=NOW + 1, last_use=NOW).reaction == "step_up"


def test_d03_a_thief_who_waited_is_not_familiar() -> None:
    """A country where a session was only seen excuses no flight that is too fast."""
    history = first_history(HOME, NOW).moved(SYDNEY, NOW + 2 * DAY, last_use=NOW)
    history = history.moved(HOME, NOW + 4 * DAY, last_use=NOW + 2 * DAY)
    again = Sighting("203.0.120.0/24", "AU", "Firefox")
    assert assess(history, again, "standard", now=NOW + 4 * DAY + 60, last_use=NOW + 4 * DAY).reaction == "step_up"


def test_d04_a_telephone_abroad_counts_from_its_last_network_that_stands_still() -> None:
    """A carrier's customers abroad come from its own country until they find Wi-Fi. A thief elsewhere is too fast."""
    history = first_history(HOME, NOW).moved(ROAMING, NOW + HOUR, last_use=NOW + HOUR)
    landed = NOW + 30 * HOUR
    assert assess(history, SYDNEY, "standard", now=landed, last_use=landed - 60).reasons == ("new_country",)
    assert assess(history, SYDNEY, "standard", now=NOW + 2 * HOUR, last_use=NOW + 2 * HOUR).reaction == "step_up"


def test_q01_behind_an_exit_a_client_is_where_it_was() -> None:
    """Who switches a VPN off did not fly home. A thief elsewhere is too fast from where the owner was before the VPN,
    however long the VPN has been on.
    """
    signed_in = first_history(VPN, NOW)
    assert assess(signed_in, HOME, "standard", now=NOW + MINUTE, last_use=NOW).reasons == ("new_country",)
    history = first_history(HOME, NOW).moved(VPN, NOW + HOUR, last_use=NOW + HOUR, proved=True)
    later = NOW + 20 * HOUR
    assert assess(history, WORK, "strict", now=later, last_use=later).reaction == "calm"
    away = Sighting("203.0.120.0/24", "AU", "Firefox")
    found = assess(history, away, "standard", now=later + MINUTE, last_use=later)
    assert found.reasons == ("too_fast",)


def test_q02_who_waited_for_a_flight_is_noticed_when_the_owner_is_back() -> None:
    """A session is used on another continent, with the time to get there, and minutes later at home again: two clients.
    The owner gets one mail about that country. A flight home, and a carrier that is known to roam, are not reported.
    """
    away = first_history(HOME, NOW).moved(SYDNEY, NOW + 2 * DAY, last_use=NOW)
    back = NOW + 2 * DAY + 5 * MINUTE
    for preset, reaction in (("quiet", "notify"), ("standard", "notify"), ("strict", "step_up")):
        decided = assess(away, HOME, preset, now=back, last_use=back - MINUTE)  # type: ignore[arg-type]
        assert (decided.reaction, decided.reasons) == (reaction, ("two_places",))
    reported = away.moved(HOME, back, last_use=back - MINUTE).reporting().moved(SYDNEY, back + DAY, last_use=back)
    assert assess(reported, HOME, "standard", now=back + DAY, last_use=back + DAY).reaction == "calm"
    assert assess(away, HOME, "standard", now=back + DAY, last_use=NOW + 2 * DAY).reaction == "calm"
    assert assess(away.moved(ROAMING, back, last_use=back), SYDNEY, "standard", now=back, last_use=back) == CALM
    near = first_history(HOME, NOW).moved(BELGIUM, NOW + DAY, last_use=NOW)
    assert assess(near, HOME, "standard", now=NOW + DAY + MINUTE, last_use=NOW + DAY).reaction == "calm"


def test_q03_the_owner_gets_one_mail_for_a_country() -> None:
    """With `quiet`, the second network of a country that a mail was about is recorded."""
    history = first_history(HOME, NOW).moved(SYDNEY, NOW + MINUTE, last_use=NOW).reporting()
    again = Sighting("203.0.120.0/24", "AU", "Firefox")
    elsewhere = Sighting("203.0.121.0/24", "BR", "Firefox")
    history = history.moved(HOME, NOW + DAY, last_use=NOW + DAY)
    assert assess(history, again, "quiet", now=NOW + DAY + 60, last_use=NOW + DAY).reaction == "record"
    assert assess(history, elsewhere, "quiet", now=NOW + DAY + 60, last_use=NOW + DAY).reaction == "notify"
    assert assess(history, again, "standard", now=NOW + DAY + 60, last_use=NOW + DAY).reaction == "step_up"


def test_q04_machines_of_a_content_network_are_hosting() -> None:
    """Exits of VPNs stand at DataCamp and CDN77. They are no proxy in front of the server, which hides all clients."""
    known = KnownNetworks()
    assert known.network("37.19.223.5").kind == known.network("89.187.168.171").kind == "hosting"
    assert known.network("104.16.0.1").kind == "front"


def test_d05_at_a_sign_in_nothing_is_refused() -> None:
    """A new country, and wrong passwords before the right one, are recorded. Nothing is new to an empty history."""
    places = first_history(HOME, NOW).places
    assert assess_sign_in(SYDNEY, "strict", familiar=places, failures=0).reasons == ("new_country",)
    assert assess_sign_in(HOME, "standard", familiar=places, failures=5).reasons == ("failures",)
    assert assess_sign_in(SYDNEY, "strict", familiar=places, failures=9).reaction == "record"
    assert assess_sign_in(SYDNEY, "strict", familiar=(), failures=4).reaction == "calm"
    assert assess_sign_in(SYDNEY, "off", familiar=places, failures=9).reaction == "calm"


_countries = st.sampled_from(["", "NL", "BE", "DE", "US", "AU", "BR"])
_networks = st.sampled_from([f"192.0.{n}.0/24" for n in range(5)] + [f"2001:db8:{n}::/48" for n in range(2)])
_kinds = st.sampled_from(["", "hosting", "vpn", "tor", "relay", "mobile", "satellite"])
_sightings = st.builds(
    Sighting, _networks, _countries, st.sampled_from(["", "Firefox", "Chrome"]), _kinds, st.sampled_from(["", "P", "Q"])
)
_steps = st.lists(st.tuples(_sightings, st.floats(0, 3 * DAY), st.booleans()), min_size=1, max_size=24)


@settings(max_examples=150, deadline=None)
@given(_sightings, _steps, st.booleans(), st.booleans())
def test_d06_a_stricter_preset_never_does_less(
    first: Sighting, steps: list[tuple[Sighting, float, bool]], by_cookie: bool, replayed: bool
) -> None:
    """Whatever a session was seen as, each preset does at least what the one before it does; and a history stays small,
    and reads back as it was written.
    """
    history, now = first_history(first, NOW), NOW
    presets: tuple[Suspicion, ...] = ("off", "quiet", "standard", "strict")
    for seen, after, proved in steps:
        before, now = now, now + after
        done: list[Reaction] = [
            assess(history, seen, preset, now=now, last_use=before, by_cookie=by_cookie, replayed=replayed).reaction
            for preset in presets
        ]
        assert all(REACTIONS.index(less) <= REACTIONS.index(more) for less, more in pairwise(done)), done
        history = history.moved(seen, now, last_use=before, proved=proved)
        assert len(history.places) <= PLACES_AT_MOST
        assert len(history.changes) <= CHANGES_AT_MOST
    kept = Sightings(id="x", subject="s", history=history.encode(), expires_at=now)
    assert kept.read() == history
    assert len(kept.history) < 3000


def test_d06_each_preset_names_only_reasons_that_do_more_than_the_one_before() -> None:
    """The table itself is ordered: no reason leads to less under a stricter preset."""
    reasons = {reason for preset in PRESETS.values() for reason in preset}
    for less, more in pairwise(PRESETS.values()):
        for reason in reasons:
            assert REACTIONS.index(less.get(reason, "calm")) <= REACTIONS.index(more.get(reason, "calm")), reason


def test_d07_networks_are_kept_coarse() -> None:
    """A /24 of IPv4 and a /48 of IPv6 are kept, and nothing of an address that says nothing of its client."""
    assert coarse_network("8.8.8.8") == "8.8.8.0/24"
    assert coarse_network("2a00:1450:4001:82a::200e") == "2a00:1450:4001::/48"
    for silent in ("", "testclient", "127.0.0.1", "10.1.2.3", "192.168.1.1", "100.64.0.1", "::1", "fe80::1", "fd00::1"):
        assert coarse_network(silent) == "", silent
    assert browser_family("Mobile Safari") == browser_family("Safari") == "Safari"
    assert browser_family("Chrome Mobile") == browser_family("Chrome Mobile WebView") == "Chrome"


def test_d08_the_least_distance_is_a_lower_bound() -> None:
    """Between two countries it is never above the distance of two of their cities, and 0 where it is not known."""
    cities = {
        "NL": (52.37, 4.90), "US": (40.71, -74.01), "BR": (-23.55, -46.63), "AU": (-33.87, 151.21),
        "JP": (35.68, 139.69), "ZA": (-33.92, 18.42), "IS": (64.15, -21.94), "NZ": (-36.85, 174.76),
        "RU": (55.76, 37.62), "CA": (43.65, -79.38),
    }  # fmt: skip
    for one, at in cities.items():
        for other, there in cities.items():
            assert least_kilometres(one, other) == pytest.approx(least_kilometres(other, one))
            assert least_kilometres(one, other) <= kilometres(at, there) + 1e-6, (one, other)
    assert least_kilometres("NL", "AU") > 10_000
    assert least_kilometres("NL", "") == least_kilometres("NL", "ZZ") == least_kilometres("NL", "NL") == 0
    assert least_hours("NL", "BE") == 0 < least_hours("NL", "US") < 8.5
