"""Queues, lanes and the shape of a task contract."""

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator
from pydantic_core import PydanticUseDefault

T = TypeVar("T")


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


def _default_for_null(value: Any) -> Any:
    if value is None:
        raise PydanticUseDefault
    return value


OrDefault = Annotated[T, BeforeValidator(_default_for_null)]
"""A field with a default that is not null: null means absent, as in the bodies of many clients and gateways."""


class NullIsAbsent(BaseModel):
    """Base of what users write: null means absent for each field that has a default."""

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        optional = {name for name, field in cls.model_fields.items() if not field.is_required()}
        return {name: value for name, value in given.items() if value is not None or name not in optional}


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
