"""Messages to other workers: texts to embed, and steps that are ready."""

import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kombu.exceptions import OperationalError

from citadel_common.deadline import Deadline
from citadel_common.delivery.tracked_messages import HEADER as TRACKED_HEADER
from citadel_common.errors import StoreUnavailable
from citadel_common.stores.redis import ERRORS
from citadel_common.tasks.app import clock_of
from citadel_common.telemetry import messages, tracing
from citadel_contracts import EMBED_STEPS, RUN_STEP
from citadel_contracts.workflows import STEP_TIMEOUTS_HEADER, EmbedStep, embedding_name
from citadel_orchestration.db.models import StepRef

if TYPE_CHECKING:
    from celery import Celery

FAILURES = (*ERRORS, OperationalError)
MOST_STEPS = 16
MOST_TEXTS, MOST_CHARACTERS = 128, 2**20
"""Of one message, unless a single step has more: what one embeddings worker takes, the others cannot."""


@dataclass(frozen=True, kw_only=True)
class EmbedMessage:
    """The texts of one step.

    Attributes:
        step: The step.
        timeout: Seconds that the step may take once a worker has the message.
        on_failure: Called, in any thread, when the broker does not take the message.
    """

    step: EmbedStep
    timeout: float
    on_failure: Callable[[StoreUnavailable], None]

    @property
    def name(self) -> str:
        """The name by which the message is tracked."""
        return embedding_name(self.step.run_id, self.step.step_id, self.step.item, self.step.attempt)

    @property
    def texts(self) -> int:
        """Number of texts."""
        return sum(len(part.texts) for part in self.step.parts)

    @property
    def characters(self) -> int:
        """Characters of the texts."""
        return sum(len(text) for part in self.step.parts for text in part.texts)


class Dispatcher:
    """Sends messages after commits; the sweeper finds what could not be sent. Thread-safe.

    While one thread publishes, the texts that other threads bring wait. That thread then publishes them together.
    """

    def __init__(self, app: "Celery") -> None:
        self._app = app
        self._lock = threading.Lock()
        self._waiting: defaultdict[int, list[EmbedMessage]] = defaultdict(list)
        self._busy = False

    def time_of(self, deadline: Deadline) -> float:
        """Return a deadline by the broker's clock, the form in which messages carry it."""
        return clock_of(self._app).time_of(deadline)

    def embed(
        self, step: EmbedStep, *, lane: int, timeout: float, on_failure: Callable[[StoreUnavailable], None]
    ) -> None:
        """Send the texts of a step to the embeddings workers, in this thread or in the one that publishes already."""
        if not tracing.current().is_valid:
            self._add(EmbedMessage(step=step, timeout=timeout, on_failure=on_failure), lane)
            return
        with messages.sending(EMBED_STEPS.queue.value, task=EMBED_STEPS.name) as carrier:
            traced = step.model_copy(update={"trace": carrier})
            self._add(EmbedMessage(step=traced, timeout=timeout, on_failure=on_failure), lane)

    def step_ready(self, ref: StepRef, *, lane: int) -> None:
        """Tell the orchestration workers that a step is ready.

        Raises:
            StoreUnavailable: The broker does not answer.
        """
        self._send(RUN_STEP.name, {"run_id": str(ref.run_id), "step_id": ref.step_id, "item": ref.item}, lane)

    def _add(self, message: EmbedMessage, lane: int) -> None:
        with self._lock:
            self._waiting[lane].append(message)
            if self._busy:
                return
            self._busy = True
        try:
            while (found := self._next()) is not None:
                self._publish(*found)
        except BaseException:
            self._busy = False
            raise

    def _next(self) -> tuple[int, list[EmbedMessage]] | None:
        """Take what goes out together next, from the most urgent lane; if nothing waits, be no longer busy."""
        with self._lock:
            lane = min((lane for lane, waiting in self._waiting.items() if waiting), default=None)
            if lane is None:
                self._busy = False  # under the lock: a message that is added from now on is published by its thread
                return None
            waiting = self._waiting[lane]
            size = _fitting(waiting)
            self._waiting[lane] = waiting[size:]
            return lane, waiting[:size]

    def _publish(self, lane: int, embed_messages: list[EmbedMessage]) -> None:
        steps = [message.step.model_dump(exclude_defaults=True) for message in embed_messages]
        headers: dict[str, object] = {
            STEP_TIMEOUTS_HEADER: [message.timeout for message in embed_messages],
            TRACKED_HEADER: [message.name for message in embed_messages],
        }
        try:
            self._send(EMBED_STEPS.name, {"steps": steps}, lane, headers=headers)
        except StoreUnavailable as error:
            for message in embed_messages:
                message.on_failure(error)

    def _send(
        self, name: str, kwargs: dict[str, object], lane: int, headers: Mapping[str, object] | None = None
    ) -> None:
        try:
            self._app.send_task(name, kwargs=kwargs, priority=lane, ignore_result=True, headers=headers)
        except FAILURES as error:
            raise StoreUnavailable("the broker does not answer; check that Redis runs") from error


def _fitting(waiting: list[EmbedMessage]) -> int:
    """Return how many of the first messages go out together; at least one."""
    texts = characters = 0
    for count, message in enumerate(waiting[:MOST_STEPS]):
        texts += message.texts
        characters += message.characters
        if count and (texts > MOST_TEXTS or characters > MOST_CHARACTERS):
            return count
    return min(len(waiting), MOST_STEPS)
