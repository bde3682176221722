"""Step types: what a step of a workflow can do. One file per type."""
