"""The command `manage.py dutchdoor`."""
