"""A Celery project beside Citadel, with tasks and a worker of its own: run this module.

It knows the broker's URL (`CANVAS_BROKER`), and nothing of Citadel. Its tasks note what they were called with in a list
of Redis, so that a test sees each call.
"""

import json
import os
from typing import Any

import redis
from celery import Celery, Task

URL = os.environ.get("CANVAS_BROKER", "redis://127.0.0.1:1/0")
SEEN = "client:seen:"
app = Celery("client", broker=URL, backend=URL, set_as_current=False)
app.conf.broker_connection_retry_on_startup = True


@app.task(name="client.note", bind=True)
def note(self: Task, *args: Any, tag: str) -> Any:
    """Note the arguments and the place in the canvas; return the last argument."""
    request = self.request
    entry = {
        "args": args,
        "id": request.id,
        "root_id": request.root_id,
        "parent_id": request.parent_id,
        "group": request.group,
        "queue": request.delivery_info["routing_key"],
        "priority": request.delivery_info["priority"],
        "stamps": {name: request.stamps[name] for name in request.stamped_headers or []},
    }
    with redis.Redis.from_url(URL) as client:
        client.rpush(SEEN + tag, json.dumps(entry))
    return args[-1] if args else None


@app.task(name="client.fail")
def fail(*_: Any) -> None:
    """Fail."""
    raise ValueError("the client's own task fails")


@app.task(name="client.failed")
def failed(request: Any, error: Any = None, trace: Any = None, *, tag: str) -> None:
    """Note a failure: an errback of the new form, which Celery calls so where this function is."""
    with redis.Redis.from_url(URL) as client:
        client.rpush(SEEN + tag, json.dumps({"args": [request] if error is None else ["request", str(error)]}))


@app.task(name="client.double")
def double(number: int) -> int:
    """Return twice a number."""
    return 2 * number


@app.task(name="client.text_of")
def text_of(result: Any) -> str:
    """Return the text of an LLM's answer."""
    return str(result["text"])


@app.task(name="client.replace", bind=True)
def replace(self: Task, name: str, args: Any, queue: str) -> Any:
    """Replace itself by another task."""
    return self.replace(app.signature(name, args=args, queue=queue))


if __name__ == "__main__":
    options = "--pool=threads --concurrency=4 --queues=celery,client-own --loglevel=INFO"
    app.worker_main(["worker", *options.split(), "--without-gossip", "--without-mingle", "--without-heartbeat"])
