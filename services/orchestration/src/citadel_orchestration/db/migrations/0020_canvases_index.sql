-- Ended runs whose tasks were answered by a worker of an older version, which follows no canvas.
CREATE INDEX CONCURRENTLY runs_to_follow ON runs (finished_at) WHERE canvases IS NOT NULL;
