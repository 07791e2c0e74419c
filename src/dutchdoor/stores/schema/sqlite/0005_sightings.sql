-- From where sessions, tokens and accounts were used.
CREATE TABLE sightings (
    id BLOB PRIMARY KEY NOT NULL,
    subject TEXT NOT NULL,
    history BLOB NOT NULL,
    expires_at REAL NOT NULL,
    revision INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX sightings_by_subject ON sightings (subject);
