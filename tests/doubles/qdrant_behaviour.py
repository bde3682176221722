"""How the Qdrant double misbehaves, switched at run time by `POST /_double/behaviour`.

Modes:
    ok                  answers as a healthy server
    slow                answers `delay_ms` later
    hang                never answers; ends when the client hangs up
    dead                closes the connection without an answer
    error500            an internal error, in Qdrant's envelope
    html502             a proxy's page
    rate429             a strict-mode rate limit, with Retry-After
    unauthorized401     as with a wrong API key
    missing_collection  every collection is unknown
    wrong_dimension     every vector has the wrong length
    not_ready           `/readyz` says no; everything else works
    garbage_json        half of the answer's JSON with status 200
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

MODES = frozenset(
    {"ok", "slow", "hang", "dead", "not_ready", "garbage_json", "error500", "html502", "rate429", "unauthorized401"}
    | {"missing_collection", "wrong_dimension"}
)


@dataclass(frozen=True, kw_only=True, slots=True)
class QdrantBehaviour:
    """One behaviour; `only_route` (such as `points/query`) and `for_requests` narrow it."""

    mode: str = "ok"
    delay_ms: float = 1000.0
    # the end of the paths touched; empty is all
    only_route: str = ""
    # requests until it is over; None is never
    for_requests: int | None = None

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"unknown mode {self.mode!r}; one of {sorted(MODES)}")

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> "QdrantBehaviour":
        """Return the behaviour that a control request asks for."""
        unknown = set(data) - {item.name for item in fields(cls)}
        if unknown:
            raise ValueError(f"unknown parameters {sorted(unknown)}")
        return cls(**data)


class QdrantSwitch:
    """The behaviour in force and how many requests it has touched."""

    def __init__(self) -> None:
        self.set(QdrantBehaviour())

    def set(self, behaviour: QdrantBehaviour) -> None:
        """Put a behaviour in force and count from 0 again."""
        self.behaviour = behaviour
        self._touched = 0

    def mode(self, path: str) -> str:
        """Return the mode for a request to this path, and count it."""
        behaviour = self.behaviour
        over = behaviour.for_requests is not None and self._touched >= behaviour.for_requests
        if over or not path.endswith(behaviour.only_route):
            return "ok"
        self._touched += 1
        return behaviour.mode
