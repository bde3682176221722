-- Trace context of the request that was answered with 202, so that a task that is published again stays in its trace.
ALTER TABLE accepted_tasks ADD COLUMN trace jsonb;
