"""Tasks on Celery: the app, the task base, dead letters, and the record of accepted tasks."""
