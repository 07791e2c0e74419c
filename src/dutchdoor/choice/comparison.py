"""The table that articles copy: its columns, the rows that are measured, and the rows that are facts with a test each.

`measuring.py` fills it. The terminal, the HTML file and the page of the documentation show it as it is here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from msgspec import Struct

from dutchdoor.choice.estimate_page import quantity
from dutchdoor.choice.figures import Figure, Figures, Unit
from dutchdoor.choice.glossary import words_in
from dutchdoor.choice.rules import seconds
from dutchdoor.model.policy import MINUTE

__all__ = [
    "COLUMNS",
    "FACTS",
    "MEASURED",
    "SPREAD",
    "Column",
    "Comparison",
    "Fact",
    "Measured",
    "cell",
    "shown",
    "spread",
    "together",
    "words",
]


class Column(Struct, frozen=True, kw_only=True):
    """One pattern. `id` is the subject of its figures."""

    id: str
    title: str
    says: str


class Measured(Struct, frozen=True, kw_only=True):
    """One row of figures, which have its id as their name."""

    id: str
    says: str
    unit: Unit
    how: str
    """How it was measured."""
    reads: str
    """What the row means, in one sentence."""


class Fact(Struct, frozen=True, kw_only=True):
    """One row that no figure can say, with the tests that show it."""

    id: str
    says: str
    cells: Mapping[str, str]
    """By the id of a column."""
    tests: tuple[str, ...]


class Comparison(Figures, frozen=True, kw_only=True):
    """All that `dutchdoor compare --json` prints: a file of figures, with the columns and the facts beside them."""

    lease_s: float
    """Seconds of the lease with which log-outs and outages were measured."""
    columns: tuple[Column, ...]
    measured: tuple[Measured, ...]
    facts: tuple[Fact, ...]


SPREAD: Final = (
    "Each figure is the median of its rounds, with the lowest and the highest. In each round every pattern has its "
    "turn, and the rounds are spread over the whole run, so what else the machine does reaches all patterns alike. "
    "The medians of two runs on one machine differ by less than the distance from the lowest to the highest, as long "
    "as the machine is as busy."
)

COLUMNS: Final = (
    Column(
        id="session",
        title="session",
        says="a row in the database, and a cookie that names it",
    ),
    Column(
        id="plain",
        title="plain JWT",
        says="HS256, one secret, valid until it expires: a stand-in of a few lines for what tutorials build",
    ),
    Column(
        id="jwt",
        title="JWT with fence",
        says="a signed access token alone; each service has a Verifier that follows what was revoked",
    ),
    Column(
        id="hybrid-cookie",
        title="hybrid by cookie",
        says="an access token for minutes, and a refresh token in a cookie that scripts cannot read",
    ),
    Column(
        id="hybrid",
        title="hybrid by body",
        says="the same, with the refresh token in the keeping of an app or a program",
    ),
)

MEASURED: Final = (
    Measured(
        id="stored",
        says="server storage of a million sign-ins",
        unit="B",
        how="the pages of SQLite that real sign-ins fill with their sessions and indexes, times a million; the audit "
        "log takes the same for each pattern of dutchdoor, and is not in it",
        reads="A JWT stores nothing. What a session stores is a few hundred bytes of disk.",
    ),
    Measured(
        id="sent",
        says="size of what is sent with each request",
        unit="B",
        how="the header lines that prove who sends a request to `dutchdoor serve`, in a browser with all cookies of a "
        "log-in, that of a known device too; over HTTPS the name of each is 7 bytes longer",
        reads="A token is several times as long as a cookie, in every request.",
    ),
    Measured(
        id="first-1",
        says="first request: look-up or signature, 1 client",
        unit="s",
        how="auth.principal(request) in one process for sign-ins that it has not seen, on SQLite, 16 after one another",
        reads="This is what a look-up costs against a signature, with all that the engine does besides. In the sign-in "
        "server, the first use of a hybrid's token looks its session up too, to notice a theft. A Verifier does not.",
    ),
    Measured(
        id="first-64",
        says="first request: look-up or signature, 64 clients",
        unit="s",
        how="the same with 64 clients at once: the time of 64 requests, divided by 64",
        reads="If look-ups did not scale, this would be many times the row above.",
    ),
    Measured(
        id="next-1",
        says="each further request, 1 client",
        unit="s",
        how="auth.principal(request) for the same sign-ins again: the process has them in memory, and learns of each "
        "log-out",
        reads="Sessions and tokens are remembered alike, so neither look-up nor signature is paid again.",
    ),
    Measured(
        id="next-64",
        says="each further request, 64 clients",
        unit="s",
        how="the same with 64 clients at once: the time of 64 requests, divided by 64",
        reads="No request waits for another.",
    ),
    Measured(
        id="log-out",
        says="immediate log-out: from the click until all refuse",
        unit="s",
        how="POST /auth/logout to `dutchdoor serve` until the server (session) or the last of three Verifiers (jwt, "
        "hybrid) refuses; plain JWT: what is left of its life, for nothing ends it",
        reads="Behind a fence a signed token ends with its log-out, as a session does. A plain one is accepted until "
        "it expires.",
    ),
    Measured(
        id="outage",
        says="survives an outage of the sign-in server for",
        unit="s",
        how="`dutchdoor serve` is killed; from then until it does not answer (session: the time that a process takes "
        "to end), until each of three Verifiers says that it cannot know any more (jwt, hybrid), or until exp (plain "
        "JWT). The lowest is the last check that was still accepted",
        reads="What is checked without a call goes on without the server: for a part of the lease, or until it "
        "expires.",
    ),
)

_NO_SCRIPT = "tests/http/test_browser_real.py::test_s06_a_session_lives_in_a_cookie_that_scripts_cannot_read"
_PLAIN = "tests/choice/test_comparison.py::"

FACTS: Final = (
    Fact(
        id="state",
        says="where the state is",
        cells={
            "session": "a row in the database",
            "plain": "in the token alone",
            "jwt": "in the token; the server keeps what was revoked until it has expired",
            "hybrid-cookie": "a row in the database, and a token for minutes",
            "hybrid": "a row in the database, and a token for minutes",
        },
        tests=(_PLAIN + "test_what_each_pattern_stores",),
    ),
    Fact(
        id="revocation",
        says="revocation",
        cells={
            "session": "one sign-in, or all of a user",
            "plain": "none; only a new secret, which signs out everyone",
            "jwt": "one token, or all of a user",
            "hybrid-cookie": "one sign-in with its tokens, or all of a user",
            "hybrid": "one sign-in with its tokens, or all of a user",
        },
        tests=(
            "tests/http/test_modes.py::test_i01_logging_out_everywhere_ends_every_pattern",
            "tests/verifier/test_real.py::test_log_out_over_http_is_log_out_here",
            _PLAIN + "test_nothing_ends_a_plain_token",
        ),
    ),
    Fact(
        id="horizontal",
        says="horizontal scaling",
        cells={
            "session": "any node serves any request; all share one database",
            "plain": "any node that has the secret",
            "jwt": "any node; a log-out is fenced at the verifiers of all nodes",
            "hybrid-cookie": "any node; refreshes at once on several nodes give one token",
            "hybrid": "any node; refreshes at once on several nodes give one token",
        },
        tests=(
            "tests/faults/test_nodes.py::test_i01_an_end_holds_on_every_node",
            "tests/faults/test_nodes.py::test_i05_refreshes_at_once_over_three_nodes",
        ),
    ),
    Fact(
        id="stateless",
        says="stateless scaling: a service checks without a call",
        cells={
            "session": "no: a proxy or the service asks the sign-in server",
            "plain": "yes, and knows of no log-out",
            "jwt": "yes, with a Verifier, which knows of each log-out",
            "hybrid-cookie": "yes, with a Verifier, which knows of each log-out",
            "hybrid": "yes, with a Verifier, which knows of each log-out",
        },
        tests=(
            "tests/verifier/test_outages.py::test_an_outage_shorter_than_the_lease_is_not_noticed",
            "tests/http/test_check_endpoint.py::test_a_good_proof_is_204_with_who_it_is",
        ),
    ),
    Fact(
        id="cross-origin",
        says="cross-origin",
        cells={
            "session": "pages of one site, from origins that are listed; no page of another site",
            "plain": "any page that has the token",
            "jwt": "any page that has the token, at services that allow its origin",
            "hybrid-cookie": "signs in on one site; its access token goes to any service that allows its origin",
            "hybrid": "apps and programs: no browser is in the way",
        },
        tests=(
            "tests/client/test_browser_client.py::test_a_listed_origin_has_everything_and_an_unlisted_one_nothing",
            "tests/http/test_browser.py::test_s20_cors_is_an_exact_list",
        ),
    ),
    Fact(
        id="csrf",
        says="CSRF",
        cells={
            "session": "possible with any cookie; stopped by origin and a token of the session",
            "plain": "none in a header; where the token is put into a cookie, possible, and nothing here stops it",
            "jwt": "none: no browser sends the token by itself",
            "hybrid-cookie": "only the refresh has a cookie; stopped by origin and a token of the session",
            "hybrid": "none: no browser sends the token by itself",
        },
        tests=(
            "tests/http/test_browser.py::test_s17_a_cookie_needs_the_token_of_its_session",
            "tests/http/test_browser.py::test_s17_another_sites_request_is_refused",
        ),
    ),
    Fact(
        id="xss",
        says="exposure to XSS",
        cells={
            "session": "a script acts while the page is open; it cannot read the cookie",
            "plain": "kept in localStorage, as tutorials do, it is copied, and works until it expires",
            "jwt": "a script can copy the token from the page; a log-out ends the copy",
            "hybrid-cookie": "a script can copy the token of minutes, and never the refresh token",
            "hybrid": "not for pages: a page that asks gets the refresh token in a cookie",
        },
        tests=(
            _NO_SCRIPT,
            "tests/http/test_browser.py::test_s18_a_page_cannot_ask_for_the_token_its_cookie_hides",
            _PLAIN + "test_nothing_ends_a_plain_token",
        ),
    ),
    Fact(
        id="copied",
        says="a copy of its secret",
        cells={
            "session": "worth nothing ten minutes later, where the browser binds it to its device (Chrome)",
            "plain": "works until it expires",
            "jwt": "worth nothing, where the client proves a key (DPoP)",
            "hybrid-cookie": "the refresh token as the session; the token of minutes works for minutes",
            "hybrid": "worth nothing, where the program proves a key (DPoP)",
        },
        tests=(
            "tests/http/test_device_binding.py::test_k01_a_browser_binds_its_session",
            "tests/http/test_bound_sign_ins.py::test_d29_a_copied_access_token_is_worth_nothing",
            _PLAIN + "test_nothing_ends_a_plain_token",
        ),
    ),
    Fact(
        id="mobile",
        says="mobile",
        cells={
            "session": "works, if the app keeps cookies",
            "plain": "works; the user signs in again when it expires",
            "jwt": "works; the user signs in again when it expires",
            "hybrid-cookie": "for browsers; apps take the body",
            "hybrid": "made for it: survives a crash, a lost answer and an outage",
        },
        tests=(
            "tests/client/test_session_auth.py::test_a_crash_loses_no_session",
            "tests/client/test_session_auth.py::test_a_lost_answer_is_asked_for_again",
            "tests/client/test_session_auth.py::test_an_outage_ends_no_session",
        ),
    ),
    Fact(
        id="services",
        says="micro-services",
        cells={
            "session": "the proxy in front asks, and passes on a token of a minute",
            "plain": "each service that can check a token can also make one: they share the secret",
            "jwt": "each has public keys and a Verifier; none can make a token",
            "hybrid-cookie": "each has public keys and a Verifier; none can make a token",
            "hybrid": "each has public keys and a Verifier; none can make a token",
        },
        tests=(
            "tests/frameworks/test_verifying.py::test_a_service_knows_the_bearer_until_the_log_out_is_fenced",
            "tests/http/test_check_endpoint.py::test_j11_the_forwarded_token_is_for_services_behind_the_proxy",
            _PLAIN + "test_who_checks_a_plain_token_can_make_one",
        ),
    ),
    Fact(
        id="wrong",
        says="ways to get it wrong",
        cells={
            "session": "an id that survives the log-in (fixation), no CSRF token, a cookie that scripts read: not here",
            "plain": "alg none, a guessable secret, no exp, localStorage, a log-out that only forgets the token",
            "jwt": "alg none, another key or audience: refused; a service without a Verifier accepts what was revoked",
            "hybrid-cookie": "two tabs that refresh at once and sign the user out: not here",
            "hybrid": "a refresh token that works twice: here a copy is noticed, and ends the sign-in",
        },
        tests=(
            "tests/http/test_sessions_http.py::test_s02_a_planted_cookie_is_dead_after_the_log_in",
            "tests/http/test_tokens.py::test_j01_no_alg_but_the_keys_own",
            "tests/http/test_browser_real.py::test_o02_four_tabs_refresh_at_once_and_stay_signed_in",
            "tests/http/test_oauth.py::test_o01_rotation_and_reuse_ends_the_family",
        ),
    ),
)


def cell(found: Figures, row: Measured, column: Column) -> Figure | None:
    """Return the figure of a row and a column."""
    return next((each for each in found.figures if (each.name, each.subject) == (row.id, column.id)), None)


def shown(value: float, unit: Unit) -> str:
    """Write a figure for people: 148 B, 12.3 ms, 30 min."""
    return seconds(value) if unit == "s" and value >= MINUTE else quantity(value, unit)


def spread(of: Figure) -> str:
    """Write the lowest and the highest round, or "" where all rounds are alike."""
    low, high = of.low, of.high
    if low is None or high is None or low == high:
        return ""
    (least, its_unit), (most, unit) = (shown(value, of.unit).rsplit(" ", 1) for value in (low, high))
    if not low:
        its_unit = unit  # 0 is 0 in each
    return f"{least}-{most} {unit}" if unit == its_unit else f"{least} {its_unit}-{most} {unit}"


def together(fact: Fact, columns: Sequence[Column]) -> list[tuple[list[str], str]]:
    """Return the cells of a fact with the titles of the columns that they are for, those that are alike as one."""
    found: dict[str, list[str]] = {}
    for column in columns:
        found.setdefault(fact.cells[column.id], []).append(column.title)
    return [(titles, text) for text, titles in found.items()]


def words(found: Comparison) -> dict[str, str]:
    """Return the words of the table that a newcomer may not know, each with its line."""
    read = [SPREAD, *(each.title for each in found.columns), *(each.says for each in found.columns)]
    read += [text for row in found.measured for text in (row.says, row.how, row.reads)]
    read += [text for fact in found.facts for text in (fact.says, *fact.cells.values())]
    return words_in(" . ".join(read))
