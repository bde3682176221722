"""Vectors for workflow steps: computed here, sent to the engine, which records them."""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from citadel_common.contracts import Lane
from citadel_common.contracts.workflows import EMBEDDED, EmbeddedPart, EmbedPart, EmbedStep, StepEmbedded
from citadel_common.deadline import Deadline
from citadel_common.embeddings.vectors import to_base64
from citadel_common.errors import CitadelError, StoreUnavailable
from citadel_common.natural_batch import NaturalBatcher
from citadel_common.redis import ERRORS
from citadel_embeddings.engine import EmbeddingEngine, EmbedRequest, Outcome
from citadel_embeddings.results import item_error

if TYPE_CHECKING:
    from redis.asyncio import Redis

MOST_ANSWERS = 64
"""Of one command to the broker."""


class StepVectors:
    """Answers steps; belongs to the engine's event loop.

    Args:
        engine: Computes the vectors.
        broker: Client of the broker's Redis, where the answers go.
        default_model: Model of requests that name none.
    """

    def __init__(self, engine: EmbeddingEngine, broker: "Redis", *, default_model: str) -> None:
        self._engine = engine
        self._broker = broker
        self._default_model = default_model
        self._answers = NaturalBatcher(self._push, max_size=MOST_ANSWERS)

    async def answer(self, steps: Sequence[EmbedStep], *, deadline: Deadline, lane: Lane) -> None:
        """Answers each step as soon as its vectors are there.

        Raises:
            StoreUnavailable: The broker did not take some answers.
        """
        ends = await asyncio.gather(*(self._one(step, deadline, lane) for step in steps), return_exceptions=True)
        for error in ends:
            if error is not None:
                raise error

    async def _one(self, step: EmbedStep, deadline: Deadline, lane: Lane) -> None:
        outcomes = await self._engine.embed_all(
            requests_of(step.parts, self._default_model), deadline_of(step, deadline), lane_of(step, lane)
        )
        await self._answers.run([answer_of(step, outcomes)])

    async def _push(self, answers: Sequence[str]) -> Sequence[None]:
        try:
            pushed: Any = self._broker.rpush(EMBEDDED, *answers)
            await pushed
        except ERRORS as error:
            raise StoreUnavailable("the broker does not answer; check that Redis runs") from error
        return [None] * len(answers)


def requests_of(parts: Sequence[EmbedPart], default_model: str) -> list[EmbedRequest]:
    """The engine's requests."""
    return [
        EmbedRequest(
            text=part.texts,
            model=part.model or default_model,
            options=part.options,
            cache_enabled=part.cache_enabled,
            dimensions=part.dimensions,
            input_type=part.input_type,
        )
        for part in parts
    ]


def deadline_of(step: EmbedStep, task: Deadline) -> Deadline:
    """The step's deadline, or the task's where that is earlier."""
    if step.deadline is None:
        return task
    return min(task, Deadline.from_epoch(step.deadline), key=lambda deadline: deadline.at)


def lane_of(step: EmbedStep, lane: Lane) -> Lane:
    """Chunks of batches never hold up single texts."""
    return Lane.BATCH if (step.echo or {}).get("form") == "chunk" else lane


def answer_of(step: EmbedStep, outcomes: Sequence[Outcome | CitadelError]) -> str:
    """`StepEmbedded` as JSON."""
    message = StepEmbedded(
        run_id=step.run_id,
        step_id=step.step_id,
        item=step.item,
        attempt=step.attempt,
        parts=[_part(outcome) for outcome in outcomes],
        echo=step.echo,
    )
    return message.model_dump_json()


def _part(outcome: Outcome | CitadelError) -> EmbeddedPart:
    if isinstance(outcome, CitadelError):
        return EmbeddedPart(vectors=[], error={"code": outcome.code, "message": outcome.message})
    return EmbeddedPart(
        vectors=[None if vector is None else to_base64(vector) for vector in outcome.vectors],
        model=outcome.model,
        dimensions=outcome.dimensions,
        cache_hits=outcome.cache_hits,
        truncated=outcome.truncated,
        tokens=outcome.tokens,
        errors=[dict(item_error(index, error)) for index, error in sorted(outcome.errors.items())],
    )
