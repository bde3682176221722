-- When the attempt under way began, and the number of the one before it that was begun: what its span is made of.
ALTER TABLE steps ADD COLUMN attempt_started_at timestamptz;
ALTER TABLE steps ADD COLUMN attempt_before integer;
