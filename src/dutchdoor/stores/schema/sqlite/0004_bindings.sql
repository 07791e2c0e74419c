-- additive: yes
-- The key of its client that a session is bound to, as `model/bindings.py` writes it.
ALTER TABLE sessions ADD COLUMN binding TEXT;
