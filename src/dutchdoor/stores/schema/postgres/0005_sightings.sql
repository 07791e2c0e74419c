-- additive: yes
--
-- From where sessions, tokens and accounts were used.
CREATE TABLE dutchdoor.sightings (
    id bytea PRIMARY KEY,
    subject text COLLATE "C" NOT NULL,
    history bytea NOT NULL,
    expires_at double precision NOT NULL,
    revision bigint NOT NULL
);
CREATE INDEX sightings_by_subject ON dutchdoor.sightings (subject);

INSERT INTO dutchdoor.kinds VALUES ('sightings', '{id}', 'subject', 'id');
