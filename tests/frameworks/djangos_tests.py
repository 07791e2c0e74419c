"""Runs tests of Django's own source distribution over dutchdoor: `python djangos_tests.py SOURCE LABELS...`.

The tests are not changed, and all but those of hashes are run. Our application and our middleware are added to theirs.
Our engine keeps the sessions, and the laws that Django has for each engine (`SessionTestsMixin`) are asked of ours too.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

MIDDLEWARE = "django.contrib.auth.middleware.AuthenticationMiddleware"
HASHERS = "auth_tests.test_hashers."
"""Not run: Django's hashes of passwords have nothing of ours in them, and take half a minute of a processor."""


def main(source: Path, labels: list[str]) -> int:
    sys.path[:0] = [str(source / "tests"), str(Path(__file__).parent)]
    os.environ["DJANGO_SETTINGS_MODULE"] = "djangos_settings"
    os.environ.setdefault("TMPDIR", str(Path.cwd()))
    theirs: Any = import_module("runtests")
    theirs.ALWAYS_INSTALLED_APPS.append("dutchdoor.django")
    at = theirs.ALWAYS_MIDDLEWARE.index(MIDDLEWARE) + 1
    theirs.ALWAYS_MIDDLEWARE.insert(at, "dutchdoor.django.middleware.DutchdoorMiddleware")
    _, state = theirs.setup_run_tests(1, None, None, test_labels=labels)
    settings: Any = import_module("django.conf").settings
    settings.SILENCED_SYSTEM_CHECKS = [*settings.SILENCED_SYSTEM_CHECKS, "dutchdoor.E008"]  # their URLs lack ours
    of_django: Any = import_module("django.test.runner")

    class Runner(of_django.DiscoverRunner):  # type: ignore[misc]
        def build_suite(self, *args: Any, **named: Any) -> Any:
            found = of_django.iter_test_cases(super().build_suite(*args, **named))
            suite = self.test_suite(test for test in found if not test.id().startswith(HASHERS))
            if "sessions_tests" in labels:
                suite.addTests(self.test_loader.loadTestsFromTestCase(laws()))
            return suite

    failures = Runner(verbosity=2, interactive=False, parallel=1).run_tests(labels)
    theirs.teardown_run_tests(state)
    import_module("dutchdoor.django").auth.close()
    return int(bool(failures))


def laws() -> Any:
    """What Django asks of each engine of sessions, asked of ours."""
    mixin: Any = import_module("sessions_tests.tests").SessionTestsMixin
    test: Any = import_module("django.test").TestCase
    store = import_module("dutchdoor.django.sessions").SessionStore
    return type("DutchdoorSessionTests", (mixin, test), {"backend": store, "__module__": "dutchdoor_sessions"})


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
