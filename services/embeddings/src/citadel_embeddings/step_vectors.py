"""Vectors for workflow steps, computed here and sent to the workflow engine, which stores them."""

import asyncio
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from citadel_common.deadline import Deadline
from citadel_common.delivery import tracked_messages
from citadel_common.delivery.server_clock import ServerClock
from citadel_common.embeddings.vectors import to_base64
from citadel_common.errors import CitadelError, PayloadTooLarge, StoreUnavailable
from citadel_common.micro_batching import MicroBatcher
from citadel_common.stores.redis import ERRORS
from citadel_common.telemetry import messages, tracing
from citadel_common.telemetry.tracing import Carrier
from citadel_contracts import EMBED_STEPS, Lane
from citadel_contracts.workflows import (
    EMBEDDED,
    MOST_ANSWER_BYTES,
    EmbeddedPart,
    EmbedStep,
    StepEmbedded,
    embedding_name,
)
from citadel_embeddings.engine import EmbeddingEngine, EmbedRequest, EmbedResponse

if TYPE_CHECKING:
    from redis.asyncio import Redis

MOST_ANSWERS = 64
"""Answers in one command to the broker."""


class StepVectors:
    """Embeds the texts of steps and answers them; belongs to the engine's event loop.

    Args:
        engine: Computes the vectors.
        broker: Client of the broker's Redis, where the answers go.
        default_model: Model of requests that name none.
    """

    def __init__(self, engine: EmbeddingEngine, broker: "Redis", *, default_model: str) -> None:
        self._engine = engine
        self._broker = broker
        self._default_model = default_model
        self._answers = MicroBatcher(self._push, max_size=MOST_ANSWERS)

    async def answer(
        self, steps: Sequence[EmbedStep], deadlines: Sequence[Deadline], *, lane: Lane, task_id: str
    ) -> None:
        """Answer each step as soon as its vectors are there.

        Args:
            steps: The steps.
            deadlines: Of each step.
            lane: Of the message.
            task_id: Of the task.

        Raises:
            StoreUnavailable: The broker did not take some answers.
        """
        answers = (self._answer(step, end, lane, task_id) for step, end in zip(steps, deadlines, strict=True))
        for error in await asyncio.gather(*answers, return_exceptions=True):
            if error is not None:
                raise error

    async def _answer(self, step: EmbedStep, deadline: Deadline, lane: Lane, task_id: str) -> None:
        with _processing(step, task_id):
            requests = [EmbedRequest.of(part, part.texts, default_model=self._default_model) for part in step.parts]
            responses = await self._engine.embed_all(requests, deadline, lane_of(step, lane))
            with _sending() as trace:
                name = embedding_name(step.run_id, step.step_id, step.item, step.attempt)
                await self._answers.run([(name, answer_of(step, responses, trace))])

    async def _push(self, answers: Sequence[tuple[str, str]]) -> Sequence[None]:
        try:
            async with self._broker.pipeline(transaction=True) as pipe:
                pipe.rpush(EMBEDDED, *(answer for _, answer in answers))
                tracked_messages.mark_answered(pipe, (name for name, _ in answers))
                await pipe.execute()
        except ERRORS as error:
            raise StoreUnavailable("the broker does not answer; check that Redis runs") from error
        return [None] * len(answers)


def deadlines_of(steps: Sequence[EmbedStep], timeouts: object, task: Deadline, clock: ServerClock) -> list[Deadline]:
    """Return when each step must have ended: the first of its own deadline, its timeout from now on, and the task's.

    Args:
        steps: The steps.
        timeouts: The message's header with the seconds of each step; engines of older versions send none.
        task: The task's deadline.
        clock: The broker's.
    """
    given = timeouts if isinstance(timeouts, list) and len(timeouts) == len(steps) else [math.inf] * len(steps)
    limits = [float(each) if isinstance(each, (int, float)) and each >= 0 else math.inf for each in given]
    ends = [task if step.deadline is None else clock.deadline(step.deadline) for step in steps]
    return [
        min(task.earliest(limit), end, key=lambda deadline: deadline.at)
        for limit, end in zip(limits, ends, strict=True)
    ]


def lane_of(step: EmbedStep, lane: Lane) -> Lane:
    """Return the lane that the step names, or the message's.

    Engines of older versions name none: their chunks of batches are known by what they want echoed.
    """
    if step.lane is not None:
        return step.lane
    return Lane.BATCH if (step.echo or {}).get("form") == "chunk" else lane


def answer_of(step: EmbedStep, responses: Sequence[EmbedResponse | CitadelError], trace: Carrier | None) -> str:
    """Return the answer to a step, `StepEmbedded` as JSON."""
    size = sum(map(_size, responses))
    if size > MOST_ANSWER_BYTES:
        limit = f"an answer may have {MOST_ANSWER_BYTES:,}: embed fewer texts in one step"
        responses = [PayloadTooLarge(f"the step's vectors have {size:,} bytes as base64; {limit}")] * len(responses)
    message = StepEmbedded(
        run_id=step.run_id,
        step_id=step.step_id,
        item=step.item,
        attempt=step.attempt,
        parts=[_part(response) for response in responses],
        echo=step.echo,
        trace=trace,
    )
    return message.model_dump_json()


def _processing(step: EmbedStep, task_id: str) -> AbstractContextManager[object]:
    """Return the span of the work for a step, below the span that asked for it; nothing if the step is not traced."""
    if step.trace is None:
        return nullcontext()
    return messages.processing(EMBED_STEPS.queue.value, step.trace, message_id=task_id, task=EMBED_STEPS.name)


def _sending() -> AbstractContextManager[Carrier | None]:
    """Return the span of an answer; it yields the carrier for the answer, or None if the step is not traced."""
    return messages.sending(EMBEDDED, system=messages.REDIS) if tracing.current().is_valid else nullcontext()


def _size(response: EmbedResponse | CitadelError) -> int:
    """Return the bytes of the vectors as base64."""
    if isinstance(response, CitadelError):
        return 0
    return sum(4 * ((vector.nbytes + 2) // 3) for vector in response.vectors if vector is not None)


def _part(response: EmbedResponse | CitadelError) -> EmbeddedPart:
    if isinstance(response, CitadelError):
        return EmbeddedPart(vectors=[], error=response.data)
    return EmbeddedPart(
        vectors=[None if vector is None else to_base64(vector) for vector in response.vectors],
        model=response.model,
        dimensions=response.dimensions,
        cache_hits=response.cache_hits,
        truncated=response.truncated,
        tokens=response.tokens,
        errors=[error.data.model_copy(update={"index": index}) for index, error in sorted(response.errors.items())],
    )
