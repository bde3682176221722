-- Tasks that were answered with 202 and have not ended: what is needed to publish one again where Redis was emptied.

CREATE TABLE accepted_tasks (
    task_id    uuid PRIMARY KEY,
    name       text NOT NULL,
    kwargs     bytea NOT NULL,
    lane       smallint NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    due_at     timestamptz NOT NULL
);
CREATE INDEX accepted_tasks_by_due ON accepted_tasks (due_at);
-- a row lives for seconds: compressing its texts would cost more than keeping them
ALTER TABLE accepted_tasks ALTER COLUMN kwargs SET STORAGE EXTERNAL;

-- The answer with which a step took its vectors, as attempt/token: a second answer to the same attempt changes nothing.
ALTER TABLE steps ADD COLUMN vectors_taken text;
