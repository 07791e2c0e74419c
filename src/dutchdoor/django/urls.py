"""The paths of the API: `path("", include("dutchdoor.django.urls"))`, before the paths of Django's admin."""

from __future__ import annotations

import re

from django.urls import include, re_path

from dutchdoor.django.configuration import gate
from dutchdoor.django.views import engine

__all__ = ["app_name", "urlpatterns"]

app_name = "dutchdoor"
_paths = {path: f"{re.escape(path[1:])}{'' if path.endswith('/') else '$'}" for path in gate().gate.paths}
# Behind one pattern, so that a request for another path passes all of these at once.
urlpatterns = [
    re_path(
        f"^(?={'|'.join(_paths.values())})",
        include([re_path(f"^{pattern}", engine, name=path.strip("/")) for path, pattern in _paths.items()]),
    )
]
