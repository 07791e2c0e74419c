"""The table of `dutchdoor compare` with two more columns, measured in the same run: what people build by hand.

    python -m benchmarks.comparison [--quick] [--json]

FastAPI + PyJWT + a blocklist in Redis, and Starlette + sessions in Redis (`peers/by_hand.py`), on a Valkey of its own.
Of a request only their own check is timed, without the framework around it, as it is with dutchdoor. Their sign-in
server is that Valkey: it has their state, so the outage is its end. About three minutes; with `--json` for
`docs/guides/comparison.json`.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from redis.asyncio import Redis
from starlette.requests import Request

from benchmarks.databases import end_in_order, valkey
from benchmarks.peers.by_hand import Sessions, Tokens
from benchmarks.servers import HOST, free_port
from dutchdoor.choice.comparison import Column
from dutchdoor.choice.measuring import (
    FULL,
    HELD,
    LOG_OUTS,
    MILLION,
    OFTEN,
    QUICK,
    Other,
    Plan,
    Samples,
    measure,
    requests,
    scope_with,
)
from dutchdoor.server.commands.compare import progress_line, show
from dutchdoor.server.terminal import print_json

BY = "python -m benchmarks.comparison"
TOKENS = Column(
    id="by-hand-jwt",
    title="FastAPI PyJWT, Redis",
    says="by hand: FastAPI, PyJWT with HS256, and a blocklist in Redis, whose end is its outage",
)
SESSIONS = Column(
    id="by-hand-session",
    title="Starlette and Redis",
    says="by hand: Starlette, a random id in a cookie, and the session in Redis, whose end is its outage",
)
SAID = {
    "state": ("in the token, and a blocklist in Redis", "JSON in Redis"),
    "revocation": ("one token; all of a user only by code of your own", "one session; all by code of your own"),
    "horizontal": ("any node; all share one Redis", "any node; all share one Redis"),
    "stateless": ("no: each check asks Redis", "no: each check asks Redis"),
    "cross-origin": ("any page that has the token", "as the cookie and CORS are set by hand"),
    "csrf": ("none in a header", "possible; nothing stops it but SameSite=Lax"),
    "xss": ("kept where scripts read it, as tutorials do", "HttpOnly where the author thinks of it"),
    "copied": ("works until it expires", "works until the session ends"),
    "mobile": ("works; the user signs in again when it expires", "works, if the app keeps cookies"),
    "services": ("each has the secret and Redis, and can make tokens", "each has Redis, and can make sessions"),
    "wrong": (
        "a Redis that was emptied accepts what was revoked; a service that forgets to ask",
        "a Redis that was emptied signs everyone out; fixation, CSRF",
    ),
}


@contextmanager
def app(name: str, redis: str) -> Iterator[int]:
    """Run one of the two applications in a process of its own."""
    port = free_port()
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "uvicorn", f"benchmarks.peers.by_hand:{name}", "--factory"),
            *("--host", HOST, "--port", str(port), "--no-access-log", "--log-level", "warning"),
        ],
        env={**os.environ, "BY_HAND_REDIS": redis},
    )
    try:
        until = time.monotonic() + 60
        while True:
            try:
                ask(port, "GET", "/me", {})
                break
            except OSError:
                if time.monotonic() > until or process.poll() is not None:
                    raise RuntimeError(f"{name} did not start") from None
                time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait(20)


def ask(port: int, method: str, path: str, proof: dict[str, str]) -> tuple[int, str, Any]:
    connection = http.client.HTTPConnection(HOST, port, timeout=30)
    try:
        connection.request(method, path, None, proof)
        answer = connection.getresponse()
        text = answer.read()
        return answer.status, answer.getheader("set-cookie", "").partition(";")[0], text
    finally:
        connection.close()


def log_outs(port: int, column: str, samples: Samples) -> None:
    for _ in range(LOG_OUTS):
        _, cookie, text = ask(port, "POST", "/login", {})
        proof = {"cookie": cookie} if cookie else {"authorization": f"Bearer {json.loads(text)['access_token']}"}
        ((name, value),) = proof.items()
        samples["sent", column].append(len(f"{name}: {value}\r\n"))
        assert ask(port, "GET", "/me", proof)[0] == 200
        calling = threading.Thread(target=ask, args=(port, "POST", "/logout", proof))
        begun = time.perf_counter()
        calling.start()
        while ask(port, "GET", "/me", proof)[0] == 200:
            time.sleep(OFTEN)
        samples["log-out", column].append(time.perf_counter() - begun)
        calling.join()


async def used(redis: Redis) -> int:
    return int((await redis.info("memory"))["used_memory"])


async def in_process(url: str, column: str, plan: Plan, samples: Samples) -> None:
    async with Redis.from_url(url) as redis:
        count = max(plan.sign_ins, plan.requests)
        before = await used(redis)
        if column == TOKENS.id:
            tokens = Tokens(redis)
            scopes = [scope_with("authorization", f"Bearer {tokens.issue(f'user{n}')}") for n in range(count)]
            check: Callable[[Request], Any] = tokens.user
        else:
            sessions = Sessions(redis)
            scopes = [scope_with("cookie", f"session={await sessions.start(f'user{n}')}") for n in range(count)]
            check = sessions.user
        stored = 0 if column == TOKENS.id else await used(redis) - before
        samples["stored", column].append(stored / count * MILLION)
        await requests(lambda scope: check(Request(scope)), scopes[: plan.requests], column, samples)
        await redis.flushdb()


async def until_it_fails(url: str, column: str, end: Callable[[], None]) -> tuple[float, float]:
    """Return the seconds until the last check that was accepted, and until the first that was not."""
    async with Redis.from_url(url) as redis:
        tokens, sessions = Tokens(redis), Sessions(redis)
        if column == TOKENS.id:
            request = Request(scope_with("authorization", f"Bearer {tokens.issue('ada')}"))
            check: Callable[[Request], Any] = tokens.user
        else:
            request = Request(scope_with("cookie", f"session={await sessions.start('ada')}"))
            check = sessions.user
        assert await check(request)
        begun, held = time.perf_counter(), 0.0
        end()
        while True:
            asked = time.perf_counter() - begun
            try:
                await check(request)
                held = asked
            except Exception:  # noqa: BLE001 - whatever a client of Redis raises: the check is over
                return held, time.perf_counter() - begun


def other(column: Column, port: int, url: str) -> Other:
    def a_round(plan: Plan, samples: Samples) -> None:
        asyncio.run(in_process(url, column.id, plan, samples))
        log_outs(port, column.id, samples)

    def an_outage(_plan: Plan, samples: Samples) -> None:
        with ExitStack() as running:
            gone = running.enter_context(valkey())
            held, failed = asyncio.run(until_it_fails(gone, column.id, running.close))
            samples[HELD, column.id].append(held)
            samples["outage", column.id].append(failed)

    which = 0 if column is TOKENS else 1
    cells = {fact: said[which] for fact, said in SAID.items()}
    return Other(column=column, cells=cells, a_round=a_round, an_outage=an_outage)


def main() -> None:
    end_in_order()
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--quick", action="store_true")
    reader.add_argument("--json", action="store_true")
    asked = reader.parse_args()
    with (
        valkey() as url,
        app("tokens", url) as of_tokens,
        app("sessions", url) as of_sessions,
        progress_line() as progress,
    ):
        others = [other(TOKENS, of_tokens, url), other(SESSIONS, of_sessions, url)]
        found = measure(QUICK if asked.quick else FULL, progress, others, by=BY)
    if asked.json:
        print_json(found)
    else:
        show(found)


if __name__ == "__main__":
    main()
