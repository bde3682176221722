"""`python -m tests.support.programs.failing_worker`: a worker of the embeddings queue that fails as the texts say.

A text `fail CODE` raises the error of that code, with everything that an error can carry.
"""

import sys
from collections.abc import Sequence
from typing import Any

from citadel_common.errors import CitadelError
from citadel_common.settings.common import CommonSettings
from citadel_common.stores.redis import connect
from citadel_common.tasks.base import TaskContext, register
from citadel_common.tasks.runtime import TaskRuntime
from citadel_common.worker.launch import Service, run_worker
from citadel_contracts import EMBED_STEPS, GENERATE_EMBEDDING, Queue
from citadel_contracts.workflows import EMBEDDED, EmbeddedPart, EmbedPart, EmbedStep, StepEmbedded
from tests.support.error_classes import all_classes, raised

CLASSES = all_classes()


def error_in(texts: Sequence[str]) -> CitadelError | None:
    """Return the error that a text asks for."""
    for index, text in enumerate(texts):
        word, _, code = text.partition(" ")
        if word == "fail":
            return raised(CLASSES[code], index)
    return None


def embed(payload: Any, _context: TaskContext) -> Any:
    """Fail; every text of these tests asks for it."""
    error = error_in([payload.text] if isinstance(payload.text, str) else payload.text)
    assert error is not None
    raise error


def answer(step: EmbedStep) -> str:
    """Return the answer to a step, as JSON."""
    echoed = step.model_dump(include={"run_id", "step_id", "item", "attempt", "echo"})
    return StepEmbedded(parts=[_part(part) for part in step.parts], **echoed).model_dump_json()


def _part(part: EmbedPart) -> EmbeddedPart:
    error = error_in(part.texts)
    assert error is not None
    return EmbeddedPart(vectors=[], error=error.data)


def main() -> None:
    """Run the worker."""
    settings = CommonSettings()
    broker = connect(settings.broker_url, settings.stores)

    def embed_steps(payload: Any, _context: TaskContext) -> None:
        broker.rpush(EMBEDDED, *[answer(step) for step in payload.steps])

    def start(runtime: TaskRuntime) -> None:
        register(runtime.app, GENERATE_EMBEDDING, embed)
        register(runtime.app, EMBED_STEPS, embed_steps)

    run_worker(Queue.EMBEDDINGS, settings, Service(start=start, interrupt=lambda: sys.exit(0), close=broker.close))


if __name__ == "__main__":
    main()
