-- Which session began by which session of an issuer, such as Google.
CREATE TABLE issuer_sessions (
    id BLOB PRIMARY KEY NOT NULL,
    subject TEXT NOT NULL,
    issuer TEXT NOT NULL,
    issuer_subject TEXT NOT NULL,
    issuer_sid TEXT NOT NULL,
    expires_at REAL NOT NULL
) WITHOUT ROWID;

CREATE INDEX issuer_sessions_by_owner ON issuer_sessions (subject);
CREATE INDEX issuer_sessions_by_subject ON issuer_sessions (issuer, issuer_subject);
CREATE INDEX issuer_sessions_by_sid ON issuer_sessions (issuer, issuer_sid);
