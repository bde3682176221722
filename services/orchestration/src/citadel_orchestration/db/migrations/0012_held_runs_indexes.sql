-- The conditions are those of db/concurrency_keys.py. They name states instead of `finished_at`, so that no plan takes
-- runs_by_key, in which all unfinished runs of a key are.

CREATE INDEX CONCURRENTLY runs_held ON runs (concurrency_key, held_since, run_id)
    WHERE concurrency_key IS NOT NULL AND status = 'queued' AND held_since > 'epoch';

CREATE INDEX CONCURRENTLY runs_active ON runs (concurrency_key)
    WHERE concurrency_key IS NOT NULL AND status IN ('queued', 'running', 'paused')
        AND (held_since IS NULL OR held_since = 'epoch' OR status = 'running');

CREATE INDEX CONCURRENTLY runs_unsorted ON runs (created_at)
    WHERE concurrency_key IS NOT NULL AND status IN ('queued', 'paused') AND held_since = 'epoch';
