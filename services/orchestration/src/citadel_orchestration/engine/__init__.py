"""The workflow engine."""
