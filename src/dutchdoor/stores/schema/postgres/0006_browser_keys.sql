-- additive: yes
-- The public key that a browser brought to its sign-in, as `jose/browser_key.py` reads it.
ALTER TABLE dutchdoor.sessions ADD COLUMN browser_key text COLLATE "C";

-- A swap writes it, too. One by a program of the version before, which does not know it, leaves it.
DO $$
DECLARE
    known text := 'end_reason = session.end_reason,';
    was text := pg_get_functiondef('dutchdoor.apply_1(jsonb)'::regprocedure);
    becomes text := replace(
        was, known, known || ' browser_key = CASE WHEN given ? ''browser_key'' THEN session.browser_key ELSE s.browser_key END,'
    );
BEGIN
    IF becomes = was THEN
        RAISE EXCEPTION 'the statement that swaps a session is not the one that was expected';
    END IF;
    EXECUTE becomes;
END
$$;
