"""Tasks of Celery's own that a client may send to a queue of Citadel.

`celery.map` and `celery.starmap` are spread over the workers: a chord of one task per item, whose body has the id, and
the canvas, of the task. Celery would call the tasks one after another within it, past all rules of this house.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from celery.canvas import chord, maybe_signature
from pydantic import Field

from citadel_common.delivery import serializer
from citadel_common.errors import InvalidInput
from citadel_common.tasks.base import TaskContext, register
from citadel_common.tasks.canvas import LATER
from citadel_common.tasks.failure_policy import canvas_options
from citadel_common.tasks.runtime import TaskRuntime
from citadel_contracts import Payload, Queue, TaskSpec

if TYPE_CHECKING:
    from celery import Celery

MOST_ITEMS = 1000
"""Items of one `map` or `starmap`; `chunks` makes several."""


class MapCall(Payload):
    """Arguments of `celery.map` and `celery.starmap`: a signature, and the arguments of each call."""

    task: dict[str, Any]
    it: list[Any] = Field(max_length=MOST_ITEMS)


class AccumulateCall(Payload):
    """Arguments of `celery.accumulate`: the results of a chord, and the place of the argument to return."""

    results: list[Any]
    index: int | None = None


class NoArguments(Payload):
    """No arguments."""


ACCUMULATE = "celery.accumulate"
NAMES = frozenset({"celery.map", "celery.starmap", ACCUMULATE, "celery.backend_cleanup"})
"""The tasks that workers run. The others publish tasks in ways that no client uses any more, or poll for ever."""


class BuiltinTasks:
    """Handlers of Celery's own tasks; `runtime` is the worker's."""

    def __init__(self, runtime: TaskRuntime) -> None:
        self._runtime = runtime
        self._queue = Queue(runtime.identity.queue)

    def register(self, app: "Celery") -> None:
        """Register the handlers in place of Celery's functions."""
        for name in NAMES:
            app.tasks.unregister(name)  # Celery warns of a name that is taken
        register(app, self._spec("celery.map", MapCall), self.map)
        register(app, self._spec("celery.starmap", MapCall), self.starmap)
        register(app, self._spec(ACCUMULATE, AccumulateCall), self.accumulate)
        register(app, self._spec("celery.backend_cleanup", NoArguments), self.clean_up)

    def _spec(self, name: str, payload: type[Payload]) -> TaskSpec[Any, Any]:
        return TaskSpec(name=name, queue=self._queue, payload=payload, result=list)

    def map(self, payload: MapCall, context: TaskContext) -> Any:
        """Call a task with each item."""
        return self._spread(payload, context, lambda item: [item])

    def starmap(self, payload: MapCall, context: TaskContext) -> Any:
        """Call a task with the arguments in each item."""
        for index, item in enumerate(payload.it):
            if not isinstance(item, list):
                raise InvalidInput.at("it", "is not a list of arguments", index)
        return self._spread(payload, context, list)

    def accumulate(self, payload: AccumulateCall, context: TaskContext) -> Any:  # noqa: ARG002
        """Return the results of a chord."""
        return payload.results if payload.index == 0 else [payload.results]

    def clean_up(self, payload: NoArguments, context: TaskContext) -> None:
        """Do nothing: results in Redis expire."""

    def _spread(self, payload: MapCall, context: TaskContext, arguments: Callable[[Any], list[Any]]) -> Any:
        if not payload.it:
            return []
        calls = [arguments(item) for item in payload.it]
        self._runtime.canvas.once("calls", lambda: self._publish(payload.task, calls, context))
        return LATER

    def _publish(self, task: dict[str, Any], calls: list[list[Any]], context: TaskContext) -> None:
        app, canvas = self._runtime.app, serializer.loads(context.canvas() or b"{}")
        body = app.signature(ACCUMULATE, kwargs={"index": 0}, task_id=context.task_id, queue=self._queue.value)
        chord(list(self._calls(task, calls)), body.set(**canvas_options(canvas.get)), app=app).apply_async()

    def _calls(self, task: dict[str, Any], calls: list[list[Any]]) -> Iterator[Any]:
        for arguments in calls:
            call = maybe_signature(dict(task), app=self._runtime.app).clone(args=arguments)
            call.options.pop("task_id", None)
            yield call
