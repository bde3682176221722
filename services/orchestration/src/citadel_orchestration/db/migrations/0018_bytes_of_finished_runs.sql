-- The sum over finished runs, read from the index alone, and the runs that ended before they were measured.

CREATE INDEX CONCURRENTLY runs_finished_bytes ON runs (finished_at, run_id) INCLUDE (bytes) WHERE finished_at IS NOT NULL;
CREATE INDEX CONCURRENTLY runs_unmeasured ON runs (finished_at) WHERE finished_at IS NOT NULL AND bytes IS NULL;
