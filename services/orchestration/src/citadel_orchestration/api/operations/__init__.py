"""Queues, workers, health, history and probes."""
