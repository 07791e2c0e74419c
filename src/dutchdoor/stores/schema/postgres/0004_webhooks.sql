-- additive: yes
-- Endpoints that are sent audit events, and how far each has got in the audit log.
CREATE TABLE dutchdoor.webhooks (
    id text COLLATE "C" PRIMARY KEY,
    url text COLLATE "C" NOT NULL,
    events text COLLATE "C" NOT NULL,
    with_client boolean NOT NULL,
    sealed bytea NOT NULL,
    created_at double precision NOT NULL,
    disabled text COLLATE "C" NOT NULL,
    revision bigint NOT NULL
);

CREATE TABLE dutchdoor.webhook_lanes (
    webhook text COLLATE "C" NOT NULL,
    subject text COLLATE "C" NOT NULL,
    cursor text COLLATE "C" NOT NULL,
    reached_at double precision NOT NULL,
    tries bigint NOT NULL,
    next_at double precision NOT NULL,
    failing_since double precision NOT NULL,
    failure text COLLATE "C" NOT NULL,
    delivered_at double precision NOT NULL,
    held_by text COLLATE "C" NOT NULL,
    held_until double precision NOT NULL,
    revision bigint NOT NULL,
    PRIMARY KEY (webhook, subject)
);

INSERT INTO dutchdoor.kinds (name, key, owner) VALUES
    ('webhooks', '{id}', NULL), ('webhook_lanes', '{webhook,subject}', NULL);
