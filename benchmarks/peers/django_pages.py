"""The pages of Django's admin and of django-allauth, as their documentation sets them up: sign-in, and the list
of one's own sessions.

`python django_pages.py` makes the tables and the user in the SQLite file that SQLITE_PATH names; gunicorn then serves
`django_pages:application`. Files are served by Django's own handler, as `runserver` does.
"""

from __future__ import annotations

import sys

import django
from django.conf import settings
from django_settings import over_sqlite

sys.modules.setdefault("django_pages", sys.modules[__name__])

settings.configure(
    **over_sqlite(),
    ROOT_URLCONF="django_pages",
    STATIC_URL="/static/",
    INSTALLED_APPS=[
        "django.contrib.admin",
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.humanize",
        "django.contrib.messages",
        "django.contrib.sessions",
        "django.contrib.staticfiles",
        "allauth",
        "allauth.account",
        "allauth.usersessions",
    ],
    MIDDLEWARE=[
        "django.middleware.security.SecurityMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
        "django.middleware.clickjacking.XFrameOptionsMiddleware",
        "allauth.account.middleware.AccountMiddleware",
        "allauth.usersessions.middleware.UserSessionsMiddleware",
    ],
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "APP_DIRS": True,
            "OPTIONS": {
                "context_processors": [
                    "django.template.context_processors.request",
                    "django.contrib.auth.context_processors.auth",
                    "django.contrib.messages.context_processors.messages",
                ]
            },
        }
    ],
    AUTHENTICATION_BACKENDS=[
        "django.contrib.auth.backends.ModelBackend",
        "allauth.account.auth_backends.AuthenticationBackend",
    ],
    PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
    ACCOUNT_EMAIL_VERIFICATION="none",
    ACCOUNT_RATE_LIMITS=False,
)
django.setup()

# These can be imported only once the settings are there.
from django.contrib import admin  # noqa: E402
from django.contrib.staticfiles.handlers import StaticFilesHandler  # noqa: E402
from django.contrib.staticfiles.views import serve  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.urls import include, path  # noqa: E402


class Files(StaticFilesHandler):
    """Django's handler of files, which asks for `--insecure` where DEBUG is off."""

    def serve(self, request):
        return serve(request, self.file_path(request.path), insecure=True)


urlpatterns = [path("admin/", admin.site.urls), path("accounts/", include("allauth.urls"))]
application = Files(get_wsgi_application())

if __name__ == "__main__":
    from django.contrib.auth import get_user_model
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    get_user_model().objects.create_superuser("bench", "bench@example.com", "correct horse")
