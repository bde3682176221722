"""The engine's messages to other workers."""

from typing import TYPE_CHECKING

from kombu.exceptions import OperationalError

from citadel_common.contracts import EMBED_STEP, RUN_STEP
from citadel_common.contracts.workflows import EmbedStep
from citadel_common.errors import StoreUnavailable
from citadel_common.redis import ERRORS
from citadel_orchestration.record.rows import StepRef

if TYPE_CHECKING:
    from celery import Celery

FAILURES = (*ERRORS, OperationalError)


class Publisher:
    """Publishes after commits; what cannot be published is found by the sweeper."""

    def __init__(self, app: "Celery") -> None:
        self._app = app

    def embed(self, message: EmbedStep, *, lane: int) -> None:
        """Texts of a step, to the embeddings workers.

        Raises:
            StoreUnavailable: The broker does not answer.
        """
        self._send(EMBED_STEP.name, message.model_dump(), lane)

    def ready(self, ref: StepRef, *, lane: int) -> None:
        """A step that is ready, to any orchestration worker.

        Raises:
            StoreUnavailable: The broker does not answer.
        """
        self._send(RUN_STEP.name, {"run_id": str(ref.run_id), "step_id": ref.step_id, "item": ref.item}, lane)

    def _send(self, name: str, kwargs: dict[str, object], lane: int) -> None:
        try:
            self._app.send_task(name, kwargs=kwargs, priority=lane, ignore_result=True)
        except FAILURES as error:
            raise StoreUnavailable("the broker does not answer; check that Redis runs") from error
