-- Retention looks for the runs that finished first.

CREATE INDEX runs_by_finish ON runs (finished_at, run_id) WHERE finished_at IS NOT NULL;
