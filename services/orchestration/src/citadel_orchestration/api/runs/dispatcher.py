"""Tells the workers of steps that are ready; the sweep makes up for what cannot be told."""

import time
from collections.abc import Sequence

import structlog

from citadel_common.errors import StoreUnavailable
from citadel_orchestration.db.models import StepRef
from citadel_orchestration.engine.dispatch import Dispatcher

log = structlog.get_logger(__name__)
PAUSE_AFTER_FAILURE = 5.0
"""Seconds a broker that failed is left alone: a message that cannot be sent takes as long as the broker's timeout."""


class Teller:
    """The engine's dispatcher, for callers who must not wait for a broker that is down; thread-safe."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._paused_until = 0.0

    def tell(self, ready: Sequence[StepRef], lane: int) -> None:
        """Publishes the steps, up to the first that cannot be."""
        if time.monotonic() < self._paused_until:
            return
        for sent, ref in enumerate(ready):
            try:
                self._dispatcher.step_ready(ref, lane=lane)
            except StoreUnavailable as error:
                self._paused_until = time.monotonic() + PAUSE_AFTER_FAILURE
                left = len(ready) - sent
                log.warning("steps_not_published", run_id=str(ref.run_id), steps=left, error=error.message)
                return
