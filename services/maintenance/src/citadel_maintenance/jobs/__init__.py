"""The frame of every maintenance task: one run at a time, throttled, resumable, reported."""
