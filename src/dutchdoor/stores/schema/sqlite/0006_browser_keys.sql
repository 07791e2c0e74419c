-- additive: yes
-- The public key that a browser brought to its sign-in, as `jose/browser_key.py` reads it.
ALTER TABLE sessions ADD COLUMN browser_key TEXT;
