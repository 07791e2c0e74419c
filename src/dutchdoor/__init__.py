"""dutchdoor: authentication by sessions, JWTs, or both, over one model."""
