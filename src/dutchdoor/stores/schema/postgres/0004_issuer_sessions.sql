-- additive: yes
--
-- Which session began by which session of an issuer, such as Google.
CREATE TABLE dutchdoor.issuer_sessions (
    id bytea PRIMARY KEY,
    subject text COLLATE "C" NOT NULL,
    issuer text COLLATE "C" NOT NULL,
    issuer_subject text COLLATE "C" NOT NULL,
    issuer_sid text COLLATE "C" NOT NULL,
    expires_at double precision NOT NULL
);

CREATE INDEX issuer_sessions_by_owner ON dutchdoor.issuer_sessions (subject);
CREATE INDEX issuer_sessions_by_subject ON dutchdoor.issuer_sessions (issuer, issuer_subject);
CREATE INDEX issuer_sessions_by_sid ON dutchdoor.issuer_sessions (issuer, issuer_sid);

INSERT INTO dutchdoor.kinds VALUES ('issuer_sessions', '{id}', 'subject', 'id');
