"""The log of the server: text or JSON, each line with its level, its time in UTC and the id of its request."""

from __future__ import annotations

import json
import logging
import logging.config
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from tests.http.world import PROXY, World, a_world

from dutchdoor.errors import Unavailable
from dutchdoor.server.instrumentation import ObservedStore, Watched, log_transitions
from dutchdoor.server.logs import Fields, JsonLines, TextLines, logging_config
from dutchdoor.stores.memory import MemoryStore
from dutchdoor.web.request_id import CURRENT

GIVEN = "4f1c0a9be2d84d6f9c3b2a1908f7e6d5"
ADA = {"email": "ada@example.com", "password": "a quiet heron at dusk"}


class Lines(list[str]):
    """A handler's stream, as lines."""

    def write(self, text: str) -> None:
        self.extend(text.splitlines())

    def flush(self) -> None: ...


@pytest.fixture
def lines() -> Iterator[Lines]:
    found = Lines()
    handler = logging.StreamHandler(found)  # type: ignore[arg-type]  # it writes and flushes, which is all that is asked
    handler.setFormatter(JsonLines())
    logger = logging.getLogger("dutchdoor")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield found
    logger.removeHandler(handler)
    logger.setLevel(level)


def watched(world: World) -> None:
    """Log this world's requests as `serve --access-log` does."""
    world.app = Watched(world.app, world.auth.api.routes, counters=None, metrics_token=None, log=True)  # type: ignore[assignment]


def record(message: object, *arguments: object) -> logging.LogRecord:
    made = logging.LogRecord("dutchdoor", logging.WARNING, __file__, 1, message, arguments, None)
    made.created = datetime(2026, 11, 29, 12, 7, 7, 123_000, UTC).timestamp()
    return made


def test_p26_a_line_has_its_level_and_its_time_in_utc() -> None:
    """Text and JSON say when, with the zone, how grave and from which logger."""
    assert TextLines().format(record("%d left", 3)) == "2026-11-29T12:07:07.123Z WARNING dutchdoor 3 left"
    assert json.loads(JsonLines().format(record("%d left", 3))) == {
        "time": "2026-11-29T12:07:07.123Z",
        "level": "WARNING",
        "logger": "dutchdoor",
        "message": "3 left",
    }


def test_p26_fields_are_pairs_or_members() -> None:
    """Named values are pairs in text and members in JSON; what is empty is left out."""
    fields = Fields(event="login", device="Firefox (Linux)", detail="", status=200)
    assert TextLines().format(record(fields)).endswith('dutchdoor event=login device="Firefox (Linux)" status=200')
    found = json.loads(JsonLines().format(record(fields)))
    assert {name: found.get(name) for name in fields} == {**fields, "detail": None}
    assert found["status"] == 200


@pytest.mark.parametrize("form", [TextLines(), JsonLines()])
def test_p26_a_value_is_one_line_and_steers_no_terminal(form: logging.Formatter) -> None:
    """A value with line breaks, escape sequences or 8-bit controls cannot look like another line."""
    text = form.format(record(Fields(detail='x"\n2026 ERROR \x1b[2J\x9b2J\u2028 event=login')))
    assert text.isascii()
    assert text.isprintable()


def test_p26_an_exception_is_a_member_of_its_line() -> None:
    """A traceback in JSON is part of the line that reports it."""
    try:
        raise ValueError("broken")
    except ValueError as error:
        made = record("failed")
        made.exc_info = (ValueError, error, error.__traceback__)
    found = json.loads(JsonLines().format(made))
    assert found["exception"].startswith("Traceback")
    assert "ValueError: broken" in found["exception"]


def test_p26_both_forms_are_configured() -> None:
    """The configuration that `serve` gives to `logging` can be used, for its own lines and uvicorn's."""
    for form in ("text", "json"):
        configured = logging_config(form)
        assert set(configured["loggers"]) == {"dutchdoor", "opentelemetry", "uvicorn"}
        logging.config.DictConfigurator(configured).configure_formatter(configured["formatters"]["line"])


async def test_p26_every_line_of_a_request_has_its_id(lines: Lines) -> None:
    """The id of a trusted proxy is in the response, in each line of the request's events, and in its access line."""
    store = ObservedStore(MemoryStore())  # type: ignore[abstract]  # `Around` has the rest
    async with a_world(store=store, proxies=[PROXY]) as world:
        watched(world)
        store.listeners = [log_transitions]
        through = [("x-forwarded-for", "203.0.113.9"), ("x-request-id", GIVEN)]
        answer = await world.call("POST", "/auth/register", json=ADA, headers=through, peer=PROXY)
        assert answer.status in {201, 202}
        assert answer.header("x-request-id") == GIVEN
    found = [json.loads(line) for line in lines]
    assert {each["request_id"] for each in found} == {GIVEN}
    assert "account_created" in {each.get("event") for each in found}
    (access,) = [each for each in found if each["logger"] == "dutchdoor.access"]
    assert access["client"] == "203.0.113.9", "the proxy's address says nothing of the client"
    assert (access["method"], access["route"], access["status"]) == ("POST", "/auth/register", answer.status)


async def test_p26_only_a_trusted_proxy_gives_the_id(lines: Lines) -> None:
    """An id from another sender, or one that is not well-formed, is replaced by a new one; each request has its own."""
    async with a_world(proxies=[PROXY]) as world:
        watched(world)
        made = set()
        for given, peer in ((GIVEN, None), ("a b" * 9, PROXY), ("x" * 129, PROXY), ("short", PROXY), ("", PROXY)):
            answer = await world.call("GET", "/livez", headers=[("x-request-id", given)], peer=peer)
            made.add(answer.header("x-request-id"))
        assert len(made) == 5
        assert all(each is not None and len(each) == 32 and each != GIVEN for each in made)
        refused = await world.call(
            "GET", "/auth/me", host="evil.example", headers=[("x-request-id", GIVEN)], peer=PROXY
        )
        assert (refused.status, refused.header("x-request-id")) == (400, GIVEN)
    assert {json.loads(line)["request_id"] for line in lines} == made | {GIVEN}


async def test_p26_an_outage_names_the_request_that_met_it(lines: Lines) -> None:
    """The line with the reason of a 503 has the id that the client got; a line after the request has none."""
    async with a_world(proxies=[PROXY]) as world:

        async def gone(*_: object) -> None:
            raise Unavailable("sqlite: database or disk is full")

        world.auth.authority.store.try_writing = gone  # type: ignore[method-assign]
        answer = await world.call("GET", "/readyz")
        assert answer.status == 503
        (line,) = [json.loads(each) for each in lines]
        assert line["request_id"] == answer.header("x-request-id")
        assert CURRENT.get() is not None, "this test runs in the request's context, as a timer would that it started"
        logging.getLogger("dutchdoor").warning("later")
    assert "request_id" not in json.loads(lines[-1])


def test_the_stream_is_standard_error() -> None:
    """Standard output has one line, the address; the log goes to standard error."""
    assert logging_config("json")["handlers"]["err"]["stream"] == "ext://sys.stderr"
