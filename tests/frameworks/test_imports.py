"""What an adapter imports, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ENGINE_ONLY = ("aiosmtplib", "bcrypt", "idna", "iporigin", "iptocc")
"""Packages of the engine, which a service that only verifies does not have."""
ISSUER = 'issuer="http://localhost:1", audience="api"'
DJANGO = f"""
import django
from django.conf import settings
settings.configure(
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "dutchdoor.django"],
    MIDDLEWARE=["dutchdoor.django.middleware.DutchdoorMiddleware"],
    DUTCHDOOR=dict({ISSUER}),
)
django.setup()
from django.core.wsgi import get_wsgi_application
get_wsgi_application()
"""
SERVICES = {
    "fastapi": f"from fastapi import FastAPI; from dutchdoor.fastapi import Auth; Auth(FastAPI(), {ISSUER})",
    "starlette": "from starlette.applications import Starlette; from dutchdoor.starlette import Auth; "
    f"Auth(Starlette(), {ISSUER})",
    "litestar": "from litestar import Litestar; from dutchdoor.litestar import Auth; "
    f"Litestar(plugins=[Auth({ISSUER})])",
    "flask": f"from flask import Flask; from dutchdoor.flask import Auth; Auth(Flask('app'), {ISSUER})",
    "django": DJANGO,
}


@pytest.mark.parametrize("framework", SERVICES)
def test_a_service_that_only_verifies_needs_no_package_of_the_engine(framework: str, tmp_path: Path) -> None:
    """It starts where those packages are missing, and loads no engine."""
    missing = f"import sys\nsys.modules.update(dict.fromkeys({ENGINE_ONLY!r}))\n"
    ending = "\nassert 'dutchdoor.auth' not in sys.modules, 'it loaded the engine'"
    program = missing + SERVICES[framework] + ending
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert ran.returncode == 0, ran.stderr
