"""The durable record of runs, in PostgreSQL."""
