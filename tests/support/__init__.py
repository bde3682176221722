"""Parts that tests share: real servers and worker processes, Celery clients, fixtures."""
