"""Certificates for tests, signed by themselves."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def write_certificate(directory: Path, name: str, *, until: datetime | None = None) -> int:
    """Write cert.pem and key.pem for a name, as a renewal would replace them; give the serial number."""
    key = ec.generate_private_key(ec.SECP256R1())
    until = until or datetime.now(UTC) + timedelta(days=60)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(until - timedelta(days=90))
        .not_valid_after(until)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for file, content in (("key.pem", private), ("cert.pem", certificate.public_bytes(serialization.Encoding.PEM))):
        fresh = directory / f".{file}.new"
        fresh.write_bytes(content)
        fresh.chmod(0o600)
        fresh.replace(directory / file)
    return certificate.serial_number
