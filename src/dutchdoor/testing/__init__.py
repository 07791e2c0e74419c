"""For the tests of applications that use dutchdoor: a clock set by hand, and the laws that every store obeys."""
