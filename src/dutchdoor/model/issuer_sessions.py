"""Which of our sessions began by which session of an issuer: what its back-channel log-out ends."""

from __future__ import annotations

from msgspec import Struct

from dutchdoor.model.sessions import Session

__all__ = ["Issued", "IssuerSession", "began_by"]


class Issued(Struct, frozen=True, kw_only=True):
    """Who an issuer said had signed in."""

    issuer: str
    """Its `iss`."""
    subject: str
    """Its `sub`."""
    sid: str
    """Its own session; "" if it names none."""


class IssuerSession(Struct, frozen=True, kw_only=True):
    """One of our sessions, by its `id`. It goes when the session ends."""

    id: str
    subject: str
    issuer: str
    issuer_subject: str
    issuer_sid: str
    expires_at: float

    @property
    def issued(self) -> Issued:
        """What it began by."""
        return Issued(issuer=self.issuer, subject=self.issuer_subject, sid=self.issuer_sid)


def began_by(issued: Issued, session: Session) -> IssuerSession:
    """Return the record for a session that starts."""
    return IssuerSession(
        id=session.id,
        subject=session.subject,
        issuer=issued.issuer,
        issuer_subject=issued.subject,
        issuer_sid=issued.sid,
        expires_at=session.expires_at,
    )
