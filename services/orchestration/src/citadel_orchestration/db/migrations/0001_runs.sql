-- Runs, their steps, payloads, events and signals.
-- Status values are checked by the engine, not by constraints: an older version keeps working beside a newer one.

CREATE TABLE runs (
    run_id            uuid PRIMARY KEY,
    kind              text NOT NULL,
    workflow_id       text NOT NULL,
    status            text NOT NULL,
    lane              smallint NOT NULL,
    labels            jsonb NOT NULL,
    idempotency_key   text,
    fingerprint       bytea NOT NULL,
    concurrency_key   text,
    concurrency_limit integer,
    parent_run_id     uuid,
    parent_step       text,
    parent_item       integer,
    parent_attempt    integer,
    depth             smallint NOT NULL,
    reply_to          text,
    definition        bytea NOT NULL,
    context           bytea NOT NULL,
    output            bytea,
    error             jsonb,
    steps_total       integer NOT NULL,
    unfinished        integer NOT NULL,
    last_event        bigint NOT NULL,
    trace             jsonb,
    deadline_at       timestamptz,
    created_at        timestamptz NOT NULL DEFAULT now(),
    started_at        timestamptz,
    finished_at       timestamptz
);
CREATE UNIQUE INDEX runs_idempotency ON runs (idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX runs_by_time ON runs (created_at DESC, run_id DESC);
CREATE INDEX runs_by_status ON runs (status, created_at DESC, run_id DESC);
CREATE INDEX runs_by_workflow ON runs (workflow_id, created_at DESC, run_id DESC);
CREATE INDEX runs_by_label ON runs USING gin (labels jsonb_path_ops) WHERE labels <> '{}'::jsonb;
CREATE INDEX runs_by_deadline ON runs (deadline_at) WHERE finished_at IS NULL AND deadline_at IS NOT NULL;
CREATE INDEX runs_by_key ON runs (concurrency_key, created_at) WHERE finished_at IS NULL AND concurrency_key IS NOT NULL;
CREATE INDEX runs_by_parent ON runs (parent_run_id) WHERE parent_run_id IS NOT NULL AND finished_at IS NULL;
CREATE INDEX runs_to_answer ON runs (finished_at) WHERE reply_to IS NOT NULL;

-- item is the index within a for_each, and -1 for the step itself
CREATE TABLE steps (
    run_id       uuid NOT NULL REFERENCES runs ON DELETE CASCADE,
    step_id      text NOT NULL,
    item         integer NOT NULL,
    position     integer NOT NULL,
    status       text NOT NULL,
    attempt      integer NOT NULL DEFAULT 0,
    tries        integer NOT NULL DEFAULT 0,
    deaths       integer NOT NULL DEFAULT 0,
    due_at       timestamptz,
    lease_owner  text,
    lease_until  timestamptz,
    signal       text,
    child_run_id uuid,
    items_total  integer,
    items_done   integer NOT NULL DEFAULT 0,
    items_failed integer NOT NULL DEFAULT 0,
    has_data     boolean NOT NULL DEFAULT false,
    error        jsonb,
    started_at   timestamptz,
    finished_at  timestamptz,
    PRIMARY KEY (run_id, step_id, item)
) WITH (fillfactor = 80);
CREATE INDEX steps_by_lease ON steps (lease_until) WHERE status IN ('ready', 'running');
CREATE INDEX steps_by_due ON steps (due_at) WHERE status = 'waiting' AND due_at IS NOT NULL;
CREATE INDEX steps_by_child ON steps (child_run_id) WHERE child_run_id IS NOT NULL AND status = 'waiting';
CREATE INDEX items_to_start ON steps (run_id, step_id, item) WHERE status = 'pending' AND item >= 0;

-- kind: input (an item of a for_each), output
CREATE TABLE payloads (
    run_id  uuid NOT NULL REFERENCES runs ON DELETE CASCADE,
    step_id text NOT NULL,
    item    integer NOT NULL,
    kind    text NOT NULL,
    body    bytea NOT NULL,
    PRIMARY KEY (run_id, step_id, item, kind)
);
-- vectors do not shrink, and compressing them costs more than all else of a transition
ALTER TABLE payloads ALTER COLUMN body SET STORAGE EXTERNAL;

CREATE TABLE events (
    run_id  uuid NOT NULL REFERENCES runs ON DELETE CASCADE,
    seq     bigint NOT NULL,
    at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    type    text NOT NULL,
    step_id text,
    item    integer,
    data    jsonb NOT NULL,
    PRIMARY KEY (run_id, seq)
);

CREATE TABLE signals (
    run_id   uuid NOT NULL REFERENCES runs ON DELETE CASCADE,
    seq      bigint NOT NULL,
    name     text NOT NULL,
    payload  bytea NOT NULL,
    consumed boolean NOT NULL DEFAULT false,
    PRIMARY KEY (run_id, seq)
);
