"""What carries a message to the endpoint of a webhook, and to no address that it must not reach."""
