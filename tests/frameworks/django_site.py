"""The project of `django_settings` in this process.

Django's settings are those of the process: who imports this module gets this project.
"""

from __future__ import annotations

import django
from django.conf import settings
from tests.frameworks.django_settings import SETTINGS

__all__ = ["SETTINGS"]

if not settings.configured:
    settings.configure(**SETTINGS)
    django.setup()
