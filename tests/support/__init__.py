"""What the tests stand on: real Redis servers, real worker processes, plain Celery clients."""
