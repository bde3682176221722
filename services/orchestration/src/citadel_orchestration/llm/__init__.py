"""LLM endpoints: configured, called, watched."""
