"""The settings of Django's own tests, with our engine of sessions."""

from __future__ import annotations

from test_sqlite import *  # noqa: F403 - Django's own

SESSION_ENGINE = "dutchdoor.django.sessions"
DUTCHDOOR = {"database": "memory:"}
