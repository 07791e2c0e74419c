-- additive: yes

CREATE TABLE dutchdoor.badges (
    id bytea PRIMARY KEY,
    number bigint NOT NULL UNIQUE,
    shelf text COLLATE "C" NOT NULL,
    code text COLLATE "C" NOT NULL,
    subject text COLLATE "C" NOT NULL,
    picture bytea NOT NULL,
    note text COLLATE "C",
    expires_at double precision NOT NULL,
    revision bigint NOT NULL
);

CREATE UNIQUE INDEX badges_by_code ON dutchdoor.badges (shelf, code) WHERE shelf <> '' AND code <> '';
CREATE INDEX badges_by_subject ON dutchdoor.badges (subject);

INSERT INTO dutchdoor.kinds (name, key, owner) VALUES ('badges', '{id}', 'subject');
