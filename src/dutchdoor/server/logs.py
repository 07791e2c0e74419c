"""The form of the server's log: lines of text for people, or one JSON object a line for programs.

Both have the time in UTC (RFC 3339), the level, the logger, and the id of the request that a line belongs to.
"""

from __future__ import annotations

import json
import logging
import re
from datetime import UTC, datetime
from typing import Any

from dutchdoor.web.request_id import current_request_id

__all__ = ["Fields", "JsonLines", "TextLines", "logging_config"]

_PLAIN = re.compile(r"[A-Za-z0-9_.:/@+()-]+")


class Fields(dict[str, object]):
    """A message of named values: `name=value` pairs as text, members of the object as JSON. Empty values are left out.

    A value with special characters is written as JSON, to keep pairs apart.
    """

    def __str__(self) -> str:
        return " ".join(f"{name}={_value(str(value))}" for name, value in self.items() if value != "")


def _value(value: str) -> str:
    # Log injection: a line break in a value would look like a log line of its own.
    return value if _PLAIN.fullmatch(value) else json.dumps(value)


class TextLines(logging.Formatter):
    """`2026-11-29T12:07:07.123Z INFO dutchdoor.events event=login outcome=ok request_id=...`"""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        line = f"{_instant(record)} {record.levelname} {record.name} {record.message}"
        request_id = current_request_id()
        return f"{line} request_id={request_id}" if request_id else line


class JsonLines(logging.Formatter):
    """`{"time": "2026-11-29T12:07:07.123Z", "level": "INFO", "logger": "dutchdoor.events", "event": "login", ...}`"""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {"time": _instant(record), "level": record.levelname, "logger": record.name}
        if request_id := current_request_id():
            line["request_id"] = request_id
        if isinstance(record.msg, Fields):
            line.update((name, value) for name, value in record.msg.items() if value != "")
        else:
            line["message"] = record.getMessage()
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        # Terminal injection: ASCII alone, so that 8-bit control characters are escaped too.
        return json.dumps(line, ensure_ascii=True)


def _instant(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def logging_config(form: str) -> dict[str, Any]:
    """Return the configuration of `logging` for `text` or `json`, all on standard error."""
    lines = {"text": TextLines, "json": JsonLines}[form]
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"()": f"{lines.__module__}.{lines.__qualname__}"}},
        "handlers": {"err": {"class": "logging.StreamHandler", "formatter": "line", "stream": "ext://sys.stderr"}},
        "loggers": {
            "dutchdoor": {"handlers": ["err"], "level": "INFO", "propagate": False},
            "opentelemetry": {"handlers": ["err"], "level": "WARNING", "propagate": False},
            "uvicorn": {"handlers": ["err"], "level": "WARNING", "propagate": False},
        },
    }
