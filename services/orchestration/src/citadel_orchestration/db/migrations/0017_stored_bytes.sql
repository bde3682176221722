-- The caller who submitted a run, for fair shares of the backlog, and the bytes that a run held when it ended.
ALTER TABLE runs ADD COLUMN caller text, ADD COLUMN bytes bigint;

-- Bytes of some runs: contents as stored, and the usual size of a row with its entries in the indexes: of a run 1200, of
-- a step or item (which has an input) 350, of an event 200, of a payload or signal 150. No value is read: their sizes stand in their rows. PL/pgSQL
-- keeps the plans, SQL functions would be planned at each call.
CREATE FUNCTION bytes_of_runs(ids uuid[]) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN coalesce((SELECT sum(1200 + last_event * 200 + steps_total * 350 + pg_column_size(definition) + pg_column_size(context)
            + coalesce(pg_column_size(output), 0)) FROM runs WHERE run_id = ANY (ids)), 0)
        + coalesce((SELECT sum(150 + pg_column_size(body) + (kind = 'input')::int * 350) FROM payloads WHERE run_id = ANY (ids)), 0)
        + coalesce((SELECT sum(150 + pg_column_size(payload)) FROM signals WHERE run_id = ANY (ids)), 0);
END
$$;

-- The same of a run that ends. A trigger, because processes of older versions end runs too while an update rolls out.
CREATE FUNCTION measure_run() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.bytes := 1200 + NEW.last_event * 200 + NEW.steps_total * 350 + pg_column_size(NEW.definition) + pg_column_size(NEW.context)
        + coalesce(pg_column_size(NEW.output), 0)
        + coalesce((SELECT sum(150 + pg_column_size(body) + (kind = 'input')::int * 350) FROM payloads WHERE run_id = NEW.run_id), 0)
        + coalesce((SELECT sum(150 + pg_column_size(payload)) FROM signals WHERE run_id = NEW.run_id), 0);
    RETURN NEW;
END
$$;
CREATE TRIGGER runs_measured BEFORE UPDATE ON runs FOR EACH ROW
    WHEN (OLD.finished_at IS NULL AND NEW.finished_at IS NOT NULL) EXECUTE FUNCTION measure_run();

-- Bytes that the tables take on disk with their indexes, whether in use or free for new rows.
CREATE FUNCTION allocated_bytes() RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT sum(pg_total_relation_size(name::regclass))::bigint
    FROM unnest(ARRAY['runs', 'steps', 'payloads', 'events', 'signals', 'accepted_tasks']) AS name
$$;

-- Bytes in use. A run that ended before this migration counts as a small one until it is measured.
CREATE FUNCTION stored_bytes(OUT finished bigint, OUT unfinished bigint) LANGUAGE sql STABLE AS $$
    SELECT coalesce((SELECT sum(coalesce(bytes, 2000)) FROM runs WHERE finished_at IS NOT NULL), 0)::bigint,
        coalesce((SELECT bytes_of_runs(array_agg(run_id)) FROM runs WHERE status IN ('queued', 'running', 'paused')), 0)
        + coalesce((SELECT sum(200 + pg_column_size(kwargs)) FROM accepted_tasks), 0)::bigint
$$;
