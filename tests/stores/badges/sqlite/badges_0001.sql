CREATE TABLE badges (
    id BLOB PRIMARY KEY NOT NULL,
    number INTEGER NOT NULL UNIQUE,
    shelf TEXT NOT NULL,
    code TEXT NOT NULL,
    subject TEXT NOT NULL,
    picture BLOB NOT NULL,
    note TEXT,
    expires_at REAL NOT NULL,
    revision INTEGER NOT NULL
) WITHOUT ROWID;

CREATE UNIQUE INDEX badges_by_code ON badges (shelf, code) WHERE shelf <> '' AND code <> '';
CREATE INDEX badges_by_subject ON badges (subject);
