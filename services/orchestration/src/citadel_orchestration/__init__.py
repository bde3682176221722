"""The orchestration service: the HTTP API (and, beside it, the workflow engine)."""
