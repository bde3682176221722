"""A bare Celery client with a worker of its own, beside Citadel's workers."""

import json
import os
import sys
import tempfile
import uuid
from pathlib import Path
from typing import Any

from celery.canvas import Signature
from celery.canvas import _chain as chain

from tests.support.child import spawn
from tests.support.platform import Platform
from tests.support.polling import eventually
from tests.support.programs.canvas_client import SEEN

QUEUES = {
    "generate_embedding": "embeddings",
    "batch_generate_embeddings": "embeddings",
    "execute_workflow": "orchestration",
    "query_llm_service": "orchestration",
    "vector_similarity_search": "orchestration",
    "upsert_vectors": "orchestration",
}
SIGNAL = {"workflow_id": "waits", "steps": [{"step_id": "s", "type": "wait", "parameters": {"signal": "go"}}]}
"""A workflow that ends when it gets its signal."""


class ClientWorker:
    """The worker of the client's own project, with the queues `celery` and `client-own`."""

    def __init__(self, url: str) -> None:
        self._output = tempfile.NamedTemporaryFile(prefix="client-worker-", suffix=".log")  # noqa: SIM115
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CITADEL_")}
        command = [sys.executable, "-m", "tests.support.programs.canvas_client"]
        self._child = spawn(command, output=self._output.file, env=environment | {"CANVAS_BROKER": url})
        eventually(lambda: " ready." in self.output or self._child.poll() is not None)
        assert self._child.poll() is None, self.output

    @property
    def output(self) -> str:
        """The text of its log so far."""
        return Path(self._output.name).read_text(encoding="utf-8")

    def close(self) -> None:
        """End it."""
        self._child.kill()
        self._child.wait()
        self._output.close()


class CanvasClient:
    """Makes signatures as a client does that knows names and queues, and reads what its own tasks have noted."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self.app = platform.plain.app
        self.store = platform.redis.client()

    def close(self) -> None:
        """Let results that go later open no connection to a server that is gone."""
        self.app.backend.result_consumer.cancel_for = lambda _: None
        self.store.close()

    def task(self, name: str, *args: Any, **kwargs: Any) -> Signature:
        """Return a signature of a task of Citadel, with its queue, or of the client's own, without one."""
        options = {"queue": QUEUES[name]} if name in QUEUES else {}
        return self.app.signature(name, args=args, kwargs=kwargs, **options)

    def ask(self, text: str) -> Signature:
        """Return a question to an LLM, whose answer is that text."""
        return self.task("query_llm_service", f"say it [[say {text}]]")

    def note(self, *args: Any, tag: str | None = None) -> Signature:
        """Return a task that notes its arguments under a tag."""
        return self.task("client.note", *args, tag=tag or uuid.uuid4().hex)

    def seen(self, noted: Signature | str, *, times: int = 1) -> list[dict[str, Any]]:
        """Wait until a tag has so many notes; return all that it has."""
        key = SEEN + (noted if isinstance(noted, str) else noted["kwargs"]["tag"])
        eventually(lambda: self.store.llen(key) >= times)
        return [json.loads(entry) for entry in self.store.lrange(key, 0, -1)]

    def noted(self, noted: Signature) -> int:
        """Return how many notes a tag has now."""
        return int(self.store.llen(SEEN + noted["kwargs"]["tag"]))

    def entry_of(self, signature: Signature, errback: Signature | None = None) -> bytes:
        """Return the entry of a queue's list that a client publishes for a task, the first one of a chain."""
        parked = uuid.uuid4().hex
        first = signature.tasks[0] if isinstance(signature, chain) else signature
        first.set(queue=parked)
        signature.apply_async(link_error=errback)
        entry = self.store.lpop(parked)
        assert isinstance(entry, bytes)
        return entry

    def deliver(self, entry: bytes, *, again: bool = False) -> str:
        """Put an entry on the queue of its task; `again` as one that comes back from a dead worker. Return the id."""
        message = json.loads(entry)
        queue = QUEUES[message["headers"]["task"]]
        message["properties"]["delivery_info"] |= {"redelivered": again, "routing_key": queue}
        self.store.lpush(queue, json.dumps(message))
        return str(message["headers"]["id"])
