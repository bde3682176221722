"""Everything that runs workflows: real stores and workers, and doubles of the servers that they call."""

from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self
from uuid import UUID

from celery.result import AsyncResult

from tests.support.celery_client import TIMEOUT, PlainClient
from tests.support.doubles import Doubles
from tests.support.engine_db import EngineDatabase
from tests.support.orchestration import FAST, OrchestrationProcess
from tests.support.redis_server import RedisProcess
from tests.support.worker import WorkerProcess

QUEUE = "orchestration"


@dataclass(kw_only=True)
class Platform:
    """Starts workers, which end with the block.

    Attributes:
        redis: Broker, results and cache.
        dsn: The record's database.
        doubles: The servers that workers call.
        record: The record of runs, to read and to write in; as the API, it leaves steps ready for the workers.
        plain: A Celery client that knows the broker's URL only.
    """

    redis: RedisProcess
    dsn: str
    doubles: Doubles
    db: EngineDatabase = field(init=False)
    plain: PlainClient = field(init=False)

    def __post_init__(self) -> None:
        self._stack = ExitStack()
        self.db = self._stack.enter_context(EngineDatabase(self.dsn, owner=None, lease=float(FAST["WORKFLOWS__LEASE"])))
        self.plain = self._stack.enter_context(PlainClient(self.redis.url))

    def orchestration(self, **settings: Any) -> OrchestrationProcess:
        """Return an orchestration worker that is ready."""
        process = OrchestrationProcess(self.redis.url, self.dsn, self.doubles.settings, **settings)
        return self._stack.enter_context(process)

    def embeddings(self, **settings: Any) -> WorkerProcess:
        """Return an embeddings worker that is ready."""
        return self._stack.enter_context(WorkerProcess(self.redis.url, self.doubles.ollama.url, **settings))

    def send(self, name: str, *args: Any, **kwargs: Any) -> AsyncResult:
        """Publish a task of the orchestration queue, as a plain client does."""
        return self.plain.publish(name, args, kwargs, queue=QUEUE)

    def call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Publish a task and return its result."""
        return self.send(name, *args, **kwargs).get(timeout=TIMEOUT)

    def execute(self, definition: dict[str, Any]) -> Any:
        """Return the result of `execute_workflow`."""
        return self.call("execute_workflow", definition)

    def begin(self, definition: dict[str, Any]) -> UUID:
        """Record a run and tell the workers of its first steps, as the API does."""
        run_id = self.db.submit(definition)
        for (step_id,) in self.db.rows("SELECT step_id FROM steps WHERE run_id = %s AND status = 'ready'", run_id):
            self.send("citadel.run_step", run_id=str(run_id), step_id=step_id)
        return run_id

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)
