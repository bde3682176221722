-- Waits of steps for their start, and the slots of resources whose limits hold for all workers together.
-- waiting_for and waiting_since name what a waiting step waits for; turn is its place in the queue of that resource.
-- start_by is when the step fails because it has not started. uncounted says how many of `attempt` began nothing.
ALTER TABLE steps ADD COLUMN waiting_for text;
ALTER TABLE steps ADD COLUMN waiting_since timestamptz;
ALTER TABLE steps ADD COLUMN turn bigint;
ALTER TABLE steps ADD COLUMN start_by timestamptz;
ALTER TABLE steps ADD COLUMN uncounted integer NOT NULL DEFAULT 0;

-- most: slots in all; cooling_until: nothing starts before
CREATE TABLE resources (
    resource      text PRIMARY KEY,
    most          integer NOT NULL,
    cooling_until timestamptz
);

-- token: names the holder; a slot without one is free
CREATE TABLE slots (
    resource    text NOT NULL,
    number      integer NOT NULL,
    token       uuid,
    owner       text,
    lease_until timestamptz,
    PRIMARY KEY (resource, number)
) WITH (fillfactor = 50);
