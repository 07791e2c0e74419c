"""Revocation: the log of what was revoked, and its followers."""
