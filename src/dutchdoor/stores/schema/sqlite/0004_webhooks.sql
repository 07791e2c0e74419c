-- additive: yes
-- Endpoints that are sent audit events, and how far each has got in the audit log.
CREATE TABLE webhooks (
    id TEXT PRIMARY KEY NOT NULL,
    url TEXT NOT NULL,
    events TEXT NOT NULL,
    with_client INTEGER NOT NULL,
    sealed BLOB NOT NULL,
    created_at REAL NOT NULL,
    disabled TEXT NOT NULL,
    revision INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE webhook_lanes (
    webhook TEXT NOT NULL,
    subject TEXT NOT NULL,
    cursor TEXT NOT NULL,
    reached_at REAL NOT NULL,
    tries INTEGER NOT NULL,
    next_at REAL NOT NULL,
    failing_since REAL NOT NULL,
    failure TEXT NOT NULL,
    delivered_at REAL NOT NULL,
    held_by TEXT NOT NULL,
    held_until REAL NOT NULL,
    revision INTEGER NOT NULL,
    PRIMARY KEY (webhook, subject)
) WITHOUT ROWID;
