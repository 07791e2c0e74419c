"""URLs in the wrong order: Django's admin answers a path of the API."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path

urlpatterns = [path("admin/", admin.site.urls), path("", include("dutchdoor.django.urls"))]
