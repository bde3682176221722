-- When a run that waits for others of its concurrency key came into line; NULL for all others. Rows of a version that
-- does not know the column get 'epoch': the sweeper finds out which of them wait.

ALTER TABLE runs ADD COLUMN held_since timestamptz DEFAULT 'epoch';
