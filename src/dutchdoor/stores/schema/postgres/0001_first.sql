-- additive: no
--
-- Everything lies in a schema of its own, and is named with it: no search_path changes what is meant.
--
-- Ids of ours are stored as their 16 bytes, any other as its text behind 17 zero bytes: no two texts meet in one row.
-- Instants are double precision, exact to the bit. Texts compare by their bytes (COLLATE "C"), so that no update of a
-- library of collations reorders an index. U+0000, which PostgreSQL's text cannot hold, is written U+0001 U+0001, and
-- U+0001 is written U+0001 U+0002, which keeps all texts apart and in order. Tuples of names are joined by spaces.
--
-- Functions end in a number. What a released program calls is never changed, but joined by a next one: programs of two
-- versions run side by side while a deployment is updated.

-- `number` is never given twice: sessions name their account by it, so that a later account of the same subject cannot
-- inherit the sessions of one that was removed.
CREATE TABLE dutchdoor.accounts (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    subject text COLLATE "C" NOT NULL UNIQUE,
    email text COLLATE "C" UNIQUE,
    address text COLLATE "C",
    name text COLLATE "C" NOT NULL,
    roles text COLLATE "C" NOT NULL,
    active boolean NOT NULL,
    email_verified_at double precision,
    epoch bigint NOT NULL,
    created_at double precision NOT NULL,
    revision bigint NOT NULL,
    folded text COLLATE "C" NOT NULL, -- e-mail, address and name, case folded, for searching
    begun bigint NOT NULL -- `lineage.begun` when the row was written
) WITH (fillfactor = 90);

CREATE INDEX accounts_with_roles ON dutchdoor.accounts (subject) WHERE roles <> '';

CREATE TABLE dutchdoor.credentials (
    subject text COLLATE "C" NOT NULL,
    method text COLLATE "C" NOT NULL,
    handle text COLLATE "C" NOT NULL,
    proof text COLLATE "C" NOT NULL,
    created_at double precision NOT NULL,
    revision bigint NOT NULL,
    PRIMARY KEY (subject, method, handle)
);

-- Accounts that wait for their address to be verified.
CREATE INDEX credentials_of_registrations ON dutchdoor.credentials (subject) WHERE method = 'registration';
CREATE UNIQUE INDEX credentials_by_handle ON dutchdoor.credentials (method, handle) WHERE method <> '' AND handle <> '';

-- Ids begin with their time of birth, so that the index grows at its end. A tenth of each page stays free: a swap writes
-- its new version beside the old one, and touches no index.
CREATE TABLE dutchdoor.sessions (
    id bytea PRIMARY KEY,
    account bigint NOT NULL,
    hybrid boolean NOT NULL,
    client_id text COLLATE "C" NOT NULL,
    scope text COLLATE "C" NOT NULL,
    secret_hash bytea NOT NULL,
    salt bytea NOT NULL,
    master_key_id bytea NOT NULL,
    epoch bigint NOT NULL,
    amr text COLLATE "C" NOT NULL,
    auth_time double precision NOT NULL,
    created_at double precision NOT NULL,
    last_seen_at double precision NOT NULL,
    idle_expires_at double precision NOT NULL,
    expires_at double precision NOT NULL,
    generation bigint NOT NULL,
    sibling bigint NOT NULL,
    parent_sibling bigint NOT NULL,
    rotated_at double precision NOT NULL,
    sibling_at double precision NOT NULL,
    fingerprint text COLLATE "C" NOT NULL,
    device text COLLATE "C" NOT NULL,
    address text COLLATE "C" NOT NULL,
    country text COLLATE "C" NOT NULL,
    ended_at double precision,
    end_reason text COLLATE "C" NOT NULL,
    revision bigint NOT NULL
) WITH (fillfactor = 90, autovacuum_vacuum_scale_factor = 0.05);

CREATE INDEX sessions_not_ended ON dutchdoor.sessions (account, id) WHERE ended_at IS NULL;

CREATE TABLE dutchdoor.one_time_tokens (
    id bytea PRIMARY KEY,
    purpose text COLLATE "C" NOT NULL,
    subject text COLLATE "C" NOT NULL,
    email text COLLATE "C" NOT NULL,
    secret_hash bytea NOT NULL,
    created_at double precision NOT NULL,
    expires_at double precision NOT NULL,
    payload bytea NOT NULL
);

CREATE INDEX one_time_tokens_by_subject ON dutchdoor.one_time_tokens (subject, purpose);

-- Of a session, under its id, or of a visitor, without a subject. It is rewritten often.
CREATE TABLE dutchdoor.session_data (
    id bytea PRIMARY KEY,
    subject text COLLATE "C" NOT NULL,
    secret_hash bytea NOT NULL,
    expires_at double precision NOT NULL,
    revision bigint NOT NULL,
    data text COLLATE "C" NOT NULL
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05);

CREATE INDEX session_data_by_subject ON dutchdoor.session_data (subject);

CREATE TABLE dutchdoor.keys (
    kid text COLLATE "C" PRIMARY KEY,
    number bigint NOT NULL UNIQUE,
    alg text COLLATE "C" NOT NULL,
    sealed bytea NOT NULL,
    created_at double precision NOT NULL,
    signs_at double precision NOT NULL,
    signs_until double precision NOT NULL,
    verifies_until double precision NOT NULL,
    revoked_at double precision,
    exported_at double precision,
    revision bigint NOT NULL
);

CREATE TABLE dutchdoor.clients (
    id text COLLATE "C" PRIMARY KEY,
    name text COLLATE "C" NOT NULL,
    secret_hash bytea NOT NULL,
    created_at double precision NOT NULL,
    revision bigint NOT NULL
);

-- The settings of the servers, for commands beside them.
CREATE TABLE dutchdoor.deployment (
    id text COLLATE "C" PRIMARY KEY,
    settings text COLLATE "C" NOT NULL,
    revision bigint NOT NULL
);

CREATE TABLE dutchdoor.verifiers (
    id text COLLATE "C" PRIMARY KEY,
    name text COLLATE "C" NOT NULL,
    secret_hash bytea NOT NULL,
    created_at double precision NOT NULL,
    revision bigint NOT NULL
);

CREATE UNIQUE INDEX verifiers_by_name ON dutchdoor.verifiers (name) WHERE name <> '';

CREATE TABLE dutchdoor.revocations (
    seq bigint PRIMARY KEY,
    kind text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    min_epoch bigint NOT NULL,
    expires_at double precision NOT NULL,
    subject text COLLATE "C" NOT NULL
);

CREATE INDEX revocations_by_subject ON dutchdoor.revocations (subject);

-- The log's epoch, the salt of the names it travels under, and the last number given: it stands here because the log's
-- entries are purged, and a number must never come again. A transaction that numbers entries holds this row until they
-- are committed, so that they are numbered in the order in which they become visible, without a gap.
CREATE TABLE dutchdoor.revocation_log (
    one integer PRIMARY KEY CHECK (one = 1),
    epoch bigint NOT NULL,
    salt bytea NOT NULL,
    seq bigint NOT NULL
) WITH (fillfactor = 10);

-- Two times 122 random bits of the server's strong generator.
INSERT INTO dutchdoor.revocation_log
VALUES (1, 1, substr(sha256(decode(replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''), 'hex')), 1, 16), 0);

-- Which timeline the server writes, and which cluster it is. Every promotion and every recovery to an earlier moment
-- begins a timeline with a higher number than any that the copy knew; a dump is read into another cluster. NULL where it
-- cannot be read: some services forbid the query.
CREATE FUNCTION dutchdoor.timeline_1() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    RETURN substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8);
EXCEPTION WHEN OTHERS THEN
    RETURN NULL;
END
$$;

CREATE FUNCTION dutchdoor.cluster_1() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    RETURN (SELECT c.system_identifier::text FROM pg_control_system() c);
EXCEPTION WHEN OTHERS THEN
    RETURN NULL;
END
$$;

-- Where the log was begun; how many logs have begun since the first, and the epoch of the last. A new log raises the
-- epoch and the revision of every account without writing any: see `accounts_now`. A transaction that writes accounts
-- holds the advisory lock 1684303727 shared; one that begins a log holds it alone.
CREATE TABLE dutchdoor.lineage (
    one integer PRIMARY KEY CHECK (one = 1),
    cluster text COLLATE "C",
    timeline text COLLATE "C",
    begun bigint NOT NULL,
    epoch bigint NOT NULL,
    audit_log text COLLATE "C" NOT NULL DEFAULT left(gen_random_uuid()::text, 13) -- which audit log this is
);

INSERT INTO dutchdoor.lineage VALUES (1, dutchdoor.cluster_1(), dutchdoor.timeline_1(), 0, 0);

-- The epoch of an account by now. Each log that began since its row was written has raised it: to one above what it was,
-- and to the log's at least.
CREATE FUNCTION dutchdoor.epoch_1(written bigint, logs_since bigint, of_the_log bigint) RETURNS bigint
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN logs_since = 0 THEN written ELSE greatest(written + logs_since, of_the_log) END
$$;

-- Accounts with the epoch and the revision that they have by now.
CREATE VIEW dutchdoor.accounts_now AS
SELECT a.number, a.subject, a.email, a.address, a.name, a.roles, a.active, a.email_verified_at,
    dutchdoor.epoch_1(a.epoch, l.begun - a.begun, l.epoch) AS epoch,
    a.created_at, a.revision + l.begun - a.begun AS revision, a.folded
FROM dutchdoor.accounts a JOIN dutchdoor.lineage l ON l.one = 1;

-- The processes that follow the log.
CREATE TABLE dutchdoor.nodes (
    id text COLLATE "C" PRIMARY KEY,
    stamp text COLLATE "C" NOT NULL,
    log_epoch bigint NOT NULL,
    acked_seq bigint NOT NULL,
    lease_for double precision NOT NULL
) WITH (fillfactor = 50);

-- A row for each kind of record that an unfinished move has begun to bring, and one of the kind ''. One of the kind
-- 'left' when everything was moved to another database. Empty otherwise.
CREATE TABLE dutchdoor.moving (
    kind text COLLATE "C" PRIMARY KEY,
    after text COLLATE "C"
);

CREATE TABLE dutchdoor.events (
    id bytea PRIMARY KEY,
    at double precision NOT NULL,
    name text COLLATE "C" NOT NULL,
    outcome text COLLATE "C" NOT NULL,
    subject text COLLATE "C" NOT NULL,
    actor text COLLATE "C" NOT NULL,
    session_id text COLLATE "C" NOT NULL,
    client_id text COLLATE "C" NOT NULL,
    address text COLLATE "C" NOT NULL,
    country text COLLATE "C" NOT NULL,
    device text COLLATE "C" NOT NULL,
    detail text COLLATE "C" NOT NULL,
    log_epoch bigint NOT NULL DEFAULT 0, -- 0 for events that a move brought
    number bigint NOT NULL DEFAULT 0 -- the transaction that wrote it
);

-- The order in which the audit log is followed. Numbers of transactions are given in another order than transactions are
-- committed in: a follower reads those below the oldest that is under way, which are all over. Another cluster counts its
-- transactions from another number, and a promoted one gives numbers again, but each begins a log epoch.
CREATE INDEX events_in_order ON dutchdoor.events (log_epoch, number, id);

CREATE INDEX events_by_subject ON dutchdoor.events (subject, id) WHERE subject <> '';

CREATE TABLE dutchdoor.limits (
    key text COLLATE "C" PRIMARY KEY,
    tat double precision NOT NULL
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05);

-- Each kind of record: its table, its key, the column with the subject of the account that takes it along when it is
-- removed, and the column with the id of the session that takes it along when it ends. A migration that brings a kind adds its row here, and no function: those below read this table, so that a
-- program of the version before, beside a newer schema, removes with an account the kinds that it does not have.
CREATE TABLE dutchdoor.kinds (
    name text COLLATE "C" PRIMARY KEY,
    key text[] COLLATE "C" NOT NULL,
    owner text COLLATE "C",
    session text COLLATE "C"
);

INSERT INTO dutchdoor.kinds VALUES
    ('accounts', '{subject}', NULL), ('sessions', '{id}', NULL), ('credentials', '{subject, method, handle}', 'subject'),
    ('one_time_tokens', '{id}', 'subject'), ('keys', '{kid}', NULL), ('clients', '{id}', NULL),
    ('deployment', '{id}', NULL), ('verifiers', '{id}', NULL), ('revocations', '{seq}', NULL), ('events', '{id}', NULL), ('limits', '{key}', NULL);

INSERT INTO dutchdoor.kinds VALUES ('session_data', '{id}', 'subject', 'id');

-- --- changes ----------------------------------------------------------------------------------------------------------

-- What every transaction that is acknowledged begins with. An operator may ask for more than these, never for less.
CREATE FUNCTION dutchdoor.durable_1() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    -- In a higher isolation each statement would see the same old state, whatever it had waited for.
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'transactions have to be read committed' USING ERRCODE = '25001';
    END IF;
    IF current_setting('synchronous_commit') = 'off' THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
END
$$;

-- Applies one change to a record of any kind but those that `apply_1` has statements for. `given` has the columns that
-- the program knows: those of a newer version keep their defaults. Gives what `apply_1` gives.
CREATE FUNCTION dutchdoor.apply_to_kind_1(verb text, kind text, given jsonb) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    keys text[];
    columns text;
    same text; -- of the columns that find the row
    replaced text;
    written bigint;
BEGIN
    SELECT k.key INTO STRICT keys FROM dutchdoor.kinds k WHERE k.name = kind;
    SELECT string_agg(quote_ident(n), ', '),
        string_agg(format('t.%1$I = r.%1$I', n), ' AND ') FILTER (WHERE verb <> 'swap' OR n = ANY (keys || ARRAY['revision'])),
        string_agg(format('%1$I = r.%1$I', n), ', ') FILTER (WHERE n <> ALL (keys || ARRAY['revision']))
    INTO columns, same, replaced FROM jsonb_object_keys(given) n;
    EXECUTE CASE
        WHEN verb = 'add' THEN format('INSERT INTO dutchdoor.%I (%s) SELECT %s FROM', kind, columns, columns)
        WHEN verb = 'swap' THEN
            format('UPDATE dutchdoor.%I t SET %s FROM', kind, concat_ws(', ', replaced, 'revision = t.revision + 1'))
        WHEN verb IN ('take', 'remove') THEN format('DELETE FROM dutchdoor.%I t USING', kind)
    END
        || format(' jsonb_populate_record(NULL::dutchdoor.%I, $1) r', kind)
        || CASE WHEN verb = 'add' THEN '' ELSE ' WHERE ' || same END
    USING given;
    GET DIAGNOSTICS written = ROW_COUNT;
    RETURN CASE WHEN written = 0 AND verb <> 'remove' THEN -1 ELSE 0 END;
END
$$;

-- Deletes what belongs to sessions that have ended in this transaction.
CREATE FUNCTION dutchdoor.end_with_1(gone bytea[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    belonging dutchdoor.kinds;
BEGIN
    FOR belonging IN SELECT * FROM dutchdoor.kinds k WHERE k.session IS NOT NULL ORDER BY k.name LOOP
        EXECUTE format('DELETE FROM dutchdoor.%I t WHERE t.%I = ANY ($1)', belonging.name, belonging.session) USING gone;
    END LOOP;
END
$$;

-- Applies one change, in JSON. Gives how many sessions it ended, or -1 where it was impossible and wrote nothing.
CREATE FUNCTION dutchdoor.apply_1(change jsonb) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    verb text := change ->> 'do';
    given jsonb := change -> 'row';
    session dutchdoor.sessions;
    account dutchdoor.accounts;
    event dutchdoor.events;
    owner bigint;
    gone bytea[];
    owned dutchdoor.kinds;
BEGIN
    IF verb = 'swap session' THEN
        session := jsonb_populate_record(NULL::dutchdoor.sessions, given);
        UPDATE dutchdoor.sessions s SET
            hybrid = session.hybrid, client_id = session.client_id, scope = session.scope,
            secret_hash = session.secret_hash, salt = session.salt, master_key_id = session.master_key_id,
            epoch = session.epoch, amr = session.amr, auth_time = session.auth_time, created_at = session.created_at,
            last_seen_at = session.last_seen_at, idle_expires_at = session.idle_expires_at,
            expires_at = session.expires_at, generation = session.generation, sibling = session.sibling,
            parent_sibling = session.parent_sibling, rotated_at = session.rotated_at, sibling_at = session.sibling_at,
            fingerprint = session.fingerprint, device = session.device, address = session.address,
            country = session.country, ended_at = session.ended_at, end_reason = session.end_reason,
            revision = s.revision + 1
        WHERE s.id = session.id AND s.revision = session.revision AND s.ended_at IS NULL
            AND s.account = (SELECT a.number FROM dutchdoor.accounts a WHERE a.subject = change ->> 'subject');
        IF FOUND AND session.ended_at IS NOT NULL THEN
            PERFORM dutchdoor.end_with_1(ARRAY[session.id]);
            RETURN 0;
        END IF;
    ELSIF verb = 'add session' THEN
        SELECT a.number INTO owner FROM dutchdoor.accounts a WHERE a.subject = change ->> 'subject';
        IF NOT FOUND THEN
            RETURN -1;
        END IF;
        session := jsonb_populate_record(NULL::dutchdoor.sessions, given);
        session.account := owner;
        INSERT INTO dutchdoor.sessions VALUES (session.*);
    ELSIF verb = 'log' THEN
        event := jsonb_populate_record(NULL::dutchdoor.events, given);
        -- No new log begins meanwhile: a transaction that begins one waits for this one, or this one waits for it.
        SELECT l.epoch, pg_current_xact_id()::text INTO event.log_epoch, event.number FROM dutchdoor.revocation_log l;
        INSERT INTO dutchdoor.events VALUES (event.*);
    ELSIF verb = 'expect' THEN
        -- Shared: a transaction that raises the epoch waits for this one, or this one waits for it.
        PERFORM 1 FROM dutchdoor.accounts a JOIN dutchdoor.lineage l ON l.one = 1
        WHERE a.subject = change ->> 'subject' AND a.active
            AND (change ->> 'epoch')::bigint = dutchdoor.epoch_1(a.epoch, l.begun - a.begun, l.epoch)
        FOR SHARE OF a;
    ELSIF verb = 'expect live' THEN
        -- Shared, and the account first, as in `lock_1`: a transaction that ends the session or removes the account waits
        -- for this one and deletes what it wrote, or this one waits for it.
        SELECT a.number INTO owner FROM dutchdoor.accounts a WHERE a.subject = change ->> 'subject' FOR SHARE;
        PERFORM 1 FROM dutchdoor.sessions s
        WHERE s.id = (change ->> 'id')::bytea AND s.account = owner AND s.ended_at IS NULL
        FOR SHARE;
    ELSIF verb = 'expect few' THEN
        PERFORM 1 FROM dutchdoor.revocations r
        WHERE r.subject = change ->> 'subject' AND r.expires_at > (change ->> 'at')::double precision
        HAVING count(*) <= (change ->> 'at_most')::bigint;
    ELSIF verb = 'expect role' THEN
        -- One after the other: the next statement sees what a transaction before us did. Without the lock two that each
        -- take the role from one account would both see the other one's.
        PERFORM pg_advisory_xact_lock(1684303728);
        PERFORM 1 FROM dutchdoor.accounts a
        WHERE a.roles <> '' AND a.active AND position(change ->> 'role' IN ' ' || a.roles || ' ') > 0
        LIMIT 1;
    ELSIF verb = 'end' THEN
        UPDATE dutchdoor.sessions s SET
            ended_at = (change ->> 'at')::double precision, end_reason = change ->> 'reason', revision = s.revision + 1
        WHERE s.id = (change ->> 'id')::bytea AND s.ended_at IS NULL;
        IF NOT FOUND THEN
            RETURN -1;
        END IF;
        PERFORM dutchdoor.end_with_1(ARRAY[(change ->> 'id')::bytea]);
        RETURN 0;
    ELSIF verb = 'end all' THEN
        WITH ended AS (
            UPDATE dutchdoor.sessions s SET
                ended_at = (change ->> 'at')::double precision, end_reason = change ->> 'reason',
                revision = s.revision + 1
            WHERE s.account = (SELECT a.number FROM dutchdoor.accounts a WHERE a.subject = change ->> 'subject')
                AND s.ended_at IS NULL AND s.id IS DISTINCT FROM (change ->> 'keep')::bytea
            RETURNING s.id
        )
        SELECT coalesce(array_agg(e.id), '{}') INTO gone FROM ended e;
        PERFORM dutchdoor.end_with_1(gone);
        RETURN cardinality(gone);
    ELSIF verb = 'add account' THEN
        INSERT INTO dutchdoor.accounts (
            subject, email, address, name, roles, active, email_verified_at, epoch, created_at, revision, folded, begun
        )
        SELECT r.subject, r.email, r.address, r.name, r.roles, r.active, r.email_verified_at, r.epoch, r.created_at, 0,
            r.folded, l.begun
        FROM jsonb_populate_record(NULL::dutchdoor.accounts, given) r, dutchdoor.lineage l;
    ELSIF verb = 'swap account' THEN
        account := jsonb_populate_record(NULL::dutchdoor.accounts, given);
        UPDATE dutchdoor.accounts a SET
            email = account.email, address = account.address, name = account.name, roles = account.roles,
            active = account.active, email_verified_at = account.email_verified_at, epoch = account.epoch,
            created_at = account.created_at, folded = account.folded, revision = account.revision + 1, begun = l.begun
        FROM dutchdoor.lineage l
        WHERE a.subject = account.subject AND a.revision + l.begun - a.begun = account.revision;
    ELSIF verb = 'remove account' THEN
        DELETE FROM dutchdoor.accounts a WHERE a.subject = change ->> 'subject';
        FOR owned IN SELECT * FROM dutchdoor.kinds k WHERE k.owner IS NOT NULL ORDER BY k.name LOOP
            EXECUTE format('DELETE FROM dutchdoor.%I t WHERE t.%I = $1', owned.name, owned.owner)
            USING change ->> 'subject';
        END LOOP;
        RETURN 0;
    ELSE
        RETURN dutchdoor.apply_to_kind_1(verb, change ->> 'kind', given);
    END IF;
    RETURN CASE WHEN FOUND THEN 0 ELSE -1 END;
END
$$;

-- Locks, in the same order in each transaction, the rows that a commit of several will change: first accounts, then
-- sessions. Two commits that come upon the same rows from two sides would otherwise wait for each other.
CREATE FUNCTION dutchdoor.lock_1(locks jsonb) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    wanted text;
BEGIN
    FOR wanted IN SELECT n FROM jsonb_object_keys(locks -> 'accounts') n ORDER BY n COLLATE "C" LOOP
        IF (locks -> 'accounts' ->> wanted)::boolean THEN
            PERFORM 1 FROM dutchdoor.accounts a WHERE a.subject = wanted FOR NO KEY UPDATE;
        ELSE
            PERFORM 1 FROM dutchdoor.accounts a WHERE a.subject = wanted FOR SHARE;
        END IF;
    END LOOP;
    PERFORM 1 FROM dutchdoor.sessions s WHERE s.id IN (
        SELECT i::bytea FROM jsonb_array_elements_text(locks -> 'sessions') i
        UNION ALL
        SELECT t.id FROM jsonb_array_elements_text(locks -> 'sessions_of') o
        JOIN dutchdoor.accounts a ON a.subject = o
        JOIN dutchdoor.sessions t ON t.account = a.number AND t.ended_at IS NULL
    ) ORDER BY s.id FOR NO KEY UPDATE;
END
$$;

-- Keeps other transactions away from some limits until the end of the transaction, those that have no row yet included.
CREATE FUNCTION dutchdoor.lock_limits_1(names text[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    number integer;
BEGIN
    FOR number IN SELECT DISTINCT hashtext(n) FROM unnest(names) n ORDER BY 1 LOOP
        PERFORM pg_advisory_xact_lock(1684303727, number);
    END LOOP;
END
$$;

-- `%` of a positive double precision number and 1024, exact, as `dutchdoor.limits` has it.
CREATE FUNCTION dutchdoor.spent_1(tat double precision) RETURNS double precision LANGUAGE sql IMMUTABLE AS $$
    SELECT tat - floor(tat / 1024) * 1024
$$;

-- Commits jobs in one transaction: those in which something is impossible before anything was written are left out, and
-- say so; in which it is later make all fail, and the caller commits them one by one. The log's entries are numbered
-- last, because no other transaction can number any from then on.
CREATE FUNCTION dutchdoor.commit_1(jobs jsonb)
RETURNS TABLE (possible boolean, ended bigint, seq bigint, log_epoch bigint, longest_lease double precision)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    job jsonb;
    change jsonb;
    done bigint;
    ends bigint[] := '{}';
    counts bigint[] := '{}';
    entries jsonb := '[]';
    back jsonb := '[]';
    forgotten text[] := '{}';
    head bigint;
    epoch_now bigint;
    longest double precision := 0;
BEGIN
    PERFORM dutchdoor.durable_1();
    PERFORM pg_advisory_xact_lock_shared(1684303727);
    FOR job IN SELECT jsonb_array_elements(jobs) LOOP
        IF job ? 'locks' THEN
            PERFORM dutchdoor.lock_1(job -> 'locks');
        END IF;
        ended := 0;
        FOR change IN SELECT jsonb_array_elements(job -> 'changes') LOOP
            done := dutchdoor.apply_1(change);
            IF done < 0 THEN
                ended := -1;
                EXIT;
            END IF;
            ended := ended + done;
        END LOOP;
        IF ended < 0 AND jsonb_typeof(job -> 'whole') = 'boolean' THEN
            RAISE EXCEPTION 'impossible' USING ERRCODE = 'DD001';
        END IF;
        ends := ends || ended;
        IF ended < 0 OR NOT job ? 'revoke' THEN
            counts := counts || 0::bigint;
        ELSE
            entries := entries || (job -> 'revoke');
            counts := counts || jsonb_array_length(job -> 'revoke')::bigint;
        END IF;
        IF ended >= 0 AND job ? 'back' THEN
            back := back || (job -> 'back');
            forgotten := forgotten || ARRAY(SELECT jsonb_array_elements_text(job -> 'forget'));
        END IF;
    END LOOP;
    IF back <> '[]' OR forgotten <> '{}' THEN
        PERFORM dutchdoor.lock_limits_1(forgotten || ARRAY(SELECT b ->> 'key' FROM jsonb_array_elements(back) b));
        FOR change IN SELECT jsonb_array_elements(back) LOOP
            UPDATE dutchdoor.limits l SET tat = CASE
                WHEN change ? 'interval' THEN l.tat - (change ->> 'interval')::double precision
                ELSE l.tat - least(dutchdoor.spent_1(l.tat), 1)
            END
            WHERE l.key = change ->> 'key';
        END LOOP;
        DELETE FROM dutchdoor.limits l WHERE l.key = ANY (forgotten);
    END IF;
    IF entries = '[]' THEN
        SELECT l.seq, l.epoch INTO head, epoch_now FROM dutchdoor.revocation_log l;
    ELSE
        UPDATE dutchdoor.revocation_log l SET seq = l.seq + jsonb_array_length(entries)
        RETURNING l.seq - jsonb_array_length(entries), l.epoch INTO head, epoch_now;
        INSERT INTO dutchdoor.revocations (seq, kind, id, min_epoch, expires_at, subject)
        SELECT head + e.place, r.kind, r.id, r.min_epoch, r.expires_at, r.subject
        FROM jsonb_array_elements(entries) WITH ORDINALITY e (entry, place),
            jsonb_populate_record(NULL::dutchdoor.revocations, e.entry) r;
        -- Under the lock: a node that registers later reads these entries.
        SELECT coalesce(max(n.lease_for), 0) INTO longest FROM dutchdoor.nodes n;
        PERFORM pg_notify('dutchdoor', '');
    END IF;
    FOR n IN 1 .. cardinality(ends) LOOP
        head := head + counts[n];
        possible := ends[n] >= 0;
        ended := ends[n];
        seq := head;
        log_epoch := epoch_now;
        longest_lease := CASE WHEN counts[n] > 0 THEN longest ELSE 0 END;
        RETURN NEXT;
    END LOOP;
END
$$;

-- --- the log and the nodes --------------------------------------------------------------------------------------------

-- The log after a `seq`, with its head: one row for each entry, or one without an entry.
CREATE FUNCTION dutchdoor.read_log_1(known_epoch bigint, known bigint, page integer)
RETURNS TABLE (
    epoch bigint, salt bytea, head bigint, at double precision,
    seq bigint, kind text, id text, min_epoch bigint, expires_at double precision, subject text
)
LANGUAGE sql STABLE AS $$
    SELECT l.epoch, l.salt, l.seq, extract(epoch FROM clock_timestamp())::double precision,
        r.seq, r.kind, r.id, r.min_epoch, r.expires_at, r.subject
    FROM dutchdoor.revocation_log l
    LEFT JOIN LATERAL (
        SELECT e.seq, e.kind, e.id, e.min_epoch, e.expires_at, e.subject FROM dutchdoor.revocations e
        WHERE e.seq > CASE WHEN l.epoch = known_epoch THEN known ELSE 0 END ORDER BY e.seq LIMIT page
    ) r ON true
    ORDER BY r.seq
$$;

CREATE FUNCTION dutchdoor.node_register_1(given jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM dutchdoor.durable_1();
    -- A transaction that revokes holds this row and reads all leases: it sees our lease, or we read its entry.
    PERFORM 1 FROM dutchdoor.revocation_log FOR SHARE;
    INSERT INTO dutchdoor.nodes SELECT * FROM jsonb_populate_record(NULL::dutchdoor.nodes, given)
    ON CONFLICT (id) DO UPDATE SET
        stamp = excluded.stamp, log_epoch = excluded.log_epoch, acked_seq = excluded.acked_seq,
        lease_for = excluded.lease_for;
END
$$;

CREATE FUNCTION dutchdoor.node_renew_1(new_row jsonb, after bigint, page integer)
RETURNS TABLE (
    there boolean, all_rows jsonb, epoch bigint, salt bytea, head bigint, at double precision,
    seq bigint, kind text, id text, min_epoch bigint, expires_at double precision, subject text
)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    given dutchdoor.nodes := jsonb_populate_record(NULL::dutchdoor.nodes, new_row);
    was_there boolean;
BEGIN
    PERFORM dutchdoor.durable_1();
    PERFORM 1 FROM dutchdoor.revocation_log FOR SHARE;
    UPDATE dutchdoor.nodes n SET
        stamp = given.stamp, log_epoch = given.log_epoch, acked_seq = given.acked_seq, lease_for = given.lease_for
    WHERE n.id = given.id;
    was_there := FOUND;
    -- One statement: the rows and the log as they were at one instant.
    RETURN QUERY
    SELECT was_there, (SELECT jsonb_agg(n) FROM dutchdoor.nodes n), l.*
    FROM dutchdoor.read_log_1(given.log_epoch, after, page) l;
END
$$;

-- What a new log costs does not depend on how many accounts there are.
CREATE FUNCTION dutchdoor.begin_log_epoch_1(milliseconds bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    begun_at bigint;
BEGIN
    PERFORM dutchdoor.durable_1();
    PERFORM pg_advisory_xact_lock(1684303727);
    UPDATE dutchdoor.revocation_log l SET epoch = greatest(l.epoch + 1, milliseconds) RETURNING l.epoch INTO begun_at;
    DELETE FROM dutchdoor.nodes;
    UPDATE dutchdoor.lineage l SET
        cluster = coalesce(dutchdoor.cluster_1(), l.cluster), timeline = coalesce(dutchdoor.timeline_1(), l.timeline),
        begun = l.begun + 1, epoch = begun_at;
    PERFORM pg_notify('dutchdoor', '');
    RETURN begun_at;
END
$$;

-- Asked on every connection before anything else, and where a proxy gives each transaction another one, in every
-- transaction. If the log was not begun here, this server was promoted or restored, and may lack what the other had
-- acknowledged: another log begins. If several connections find this at once, one of them begins it. A row that no node
-- renews stands for the nodes from before, whose leases may still run. To ask for the cluster too costs some ten times
-- as much.
--
-- Gives the log's epoch if it is not the one that the process knows of: what it looks up here says nothing before it has
-- read that log.
CREATE FUNCTION dutchdoor.attend_1(whole boolean, known bigint) RETURNS SETOF bigint LANGUAGE plpgsql AS $$
DECLARE
    timeline_now text := dutchdoor.timeline_1();
    cluster_now text := CASE WHEN whole THEN dutchdoor.cluster_1() END;
    gone dutchdoor.nodes;
BEGIN
    FOR attempt IN 1 .. 2 LOOP
        PERFORM 1 FROM dutchdoor.lineage l
        WHERE coalesce(timeline_now, l.timeline) IS NOT DISTINCT FROM l.timeline
            AND coalesce(cluster_now, l.cluster) IS NOT DISTINCT FROM l.cluster;
        IF FOUND THEN
            RETURN QUERY SELECT l.epoch FROM dutchdoor.revocation_log l WHERE l.epoch <> known;
            RETURN;
        END IF;
        PERFORM pg_advisory_xact_lock(1684303727);
    END LOOP;
    IF whole THEN
        -- Nothing else is in this transaction, and it need not be on a standby: if this server is lost as well, the next
        -- one finds an older timeline and begins a log again. To wait for one that is away would refuse all reading.
        PERFORM set_config('synchronous_commit', 'local', true);
    END IF;
    SELECT max(n.lease_for) INTO gone.lease_for FROM dutchdoor.nodes n;
    -- Above any that the process knows, too: this server's clock may be behind that of one which was lost as well.
    gone.log_epoch := dutchdoor.begin_log_epoch_1(
        greatest(floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint, known + 1)
    );
    -- No program commits this, so none writes the event.
    INSERT INTO dutchdoor.events
    SELECT decode(lpad(to_hex(floor(t.at * 1000)::bigint), 12, '0'), 'hex') || substr(uuid_send(gen_random_uuid()), 7),
        t.at, 'log_begun', 'ok', '', 'system', '', '', '', '', '', 'epoch ' || gone.log_epoch,
        gone.log_epoch, pg_current_xact_id()::text::bigint
    FROM (SELECT extract(epoch FROM clock_timestamp())::double precision AS at) t;
    IF gone.lease_for IS NOT NULL THEN
        INSERT INTO dutchdoor.nodes (id, stamp, log_epoch, acked_seq, lease_for)
        VALUES (gen_random_uuid()::text, 'gone', gone.log_epoch, 0, gone.lease_for);
    END IF;
    RETURN NEXT gone.log_epoch;
END
$$;

-- --- limits -----------------------------------------------------------------------------------------------------------

-- One attempt from each bucket or from none, as `dutchdoor.limits.decide_all` decides it; several such, one after the
-- other. The loss of power may forget them, and nothing waits for the disk.
CREATE FUNCTION dutchdoor.hit_1(attempts jsonb) RETURNS TABLE (retry_after double precision, refused_by text)
LANGUAGE plpgsql AS $$
DECLARE
    attempt jsonb;
    bucket jsonb;
    stamp double precision; -- `now`
    gap double precision;
    burst double precision;
    held double precision;
    wait double precision;
    tats double precision[];
    waits double precision[];
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    PERFORM dutchdoor.lock_limits_1(ARRAY(
        SELECT b ->> 'key' FROM jsonb_array_elements(attempts) a, jsonb_array_elements(a -> 'buckets') b
    ));
    FOR attempt IN SELECT jsonb_array_elements(attempts) LOOP
        stamp := (attempt ->> 'now')::double precision;
        tats := '{}';
        waits := '{}';
        retry_after := 0;
        refused_by := '';
        FOR bucket IN SELECT jsonb_array_elements(attempt -> 'buckets') LOOP
            burst := (bucket ->> 'burst')::double precision;
            SELECT l.tat INTO held FROM dutchdoor.limits l WHERE l.key = bucket ->> 'key';
            wait := 0;
            IF bucket ? 'interval' THEN
                gap := (bucket ->> 'interval')::double precision;
                held := CASE WHEN held IS NULL THEN stamp ELSE least(greatest(held, stamp), stamp + gap * burst) END;
                IF stamp < held - gap * (burst - 1) - 1e-4::double precision THEN
                    wait := held - gap * (burst - 1) - 1e-4::double precision - stamp;
                ELSE
                    held := held + gap;
                END IF;
            ELSIF held >= stamp AND dutchdoor.spent_1(held) >= burst THEN
                wait := 86400;
            ELSE
                gap := stamp + (bucket ->> 'kept_for')::double precision;
                held := gap - dutchdoor.spent_1(gap) + CASE WHEN held >= stamp THEN dutchdoor.spent_1(held) ELSE 0 END + 1;
            END IF;
            tats := tats || held;
            waits := waits || wait;
            IF wait > retry_after OR wait = retry_after AND wait > 0 AND bucket ->> 'name' > refused_by COLLATE "C" THEN
                retry_after := wait;
                refused_by := bucket ->> 'name';
            END IF;
        END LOOP;
        FOR n IN 1 .. cardinality(tats) LOOP
            IF retry_after <= 0 OR waits[n] > 0 THEN
                INSERT INTO dutchdoor.limits VALUES (attempt -> 'buckets' -> (n - 1) ->> 'key', tats[n])
                ON CONFLICT (key) DO UPDATE SET tat = excluded.tat;
            END IF;
        END LOOP;
        RETURN NEXT;
    END LOOP;
END
$$;

-- --- moving -----------------------------------------------------------------------------------------------------------

CREATE FUNCTION dutchdoor.begin_move_1(log_epoch bigint, log_salt bytea, last_seq bigint) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    kind text;
    is_taken boolean;
BEGIN
    PERFORM dutchdoor.durable_1();
    IF NOT EXISTS (
        SELECT FROM dutchdoor.moving m, dutchdoor.revocation_log l WHERE m.kind <> 'left' OR l.salt = log_salt
    ) THEN
        SELECT l.seq > 0 INTO is_taken FROM dutchdoor.revocation_log l;
        FOR kind IN SELECT k.name FROM dutchdoor.kinds k LOOP
            IF NOT is_taken THEN
                EXECUTE format('SELECT EXISTS (SELECT FROM dutchdoor.%I)', kind) INTO is_taken;
            END IF;
        END LOOP;
        IF is_taken THEN
            RAISE EXCEPTION 'there is something in this database already' USING ERRCODE = 'DD001';
        END IF;
    END IF;
    EXECUTE (SELECT format('TRUNCATE %s', string_agg(format('dutchdoor.%I', k.name), ', ')) FROM dutchdoor.kinds k);
    TRUNCATE dutchdoor.nodes, dutchdoor.moving;
    INSERT INTO dutchdoor.moving VALUES ('', NULL);
    UPDATE dutchdoor.revocation_log SET epoch = log_epoch, salt = log_salt, seq = last_seq;
    UPDATE dutchdoor.lineage SET audit_log = DEFAULT;
END
$$;

-- Writes rows of one table in place of those of the same keys, and notes how far the move is.
CREATE FUNCTION dutchdoor.take_in_1(kind text, records jsonb, after text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    keys text := (SELECT string_agg(quote_ident(c), ', ') FROM dutchdoor.kinds k, unnest(k.key) c WHERE k.name = kind);
    names text;
    replaced text;
    given jsonb := records;
BEGIN
    PERFORM dutchdoor.durable_1();
    IF NOT EXISTS (SELECT FROM dutchdoor.moving m WHERE m.kind <> 'left') THEN
        RAISE EXCEPTION 'no move into this store was begun' USING ERRCODE = 'DD001';
    END IF;
    IF kind = 'sessions' THEN
        SELECT coalesce(jsonb_agg(r || jsonb_build_object('account', a.number)), '[]') INTO given
        FROM jsonb_array_elements(records) r JOIN dutchdoor.accounts a ON a.subject = r ->> 'subject';
        IF jsonb_array_length(given) <> jsonb_array_length(records) THEN
            RAISE EXCEPTION 'the account of a session is not there' USING ERRCODE = 'DD001';
        END IF;
    ELSIF kind = 'accounts' THEN
        SELECT coalesce(jsonb_agg(r || jsonb_build_object('begun', l.begun)), '[]') INTO given
        FROM jsonb_array_elements(records) r, dutchdoor.lineage l;
    END IF;
    IF given <> '[]' THEN
        -- A column of a newer version keeps its default.
        SELECT string_agg(quote_ident(c.attname), ', '), string_agg(format('%1$I = excluded.%1$I', c.attname), ', ')
        INTO STRICT names, replaced
        FROM pg_attribute c JOIN pg_class t ON t.oid = c.attrelid JOIN pg_namespace s ON s.oid = t.relnamespace
        WHERE s.nspname = 'dutchdoor' AND t.relname = kind AND c.attnum > 0 AND given -> 0 ? c.attname::text;
        EXECUTE format(
            'INSERT INTO dutchdoor.%1$I (%2$s) SELECT %2$s FROM jsonb_populate_recordset(NULL::dutchdoor.%1$I, $1) '
            'ON CONFLICT (%3$s) DO UPDATE SET %4$s',
            kind, names, keys, replaced
        ) USING given;
    END IF;
    INSERT INTO dutchdoor.moving VALUES (kind, after)
    ON CONFLICT ON CONSTRAINT moving_pkey DO UPDATE SET after = excluded.after;
END
$$;

CREATE FUNCTION dutchdoor.leave_1(is_left boolean) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM dutchdoor.durable_1();
    IF is_left THEN
        INSERT INTO dutchdoor.moving VALUES ('left', NULL) ON CONFLICT DO NOTHING;
    ELSE
        DELETE FROM dutchdoor.moving m WHERE m.kind = 'left';
    END IF;
END
$$;

CREATE FUNCTION dutchdoor.end_move_1(milliseconds bigint, events jsonb) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    PERFORM dutchdoor.take_in_1('events', events, NULL);
    DELETE FROM dutchdoor.moving;
    RETURN dutchdoor.begin_log_epoch_1(milliseconds);
END
$$;
