"""Rerouting: messages that Celery clients with other settings have put into lists that no worker reads."""
