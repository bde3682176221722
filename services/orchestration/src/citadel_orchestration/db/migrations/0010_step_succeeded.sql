-- The function of 0005 without its notification: `pg_notify` holds a lock of the whole cluster until the commit is on
-- disk. The process notifies after the commit; followers of runs that an older version executes wake up by polling.

CREATE OR REPLACE FUNCTION step_succeeded(
    of_run uuid, of_step text, of_attempt integer, body bytea, with_data boolean,
    next_steps text[], new_owner text, lease_seconds double precision
) RETURNS TABLE (
    step_id text, attempt integer, tries integer, workflow_id text, kind text, lane smallint, depth smallint,
    deadline_at timestamptz, trace jsonb, began timestamptz, ended timestamptz, before integer
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    run runs%ROWTYPE;
    attempt_began timestamptz;
    earlier integer;
BEGIN
    SELECT * INTO run FROM runs WHERE run_id = of_run FOR UPDATE;
    IF NOT FOUND OR run.status NOT IN ('queued', 'running') THEN
        RETURN;
    END IF;
    IF cardinality(next_steps) <> (
        SELECT count(*) FROM steps
        WHERE run_id = of_run AND step_id = ANY (next_steps) AND item = -1 AND status = 'pending'
    ) THEN
        RETURN;
    END IF;
    UPDATE steps SET status = 'succeeded', error = NULL, has_data = with_data, finished_at = now(), due_at = NULL,
        lease_until = NULL, lease_owner = NULL
    WHERE run_id = of_run AND step_id = of_step AND item = -1 AND attempt = of_attempt
        AND status IN ('running', 'waiting')
    RETURNING coalesce(attempt_started_at, started_at, now()), attempt_before INTO attempt_began, earlier;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    INSERT INTO payloads (run_id, step_id, item, kind, body) VALUES (of_run, of_step, -1, 'output', body)
    ON CONFLICT (run_id, step_id, item, kind) DO UPDATE SET body = excluded.body;
    INSERT INTO events (run_id, seq, type, step_id, data)
    VALUES (of_run, run.last_event + 1, 'step_succeeded', of_step, '{}');
    UPDATE runs SET status = 'running', unfinished = unfinished - 1, started_at = coalesce(started_at, now()),
        last_event = last_event + 1 + cardinality(next_steps)
    WHERE run_id = of_run;
    RETURN QUERY
    WITH claimed AS (
        UPDATE steps SET status = 'running', attempt = attempt + 1, lease_owner = new_owner, due_at = NULL,
            lease_until = now() + make_interval(secs => lease_seconds), started_at = coalesce(started_at, now()),
            attempt_started_at = now()
        WHERE run_id = of_run AND step_id = ANY (next_steps) AND item = -1
        RETURNING step_id, attempt, tries
    ), told AS (
        INSERT INTO events (run_id, seq, type, step_id, data)
        SELECT of_run, run.last_event + 1 + array_position(next_steps, step_id), 'step_started', step_id,
            jsonb_build_object('attempt', attempt)
        FROM claimed
    )
    SELECT step_id, attempt, tries, run.workflow_id, run.kind, run.lane, run.depth, run.deadline_at, run.trace,
        attempt_began, now(), earlier
    FROM claimed ORDER BY array_position(next_steps, step_id);
END
$$;
