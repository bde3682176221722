"""Every SQL statement of the service: runs, steps, events, batches and accepted tasks in PostgreSQL."""
