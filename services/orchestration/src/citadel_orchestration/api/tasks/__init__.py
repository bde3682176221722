"""Tasks: publishing, accepting, waiting for results."""
