"""The layer between HTTP and the domain: one file for each concern, one file for each framework."""
