-- additive: yes
--
-- Accounts that their owners have deleted, until they are erased.
CREATE TABLE dutchdoor.departures (
    subject text COLLATE "C" PRIMARY KEY,
    asked_at double precision NOT NULL,
    due_at double precision NOT NULL,
    is_final boolean NOT NULL,
    revision bigint NOT NULL
);

INSERT INTO dutchdoor.kinds (name, key, owner) VALUES ('departures', '{subject}', 'subject');
