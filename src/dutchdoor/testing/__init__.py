"""For the tests of those who use dutchdoor: a clock that is set by hand, and the laws that every store obeys."""
