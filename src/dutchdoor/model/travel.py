"""How fast someone must have travelled at least, from the countries of two sightings alone.

A country is a few circles that hold its places (`country_extents.txt`). The distance between two countries is the gap
between their nearest circles: a lower bound, so neighbours are 0 km apart, and no border is crossed too fast.
"""

from __future__ import annotations

import math
from functools import cache, lru_cache
from importlib.resources import files
from typing import Final, TypeAlias

__all__ = ["kilometres", "least_hours", "least_kilometres"]

_EARTH: Final = 6371.0
"""Its mean radius in kilometres."""
AIRLINER: Final = 1000.0
"""Kilometres an hour over ground: above what airliners fly, below what they reach with the strongest wind."""
BY_LAND: Final = 300.0
"""Kilometres below which someone may just have driven, or a phone may see a mast across the sea."""
BOARDING: Final = 1.0
"""Hours that a flight takes besides the flight: from the last request on the ground to the first after it."""

_Point: TypeAlias = tuple[float, float]
_Circle: TypeAlias = tuple[_Point, float]


def kilometres(one: tuple[float, float], other: tuple[float, float]) -> float:
    """Return the distance of two points (latitude and longitude in degrees) along a great circle."""
    a, b = math.radians(one[0]), math.radians(other[0])
    across = math.radians(other[1] - one[1])
    half = math.sin((b - a) / 2) ** 2 + math.cos(a) * math.cos(b) * math.sin(across / 2) ** 2
    return 2 * _EARTH * math.asin(math.sqrt(min(1.0, half)))


@lru_cache(maxsize=4096)
def least_kilometres(one: str, other: str) -> float:
    """Return the least distance between two countries (ISO 3166-1); 0 if one of them is not known."""
    known = _extents()
    if one == other or one not in known or other not in known:
        return 0.0
    gaps = (kilometres(a, b) - a_radius - b_radius for a, a_radius in known[one] for b, b_radius in known[other])
    return max(0.0, min(gaps))


def least_hours(one: str, other: str) -> float:
    """Return the hours that the fastest traveller takes between two countries; 0 where one can drive."""
    distance = least_kilometres(one, other)
    return 0.0 if distance < BY_LAND else BOARDING + distance / AIRLINER


@cache
def _extents() -> dict[str, list[_Circle]]:
    known: dict[str, list[_Circle]] = {}
    text = (files("dutchdoor.model") / "country_extents.txt").read_text("utf-8")
    for line in text.splitlines():
        if not line.startswith("#"):
            country, latitude, longitude, radius = line.split()
            known.setdefault(country, []).append(((float(latitude), float(longitude)), float(radius)))
    return known
