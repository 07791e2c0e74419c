"""The text of a binding, as a session keeps it."""

from __future__ import annotations

import pytest

from dutchdoor.model.bindings import Binding

BINDINGS = (
    Binding("confirmed", "ES256", "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"),
    Binding("offered", "RS256", "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I", '{"e":"AQAB","kty":"RSA","n":"x"}'),
    Binding(
        "confirmed", "ES256", "0ZcOCORZNYy", '{"kty":"EC"}', 1_796_001_234, 1_796_001_300, "AaIqFZgX7BH70Dcxh6xMug"
    ),
)


@pytest.mark.parametrize("binding", BINDINGS, ids=("program", "browser", "known by another id"))
def test_d20_a_binding_reads_what_it_writes(binding: Binding) -> None:
    """What a session keeps of a key comes back as it was: its state, its algorithm, its name and the key itself."""
    assert Binding.parse(binding.text()) == binding


@pytest.mark.parametrize(
    "text",
    [
        "",
        "confirmed",
        "none ES256 x ",
        "confirmed ES256 x  more",
        "confirmed ES256 x {} 1 2 ",
        "confirmed ES256 x  1 2 id",
    ],
)
def test_d20_what_is_no_binding_is_refused(text: str) -> None:
    """A damaged binding is never read as none: that would make a bound session a bearer's."""
    with pytest.raises(ValueError, match="not the binding"):
        Binding.parse(text)
