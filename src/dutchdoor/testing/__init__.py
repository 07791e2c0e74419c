"""For your tests: fixtures for pytest (`plugin`), a clock set by hand, and the laws that every store obeys."""
