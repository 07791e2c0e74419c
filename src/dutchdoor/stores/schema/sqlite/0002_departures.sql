-- Accounts that their owners have deleted, until they are erased.
CREATE TABLE departures (
    subject TEXT PRIMARY KEY NOT NULL,
    asked_at REAL NOT NULL,
    due_at REAL NOT NULL,
    is_final INTEGER NOT NULL,
    revision INTEGER NOT NULL
) WITHOUT ROWID;
