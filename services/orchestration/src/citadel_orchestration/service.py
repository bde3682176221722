"""The orchestration worker: its parts, their start and their end."""

import asyncio
import contextlib
import functools
import threading
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import structlog
import uvloop

from citadel_common.deadline import Deadline
from citadel_common.delivery.accepted_tasks import publish_accepted
from citadel_common.delivery.republishing import LossDetector
from citadel_common.delivery.tracked_messages import TrackedMessages
from citadel_common.errors import StoreUnavailable
from citadel_common.loop_thread import LoopThread
from citadel_common.memory import return_what_is_freed
from citadel_common.settings.common import WrongSetting, refuse
from citadel_common.stores.redis import connect, connect_async
from citadel_common.tasks.runtime import TaskRuntime
from citadel_common.telemetry import NULL_METRICS, Metrics
from citadel_orchestration.db.admission import Slots
from citadel_orchestration.db.migrate import migrate_patiently
from citadel_orchestration.engine.accepted_tasks import AcceptedTasksSweep
from citadel_orchestration.engine.answers import AnswerConsumer
from citadel_orchestration.engine.dispatch import Dispatcher
from citadel_orchestration.engine.engine import Engine, EngineParts
from citadel_orchestration.engine.lease_guard import LeaseGuard, Witness
from citadel_orchestration.engine.parked_outputs import ParkedOutputs
from citadel_orchestration.engine.recovery import Sweeper
from citadel_orchestration.engine.sent_texts import SentTexts
from citadel_orchestration.engine.step_inputs import SharedScopes, StepInputs
from citadel_orchestration.engine.step_transitions import StepTransitions
from citadel_orchestration.engine.sub_runs import SubRuns
from citadel_orchestration.engine.task_results import TaskResultWriter
from citadel_orchestration.settings import OrchestrationSettings
from citadel_orchestration.step_types import StepType
from citadel_orchestration.tasks import OrchestrationTasks
from citadel_orchestration.vectors.catalogue import CollectionPublisher
from citadel_orchestration.wiring import wire

if TYPE_CHECKING:
    from redis import Redis

log = structlog.get_logger(__name__)
CLOSING = 5.0
"""Seconds that clients get to open, and to close."""


def _migrate(settings: OrchestrationSettings) -> None:
    try:
        migrate_patiently(settings)
    except WrongSetting as error:
        refuse(str(error))
    except StoreUnavailable as error:
        log.error("database_not_migrated", problem=error.message)
        raise


class OrchestrationService:
    """All parts of the orchestration worker.

    Args:
        settings: Of the worker.
        metrics: Counts what ends.
        types: Step types beside those that Citadel ships.
    """

    def __init__(
        self,
        settings: OrchestrationSettings,
        metrics: Metrics = NULL_METRICS,
        *,
        types: Iterable[StepType[Any]] = (),
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._own_types = tuple(types)
        self._loop = LoopThread("steps", loop_factory=uvloop.new_event_loop, margin=CLOSING)
        self._stopping = threading.Event()

    def start(self, runtime: TaskRuntime) -> None:
        """Migrate the database, open all connections, register the tasks, start the background threads."""
        return_what_is_freed()
        settings, owner = self._settings, runtime.identity.id
        _migrate(settings)
        self._loop.call(self._open(owner), Deadline.after(CLOSING))
        parts = self._wiring
        parts.database.open()
        transitions = StepTransitions(parts.transactions, max_output_bytes=settings.workflows.max_output_bytes)
        limits = settings.workflows.run_limits
        answer = TaskResultWriter(runtime.app, parts.database, parts.definitions, limits.final_context)
        broker = connect(settings.broker_url, settings.stores)
        self._engine = Engine(
            EngineParts(
                database=parts.database,
                transitions=transitions,
                sub_runs=SubRuns(parts.transactions, transitions),
                commands=parts.commands,
                definitions=parts.definitions,
                submissions=parts.submissions,
                loop=self._loop,
                dispatcher=Dispatcher(runtime.app),
                slots=Slots(database=parts.database, owner=owner, lease=settings.workflows.lease),
                resources=parts.llm.resources,
                answer=answer,
                parked=ParkedOutputs(broker),
                texts=SentTexts(broker, self._metrics),
                inputs=StepInputs(
                    database=parts.database,
                    definitions=parts.definitions,
                    limits=limits,
                    shared=SharedScopes(settings.workflows.scope_cache_bytes),
                ),
                memory=settings.workflows.memory,
            ),
            max_in_flight=settings.workflows.max_in_flight,
            stopping=self._stopping,
        )
        self._sweeper = self._make_sweeper(runtime, broker, transitions, answer)
        store_revoked = functools.partial(runtime.app.backend.store_revoked, running=True)
        self._tasks = OrchestrationTasks(
            self._engine, parts.commands, parts.submissions, parts.admission, store_revoked
        )
        self._tasks.register(runtime.app)
        self._answers = AnswerConsumer(connect(settings.broker_url, settings.stores), self._engine.take_answer)
        self._answers.start()
        self._sweeper.start()

    def _make_sweeper(
        self, runtime: TaskRuntime, broker: "Redis", transitions: StepTransitions, answer: TaskResultWriter
    ) -> Sweeper:
        settings, parts = self._settings, self._wiring
        witness = Witness(broker, runtime.identity.id)
        return Sweeper(
            transactions=parts.transactions,
            transitions=transitions,
            engine=self._engine,
            answer=answer,
            may_have_lost=LossDetector(broker),
            accepted=AcceptedTasksSweep(
                database=parts.database,
                tasks=runtime.accepted,
                publish=functools.partial(publish_accepted, runtime.app),
                missing=TrackedMessages(broker).missing,
                may_have_lost=LossDetector(runtime.results),
                first_look=settings.accepted.first_look,
                metrics=self._metrics,
            ),
            guard=LeaseGuard(self._engine.in_flight, witness, lease=settings.workflows.lease, metrics=self._metrics),
            interval=settings.workflows.sweep_interval,
        )

    def revoke(self, task_ids: Sequence[str]) -> None:
        """Cancel the runs of revoked tasks."""
        self._tasks.revoke(task_ids)

    def interrupt(self) -> None:
        """Hand running steps back: the grace of a stop is over."""
        self._stop_steps()
        self._engine.hand_back()

    def close(self) -> None:
        """Let running steps end within the grace, hand the others back, close all connections."""
        self._stop_steps()
        end = time.monotonic() + self._settings.worker.stop_grace
        while self._engine.in_flight.executing() and time.monotonic() < end:
            time.sleep(0.05)
        self._engine.park_outputs()
        self._answers.stop()
        self._sweeper.stop()
        self._engine.hand_back()
        self._engine.close()
        self._loop.close(self._aclose)
        self._release_slots()
        self._wiring.notifications.close()
        self._wiring.database.close()

    def _release_slots(self) -> None:
        with contextlib.suppress(StoreUnavailable):
            self._engine.admission.close()

    def _stop_steps(self) -> None:
        """Let no further step begin, and hand back those that wait for a server to come back."""
        self._stopping.set()
        self._loop.submit(self._end_waits())

    async def _end_waits(self) -> None:
        self._wiring.outages.stop()

    async def _open(self, owner: str) -> None:
        settings = self._settings
        self._redis = connect_async(settings.results, settings.stores)
        self._wiring = wire(
            settings, self._redis, self._metrics, name="orchestration", owner=owner, types=self._own_types
        )
        self._publishing = asyncio.create_task(CollectionPublisher(self._wiring.vectors, self._redis).run())
        await self._wiring.catalog.start()

    async def _aclose(self) -> None:
        self._publishing.cancel()
        await asyncio.gather(self._publishing, self._wiring.catalog.stop(), return_exceptions=True)
        await self._wiring.llm.aclose()
        await self._wiring.vectors.aclose()
        await self._redis.aclose()
