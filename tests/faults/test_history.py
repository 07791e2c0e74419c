"""The history finds what it is there to find."""

from __future__ import annotations

from tests.faults.client import History, Operation


def history(*operations):
    made = History()
    for each in operations:
        made.add(Operation(*each, status=0))
    return made


def test_an_acceptance_after_an_end_is_found():
    """A use that began after an acknowledged end and was accepted is a violation; one that began before it is none,
    and after an end that was not acknowledged nothing is.
    """
    wrong = history(("end", "a", 1.0, 2.0, "ok"), ("use", "a", 2.1, 2.2, "ok"))
    assert len(wrong.accepted_after(["end"], ["use"])) == 1
    overlapping = history(("end", "a", 1.0, 2.0, "ok"), ("use", "a", 1.9, 2.2, "ok"))
    unknown = history(("end", "a", 1.0, 2.0, "unknown"), ("use", "a", 2.1, 2.2, "ok"))
    other = history(("end", "a", 1.0, 2.0, "ok"), ("use", "b", 2.1, 2.2, "ok"))
    refused = history(("end", "a", 1.0, 2.0, "ok"), ("use", "a", 2.1, 2.2, "fail"))
    for fine in (overlapping, unknown, other, refused):
        assert fine.accepted_after(["end"], ["use"]) == []


def test_the_first_acknowledgement_counts():
    """An end that is repeated held from its first answer on."""
    repeated = history(
        ("end", "a", 3.0, 4.0, "ok"), ("end", "a", 1.0, 2.0, "ok"), ("use", "a", 2.5, 2.6, "ok")
    )  # fmt: skip
    assert len(repeated.accepted_after(["end"], ["use"])) == 1


def test_time_without_service():
    """The longest gap between two answers that served."""
    gap = history(("use", "", 0.0, 0.1, "ok"), ("use", "", 1.0, 1.1, "unknown"), ("use", "", 2.0, 2.1, "ok"))
    assert gap.without_service("use") == 2.0
