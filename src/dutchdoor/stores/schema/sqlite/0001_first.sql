-- Ids of ours are stored as their 16 bytes, any other as its text: the type shows which it was. Instants are REAL, exact to
-- the bit. Tuples of names are joined by spaces.

-- 'ddoo' in ASCII, so that the command `file` shows whose database this is.
PRAGMA application_id = 1684303727;

-- `number` is never given twice: sessions name their account by it, so that a later account of the same subject cannot
-- inherit the sessions of one that was removed.
CREATE TABLE accounts (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    subject TEXT NOT NULL UNIQUE,
    email TEXT UNIQUE,
    address TEXT,
    name TEXT NOT NULL,
    roles TEXT NOT NULL,
    active INTEGER NOT NULL,
    email_verified_at REAL,
    epoch INTEGER NOT NULL,
    created_at REAL NOT NULL,
    revision INTEGER NOT NULL,
    folded TEXT NOT NULL -- e-mail, address and name, case folded, for searching
);

CREATE INDEX accounts_with_roles ON accounts (subject) WHERE roles <> '';

CREATE TABLE credentials (
    subject TEXT NOT NULL,
    method TEXT NOT NULL,
    handle TEXT NOT NULL,
    proof TEXT NOT NULL,
    created_at REAL NOT NULL,
    revision INTEGER NOT NULL,
    PRIMARY KEY (subject, method, handle)
) WITHOUT ROWID;

-- Accounts that wait for their address to be verified.
CREATE INDEX credentials_of_registrations ON credentials (subject) WHERE method = 'registration';
CREATE UNIQUE INDEX credentials_by_handle ON credentials (method, handle) WHERE method <> '' AND handle <> '';

-- Ids begin with their time of birth, so that the table grows at its end.
CREATE TABLE sessions (
    id BLOB PRIMARY KEY NOT NULL,
    account INTEGER NOT NULL,
    hybrid INTEGER NOT NULL,
    client_id TEXT NOT NULL,
    scope TEXT NOT NULL,
    secret_hash BLOB NOT NULL,
    salt BLOB NOT NULL,
    master_key_id BLOB NOT NULL,
    epoch INTEGER NOT NULL,
    amr TEXT NOT NULL,
    auth_time REAL NOT NULL,
    created_at REAL NOT NULL,
    last_seen_at REAL NOT NULL,
    idle_expires_at REAL NOT NULL,
    expires_at REAL NOT NULL,
    generation INTEGER NOT NULL,
    sibling INTEGER NOT NULL,
    parent_sibling INTEGER NOT NULL,
    rotated_at REAL NOT NULL,
    sibling_at REAL NOT NULL,
    fingerprint TEXT NOT NULL,
    device TEXT NOT NULL,
    address TEXT NOT NULL,
    country TEXT NOT NULL,
    ended_at REAL,
    end_reason TEXT NOT NULL,
    revision INTEGER NOT NULL
) WITHOUT ROWID;

CREATE INDEX sessions_not_ended ON sessions (account) WHERE ended_at IS NULL;

CREATE TABLE one_time_tokens (
    id BLOB PRIMARY KEY NOT NULL,
    purpose TEXT NOT NULL,
    subject TEXT NOT NULL,
    email TEXT NOT NULL,
    secret_hash BLOB NOT NULL,
    created_at REAL NOT NULL,
    expires_at REAL NOT NULL,
    payload BLOB NOT NULL
) WITHOUT ROWID;

CREATE INDEX one_time_tokens_by_subject ON one_time_tokens (subject, purpose);

-- Of a session, under its id, or of a visitor, without a subject. The data is the last column: to read another, SQLite
-- would follow it over all its pages.
CREATE TABLE session_data (
    id BLOB PRIMARY KEY NOT NULL,
    subject TEXT NOT NULL,
    secret_hash BLOB NOT NULL,
    expires_at REAL NOT NULL,
    revision INTEGER NOT NULL,
    data TEXT NOT NULL
);

CREATE INDEX session_data_by_subject ON session_data (subject);

CREATE TABLE keys (
    kid TEXT PRIMARY KEY NOT NULL,
    number INTEGER NOT NULL UNIQUE,
    alg TEXT NOT NULL,
    sealed BLOB NOT NULL,
    created_at REAL NOT NULL,
    signs_at REAL NOT NULL,
    signs_until REAL NOT NULL,
    verifies_until REAL NOT NULL,
    revoked_at REAL,
    exported_at REAL,
    revision INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE clients (
    id TEXT PRIMARY KEY NOT NULL,
    name TEXT NOT NULL,
    secret_hash BLOB NOT NULL,
    created_at REAL NOT NULL,
    revision INTEGER NOT NULL
) WITHOUT ROWID;

-- The settings of the servers, for commands beside them.
CREATE TABLE deployment (
    id TEXT PRIMARY KEY NOT NULL,
    settings TEXT NOT NULL,
    revision INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE verifiers (
    id TEXT PRIMARY KEY NOT NULL,
    name TEXT NOT NULL,
    secret_hash BLOB NOT NULL,
    created_at REAL NOT NULL,
    revision INTEGER NOT NULL
) WITHOUT ROWID;

CREATE UNIQUE INDEX verifiers_by_name ON verifiers (name) WHERE name <> '';

CREATE TABLE revocations (
    seq INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    min_epoch INTEGER NOT NULL,
    expires_at REAL NOT NULL,
    subject TEXT NOT NULL
);

CREATE INDEX revocations_by_subject ON revocations (subject);

-- The log's epoch, the salt of the names it travels under, and the last number given: it stands here because the log's
-- entries are purged, and a number must never come again. Beside it the same of the audit log: its name, and the last
-- number given.
CREATE TABLE revocation_log (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    epoch INTEGER NOT NULL,
    salt BLOB NOT NULL,
    seq INTEGER NOT NULL,
    audit_log TEXT NOT NULL,
    audited INTEGER NOT NULL
);

INSERT INTO revocation_log VALUES (1, 1, randomblob(16), 0, lower(hex(randomblob(8))), 0);

-- The processes that follow the log.
CREATE TABLE nodes (
    id TEXT PRIMARY KEY NOT NULL,
    stamp TEXT NOT NULL,
    log_epoch INTEGER NOT NULL,
    acked_seq INTEGER NOT NULL,
    lease_for REAL NOT NULL
) WITHOUT ROWID;

-- A row for each kind of record that an unfinished move has begun to bring, and one of the kind ''. One of the kind
-- 'left' when everything was moved to another database. Empty otherwise.
CREATE TABLE moving (
    kind TEXT PRIMARY KEY NOT NULL,
    after TEXT
) WITHOUT ROWID;

CREATE TABLE events (
    id BLOB PRIMARY KEY NOT NULL,
    at REAL NOT NULL,
    name TEXT NOT NULL,
    outcome TEXT NOT NULL,
    subject TEXT NOT NULL,
    actor TEXT NOT NULL,
    session_id TEXT NOT NULL,
    client_id TEXT NOT NULL,
    address TEXT NOT NULL,
    country TEXT NOT NULL,
    device TEXT NOT NULL,
    detail TEXT NOT NULL,
    log_epoch INTEGER NOT NULL DEFAULT 0, -- 0 for events that a move brought
    number INTEGER NOT NULL DEFAULT 0 -- in the order of commits
) WITHOUT ROWID;

CREATE INDEX events_in_order ON events (log_epoch, number, id);

CREATE INDEX events_by_subject ON events (subject) WHERE subject <> '';

CREATE TABLE limits (
    key TEXT PRIMARY KEY NOT NULL,
    tat REAL NOT NULL
) WITHOUT ROWID;
