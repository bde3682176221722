"""Tasks on Celery: the app, the task base, the failure policy, the result backend."""
