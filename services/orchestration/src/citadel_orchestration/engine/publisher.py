"""The engine's messages to other workers."""

import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kombu.exceptions import OperationalError

from citadel_common.errors import StoreUnavailable
from citadel_common.stores.redis import ERRORS
from citadel_common.telemetry import messages, tracing
from citadel_contracts import EMBED_STEPS, RUN_STEP
from citadel_contracts.workflows import EmbedStep
from citadel_orchestration.db.models import StepRef

if TYPE_CHECKING:
    from celery import Celery

FAILURES = (*ERRORS, OperationalError)
MOST_STEPS = 16
MOST_TEXTS = 128
"""Of one message, unless a single step has more: what one embeddings worker takes, the others cannot."""


@dataclass(frozen=True, kw_only=True)
class Letter:
    """A step's texts, and what is done when the broker does not take them."""

    step: EmbedStep
    lost: Callable[[StoreUnavailable], None]

    @property
    def texts(self) -> int:
        """How many texts it has."""
        return sum(len(part.texts) for part in self.step.parts)


class Publisher:
    """Publishes after commits; what cannot be published is found by the sweeper. Thread-safe.

    Texts are batched naturally: what comes while one thread publishes is published by that thread next, together.
    """

    def __init__(self, app: "Celery") -> None:
        self._app = app
        self._lock = threading.Lock()
        self._waiting: defaultdict[int, list[Letter]] = defaultdict(list)
        self._busy = False

    def embed(self, step: EmbedStep, *, lane: int, lost: Callable[[StoreUnavailable], None]) -> None:
        """Sends texts of a step to the embeddings workers, now or with those that another thread sends next."""
        if not tracing.current().is_valid:
            self._add(Letter(step=step, lost=lost), lane)
            return
        with messages.sending(EMBED_STEPS.queue.value, task=EMBED_STEPS.name) as carrier:
            self._add(Letter(step=step.model_copy(update={"trace": carrier}), lost=lost), lane)

    def ready(self, ref: StepRef, *, lane: int) -> None:
        """A step that is ready, to any orchestration worker.

        Raises:
            StoreUnavailable: The broker does not answer.
        """
        self._send(RUN_STEP.name, {"run_id": str(ref.run_id), "step_id": ref.step_id, "item": ref.item}, lane)

    def _add(self, letter: Letter, lane: int) -> None:
        with self._lock:
            self._waiting[lane].append(letter)
        self._empty()

    def _empty(self) -> None:
        """Publishes what waits, unless another thread is at it."""
        with self._lock:
            if self._busy:
                return
            self._busy = True
        try:
            while (found := self._next()) is not None:
                self._post(*found)
        except BaseException:
            self._busy = False
            raise

    def _next(self) -> tuple[int, list[Letter]] | None:
        """The next message's letters, of the most urgent lane; None, and no longer busy, when there are none."""
        with self._lock:
            lane = min((lane for lane, letters in self._waiting.items() if letters), default=None)
            if lane is None:
                self._busy = False
                return None
            letters = self._waiting[lane]
            size = _fitting(letters)
            self._waiting[lane] = letters[size:]
            return lane, letters[:size]

    def _post(self, lane: int, letters: list[Letter]) -> None:
        try:
            self._send(
                EMBED_STEPS.name, {"steps": [letter.step.model_dump(exclude_defaults=True) for letter in letters]}, lane
            )
        except StoreUnavailable as error:
            for letter in letters:
                letter.lost(error)

    def _send(self, name: str, kwargs: dict[str, object], lane: int) -> None:
        try:
            self._app.send_task(name, kwargs=kwargs, priority=lane, ignore_result=True)
        except FAILURES as error:
            raise StoreUnavailable("the broker does not answer; check that Redis runs") from error


def _fitting(letters: list[Letter]) -> int:
    """How many of the first letters go into one message; at least one."""
    texts = 0
    for count, letter in enumerate(letters[:MOST_STEPS]):
        texts += letter.texts
        if count and texts > MOST_TEXTS:
            return count
    return min(len(letters), MOST_STEPS)
