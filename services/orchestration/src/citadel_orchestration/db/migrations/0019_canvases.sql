-- Celery's canvas of each task that a run answers: what follows the task, as JSON. Null once it was followed.
ALTER TABLE runs ADD COLUMN canvases bytea[];
