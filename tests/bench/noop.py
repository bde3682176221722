"""The least that Celery can do: a task that returns at once, results on. Threads, as many as Citadel's worker has.

Run as `celery --app tests.bench.noop worker`; NOOP_REDIS says where Redis is. Everything else is Celery's default.
"""

import os

from celery import Celery

REDIS = os.environ.get("NOOP_REDIS", "redis://127.0.0.1:6379/0")
QUEUE = "noop"
TASK = "noop.nothing"

app = Celery("noop", broker=REDIS, backend=REDIS)
app.conf.task_default_queue = QUEUE


@app.task(name=TASK)  # type: ignore[untyped-decorator]  # celery publishes no types
def nothing(text: str) -> str:
    """Return the argument."""
    return text
