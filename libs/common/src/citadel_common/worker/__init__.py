"""One worker process: launch, heartbeat, what it runs, and peers that take over from the dead."""
