-- additive: yes
-- The console counts events of a name from one instant to another, and looks for the newest of a name. An id begins with
-- the time of its event.
CREATE INDEX events_by_name ON events (name, id);
