"""Errors on the wire: one table, and nothing in an answer that the caller may not know."""

from __future__ import annotations

import inspect
import logging
import re
from typing import Any

import msgspec
import pytest

import dutchdoor.errors as domain
import dutchdoor.web.http as web
from dutchdoor.errors import (
    DutchdoorError,
    Forbidden,
    InvalidInput,
    InvalidToken,
    Misconfigured,
    NotAuthenticated,
    NotFound,
    RateLimited,
    StepUpRequired,
    Superseded,
    Taken,
    Unavailable,
    WeakPassword,
    WrongCredentials,
)
from dutchdoor.web.http import (
    AmbiguousCookie,
    BadRequest,
    CrossSite,
    CsrfRefused,
    MethodNotAllowed,
    OAuthRefused,
    TooLarge,
    UnknownVerifier,
    UnsupportedMediaType,
)
from dutchdoor.web.problems import problem

BEARER = b'Bearer realm="dutchdoor"'
DPOP = b'DPoP realm="dutchdoor", error="?", algs="ES256 ES384 ES512 EdDSA Ed25519 PS256 RS256"'


def answered(error: Exception, path: str = "/auth/me") -> tuple[int, dict[str, Any], dict[bytes, bytes]]:
    answer = problem(error, path=path)
    headers = dict(answer.headers)
    assert len(headers) == len(answer.headers)
    assert b"set-cookie" not in headers
    return answer.status, msgspec.json.decode(answer.body), headers


ROWS = [
    (NotAuthenticated("x"), 401, "not_authenticated", BEARER),
    (WrongCredentials("x"), 401, "wrong_credentials", BEARER),
    (domain.ClonedPasskey("x"), 401, "wrong_credentials", BEARER),
    (domain.SignInUnfinished("x", token="t", methods=("code",)), 401, "sign_in_unfinished", BEARER),
    (InvalidToken("x"), 401, "invalid_token", BEARER + b', error="invalid_token"'),
    (domain.Misdirected("aud", found="a", expected="b"), 401, "invalid_token", BEARER + b', error="invalid_token"'),
    (domain.UnknownKey("x"), 401, "invalid_token", BEARER + b', error="invalid_token"'),
    (domain.DpopRequired("x"), 401, "dpop_required", DPOP.replace(b"?", b"invalid_token")),
    (domain.InvalidDpopProof("it is x"), 401, "invalid_dpop_proof", DPOP.replace(b"?", b"invalid_dpop_proof")),
    (domain.UseDpopNonce("x"), 401, "use_dpop_nonce", DPOP.replace(b"?", b"use_dpop_nonce")),
    (domain.DeviceProofRequired("x"), 401, "device_proof_required", BEARER),
    (domain.StaleClaims("x"), 401, "token_stale", BEARER + b', error="invalid_token"'),
    (UnknownVerifier("x"), 401, "unknown_verifier", BEARER + b', error="invalid_token"'),
    (AmbiguousCookie("x"), 401, "ambiguous_cookie", BEARER + b', error="invalid_token"'),
    (domain.SessionInDoubt("x"), 401, "step_up_required", BEARER + b', error="insufficient_user_authentication"'),
    (
        StepUpRequired("x", max_age=300.9),
        401,
        "step_up_required",
        BEARER + b', error="insufficient_user_authentication", max_age="300"',
    ),
    (Forbidden("x"), 403, "forbidden", BEARER + b', error="insufficient_scope"'),
    (CrossSite("x"), 403, "cross_site", None),
    (CsrfRefused("x"), 403, "csrf_token", None),
    (domain.Refused("x"), 403, "refused", None),
    (domain.DeviceKeyRefused("it is x"), 403, "device_key_refused", None),
    (domain.IssuerRefused("x"), 403, "issuer_refused", None),
    (domain.RegistrationClosed("x"), 403, "registration_closed", None),
    (domain.LastAdministrator("x"), 403, "last_administrator", None),
    (domain.AnotherBrowser("x"), 403, "another_browser", None),
    (NotFound("x"), 404, "not_found", None),
    (MethodNotAllowed(["GET", "POST"]), 405, "method_not_allowed", None),
    (Taken("x"), 409, "email_taken", None),
    (Superseded("x"), 409, "superseded", None),
    (domain.SessionLimitReached("x"), 409, "session_limit_reached", None),
    (domain.Conflict("x"), 409, "conflict", None),
    (TooLarge("x", at_most=9), 413, "too_large", None),
    (UnsupportedMediaType("x"), 415, "unsupported_media_type", None),
    (InvalidInput("Bad.", field="email"), 422, "invalid_input", None),
    (domain.TooMuchData(65_536), 422, "too_much_data", None),
    (WeakPassword("Too short.", field="password"), 422, "weak_password", None),
    (RateLimited("x", retry_after=3.2), 429, "rate_limited", None),
    (Unavailable("x"), 503, "unavailable", None),
    (domain.IssuerUnavailable("x"), 503, "issuer_unavailable", None),
    (BadRequest("Odd."), 400, "bad_request", None),
    (BadRequest("Odd.", code="unknown_host"), 400, "unknown_host", None),
    (OAuthRefused("invalid_scope"), 400, "invalid_scope", None),
]


@pytest.mark.parametrize(("error", "status", "code", "challenge"), ROWS, ids=lambda v: getattr(v, "code", None))
def test_p04_every_refusal_is_a_problem_document(
    error: DutchdoorError, status: int, code: str, challenge: bytes | None
) -> None:
    """RFC 9457: the status in words, a stable code, one sentence for the caller, and the challenge a 401 needs."""
    got, document, headers = answered(error)
    assert (got, document["status"], document["code"], document["detail"]) == (status, status, code, str(error))
    assert headers[b"content-type"] == b"application/problem+json"
    assert headers.get(b"www-authenticate") == challenge
    assert document["title"]
    assert "type" not in document


OURS = {
    c
    for module in (domain, web)
    for _, c in inspect.getmembers(module, inspect.isclass)
    if issubclass(c, DutchdoorError)
}
INTERNAL = {DutchdoorError, domain.InvalidKey, Misconfigured}


def test_p04_the_table_knows_every_exception() -> None:
    """A new exception without a status fails here, not in front of a user."""
    assert OURS - {type(error) for error, *_ in ROWS} == INTERNAL


@pytest.mark.parametrize("path", ["/auth/me", "/oauth2/token"])
def test_p04_a_reason_is_for_the_log_only(path: str) -> None:
    """`reason` says more than a caller may know: whether the account exists, for instance."""
    for kind in (NotAuthenticated, WrongCredentials, InvalidToken, Forbidden, NotFound, Taken, Superseded):
        answer = problem(kind("the account canary is disabled"), path=path)
        assert b"canary" not in answer.body
        assert not any(b"canary" in value for _, value in answer.headers)


def test_c10_an_unknown_address_and_a_wrong_password_are_one_answer() -> None:
    """To the byte."""
    answers = [
        problem(WrongCredentials(reason), path="/auth/login") for reason in ("no such account", "wrong password")
    ]
    assert (answers[0].status, answers[0].headers, answers[0].body) == (
        answers[1].status,
        answers[1].headers,
        answers[1].body,
    )


def test_c07_a_step_up_says_how_fresh_the_proof_must_be() -> None:
    """RFC 9470: in the challenge and, for people's programs, in the document. Never more than was asked."""
    _, document, headers = answered(StepUpRequired("x", max_age=0.5))
    assert document["max_age"] == 0
    assert b'max_age="0"' in headers[b"www-authenticate"]


@pytest.mark.parametrize(
    ("seconds", "header"),
    [(0.0, b"1"), (0.01, b"1"), (1.0, b"1"), (1.01, b"2"), (59.5, b"60"), (1e12, b"86400"), (float("inf"), b"86400")],
)
@pytest.mark.parametrize("path", ["/auth/login", "/oauth2/token"])
def test_c11_retry_after_is_never_too_early(seconds: float, header: bytes, path: str) -> None:
    """Whole seconds, rounded up, at least one and at most a day."""
    for error in (RateLimited(retry_after=seconds), Unavailable(retry_after=seconds)):
        _, document, headers = answered(error, path)
        assert headers[b"retry-after"] == header
        assert document.get("retry_after", int(header)) == int(header)


def test_p02_a_store_out_of_reach_signs_no_one_out() -> None:
    """503 with Retry-After: never a 401, never a challenge, never a cookie."""
    status, _, headers = answered(Unavailable("sqlite: disk I/O error"))
    assert (status, headers[b"retry-after"]) == (503, b"1")
    assert b"www-authenticate" not in headers


def test_bad_input_names_its_field() -> None:
    """And only where there is one."""
    assert answered(InvalidInput("Bad.", field="parts[1].kind"))[1]["field"] == "parts[1].kind"
    assert "field" not in answered(InvalidInput("Bad."))[1]


def test_405_names_the_methods() -> None:
    """RFC 9110, section 15.5.6."""
    assert answered(MethodNotAllowed(["GET", "POST"]))[2][b"allow"] == b"GET, POST"


# --- what we did not raise ---


def fail_deep() -> None:
    try:
        int("canary-password-in-a-value-error")
    except ValueError as error:
        raise KeyError("canary-key") from error


@pytest.mark.parametrize("path", ["/auth/me", "/oauth2/token", ""])
def test_p04_the_unexpected_says_nothing_but_an_id(path: str, caplog: pytest.LogCaptureFixture) -> None:
    """No text, type, place or stack in the answer; the same id in the log, with the place."""
    with pytest.raises(KeyError) as raised:
        fail_deep()
    with caplog.at_level(logging.ERROR, "dutchdoor.web"):
        status, document, _ = answered(raised.value, path)
    assert status == 500
    incident = document.get("incident") or document["error_description"].removeprefix("incident ")
    assert re.fullmatch(r"[0-9a-f]{16}", incident)
    assert set(document) == (
        {"error", "error_description"} if path.startswith("/oauth2/") else {"title", "status", "code", "incident"}
    )
    assert incident in caplog.text
    assert "fail_deep" in caplog.text
    assert "KeyError" in caplog.text
    assert "ValueError" in caplog.text


def test_i23_the_log_holds_no_text_of_an_exception_we_did_not_write(caplog: pytest.LogCaptureFixture) -> None:
    """`int()` quotes what it could not read, and that may be a password."""
    with pytest.raises(KeyError) as raised:
        fail_deep()
    problem(raised.value)
    logged = caplog.text.replace('int("canary-password-in-a-value-error")', "").replace('KeyError("canary-key")', "")
    assert "canary" not in logged


@pytest.mark.parametrize("kind", sorted(INTERNAL, key=lambda k: k.__name__))
def test_p04_our_own_mistakes_are_500_too(kind: type[DutchdoorError], caplog: pytest.LogCaptureFixture) -> None:
    """A misconfigured server says so in the log, by our own reason, and not to a caller."""
    status, document, _ = answered(kind("key k1 is retired"))
    assert (status, document["code"]) == (500, "internal")
    assert "detail" not in document
    assert "key k1 is retired" in caplog.text


def test_p04_a_circle_of_causes_ends() -> None:
    """An exception that is its own cause does not keep the server busy."""
    error = RuntimeError("a")
    error.__cause__ = KeyError("b")
    error.__cause__.__cause__ = error
    assert problem(error).status == 500


# --- RFC 6749, section 5.2 ---


@pytest.mark.parametrize(
    ("error", "status", "word"),
    [
        (InvalidInput("Bad.", field="scope"), 400, "invalid_request"),
        (BadRequest("Odd."), 400, "invalid_request"),
        (NotAuthenticated(), 401, "invalid_client"),
        (WrongCredentials(), 401, "invalid_client"),
        (InvalidToken(), 400, "invalid_grant"),
        (Superseded(), 400, "invalid_grant"),
        (Forbidden(), 400, "unauthorized_client"),
        (CrossSite(), 403, "invalid_request"),
        (OAuthRefused("unsupported_grant_type"), 400, "unsupported_grant_type"),
        (OAuthRefused("invalid_scope", "No."), 400, "invalid_scope"),
        (TooLarge("x", at_most=9), 413, "invalid_request"),
        (UnsupportedMediaType(accepts="application/x-www-form-urlencoded"), 415, "invalid_request"),
        (MethodNotAllowed(["POST"]), 405, "invalid_request"),
        (RateLimited(retry_after=1), 429, "temporarily_unavailable"),
        (Unavailable(), 503, "temporarily_unavailable"),
    ],
)
def test_o16_under_oauth2_errors_have_the_form_of_rfc_6749(error: DutchdoorError, status: int, word: str) -> None:
    """JSON with `error` and `error_description`; a 401 names the scheme by which a client authenticates."""
    got, document, headers = answered(error, "/oauth2/token")
    assert (got, document) == (status, {"error": word, "error_description": str(error)})
    assert headers[b"content-type"] == b"application/json"
    assert headers.get(b"www-authenticate") == (b'Basic realm="dutchdoor"' if status == 401 else None)


def test_o16_a_description_keeps_to_its_characters() -> None:
    """RFC 6749 allows no quote, backslash or character beyond ASCII there."""
    _, document, _ = answered(InvalidInput('a "b" \\ ä\n'), "/oauth2/token")
    assert document["error_description"] == "a 'b' ' ''"


def test_o16_a_path_that_only_looks_like_it_is_not_oauth() -> None:
    """The form hangs on the prefix, exactly."""
    for path in ("/oauth2", "/OAUTH2/token", "/auth/oauth2/token", "/oauth2x/token"):
        assert answered(NotFound(), path)[2][b"content-type"] == b"application/problem+json"
