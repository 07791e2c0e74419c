-- additive: yes
-- The key of its client that a session is bound to, as `model/bindings.py` writes it.
ALTER TABLE dutchdoor.sessions ADD COLUMN binding text COLLATE "C";

-- A swap writes it, too. One by a program of the version before, which does not know it, leaves it: a copied token must
-- not become worth something again while two versions run.
DO $$
DECLARE
    known text := 'end_reason = session.end_reason,';
    was text := pg_get_functiondef('dutchdoor.apply_1(jsonb)'::regprocedure);
    becomes text := replace(
        was, known, known || ' binding = CASE WHEN given ? ''binding'' THEN session.binding ELSE s.binding END,'
    );
BEGIN
    IF becomes = was THEN
        RAISE EXCEPTION 'the statement that swaps a session is not the one that was expected';
    END IF;
    EXECUTE becomes;
END
$$;
