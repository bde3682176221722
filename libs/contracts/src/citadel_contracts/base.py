"""Queues, lanes and the shape of a task contract."""

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict


class Queue(StrEnum):
    """The four queues; each has its own worker deployment."""

    EMBEDDINGS = "embeddings"
    ORCHESTRATION = "orchestration"
    MONITORING = "monitoring"
    MAINTENANCE = "maintenance"


class Lane(IntEnum):
    """Priority lane within a queue; the value is the message priority (Redis: 0 is served first)."""

    INTERACTIVE = 0
    STANDARD = 3
    BATCH = 6


class Payload(BaseModel):
    """Base of task payloads: strict, closed and immutable; field order is positional-argument order."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


P = TypeVar("P", bound=Payload)
R = TypeVar("R")


@dataclass(frozen=True, kw_only=True)
class TaskSpec(Generic[P, R]):
    """The contract of a task between its producers and its workers.

    Attributes:
        name: Registered task name, also the route.
        queue: Queue that carries it.
        payload: Model of the arguments.
        result: Type of what it returns.
        lane: Lane when the producer names none.
        soft_limit: Seconds after which the task is asked to end.
        hard_limit: Seconds after which its worker counts as stuck.
        track_started: Whether a STARTED state is written (costs a store write per task).
        stores_result: Whether what it returns is its result; errors always are.
        part_by_part: Whether the parts of its payload, and not its message, carry their places in traces.
    """

    name: str
    queue: Queue
    payload: type[P]
    result: type[R]
    lane: Lane = Lane.STANDARD
    soft_limit: float = 1500.0
    hard_limit: float = 1800.0
    track_started: bool = False
    stores_result: bool = True
    part_by_part: bool = False


AnyTaskSpec = TaskSpec[Any, Any]
