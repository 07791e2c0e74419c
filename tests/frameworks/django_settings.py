"""The settings of a project of Django for tests: its own session engine, admin, and views of each kind."""

from __future__ import annotations

from typing import Any

SETTINGS: dict[str, Any] = {
    "SECRET_KEY": "only for tests, and long enough for Django to be content",
    "ROOT_URLCONF": "tests.frameworks.django_urls",
    "INSTALLED_APPS": [
        "django.contrib.admin",
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
        "django.contrib.messages",
        "rest_framework",
        "dutchdoor.django",
    ],
    "MIDDLEWARE": [
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "dutchdoor.django.middleware.DutchdoorMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    ],
    "TEMPLATES": [
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "APP_DIRS": True,
            "OPTIONS": {
                "context_processors": [
                    "django.contrib.auth.context_processors.auth",
                    "django.template.context_processors.request",
                    "django.contrib.messages.context_processors.messages",
                ]
            },
        }
    ],
    # Shared by the threads of this process.
    "DATABASES": {
        "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "file:django_site?mode=memory&cache=shared"}
    },
    "PASSWORD_HASHERS": ["django.contrib.auth.hashers.MD5PasswordHasher"],
    "AUTHENTICATION_BACKENDS": [
        "django.contrib.auth.backends.ModelBackend",
        "django.contrib.auth.backends.RemoteUserBackend",
    ],
    "LOGIN_URL": "/sign-in/",
    "LOGIN_REDIRECT_URL": "/hello",
    "SESSION_ENGINE": "dutchdoor.django.sessions",
    "USE_TZ": True,
    "DUTCHDOOR": {"database": "memory:"},
    "REST_FRAMEWORK": {
        "DEFAULT_AUTHENTICATION_CLASSES": [
            "dutchdoor.django.rest_framework.TokenAuthentication",
            "rest_framework.authentication.SessionAuthentication",
        ]
    },
}
