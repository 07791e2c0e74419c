"""Functions that are frozen between two calls: a lease does not outlive the time that a process did not see pass."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.server.running import clean_environment
from tests.verifier.standin import ASK, JWKS, POLL, Standin, stand_still, standing

import dutchdoor.verifier
from dutchdoor import Verifier
from dutchdoor.errors import InvalidToken

Make = Callable[..., Verifier]
ROOT = Path(__file__).parents[2]


def test_f43_a_clock_that_stood_still_keeps_no_lease(
    authority: Standin, following: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that was paused, or restored from a snapshot, may have a clock of elapsed time that stood still. The
    time of day tells an on-demand verifier that its lease is over: it polls, and refuses what was revoked meanwhile.
    """
    stood_at: list[float] = []
    running = dutchdoor.verifier.elapsed
    monkeypatch.setattr(dutchdoor.verifier, "elapsed", lambda: stood_at[0] if stood_at else running())
    verifier = following(follow="on demand")
    token = authority.token(session_id="s" * 22)
    assert verifier(token)
    stood_at.append(running())
    assert authority.revoke("session", "s" * 22).fenced
    with pytest.raises(InvalidToken):
        verifier(token)


@pytest.mark.parametrize("step", [pytest.param(-3600.0, marks=pytest.mark.long), 3600.0])
def test_f43_a_step_of_the_clock_costs_a_poll_at_most(
    authority: Standin, following: Make, monkeypatch: pytest.MonkeyPatch, step: float
) -> None:
    """A time of day that is set forward ends the lease, and the next check polls. Set back, it lengthens no lease."""
    verifier = following(follow="on demand")
    token = authority.token(lifetime=3600.0, session_id="s" * 22)
    assert verifier(token)
    polls, now = authority.asked[POLL], time.time
    with monkeypatch.context() as stopped:
        stand_still(stopped)
        left, stopped_at = verifier.lease_left, time.time()
        stopped.setattr(time, "time", lambda: stopped_at + step)
        assert verifier.lease_left <= left
        assert (verifier.lease_left == 0.0) is (step > 0)
    monkeypatch.setattr(time, "time", lambda: now() + step)
    if step < 0:
        assert authority.revoke("session", "s" * 22).fenced
        with pytest.raises(InvalidToken):
            verifier(token)
        assert authority.asked[POLL] > polls


class Function:
    """The example in an environment of its own, as Lambda runs it: one call at a time, stopped between two."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def call(self, token: str, name: str = "handler") -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        os.kill(self.process.pid, signal.SIGCONT)
        self.process.stdin.write(json.dumps([name, event(token)]) + "\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        os.kill(self.process.pid, signal.SIGSTOP)
        return answer


def event(token: str) -> dict[str, Any]:
    """What an HTTP API hands over (payload format 2.0), in the parts that matter."""
    return {
        "version": "2.0", "routeKey": "$default", "rawPath": "/orders", "rawQueryString": "",
        "headers": {"authorization": f"Bearer {token}", "host": "abc.execute-api.eu-west-1.amazonaws.com"},
        "requestContext": {"accountId": "123456789012", "http": {"method": "GET", "path": "/orders"}},
        "isBase64Encoded": False,
    }  # fmt: skip


RUNTIME = """
import importlib.util, json, sys
import dutchdoor.verifier, dutchdoor.verifier.poller as poller
dutchdoor.verifier.WAITS_FOR = poller.ANSWERED_WITHIN = poller.SETTLES_WITHIN = 60.0  # a busy machine may take that
spec = importlib.util.spec_from_file_location("lambda_handler", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
for line in sys.stdin:
    name, event = json.loads(line)
    try:
        answer = getattr(module, name)(event, None)
    except Exception as error:
        answer = {"errorMessage": str(error)}
    print(json.dumps(answer), flush=True)
"""


@contextmanager
def function(issuer: str) -> Iterator[Function]:
    process = subprocess.Popen(
        [sys.executable, "-c", RUNTIME, str(ROOT / "examples" / "lambda_handler.py")], text=True,
        env=clean_environment({"ISSUER": issuer, "AUDIENCE": "api"}), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        yield Function(process)
    finally:
        os.kill(process.pid, signal.SIGCONT)
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        process.wait(60)
        process.stdout.close()


def test_f44_a_function_refuses_after_the_thaw_what_was_revoked_meanwhile(authority: Standin) -> None:
    """Cold, a function reads keys and log once. Warm, it calls no one. Frozen, it holds up a fence for its lease and no
    longer, and refuses the token when it is thawed. It answers in the form of API Gateway.
    """
    with function(authority.issuer) as here:
        token = authority.token(session_id="s" * 22)
        said = here.call(token)
        assert (said["statusCode"], json.loads(said["body"])) == (200, {"hello": "ada", "roles": ["user"]})
        assert (authority.asked[JWKS], authority.asked[POLL]) == (1, 1)
        assert here.call("x")["statusCode"] == here.call("")["statusCode"] == 401
        known = here.call(token, "authorizer")
        assert known == {"isAuthorized": True, "context": {"sub": "ada", "roles": "user"}}
        began = time.monotonic()
        fence = authority.revoke("session", "s" * 22)
        assert fence.fenced
        assert time.monotonic() - began < 15, "its lease is two seconds"
        assert here.call(token)["statusCode"] == 401
        assert here.call(token, "authorizer") == {"errorMessage": "Unauthorized"}
        assert authority.asked[ASK] == 0


@pytest.mark.long
def test_f44_an_outage_is_no_refusal(tmp_path: Path) -> None:
    """A connection that died while the function was frozen costs nothing. Without a server the answer is 503, and the
    authorizer raises, which API Gateway answers with 500.
    """
    with standing(tmp_path) as authority:
        with function(authority.issuer) as here:
            token = authority.token()
            assert here.call(token)["statusCode"] == 200
            authority.cut()
            time.sleep(2.5)  # its lease ends in elapsed time
            assert here.call(token)["statusCode"] == 200
            time.sleep(2.5)
            authority.stop()
            said = here.call(token)
            assert (said["statusCode"], int(said["headers"]["retry-after"]) >= 1) == (503, True)
            assert here.call(token, "authorizer")["errorMessage"] != "Unauthorized"
        with function(authority.issuer) as cold:
            assert cold.call(token)["statusCode"] == 503
        authority.start()


def test_f44_the_example_is_short() -> None:
    """A function with both shapes, a handler and an authorizer, is under 40 lines."""
    code = (ROOT / "examples" / "lambda_handler.py").read_text().partition('"""\n\nfrom')[2]
    assert len([line for line in code.splitlines() if line.strip()]) < 40
