"""The console: the pages of administrators, below `/admin`."""
