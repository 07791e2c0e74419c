"""What stands between HTTP and the domain: one file a concern, one file a framework."""
