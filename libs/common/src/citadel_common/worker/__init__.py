"""A worker process: launch, consumer, health and heartbeat."""
