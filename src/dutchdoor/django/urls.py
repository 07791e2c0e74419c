"""The paths of the API: `path("", include("dutchdoor.django.urls"))`, before the paths of Django's admin."""

from __future__ import annotations

import re

from django.urls import re_path

from dutchdoor.django.configuration import gate
from dutchdoor.django.views import engine

__all__ = ["app_name", "urlpatterns"]

app_name = "dutchdoor"
urlpatterns = [
    re_path(f"^{re.escape(path[1:])}{'' if path.endswith('/') else '$'}", engine, name=path.strip("/"))
    for path in gate().gate.paths
]
