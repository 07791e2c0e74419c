"""Revocation: the log of what has ended before its time, and who follows it."""
