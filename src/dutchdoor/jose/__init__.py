"""JSON Web Keys, signatures and access tokens (RFC 7515, 7517, 7519, 9068)."""
