"""Runs behind the HTTP API: submitting, showing, steering, following."""
