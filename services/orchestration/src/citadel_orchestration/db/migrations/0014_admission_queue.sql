-- The queue of a resource, in the order in which its steps are served.
CREATE INDEX CONCURRENTLY steps_by_turn ON steps (waiting_for, turn, waiting_since)
    WHERE status = 'waiting' AND waiting_for IS NOT NULL;
-- The waits of one run: the place of its next one, and what its view shows.
CREATE INDEX CONCURRENTLY steps_by_wait ON steps (run_id, waiting_for, turn)
    WHERE status = 'waiting' AND waiting_for IS NOT NULL;
