"""The account page: one file for each of its sections."""
