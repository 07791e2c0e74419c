"""What the settings of each program of Django have in common: the same database, at the same durability."""

from __future__ import annotations

import os
from typing import Any

KEY = "a benchmark's key, 50 characters and no secret at all"


def over_sqlite(suffix: str = "") -> dict[str, Any]:
    """Return the settings of a program over the SQLite file of the run, or over one beside it."""
    return {
        "SECRET_KEY": KEY,
        "ALLOWED_HOSTS": ["*"],
        "USE_TZ": True,
        "DEFAULT_AUTO_FIELD": "django.db.models.BigAutoField",
        "DATABASES": {
            "default": {
                "ENGINE": "django.db.backends.sqlite3",
                "NAME": os.environ["SQLITE_PATH"] + suffix,
                "CONN_MAX_AGE": None,
                "OPTIONS": {
                    "init_command": "PRAGMA journal_mode=WAL;PRAGMA synchronous=NORMAL;PRAGMA busy_timeout=5000",
                    "transaction_mode": "IMMEDIATE",
                },
            }
        },
    }
