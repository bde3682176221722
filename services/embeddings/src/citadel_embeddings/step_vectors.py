"""Vectors for workflow steps: computed here, sent to the engine, which records them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from citadel_common.contracts import Lane
from citadel_common.contracts.workflows import EMBEDDED, EmbeddedPart, EmbedPart, EmbedStep, StepEmbedded
from citadel_common.deadline import Deadline
from citadel_common.embeddings.vectors import to_base64
from citadel_common.errors import CitadelError, StoreUnavailable
from citadel_common.redis import ERRORS
from citadel_embeddings.engine import EmbedRequest, Outcome
from citadel_embeddings.results import item_error

if TYPE_CHECKING:
    from redis import Redis


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


def deadline_of(payload: EmbedStep, task: Deadline) -> Deadline:
    """The step's deadline, or the task's where that is earlier."""
    if payload.deadline is None:
        return task
    return min(task, Deadline.from_epoch(payload.deadline), key=lambda deadline: deadline.at)


def lane_of(payload: EmbedStep, lane: Lane) -> Lane:
    """Chunks of batches never hold up single texts."""
    return Lane.BATCH if (payload.echo or {}).get("form") == "chunk" else lane


def send(broker: "Redis", payload: EmbedStep, outcomes: Sequence[Outcome | CitadelError]) -> None:
    """Tells the engine.

    Raises:
        StoreUnavailable: The broker does not answer.
    """
    message = StepEmbedded(
        run_id=payload.run_id,
        step_id=payload.step_id,
        item=payload.item,
        attempt=payload.attempt,
        parts=[_part(outcome) for outcome in outcomes],
        echo=payload.echo,
    )
    try:
        broker.rpush(EMBEDDED, message.model_dump_json())
    except ERRORS as error:
        raise StoreUnavailable("the broker does not answer; check that Redis runs") from error


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
