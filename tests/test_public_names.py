"""What `import dutchdoor` offers: every public name is there, and says what it takes, gives and raises."""

from __future__ import annotations

import dutchdoor


def test_every_public_name_is_there() -> None:
    """Each name in `dutchdoor.__all__` can be imported, and the list is complete."""
    found = {name: getattr(dutchdoor, name) for name in dutchdoor.__all__}
    assert all(value is not None for value in found.values())
    assert set(found) == set(dutchdoor._WHERE)
